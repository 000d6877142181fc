"""A coordinator on the bench: the real service, SQLite and files, around a broker in memory and a clock that waits."""

import threading
from pathlib import Path
from queue import Queue
from typing import Any, TypeVar

import numpy as np

from coordinator.blobs import BlobFolder
from coordinator.cli import open_ledger
from coordinator.clock import Moment
from coordinator.config import FederationConfig, FinishSettings, WorkSettings
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.making import Settings
from coordinator.service import LISTEN_S, Service
from coordinator.versions import Versions
from fedward import topics
from fedward.chunks import manifest_of
from fedward.codec import codec
from fedward.errors import RejectReason
from fedward.identity import update_id_of
from fedward.layout import Kind, Layout, Tensor, Vector
from fedward.messages import Announcement, Grant, Offer, Outcome, Range, Receipt, Status
from fedward.pack import pack, unpack
from fedward.ports import Delivery, LinkInbox
from fedward.settings import BrokerSettings
from fedward.testing import ManualClock, MemoryBroker, MemoryLink
from fedward.topics import Down, Up

FEDERATION = "ward"
SITES = ["north", "south"]
SMALL = Layout.of([Tensor("weight", (64, 80)), Tensor("bias", (10,)), Tensor("mean", (10,), Kind.STATISTIC)])
LARGE = Layout.of([Tensor("weight", (1000, 250))])
"""A float32 update of this one has four chunks, the last of them shorter."""

Message = TypeVar("Message")


def vector(layout: Layout, seed: int, scale: float = 0.01) -> Vector:
    """(P,) float32, drawn from a normal distribution."""
    return (scale * np.random.default_rng(seed).standard_normal(layout.size)).astype(np.float32)


def at(seconds: float) -> Moment:
    """A moment that is the same on both clocks."""
    return Moment(seconds, seconds)


def payload_of(layout: Layout, seed: int, codec_name: str = "f32", scale: float = 0.01) -> bytes:
    return codec(codec_name).encode(vector(layout, seed, scale), layout, update_id(seed))


def update_id(seed: int, site: str = "north", base_version: int = 0) -> bytes:
    """The id of a site's update of this number."""
    return update_id_of(FEDERATION, site, base_version, seed)


def offer_of(content: bytes, seed: int, site: str = "north", base_version: int = 0, **changes: Any) -> Offer:
    """The offer of a payload, without it unless `changes` say so."""
    fields = {
        "federation": FEDERATION,
        "update_id": update_id(seed, site, base_version),
        "sequence": seed,
        "base_version": base_version,
        "codec": "f32",
        "layout_digest": SMALL.digest,
        "num_examples": 100,
        "num_steps": 10,
        "work_s": 5.0,
        "manifest": manifest_of(content),
    }
    return Offer(**{**fields, **changes})


def config_of(folder: Path, **changes: Any) -> FederationConfig:
    """Two sites, float32 updates, a version of two updates without weights, q8 down."""
    fields = {
        "federation": FEDERATION,
        "sites": SITES,
        "task": "tabular",
        "model": folder / "initial.safetensors",
        "work": WorkSettings(local_epochs=1, batch_size=16, local_lr=0.1),
        "state_folder": folder / "state",
        "broker": BrokerSettings(host="broker"),
        "engine": EngineSettings(buffer_size=2, flush_after_s=600.0),
        "codec": "f32",
        "finish": FinishSettings(),
        **changes,
    }
    return FederationConfig(**fields)


class Bench:
    """One coordinator process; another Bench on the same folder, broker and clock is the process after it."""

    def __init__(
        self,
        config: FederationConfig,
        broker: MemoryBroker,
        clock: ManualClock,
        layout: Layout = SMALL,
        window: int = 8,
    ) -> None:
        self.config = config
        self.killed = False
        self.clock = clock
        self.listened = False
        self.ledger: Ledger = open_ledger(config, layout)
        self.blobs = BlobFolder(config.state_folder / "blobs")
        self.versions = Versions(self.ledger, self.blobs, layout, Settings(config.engine, config.model_codec))
        self.versions.begin(vector(layout, seed=0, scale=1.0), clock.now_s())
        self.inbox: LinkInbox = Queue()
        self.link = MemoryLink(broker, "coordinator", self.inbox, window=window)
        self.service = Service(config, self.ledger, self.blobs, self.versions, self.link, clock)
        self.link.subscribe(topics.up_all(FEDERATION))
        self.link.open()

    def settle(self) -> None:
        """Handle what is there, as `run` does, and look at the time once.

        The first time, the clock moves on by LISTEN_S: no version is made before.
        """
        if not self.listened and not self.inbox.empty():
            self.service.handle(self.inbox.get_nowait())
            self.clock.advance(LISTEN_S)
            self.listened = True
        while not self.inbox.empty():
            self.service.handle(self.inbox.get_nowait())
            self.service.tick()
        self.service.tick()

    def kill(self) -> None:
        """End without another event; what is open is only closed, so that no test leaks it. May be called twice."""
        if self.killed:
            return
        self.killed = True
        self.link.kill()
        stop = threading.Event()
        stop.set()
        self.service.run(Queue(), stop)
        self.ledger.close()


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


def inline(seed: int, site: str = "north", base_version: int = 0, payload: bytes = b"") -> Offer:
    """An offer that carries its payload, or another one."""
    content = payload_of(SMALL, seed)
    return offer_of(content, seed, site, base_version, payload=payload or content)


def accepted(offer: Offer) -> Receipt:
    return Receipt(update_id=offer.update_id, outcome=Outcome.ACCEPTED)


def refused(offer: Offer, reason: RejectReason) -> Receipt:
    return Receipt(update_id=offer.update_id, outcome=Outcome.REFUSED, reason=reason)


def missing(*ranges: tuple[int, int]) -> tuple[Range, ...]:
    return tuple(Range(start=start, stop=stop) for start, stop in ranges)


def refusals(bench: Bench) -> dict[str, int]:
    return {reason: count for reason, count in bench.service.page()["refused"].items() if count}
