"""A hospital and the coordinator's end of the wire, in memory: real agent, real training of three parameters."""

import queue
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import Dataset, TensorDataset

from edge_agent.agent import Agent, Inbox
from edge_agent.compute import Compute
from edge_agent.config import SiteConfig
from edge_agent.report import will_of
from edge_agent.training.capability import Capability, Precision
from edge_agent.training.checkpoint import CheckpointFile
from edge_agent.training.metrics import Sums
from edge_agent.training.module import layout_of
from edge_agent.training.task import Batch, Task
from fedward import topics
from fedward.chunks import indices_of, manifest_of
from fedward.codec import codec, seed_of
from fedward.layout import Layout, Vector, vector_digest
from fedward.layout import Tensor as Entry
from fedward.messages import Announcement, Control, FederationState, Get, Offer, Outcome, Part, PartKind, Receipt, Work
from fedward.pack import pack, unpack
from fedward.ports import LinkInbox
from fedward.testing import ManualClock, MemoryBroker, MemoryLink
from fedward.topics import Down

FEDERATION, SITE, TASK = "ward", "st-anna", "tiny"
WORK = Work(local_epochs=1, batch_size=4, local_lr=0.1)
CPU = Capability("cpu", Precision.FLOAT32)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Tiny(Task):
    """A line through eight points. `before_loss` and `measured` stand for what a hospital's own code may do."""

    def __init__(self) -> None:
        inputs = torch.linspace(-1, 1, 16).reshape(8, 2)
        self.records = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
        self.held_out: Dataset[Batch] = self.records
        self.before_loss: Callable[[], object] = lambda: None
        self.measured: Sums | None = None
        self.num_trainings = 0
        self.num_inputs = 2

    def model(self) -> nn.Module:
        return nn.Linear(self.num_inputs, 1)

    def train_data(self) -> Dataset[Batch]:
        self.num_trainings += 1
        return self.records

    def held_out_data(self) -> Dataset[Batch]:
        return self.held_out

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        self.before_loss()
        inputs, targets = batch
        return mse_loss(model(inputs), targets)

    def metrics(self, model: nn.Module, batches: Any) -> Sums:
        return super().metrics(model, batches) if self.measured is None else self.measured


class Office:
    """The coordinator's end of the wire: announces versions, hands out their chunks, hears everything."""

    def __init__(self, broker: MemoryBroker, layout: Layout) -> None:
        self.layout = layout
        self.vector_P: Vector = np.random.default_rng(1).standard_normal(layout.size).astype(np.float32)
        self.version = 0
        self.sequence = 0
        self.boot_id = bytes(8)
        self.payloads: dict[bytes, bytes] = {}
        self.parts: list[Part] = []
        self.heard: list[tuple[str, bytes]] = []
        self.answers_gets = True
        self._broker = broker
        self._inbox: LinkInbox = queue.Queue()
        self._link = MemoryLink(broker, "office", self._inbox, window=1000)
        self._link.subscribe(topics.up_all(FEDERATION), "fl/v1/another/#")
        self._link.open()
        self.add(PartKind.SNAPSHOT, "f32", self.vector_P)

    def add(self, kind: PartKind, name: str, vector_P: Vector) -> Part:
        """Publishable bytes of the current version."""
        payload = codec(name).encode(vector_P, self.layout, b"")
        part = Part(kind=kind, version=self.version, codec=name, manifest=manifest_of(payload))
        self.payloads[part.manifest.digest] = payload
        self.parts.append(part)
        return part

    def next_version(self) -> None:
        """One step further for every parameter, as a delta."""
        self.version += 1
        self.vector_P = self.vector_P + np.float32(0.5)
        self.add(PartKind.DELTA, "f32", np.full(self.layout.size, 0.5, np.float32))

    def start_over(self, value: float) -> None:
        """Version 0 of another federation, or of one that lost its ledger."""
        self.version = 0
        self.vector_P = np.full(self.layout.size, value, np.float32)
        self.parts.clear()
        self.add(PartKind.SNAPSHOT, "f32", self.vector_P)

    def announcement(self, **changes: Any) -> Announcement:
        self.sequence += 1
        fields: dict[str, Any] = {
            "federation": FEDERATION,
            "sequence": self.sequence,
            "boot_id": self.boot_id,
            "state": FederationState.RUNNING,
            "version": self.version,
            "model_digest": vector_digest(self.vector_P),
            "layout_digest": self.layout.digest,
            "parts": tuple(self.parts),
            "task": TASK,
            "work": WORK,
            "codec": "f32",
            "max_staleness": 10,
            "repeat_base": False,
        }
        return Announcement(**{**fields, **changes})

    def announce(self, announcement: Announcement | None = None, **changes: Any) -> None:
        message = announcement or self.announcement(**changes)
        self._broker.publish(topics.announce(FEDERATION), pack(message), retain=True)

    def tell(self, kind: Down, message: Receipt | Control) -> None:
        self._broker.publish(topics.down(FEDERATION, SITE, kind), pack(message))

    def receipt(self, offer: Offer, outcome: Outcome = Outcome.ACCEPTED) -> None:
        self.tell(Down.RECEIPT, Receipt(update_id=offer.update_id, outcome=outcome))

    def pause_site(self, *, paused: bool) -> None:
        self.sequence += 1
        self.tell(Down.CONTROL, Control(sequence=self.sequence, paused=paused))

    def listen(self) -> None:
        """Take in what came up; answer the requests for chunks."""
        while not self._inbox.empty():
            event = self._inbox.get_nowait()
            topic, payload = getattr(event, "topic", None), getattr(event, "payload", b"")
            if topic is None:
                continue
            self._link.acknowledge(event)  # type: ignore[arg-type]  # it has a topic
            self.heard.append((topic, payload))
            if self.answers_gets and topic.endswith("/get"):
                self.send_chunks(unpack(payload, Get))

    def send_chunks(self, get: Get) -> None:
        payload = self.payloads[get.digest]
        for index in indices_of(get.missing, manifest_of(payload)):
            self.send_chunk(get.digest, index)

    def send_chunk(self, digest: bytes, index: int, *, alone: bool = True, flip: int = 0) -> None:
        """A chunk for this site alone or for all; `flip` damages its first byte."""
        start = index * 256 * 1024
        content = bytearray(self.payloads[digest][start : start + 256 * 1024])
        content[0] ^= flip
        topic = (
            topics.down_chunk(FEDERATION, SITE, digest, index)
            if alone
            else topics.part_chunk(FEDERATION, digest, index)
        )
        self._broker.publish(topic, bytes(content))

    def messages(self, kind: type) -> list[Any]:
        """What was heard of this kind, oldest first."""
        self.listen()
        level = kind.__name__.lower()
        return [unpack(payload, kind) for topic, payload in self.heard if level in topic.split("/")[6:7]]


class Hospital:
    """One agent on a state folder; `restart` is what Kubernetes does after a kill."""

    def __init__(self, config: SiteConfig, broker: MemoryBroker) -> None:
        self.config = config
        self.clock = ManualClock()
        self.task = Tiny()
        self._broker = broker
        self.office = Office(broker, layout_of(self.task.model()))
        self.boots = 0
        self.start()

    def start(self) -> None:
        self.boots += 1
        self.inbox: Inbox = queue.Queue()
        boot_id = self.boots.to_bytes(8, "big")
        inbox = cast(LinkInbox, self.inbox)  # takes the compute thread's events too
        self.link = MemoryLink(self._broker, SITE, inbox, will=will_of(self.config, boot_id))
        checkpoints = CheckpointFile(self.config.state_folder / "training", self.config.checkpoint_s)
        self.compute = Compute({TASK: self.task}, CPU, self.inbox.put, checkpoints)
        self.agent = Agent(self.config, self.compute, self.link, self.clock, random.Random(1), boot_id)
        self.link.subscribe(topics.announce(FEDERATION), topics.down_all(FEDERATION, SITE))
        self.link.open()

    def kill(self) -> None:
        """As a power cut: nothing is said, nothing is saved."""
        wait_for_compute()
        self.link.kill()

    def restart(self) -> None:
        self.kill()
        self.start()

    def take_events(self) -> None:
        while not self.inbox.empty():
            self.agent.handle(self.inbox.get_nowait())
            self.agent.step()

    def take_event(self) -> None:
        """One turn of the loop, as soon as there is an event."""
        self.agent.handle(self.inbox.get(timeout=10))
        self.agent.step()

    def settle(self) -> None:
        """Until nothing is left to do without time passing."""
        while True:
            self.take_events()
            self.agent.step()
            wait_for_compute()
            self.office.listen()
            if self.inbox.empty():
                return

    def wait_for_compute(self) -> None:
        """Until the job that runs, if any, has delivered its event."""
        wait_for_compute()

    def run_until_told(self) -> None:
        """The agent's own loop, told to stop before its first turn."""
        stop = threading.Event()
        stop.set()
        self.agent.run(self.inbox, stop)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.settle()

    @property
    def page(self) -> dict[str, Any]:
        return self.agent.page()


def wait_for_compute() -> None:
    for thread in threading.enumerate():
        if thread.name == "compute":
            thread.join()


@pytest.fixture
def config(tmp_path: Path) -> SiteConfig:
    return SiteConfig.model_validate(
        {
            "site": SITE,
            "federation": FEDERATION,
            "tasks": {TASK: {}},
            "state_folder": tmp_path / "state",
            "broker": {"host": "broker.example.org"},
        }
    )


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def hospital(config: SiteConfig, broker: MemoryBroker) -> Iterator[Hospital]:
    running = Hospital(config, broker)
    yield running
    wait_for_compute()


@pytest.fixture
def office(broker: MemoryBroker) -> Office:
    """An office whose model is four chunks long."""
    return Office(broker, Layout.of([Entry("weight", (260_000,))]))


@pytest.fixture
def new_hospital(broker: MemoryBroker, config: SiteConfig) -> Callable[..., Hospital]:
    """A hospital whose configuration differs."""

    def build(**changes: Any) -> Hospital:
        return Hospital(SiteConfig.model_validate({**config.model_dump(), **changes}), broker)

    return build


@pytest.fixture
def new_offer() -> Callable[..., Offer]:
    """An offer of a payload; the id follows from sequence and payload."""

    def build(payload: bytes = b"update", sequence: int = 0, base_version: int = 0) -> Offer:
        return Offer(
            federation=FEDERATION,
            update_id=seed_of(payload, sequence),
            sequence=sequence,
            base_version=base_version,
            codec="f32",
            layout_digest=bytes(32),
            num_examples=8,
            num_steps=2,
            work_s=0.5,
            manifest=manifest_of(payload),
        )

    return build
