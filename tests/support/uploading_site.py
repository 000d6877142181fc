"""A site that only uploads: the real outbox and publisher on a broker in memory; and who hears every receipt."""

from pathlib import Path
from queue import Queue
from random import Random

from edge_agent.config import SiteConfig
from edge_agent.outbox import Outbox
from edge_agent.publish import Publisher
from edge_agent.receive import receive
from edge_agent.uplink import Uplink
from fedward import topics
from fedward.layout import Layout, Tensor
from fedward.messages import Grant, Offer, Outcome, Receipt
from fedward.pack import unpack
from fedward.ports import Connected, Delivery, LinkInbox
from fedward.testing import MemoryBroker, MemoryLink
from fedward.topics import Down
from tests.support.updates import FEDERATION, SITES, offer_of, payload_of

THREE_CHUNKS = Layout.of([Tensor("weight", (600, 250))])
"""A float32 update of this one, the last chunk shorter."""


class UploadingSite:
    """One process after another on one outbox. `saved` is what it ever trained, oldest first, with its `payloads`."""

    def __init__(self, broker: MemoryBroker, name: str, folder: Path) -> None:
        self.name = name
        self.saved: list[Offer] = []
        self.payloads: dict[bytes, bytes] = {}
        self._broker = broker
        self._folder = folder
        self._trained_from: int | None = None
        self._start()

    def restart(self) -> None:
        """Be killed, and come back."""
        self.link.kill()
        self._start()

    def train(self, base_version: int) -> None:
        """An update from this version, once, and not while one waits, as agents do."""
        if base_version == self._trained_from or self.outbox.entries():
            return
        self._trained_from = base_version
        sequence = len(self.saved)
        content = payload_of(THREE_CHUNKS, 2 * sequence + SITES.index(self.name))
        offer = offer_of(content, sequence, self.name, base_version, layout_digest=THREE_CHUNKS.digest)
        self.outbox.save(offer, [content])
        self.saved.append(offer)
        self.payloads[offer.update_id] = content
        self.publisher.take_next()

    def handle_next(self) -> None:
        """Take one event in, if there is one."""
        if self.inbox.empty():
            return
        event = self.inbox.get_nowait()
        if isinstance(event, Connected):
            self.publisher.offer_now()
        if not isinstance(event, Delivery):
            return
        match receive(event.topic, event.payload, self.name):
            case Grant() as grant:
                self.publisher.on_grant(grant)
            case Receipt() as receipt:
                self.publisher.on_receipt(receipt, 0.0, lambda _: None)
        self.link.acknowledge(event)

    def waiting(self) -> set[bytes]:
        """The ids of what is in the outbox."""
        return {entry.offer.update_id for entry in self.outbox.entries()}

    def _start(self) -> None:
        self.outbox = Outbox(self._folder)
        self.outbox.tidy()
        self.inbox: LinkInbox = Queue()
        self.link = MemoryLink(self._broker, self.name, self.inbox, window=2)
        config = SiteConfig.model_validate(
            {
                "site": self.name,
                "federation": FEDERATION,
                "tasks": {"tiny": {}},
                "state_folder": self._folder,
                "broker": {"host": "127.0.0.1"},
            }
        )
        self.publisher = Publisher(self.link, config, self.outbox, Random(1), Uplink(None))
        self.link.subscribe(topics.down_all(FEDERATION, self.name))
        self.link.open()


class Auditor:
    """Hears every receipt that a coordinator sends, also those that the sites never get."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._inbox: LinkInbox = Queue()
        self._link = MemoryLink(broker, "auditor", self._inbox)
        self._link.subscribe(*(topics.down(FEDERATION, site, Down.RECEIPT) for site in SITES))
        self._link.open()
        self._outcomes: dict[bytes, set[Outcome]] = {}

    def outcomes(self) -> dict[bytes, set[Outcome]]:
        """Of each update every outcome that was told, but for `later`, which ends nothing."""
        while not self._inbox.empty():
            event = self._inbox.get_nowait()
            if isinstance(event, Delivery):
                self._link.acknowledge(event)
                receipt = unpack(event.payload, Receipt)
                if receipt.outcome is not Outcome.LATER:
                    self._outcomes.setdefault(receipt.update_id, set()).add(receipt.outcome)
        return self._outcomes
