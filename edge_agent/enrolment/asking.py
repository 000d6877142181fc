"""Enrolment over MQTT: say the request until the coordinator's answer says yes or no."""

import logging
import queue
from collections.abc import Callable
from pathlib import Path

from edge_agent.enrolment.keeping import finish, message_of
from fedward import topics
from fedward.dial import ADVICE, Obstacle, UnreachableError
from fedward.errors import ConfigError, PeerError, TransientError
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

LOOK_EVERY_S = 0.5
"""How long it may go unseen that the way to the broker is barred."""

EXPIRY_S = 120
"""How long the broker keeps a request."""

NOT_THE_BROKER = {Obstacle.ISSUER_UNKNOWN, Obstacle.HOST_NAME, Obstacle.BROKER_EXPIRED, Obstacle.NOT_VERIFIED}
"""What patience does not help against: somebody answers who can't show that he is the broker of the token."""

WAITS = "the coordinator has the request, and waits for its operator"
REFUSED = (
    "the broker does not take the token: it was used, was denied or has ended, there is a newer one, or no coordinator "
    "has run since it was made"
)


class Asking:
    """One attempt; another one, by another process, goes on with the same key."""

    def __init__(self, link: Link, inbox: LinkInbox, clock: Clock, token: Token, request: Request) -> None:
        self._link = link
        self._inbox = inbox
        self._clock = clock
        self._token = token
        self._request = request
        self._patience_s = ASK_AGAIN_S
        self._told: set[str] = set()

    def run(self, folder: Path, wait_s: float, tell: Callable[[str], None]) -> Certificate:
        """The site's certificate, kept in `folder`. `tell` gets what people should know while they wait.

        Raises ConfigError for a no and for somebody who is not the broker, TransientError when there is no yes after
        `wait_s`.
        """
        ends_at_s = self._clock.monotonic_s() + wait_s
        self._link.subscribe(topics.enrolment(self._token.federation, self._token.token_id, Enrol.ANSWER))
        self._link.open()
        ask_at_s, connected = float("inf"), False
        while (now_s := self._clock.monotonic_s()) < ends_at_s:
            if now_s >= ask_at_s:
                self._say()
                ask_at_s, self._patience_s = now_s + self._patience_s, min(2 * self._patience_s, LONGEST_ASK_S)
            event = self._next(min(ask_at_s, ends_at_s) - now_s)
            self._look_at_the_way(tell)
            if isinstance(event, Connected):
                connected, ask_at_s = True, now_s
            if isinstance(event, Delivery):
                self._link.acknowledge(event)
                answer = self._read(event)
                if answer is not None:
                    certificate = self._take(answer, folder)
                    if certificate is not None:
                        return certificate
                    self._tell_once(WAITS, tell)
        raise TransientError(self._unanswered(connected=connected))

    def _look_at_the_way(self, tell: Callable[[str], None]) -> None:
        failure, place = self._link.failure, f"{self._token.host}:{self._token.port}"
        if failure is not None and failure.obstacle in NOT_THE_BROKER:
            raise ConfigError(
                f"what answers at {place} is not the broker of the token ({failure}), and was told nothing: "
                f"{ADVICE[failure.obstacle]}"
            )
        if failure is not None and failure.obstacle is Obstacle.CERTIFICATE_REFUSED:
            raise ConfigError(
                f"{place} asks for a certificate, so it is not where tokens are taken: ask the coordinator's operator "
                "for a token with the right port (`invite --broker`)"
            )
        if self._link.refusal:
            self._tell_once(f"{REFUSED}; it is tried again", tell)

    def _tell_once(self, text: str, tell: Callable[[str], None]) -> None:
        if text not in self._told:
            self._told.add(text)
            tell(text)

    def _unanswered(self, *, connected: bool) -> str:
        if self._link.refusal:
            return f"{REFUSED}; ask the coordinator's operator"
        if WAITS in self._told:
            return "not admitted yet; run the same command again later, it goes on with the same key"
        if connected:
            return (
                "no answer: is the coordinator running, and the token the newest one and not used yet? Run the same "
                "command again"
            )
        failure = self._link.failure or UnreachableError(Obstacle.NO_ANSWER)
        return (
            f"the broker was not reached at {self._token.host}:{self._token.port} ({failure}): "
            f"{ADVICE[failure.obstacle]}. Run the same command again, or carry the request: --request-out FILE"
        )

    def _say(self) -> None:
        topic = topics.enrolment(self._token.federation, self._token.token_id, Enrol.REQUEST)
        self._link.publish(topic, pack(message_of(self._token, self._request)), expiry_s=EXPIRY_S)

    def _next(self, wait_s: float) -> object:
        try:
            return self._inbox.get(timeout=max(0.0, min(wait_s, LOOK_EVERY_S)))
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
