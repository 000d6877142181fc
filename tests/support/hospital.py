"""A hospital in one process: a real agent with real training of three parameters, around a broker in memory."""

import queue
import random
import threading
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import Dataset, TensorDataset

from edge_agent.agent import Agent, Inbox
from edge_agent.compute import Compute
from edge_agent.config import SiteConfig
from edge_agent.jobs import ComputeEvent
from edge_agent.report import will_of
from edge_agent.training.capability import Capability, Precision
from edge_agent.training.checkpoint import CheckpointFile
from edge_agent.training.metrics import Sums
from edge_agent.training.module import layout_of
from edge_agent.training.task import Batch, Task
from edge_agent.voice import CounterFile, Voice
from fedward import topics
from fedward.identity.folder import SiteIdentity
from fedward.ports import LinkInbox
from fedward.testing import ManualClock, MemoryBroker, MemoryLink
from tests.support.office import FEDERATION, SITE, TASK, Office

CPU = Capability("cpu", Precision.FLOAT32)


class Tiny(Task):
    """A plane through eight points. `before_loss` and `measured` stand for what a hospital's own code may do."""

    def __init__(self, num_inputs: int = 2) -> None:
        inputs = torch.linspace(-1, 1, 8 * num_inputs).reshape(8, num_inputs)
        self.records = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
        self.held_out: Dataset[Batch] = self.records
        self.before_loss: Callable[[], object] = lambda: None
        self.measured: Sums | None = None
        self.num_trainings = 0
        self.num_inputs = num_inputs

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


class Hospital:
    """One agent on a state folder; `restart` is what Kubernetes does after a kill."""

    def __init__(self, config: SiteConfig, broker: MemoryBroker, num_inputs: int = 2) -> None:
        self.config = config
        self.clock = ManualClock()
        self.task = Tiny(num_inputs)
        self.release = "tiny 1"
        self._broker = broker
        self.office = Office(broker, layout_of(self.task.model()))
        self.boots = 0
        self.start()

    def start(self) -> None:
        self.boots += 1
        self._has_left = False
        self.inbox: Inbox = queue.Queue()
        boot_id = self.boots.to_bytes(8, "big")
        voice = self.voice(boot_id)
        inbox = cast(LinkInbox, self.inbox)  # takes the compute thread's events too
        self.link = MemoryLink(self._broker, SITE, inbox, will=will_of(self.config, boot_id, voice.pack))
        checkpoints = CheckpointFile(self.config.state_folder / "training", self.config.checkpoint_s)
        self.compute = Compute({TASK: self.task}, {TASK: self.release}, CPU, self.inbox.put, checkpoints)
        self.agent = Agent(self.config, self.compute, self.link, self.clock, random.Random(1), voice)
        self.link.subscribe(topics.announce(FEDERATION), topics.down_all(FEDERATION, SITE))
        self.link.open()

    def voice(self, boot_id: bytes) -> Voice:
        """How the agent speaks: signed where its configuration has an identity."""
        if self.config.identity is None:
            return Voice(boot_id)
        identity = SiteIdentity.load(self.config.identity.folder, FEDERATION, SITE, self.clock.now_s())
        counter = CounterFile(self.config.state_folder / "counter.json", self.clock.now_s())
        return Voice.of(boot_id, identity, self.config, counter)

    def kill(self) -> None:
        """As a power cut: nothing is said, nothing is saved."""
        self.wait_for_compute()
        self.compute.stop(10.0)
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
            self.wait_for_compute()
            self.office.listen()
            if self.inbox.empty():
                return

    def wait_for_compute(self) -> None:
        """Until the job that runs, if any, has delivered its event. Raises RuntimeError when the thread dies of it."""
        while self.compute.job and not self._has_left:
            with self.inbox.not_empty:
                if self.inbox.not_empty.wait_for(self._holds_what_was_computed, timeout=0.05):
                    return
            self.compute.check()

    def _holds_what_was_computed(self) -> bool:
        return any(isinstance(event, ComputeEvent) for event in self.inbox.queue)

    def run_until_told(self) -> None:
        """The agent's own loop, told to stop before its first turn."""
        stop = threading.Event()
        stop.set()
        self.agent.run(self.inbox, stop)
        self._has_left = True

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.settle()

    @property
    def page(self) -> dict[str, Any]:
        return self.agent.page()
