"""A site that does what a test says, at the coordinator's wire in memory."""

from queue import Queue
from typing import TypeVar

from fedward import topics
from fedward.messages import Announcement, Grant, Offer, Receipt, Status
from fedward.pack import pack, unpack
from fedward.ports import Delivery, LinkInbox
from fedward.testing import MemoryBroker, MemoryLink
from fedward.topics import Down, Up
from tests.support.updates import FEDERATION

Message = TypeVar("Message")


class Site:
    """A scripted site: sends messages that a test packs, and keeps what comes down."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self.name = name
        self.inbox: LinkInbox = Queue()
        self.heard: list[Delivery] = []
        self.link = MemoryLink(broker, name, self.inbox)
        self.link.subscribe(topics.down_all(FEDERATION, name), f"{topics.ROOT}/{FEDERATION}/pub/#")
        self.link.open()
        self.say(Up.STATUS, Status(boot_id=b"boot-one", online=True))

    def say(self, kind: Up, message: object) -> None:
        retain = kind is Up.STATUS
        self.link.publish(topics.up(FEDERATION, self.name, kind), pack(message), retain=retain)

    def offer(self, offer: Offer) -> None:
        self.link.publish(topics.offer(FEDERATION, self.name, offer.update_id), pack(offer))

    def chunk(self, offer: Offer, index: int, content: bytes) -> None:
        self.link.publish(topics.update_chunk(FEDERATION, self.name, offer.update_id, index), content)

    def deliveries(self) -> list[Delivery]:
        """All that came down so far."""
        while not self.inbox.empty():
            event = self.inbox.get_nowait()
            if isinstance(event, Delivery):
                self.link.acknowledge(event)
                self.heard.append(event)
        return self.heard

    def receipts(self) -> list[Receipt]:
        return self._down(Down.RECEIPT, Receipt)

    def grants(self) -> list[Grant]:
        return self._down(Down.GRANT, Grant)

    def announcements(self) -> list[Announcement]:
        topic = topics.announce(FEDERATION)
        return [unpack(delivery.payload, Announcement) for delivery in self.deliveries() if delivery.topic == topic]

    def chunk_topics(self) -> list[str]:
        return [delivery.topic for delivery in self.deliveries() if "/m/" in delivery.topic]

    def _down(self, kind: Down, message: type[Message]) -> list[Message]:
        topic = topics.down(FEDERATION, self.name, kind)
        return [unpack(delivery.payload, message) for delivery in self.deliveries() if delivery.topic == topic]
