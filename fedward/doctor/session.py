"""A short conversation with the broker over MQTT: is this side let in, what may it hear and say.

Nothing of the federation is touched: the doctor has a client id of its own and leaves no session behind. What it
publishes is empty, not retained, soon expired, and of a chunk that nobody waits for: a coordinator counts one
`not_offered`, a site ignores it.
"""

import random
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, Queue

from fedward.doctor.facts import Answer
from fedward.errors import TransientError
from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import Connected, Delivery, Disconnected, LinkEvent
from fedward.process import only_process_in

NOBODY = bytes(32)
"""Digest of the part, and id of the update, whose chunk is published."""

EXPIRY_S = 30
RETAINED_S = 2.0
"""A broker sends what it retains at once; what has not come by then is not there."""

POLL_S = 0.02
INBOX_EVENTS = 1000


@dataclass(frozen=True)
class Wanted:
    """What a side needs of the broker: filters to subscribe to, topics to publish to, each with its rule in words.

    `passing` are filters that the side holds only now and then. `retained` is the topic of a message that must come
    by itself.
    """

    filters: Mapping[str, str]
    topics: Mapping[str, str]
    passing: Mapping[str, str] = field(default_factory=dict)
    retained: str | None = None

    @property
    def rules(self) -> dict[str, str]:
        """All of them: a filter or a topic, and its rule."""
        return {**self.filters, **self.passing, **self.topics}


def visitor(settings: MqttSettings) -> MqttSettings:
    """The same connection for somebody else: no session is taken over, none stays, nobody's will is sent."""
    return replace(settings, client_id=f"{settings.client_id}-doctor", session_expiry_s=0, will=None)


def stand_in(settings: MqttSettings) -> MqttSettings:
    """The same connection for a broker that gives each certificate one client id: the side's own session goes on.

    What waits in it is not acknowledged, so that the broker keeps it. The side itself must be stopped meanwhile.
    """
    return replace(settings, will=None)


def talk_instead(settings: MqttSettings, wanted: Wanted, state_folder: Path, limit_s: float) -> Answer | None:
    """`talk` with the side's own client id; None when the side runs, which would lose its connection."""
    try:
        with only_process_in(state_folder) if state_folder.exists() else nullcontext():
            return talk(stand_in(settings), wanted, limit_s)
    except TransientError:
        return None


def talk(settings: MqttSettings, wanted: Wanted, limit_s: float) -> Answer:
    """Connect, subscribe, publish, and leave; within the limit, and the few seconds that leaving takes."""
    inbox: Queue[LinkEvent] = Queue(INBOX_EVENTS)
    link = MqttLink(settings, inbox, random.Random())  # noqa: S311 - jitter, not a secret
    conversation = _Conversation(link, inbox, time.monotonic() + limit_s)
    try:
        link.subscribe(*wanted.filters, *wanted.passing)
        link.open()
        answer = conversation.hold(wanted)
        link.unsubscribe(*wanted.passing)
        return answer
    finally:
        link.close(drain_s=0.0)


class _Conversation:
    def __init__(self, link: MqttLink, inbox: Queue[LinkEvent], ends_s: float) -> None:
        self._link = link
        self._inbox = inbox
        self._ends_s = ends_s
        self._up = False
        self._was_up = False
        self._delivered: set[str] = set()

    def hold(self, wanted: Wanted) -> Answer:
        while not (self._up or self._link.refusal or self._is_over()):
            self._hear()
        if not self._up:
            return Answer(connected=False, refusal=self._link.refusal)
        denied = sorted(self._link.denied_filters)
        unanswered: list[str] = []
        for topic in wanted.topics:
            before = self._link.denied
            if not self._say(topic):
                unanswered.append(topic)
            elif self._link.denied > before:
                denied.append(topic)
        self._ends_s = min(self._ends_s, time.monotonic() + RETAINED_S)
        while wanted.retained not in {None, *self._delivered} and not (unanswered or denied or self._is_over()):
            self._hear()
        return Answer(
            connected=True,
            max_payload_bytes=self._link.max_payload_bytes,
            denied=tuple(denied),
            unanswered=tuple(unanswered),
            delivered=frozenset(self._delivered),
        )

    def _say(self, topic: str) -> bool:
        """Publish nothing to a topic; whether the broker answered. One that hangs up instead has refused."""
        before = self._link.room()
        if not self._link.publish(topic, b"", expiry_s=EXPIRY_S):
            return False
        while self._up and not self._is_over():
            if self._link.room() >= before > 0:
                return True
            self._hear()
        return False

    def _hear(self) -> None:
        try:
            event = self._inbox.get(timeout=POLL_S)
        except Empty:
            return
        match event:
            case Delivery():
                self._delivered.add(event.topic)
            case Connected():
                # A second connection would begin in the middle of what the first one was asked.
                self._up, self._was_up = not self._was_up, True
            case Disconnected():
                self._up = False
            case _:
                pass

    def _is_over(self) -> bool:
        return time.monotonic() >= self._ends_s
