"""Who is listened to: an admitted site, that has signed what it says, once, and says no more than it may.

What is not let in is counted by its reason. Who floods is kept out at the broker, where the coordinator has the say.
"""

import logging
from collections import Counter
from collections.abc import Collection
from typing import Any

from coordinator.allowance import OUT_S, Allowance, Allowances
from coordinator.config import FederationConfig
from coordinator.enrolment.desk import Desk
from coordinator.members import Members
from coordinator.receive import Received, receive
from coordinator.senders import Senders
from fedward import topics
from fedward.errors import PeerError, RejectReason
from fedward.identity.token import user_of
from fedward.ports import Clock, Delivery
from fedward.topics import CARRIED, carried_by

LOG = logging.getLogger(__name__)


class Gate:
    """The gate of one federation's coordinator."""

    def __init__(
        self, config: FederationConfig, members: Members, senders: Senders | None, desk: Desk | None, clock: Clock
    ) -> None:
        """Without `senders` whoever writes to a site's topics is taken for it; without a desk nobody enrols here."""
        self._federation = config.federation
        self._members = members
        self._senders = senders
        self._desk = desk
        self._clock = clock
        self._allowances = Allowances(Allowance(config.limits.messages_s, config.limits.bytes_s))
        self._out: frozenset[str] = frozenset()
        self.refused: Counter[RejectReason] = Counter(dict.fromkeys(RejectReason, 0))
        self._num_came = Counter(dict.fromkeys(CARRIED, 0))
        self._bytes_came = {site: Counter(dict.fromkeys(CARRIED, 0)) for site in config.sites}

    def receive(self, delivery: Delivery) -> Received | None:
        """What a site says; None for what is too much, or the desk's. Raises PeerError for what is refused."""
        self._note(delivery)
        if self._is_over_limit(delivery) or (self._desk and self._desk.takes(delivery.topic, delivery.payload)):
            return None
        check = self._senders.check if self._senders else None
        return receive(delivery.topic, delivery.payload, self._federation, self._members.admitted(), check)

    def count(self, site: str | None, error: PeerError) -> None:
        """Count a refusal, and tell the operator; `site` is None for a stranger."""
        self.refused[error.reason] += 1
        LOG.warning("refused", extra={"site": site, "reason": error.reason.value, "detail": error.detail})

    def page(self) -> dict[str, Any]:
        """What came in of admitted sites, by what it carries and whatever became of it; and what was refused."""
        return {
            "refused": {reason.value: count for reason, count in self.refused.items()},
            "num_came": dict(self._num_came),
            "bytes_came": {site: dict(sizes) for site, sizes in self._bytes_came.items()},
        }

    def let_in(self) -> Collection[str]:
        """The sites that may use the broker now: to drop what a flood brings costs, so it is ended there."""
        out = self._allowances.out(self._clock.monotonic_s())
        if out - self._out:
            LOG.warning("kept_out", extra={"sites": sorted(out - self._out), "seconds": OUT_S})
        self._out = out
        return [site for site in self._members.admitted() if site not in out] if out else self._members.admitted()

    def _is_over_limit(self, delivery: Delivery) -> bool:
        """Whether a sender sends more than it may: that is counted, and neither looked at nor answered.

        Also what it says on topics that mean nothing: each costs a refusal and a line of the log.
        """
        address = address_of(delivery.topic)
        sender = self._sender(delivery.topic, address)
        if sender is None:
            return False  # a stranger, who is refused as one
        was_over = sender in self._allowances.over
        is_chunk = address is not None and address.kind is topics.Up.CHUNK
        if self._allowances.admit(sender, len(delivery.payload), is_chunk, self._clock.monotonic_s()):
            return False
        self.refused[RejectReason.BUSY] += 1
        if not was_over:
            LOG.warning("over_limit", extra={"site": sender})
        return True

    def _note(self, delivery: Delivery) -> None:
        address = address_of(delivery.topic)
        if address and address.site and address.site in self._members:
            carried = carried_by(address.kind)
            self._num_came[carried] += 1
            self._bytes_came[address.site][carried] += len(delivery.payload)

    def _sender(self, topic: str, address: topics.Address | None) -> str | None:
        """Whose allowance a message is taken from: a site's or that of a token's holder; None for a stranger."""
        if address and address.token is not None:
            return user_of(address.token) if self._desk and self._desk.knows(address.token) else None
        site = topics.sender(topic)
        return site if site in self._members else None


def address_of(topic: str) -> topics.Address | None:
    """None for a topic that means nothing."""
    try:
        return topics.parse(topic)
    except PeerError:
        return None
