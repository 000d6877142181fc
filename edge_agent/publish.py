"""From the outbox to the coordinator: offer, then the chunks that are granted, until the receipt.

Everything is repeated until the receipt comes, whoever dies meanwhile; what the coordinator holds is not sent again.
"""

import random
from collections import deque
from collections.abc import Callable

from edge_agent.config import SiteConfig
from edge_agent.outbox import Entry, Outbox
from edge_agent.uplink import Uplink
from edge_agent.voice import Pack
from fedward import topics
from fedward.chunks import indices_of
from fedward.messages import Grant, Outcome, Receipt
from fedward.pack import pack
from fedward.ports import Link

OFFER_AGAIN_S = 3.0
"""Seconds without an answer after which the offer is repeated; doubles up to LONGEST_OFFER_S, with jitter."""

LONGEST_OFFER_S = 300.0
"""A coordinator may be away for days. One that comes back announces, and is offered to at once."""

ALONE_FROM_S = 20.0
"""Once the wait has grown to this, an offer goes without its payload: whoever is there again asks for that."""

EXPIRY_S = 2 * 60
"""How long the broker keeps what a coordinator that is away has not taken: whatever matters is offered again."""


class Publisher:
    """Uploads the oldest update of the outbox."""

    def __init__(
        self, link: Link, config: SiteConfig, outbox: Outbox, rng: random.Random, uplink: Uplink, pack: Pack = pack
    ) -> None:
        """`uplink` is told what is sent, and what has arrived."""
        self._link = link
        self._pack = pack
        self._uplink = uplink
        self._federation = config.federation
        self._site = config.site
        self._outbox = outbox
        self._rng = rng
        self._entry: Entry | None = None
        self._granted: deque[int] = deque()
        self._awaits_grant = False
        self._patience_s = OFFER_AGAIN_S
        self._offer_at_s = 0.0
        self._sent_at_s = 0.0
        self.take_next()

    @property
    def entry(self) -> Entry | None:
        """The update on its way."""
        return self._entry

    def take_next(self) -> None:
        """Look into the outbox: after an update was saved, or had its receipt."""
        entries = self._outbox.entries()
        self._entry = entries[0] if entries else None
        self.offer_now()

    def offer_now(self) -> None:
        """Offer at the next step: the link or the coordinator is new."""
        self._granted.clear()
        self._patience_s = OFFER_AGAIN_S
        self._offer_at_s = 0.0

    def offer_soon(self) -> None:
        """The coordinator is there: wait no longer for its answer than at first."""
        if not self._granted:
            self._patience_s = OFFER_AGAIN_S
            self._offer_at_s = min(self._offer_at_s, self._sent_at_s + OFFER_AGAIN_S)

    def step(self, now_s: float) -> None:
        """Send what may be sent now."""
        self._uplink.look(self._link.room(), now_s)
        if self._entry is None:
            return
        while self._granted and self._link.room() > 0:
            index = self._granted.popleft()
            update_id = self._entry.offer.update_id
            topic = topics.update_chunk(self._federation, self._site, update_id, index)
            self._send(topic, self._entry.chunk(index), now_s)
            self._wait_for_answer(now_s)
        if not self._granted and now_s >= self._offer_at_s:
            topic = topics.offer(self._federation, self._site, self._entry.offer.update_id)
            alone = self._patience_s >= ALONE_FROM_S
            if self._send(topic, self._pack(self._entry.offer_to_send(alone=alone)), now_s):
                self._awaits_grant = True
                self._wait_for_answer(now_s)
                self._patience_s = min(2 * self._patience_s, LONGEST_OFFER_S)

    def on_grant(self, grant: Grant) -> None:
        """The coordinator lacks these chunks; a grant of another update is ignored.

        Two offers, one of them to a coordinator that was restarted meanwhile, bring two grants. The second was given
        before the chunks of the first arrived: it takes away what has been sent, and never brings it back.
        """
        if self._entry is None or grant.update_id != self._entry.offer.update_id:
            return
        missing = indices_of(grant.missing, self._entry.offer.manifest)
        if not self._awaits_grant:
            missing = iter(sorted(set(missing).intersection(self._granted)))
        self._granted = deque(missing)
        self._awaits_grant = False
        self._patience_s = OFFER_AGAIN_S

    def on_receipt(self, receipt: Receipt, now_s: float, count: Callable[[Receipt], None]) -> None:
        """What became of an update: `count` is called for one that is in the outbox, which it leaves then.

        `later` keeps it there.
        """
        self._uplink.look(self._link.room(), now_s)
        if receipt.outcome is Outcome.LATER:
            if self._entry is not None and receipt.update_id == self._entry.offer.update_id:
                self._granted.clear()
                self._wait_for_answer(now_s)
                count(receipt)
        elif self._outbox.holds(receipt.update_id):
            count(receipt)
            self._outbox.delete(receipt.update_id)
            self.take_next()

    def _send(self, topic: str, payload: bytes, now_s: float) -> bool:
        room = self._link.room()
        sent = self._link.publish(topic, payload, expiry_s=EXPIRY_S)
        if sent:
            self._uplink.sent(len(payload), room, now_s)
        return sent

    def _wait_for_answer(self, now_s: float) -> None:
        jitter = self._rng.uniform(1.0, 1.5)
        self._sent_at_s = now_s
        self._offer_at_s = now_s + self._patience_s * jitter
