"""Enrolment over MQTT: say the request until the coordinator's answer says yes or no."""

import logging
import queue
from collections.abc import Callable
from pathlib import Path

from edge_agent.enrolment.keeping import finish, message_of
from fedward import topics
from fedward.errors import PeerError, TransientError
from fedward.identity.certificates import Certificate, Request
from fedward.identity.token import Token
from fedward.messages import Enrolled
from fedward.pack import pack, unpack
from fedward.ports import Clock, Connected, Delivery, Link, LinkInbox
from fedward.topics import Enrol

LOG = logging.getLogger(__name__)

ASK_AGAIN_S = 2.0
LONGEST_ASK_S = 60.0
"""Waits between two requests: doubling, as the answer may be lost, and people take their time."""

EXPIRY_S = 120
"""How long the broker keeps a request."""


class Asking:
    """One attempt; another one, by another process, goes on with the same key."""

    def __init__(self, link: Link, inbox: LinkInbox, clock: Clock, token: Token, request: Request) -> None:
        self._link = link
        self._inbox = inbox
        self._clock = clock
        self._token = token
        self._request = request
        self._patience_s = ASK_AGAIN_S

    def run(self, folder: Path, wait_s: float, waits: Callable[[], None]) -> Certificate:
        """The site's certificate, kept in `folder`. `waits` is called when the coordinator has said to wait.

        Raises ConfigError for a no, TransientError when there is no yes after `wait_s`.
        """
        ends_at_s = self._clock.monotonic_s() + wait_s
        self._link.subscribe(topics.enrolment(self._token.federation, self._token.token_id, Enrol.ANSWER))
        self._link.open()
        ask_at_s, connected, told = float("inf"), False, False
        while (now_s := self._clock.monotonic_s()) < ends_at_s:
            if now_s >= ask_at_s:
                self._say()
                ask_at_s, self._patience_s = now_s + self._patience_s, min(2 * self._patience_s, LONGEST_ASK_S)
            event = self._next(min(ask_at_s, ends_at_s) - now_s)
            if isinstance(event, Connected):
                connected, ask_at_s = True, now_s
            if isinstance(event, Delivery):
                self._link.acknowledge(event)
                answer = self._read(event)
                if answer is not None:
                    certificate = self._take(answer, folder)
                    if certificate is not None:
                        return certificate
                    if not told:
                        told = True
                        waits()
        raise TransientError(_unanswered(connected=connected, told=told))

    def _say(self) -> None:
        topic = topics.enrolment(self._token.federation, self._token.token_id, Enrol.REQUEST)
        self._link.publish(topic, pack(message_of(self._token, self._request)), expiry_s=EXPIRY_S)

    def _next(self, wait_s: float) -> object:
        try:
            return self._inbox.get(timeout=max(0.0, min(wait_s, ASK_AGAIN_S)))
        except queue.Empty:
            return None

    def _read(self, delivery: Delivery) -> Enrolled | None:
        """An answer that the coordinator has given; what anybody else has said changes nothing."""
        try:
            answer = unpack(delivery.payload, Enrolled)
            self._token.keys.check_answer(self._request.fingerprint, answer)
        except PeerError as error:
            LOG.warning("refused", extra={"reason": error.reason.value, "detail": error.detail})
            return None
        return answer

    def _take(self, answer: Enrolled, folder: Path) -> Certificate | None:
        return finish(folder, self._token, self._request, answer, self._clock.now_s())


def _unanswered(*, connected: bool, told: bool) -> str:
    if told:
        return "not admitted yet; run the same command again later, it goes on with the same key"
    if connected:
        return "no answer: is the coordinator running, and the token the newest one? Run the same command again"
    return "the broker was not reached, or does not take the token: is it the newest one? Run the same command again"
