"""The upload protocol under any interleaving: real outbox and publisher, real coordinator, a broker in memory.

Messages are lost, come twice and out of order, and every party restarts wherever it stands; in the end each update
that was saved is in exactly one version.
"""

import os
import shutil
import tempfile
from pathlib import Path
from queue import Queue
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from coordinator.engine.settings import EngineSettings
from edge_agent.outbox import Outbox
from edge_agent.publish import Publisher
from edge_agent.receive import receive
from fedward import topics
from fedward.messages import Grant, Outcome, Receipt
from fedward.ports import Connected, Delivery, LinkInbox
from fedward.testing import ManualClock, MemoryBroker, MemoryLink
from tests.support.coordinator_bench import Bench, config_of
from tests.support.updates import FEDERATION, LARGE, offer_of, payload_of

SITE = "north"
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder with a random name is made in it
LONGER_THAN_ANY_TIMER_S = 100.0
ROUNDS_TO_THE_END = 20


class Agent:
    """What of an agent uploads; another one on the same folder is the process after it."""

    def __init__(self, broker: MemoryBroker, folder: Path) -> None:
        self.outbox = Outbox(folder)
        self.outbox.tidy()
        self.inbox: LinkInbox = Queue()
        self.link = MemoryLink(broker, SITE, self.inbox, window=2)
        self.publisher = Publisher(self.link, FEDERATION, SITE, self.outbox, Random(1))
        self.link.subscribe(topics.down_all(FEDERATION, SITE))
        self.link.open()

    def handle_next(self) -> Outcome | None:
        event = self.inbox.get_nowait()
        if isinstance(event, Connected):
            self.publisher.offer_now()
        if not isinstance(event, Delivery):
            return None
        message, outcome = receive(event.topic, event.payload), None
        if isinstance(message, Grant):
            self.publisher.on_grant(message)
        if isinstance(message, Receipt):
            outcome = self.publisher.on_receipt(message, 0.0)
        self.link.acknowledge(event)
        return outcome


class UploadProtocol(RuleBasedStateMachine):
    """One site and its coordinator, which makes a version of every update."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.broker, self.clock = MemoryBroker(), ManualClock()
        self.saved: list[bytes] = []
        self.trained_from: int | None = None
        self.start_coordinator()
        self.agent = Agent(self.broker, self.folder / "outbox")
        self.train()

    def start_coordinator(self) -> None:
        engine = EngineSettings(buffer_size=1, flush_after_s=600.0)
        self.bench = Bench(config_of(self.folder, engine=engine), self.broker, self.clock, LARGE)

    def train(self) -> None:
        """From the newest version, once, and not while an update waits, as agents do."""
        base = self.bench.versions.current.version
        if base == self.trained_from or self.agent.outbox.entries():
            return
        self.trained_from = base
        content = payload_of(LARGE, base)
        offer = offer_of(content, base, base_version=base, layout_digest=LARGE.digest)
        self.agent.outbox.save(offer, content)
        self.saved.append(offer.update_id)
        self.agent.publisher.take_next()

    @rule(messages=st.integers(1, 8))
    def the_agent_works(self, messages: int) -> None:
        self.train()
        for _ in range(messages):
            if not self.agent.inbox.empty():
                assert self.agent.handle_next() is not Outcome.REFUSED
            self.agent.publisher.step(self.clock.monotonic_s())

    @rule(messages=st.integers(1, 8))
    def the_coordinator_works(self, messages: int) -> None:
        for _ in range(messages):
            if not self.bench.inbox.empty():
                self.bench.service.handle(self.bench.inbox.get_nowait())
            self.bench.service.tick()

    @rule()
    def time_passes(self) -> None:
        self.clock.advance(5.0)

    @rule(both_ways=st.booleans())
    def messages_are_lost(self, both_ways: bool) -> None:
        lose_next(self.bench.inbox, self.bench.link)
        if both_ways:
            lose_next(self.agent.inbox, self.agent.link)

    @rule()
    def messages_come_twice_and_out_of_order(self) -> None:
        self.broker.duplicates = 2
        for inbox in (self.bench.inbox, self.agent.inbox):
            if not inbox.empty():
                inbox.put_nowait(inbox.get_nowait())

    @rule(who=st.sampled_from(["broker", "coordinator", "agent"]))
    def one_is_killed_and_comes_back(self, who: str) -> None:
        if who == "broker":  # and has forgotten everything
            self.broker.stop()
            self.broker.start()
        elif who == "coordinator":
            self.bench.kill()
            self.start_coordinator()
        else:
            self.agent.link.kill()
            self.agent = Agent(self.broker, self.folder / "outbox")

    def teardown(self) -> None:
        try:
            self.let_everything_arrive()
            rows = self.bench.ledger.updates()
            assert [row.update_id for row in rows] == self.saved
            assert [row.version for row in rows] == list(range(1, len(self.saved) + 1))
            assert not self.agent.outbox.entries()
        finally:
            self.bench.kill()
            shutil.rmtree(self.folder)

    def let_everything_arrive(self) -> None:
        for _ in range(ROUNDS_TO_THE_END):
            self.clock.advance(LONGER_THAN_ANY_TIMER_S)
            self.agent.publisher.step(self.clock.monotonic_s())
            while not (self.agent.inbox.empty() and self.bench.inbox.empty()):
                self.bench.settle()
                while not self.agent.inbox.empty():
                    assert self.agent.handle_next() is not Outcome.REFUSED
                self.agent.publisher.step(self.clock.monotonic_s())
            self.bench.settle()


def lose_next(inbox: LinkInbox, link: MemoryLink) -> None:
    """The broker thinks that it was delivered. Only messages are lost: a link's own events are not."""
    if not inbox.empty() and isinstance(inbox.queue[0], Delivery):
        link.acknowledge(inbox.get_nowait())


UploadProtocol.TestCase.settings = settings(
    max_examples=25, stateful_step_count=50, deadline=None, derandomize=True, database=None
)
TestUploadProtocol = UploadProtocol.TestCase
