"""Gives sites and holders of tokens their rights at the broker, and takes them away: reads, and sends what differs.

Over the coordinator's own link, at every connection and when the admitted ones change. It reads again after it has
sent, so what it calls provisioned is what the broker says that it holds, and neither a lost answer nor an error that
does not matter needs a rule. Nothing else waits for it: a site without rights is refused by the broker, and tries
again.
"""

import logging
import secrets
from collections.abc import Collection, Generator
from enum import StrEnum

from coordinator.access import changes, ours
from coordinator.dynsec import (
    ANSWER_TOPIC,
    COMMAND_TOPIC,
    MAX_ENTRIES,
    Answer,
    Command,
    Held,
    get_defaults,
    list_clients,
    list_roles,
    pack_commands,
    parse_answers,
)
from fedward.errors import PeerError, TransientError
from fedward.identity.token import TokenKeys
from fedward.ports import Clock, Delivery, Link

LOG = logging.getLogger(__name__)

AT_ONCE = 32
"""Commands in one message. The plugin writes its file for each of them, and the broker serves nobody meanwhile."""

ANSWER_S = 30.0
"""The broker has this long to answer a message."""

AGAIN_S = 60.0
"""Until it is tried again after a failure."""

MAX_ROUNDS = 3
"""Times that the changes are sent in a row before a broker that still holds something else has failed."""

Conversation = Generator[list[Command], list[Answer], None]
"""Yields the commands of each message, is sent their answers, and ends when the broker holds what it should."""


class BrokerAccess(StrEnum):
    """How far the broker's rights are those of the federation."""

    UNUSED = "unused"  # broker.authorisation is none
    PENDING = "pending"
    PROVISIONED = "provisioned"
    FAILED = "failed"


def provision(federation: str, sites: Collection[str], holders: Collection[TokenKeys] = ()) -> Conversation:
    """What is said to the broker. Raises TransientError when it does not become what it should be."""
    [defaults] = yield [get_defaults()]
    _require(defaults)
    if defaults.open_defaults:
        allowed = ", ".join(sorted(defaults.open_defaults))
        raise TransientError(f"the broker allows everybody what no role forbids ({allowed}): set its defaults to deny")
    for _ in range(MAX_ROUNDS):
        held = yield from _read(federation, sites, holders)
        commands = changes(federation, sites, held, holders)
        if not commands:
            return
        for start in range(0, len(commands), AT_ONCE):
            for answer in (yield commands[start : start + AT_ONCE]):
                if answer.error:  # what matters is what the broker holds in the end, which is read again
                    LOG.warning("broker_command_failed", extra={"command": answer.command, "error": answer.error})
    raise TransientError(f"the broker holds something else after {MAX_ROUNDS} times that {len(commands)} were sent")


def _read(
    federation: str, sites: Collection[str], holders: Collection[TokenKeys]
) -> Generator[list[Command], list[Answer], Held]:
    """All pages of both listings, as far as they matter to the federation."""
    held = Held({}, {})
    for listing in (list_roles, list_clients):
        num_read, is_last = 0, False
        while not is_last:
            [page] = yield [listing(num_read)]
            _require(page)
            if page.total > MAX_ENTRIES:
                raise TransientError(f"the broker holds {page.total} roles or clients, at most {MAX_ENTRIES} are read")
            mine = ours(federation, sites, page.held, holders)
            held = Held({**held.roles, **mine.roles}, {**held.clients, **mine.clients})
            num_entries = len(page.held.roles) + len(page.held.clients)
            num_read += num_entries
            is_last = num_entries == 0 or num_read >= page.total
    return held


def _require(answer: Answer) -> None:
    if answer.error:
        raise TransientError(f"{answer.command}: {answer.error}")


class Provision:
    """Holds the conversation over a link, for the coordinator's one thread."""

    def __init__(self, link: Link, clock: Clock, federation: str, *, wanted: bool) -> None:
        """With `wanted` false it does nothing at all: the broker's operator sees to the rights."""
        self.state = BrokerAccess.PENDING if wanted else BrokerAccess.UNUSED
        self._link = link
        self._clock = clock
        self._federation = federation
        self._wanted: tuple[frozenset[str], frozenset[TokenKeys]] | None = None
        self._process = secrets.token_hex(8)
        self._num_sent = 0
        self._connected = False
        self._conversation: Conversation | None = None
        self._correlation = ""
        self._num_commands = 0
        self._due_s = 0.0

    def begin(self) -> None:
        """Before the link opens."""
        if self.state is not BrokerAccess.UNUSED:
            self._link.subscribe(ANSWER_TOPIC)

    def on_connected(self) -> None:
        self._connected = True
        self._restart()

    def on_disconnected(self) -> None:
        self._connected, self._conversation = False, None

    def takes(self, delivery: Delivery) -> bool:
        """Whether the message was for this part of the coordinator; it is done with then."""
        if delivery.topic != ANSWER_TOPIC or self.state is BrokerAccess.UNUSED:
            return False
        try:
            answers = parse_answers(delivery.payload, self._correlation, self._num_commands)
        except PeerError as error:
            LOG.warning("broker_answer_refused", extra={"reason": error.reason.value, "detail": error.detail})
            return True
        if answers is not None and self._conversation is not None:
            self._go_on(self._conversation, answers)
        return True

    def tick(self, sites: Collection[str], holders: Collection[TokenKeys] = ()) -> None:
        """Look at the admitted sites, at the tokens that open the broker, and at the time."""
        wanted = frozenset(sites), frozenset(holders)
        if wanted != self._wanted:
            self._wanted = wanted
            self._restart()
        if self._connected and self._clock.monotonic_s() >= self._due_s:
            if self._conversation is not None:
                self._fail("no answer: is the plugin loaded, and has this coordinator its administrator's role?")
            elif self.state is BrokerAccess.FAILED:
                self._restart()

    def _restart(self) -> None:
        """Begin anew with reading. What was under way is forgotten: its answers are nobody's any more."""
        if self.state is BrokerAccess.UNUSED or not self._connected or self._wanted is None:
            return
        if self.state is BrokerAccess.PROVISIONED:
            self.state = BrokerAccess.PENDING
        self._conversation = provision(self._federation, *self._wanted)
        self._send(next(self._conversation))

    def _go_on(self, conversation: Conversation, answers: list[Answer]) -> None:
        try:
            self._send(conversation.send(answers))
        except StopIteration:
            self._conversation, self.state = None, BrokerAccess.PROVISIONED
            sites, holders = self._wanted or ((), ())
            LOG.info("broker_provisioned", extra={"num_sites": len(sites), "num_tokens": len(holders)})
        except TransientError as error:
            self._fail(str(error))

    def _send(self, commands: list[Command]) -> None:
        self._num_sent += 1
        self._num_commands = len(commands)
        self._correlation = f"{self._federation}/{self._process}/{self._num_sent}"
        self._due_s = self._clock.monotonic_s() + ANSWER_S
        self._link.publish(COMMAND_TOPIC, pack_commands(commands, self._correlation))

    def _fail(self, detail: str) -> None:
        self._conversation, self.state = None, BrokerAccess.FAILED
        self._due_s = self._clock.monotonic_s() + AGAIN_S
        LOG.error("broker_not_provisioned", extra={"detail": detail})
