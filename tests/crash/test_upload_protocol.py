"""The upload protocol under any interleaving: real outboxes and publishers, a real coordinator, a broker in memory.

Messages are lost, come twice, late and out of order, the coordinator is out of room, and every party restarts wherever
it stands. After each step no update is lost, none counts twice, and nobody was told what is not in the ledger.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coordinator.engine.settings import EngineSettings
from coordinator.tables import StoredUpdate
from fedward import topics
from fedward.errors import RejectReason
from fedward.limits import CHUNK_BYTES
from fedward.messages import Offer, Outcome, Receipt
from fedward.pack import pack
from fedward.ports import Delivery, LinkInbox
from fedward.testing import ManualClock, MemoryBroker, MemoryLink
from fedward.topics import Down, Up
from tests.support.coordinator_bench import Bench, at, config_of
from tests.support.updates import FEDERATION, SITES
from tests.support.uploading_site import THREE_CHUNKS, Auditor, UploadingSite

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder with a random name is made in it
LONGER_THAN_ANY_TIMER_S = 100.0
ROUNDS_TO_THE_END = 20

SITE = st.sampled_from(SITES)
SEED = st.integers(0, 999)


class UploadProtocol(RuleBasedStateMachine):
    """Two sites and their coordinator, which makes a version of every update."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.broker, self.clock = MemoryBroker(), ManualClock()
        self.auditor = Auditor(self.broker)
        self.start_coordinator()
        self.sites = {name: UploadingSite(self.broker, name, self.folder / name) for name in SITES}
        self.train()

    def start_coordinator(self) -> None:
        engine = EngineSettings(buffer_size=1, flush_after_s=600.0, max_staleness=90)
        self.bench = Bench(config_of(self.folder, engine=engine), self.broker, self.clock, THREE_CHUNKS)

    def train(self) -> None:
        for site in self.sites.values():
            site.train(self.bench.versions.current.version)

    def saved(self) -> list[tuple[str, Offer]]:
        return [(site.name, offer) for site in self.sites.values() for offer in site.saved]

    # what everybody does

    @rule(name=SITE, messages=st.integers(1, 4))
    def a_site_works(self, name: str, messages: int) -> None:
        self.train()
        for _ in range(messages):
            self.sites[name].handle_next()
            self.sites[name].publisher.step(self.clock.monotonic_s())

    @rule(messages=st.integers(1, 8))
    def the_coordinator_takes_messages(self, messages: int) -> None:
        for _ in range(messages):
            if not self.bench.inbox.empty():
                self.bench.service.handle(self.bench.inbox.get_nowait())

    @rule()
    def the_coordinator_acknowledges_what_it_took(self) -> None:
        self.bench.service.acknowledge()

    @rule()
    def the_coordinator_makes_a_version(self) -> None:
        self.bench.service.tick()

    @rule()
    def all_goes_well_for_a_while(self) -> None:
        self.train()
        self.let_messages_arrive()

    @rule(seconds=st.sampled_from([1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # what goes wrong on the way

    @rule(name=SITE, up=st.booleans())
    def the_next_message_is_lost(self, name: str, up: bool) -> None:
        who = self.bench if up else self.sites[name]
        lose(who.inbox, who.link, most=1)

    @rule(name=SITE)
    def all_that_a_site_was_told_is_lost(self, name: str) -> None:
        lose(self.sites[name].inbox, self.sites[name].link)

    @rule(seed=SEED, copies=st.integers(1, 2))
    def messages_come_out_of_order_and_more_than_once(self, seed: int, copies: int) -> None:
        for inbox in (self.bench.inbox, *(site.inbox for site in self.sites.values())):
            shuffle(inbox, Random(seed), copies)

    @rule(seed=SEED)
    def an_offer_of_any_age_comes_again(self, seed: int) -> None:
        if self.saved():
            name, offer = Random(seed).choice(self.saved())
            self.broker.publish(topics.offer(FEDERATION, name, offer.update_id), pack(offer))

    @rule(seed=SEED)
    def a_chunk_of_any_age_comes_again(self, seed: int) -> None:
        if self.saved():
            name, offer = Random(seed).choice(self.saved())
            content = self.sites[name].payloads[offer.update_id]
            index = seed % -(-len(content) // CHUNK_BYTES)
            chunk = content[index * CHUNK_BYTES :][:CHUNK_BYTES]
            self.broker.publish(topics.update_chunk(FEDERATION, name, offer.update_id, index), chunk)

    @precondition(lambda self: self.new_offers())
    @rule()
    def the_coordinator_has_no_room(self) -> None:
        """It answers the next offer so when its disk is full, and takes no notice of it otherwise."""
        delivery, site, update_id = self.new_offers()[0]
        self.bench.inbox.queue.remove(delivery)
        self.bench.link.acknowledge(delivery)
        busy = Receipt(update_id=update_id, outcome=Outcome.LATER, reason=RejectReason.BUSY)
        self.broker.publish(topics.down(FEDERATION, site, Down.RECEIPT), pack(busy))

    def new_offers(self) -> list[tuple[Delivery, str, bytes]]:
        """On their way to the coordinator, of updates that are not in the ledger yet."""
        found = []
        for event in self.bench.inbox.queue:
            address = topics.parse(event.topic) if isinstance(event, Delivery) else None
            if address and address.kind is Up.OFFER and not self.bench.ledger.update(address.owner):
                found.append((event, address.site, address.owner))
        return found

    # who dies

    @rule()
    def the_coordinator_is_killed(self) -> None:
        self.bench.kill()
        self.start_coordinator()

    @rule(name=SITE)
    def a_site_is_killed(self, name: str) -> None:
        self.sites[name].restart()

    @rule()
    def the_broker_is_killed_and_has_forgotten_everything(self) -> None:
        self.broker.stop()
        self.broker.start()

    @rule(seed=SEED)
    def an_update_is_recorded_again(self, seed: int) -> None:
        """By a coordinator that died before it had told anybody of the first time."""
        rows = self.bench.ledger.updates()
        offers = {offer.update_id: (name, offer) for name, offer in self.saved()}
        if rows:
            row = Random(seed).choice(rows)
            name, offer = offers[row.update_id]
            assert self.bench.ledger.add_update(offer, name, at(1.0), 1.0, RejectReason.STALE) == row

    # what holds after each step

    @invariant()
    def what_always_holds(self) -> None:
        rows = self.bench.ledger.updates()
        self.no_update_is_lost(rows)
        self.every_receipt_says_what_the_ledger_says(rows)
        self.every_version_is_made_of_one_update(rows)

    def no_update_is_lost(self, rows: Sequence[StoredUpdate]) -> None:
        held = {row.update_id for row in rows}.union(*(site.waiting() for site in self.sites.values()))
        assert {offer.update_id for _, offer in self.saved()} <= held

    def every_receipt_says_what_the_ledger_says(self, rows: Sequence[StoredUpdate]) -> None:
        recorded = {row.update_id: {row.outcome} for row in rows}
        for update_id, outcomes in self.auditor.outcomes().items():
            assert outcomes == recorded.get(update_id) == {Outcome.ACCEPTED}

    def every_version_is_made_of_one_update(self, rows: Sequence[StoredUpdate]) -> None:
        made_of = Counter(row.version for row in rows if row.version is not None)
        assert made_of == dict.fromkeys(range(1, self.bench.versions.current.version + 1), 1)

    def teardown(self) -> None:
        try:
            for _ in range(ROUNDS_TO_THE_END):
                self.clock.advance(LONGER_THAN_ANY_TIMER_S)
                self.let_messages_arrive()
            rows = self.bench.ledger.updates()
            for name, site in self.sites.items():
                assert [row.update_id for row in rows if row.site == name] == [o.update_id for o in site.saved]
                assert not site.waiting()
            assert [row.version for row in rows] == list(range(1, len(self.saved()) + 1))
            self.what_always_holds()
            self.bench.ledger.check_chain()
        finally:
            self.bench.kill()
            shutil.rmtree(self.folder)

    def let_messages_arrive(self) -> None:
        """Until nobody has anything to say."""
        busy = True
        while busy:
            self.bench.settle()
            for site in self.sites.values():
                while not site.inbox.empty():
                    site.handle_next()
                site.publisher.step(self.clock.monotonic_s())
            busy = not self.bench.inbox.empty() or any(not site.inbox.empty() for site in self.sites.values())


def lose(inbox: LinkInbox, link: MemoryLink, most: int = 1000) -> None:
    """The broker thinks that they were delivered. Only messages are lost: a link's own events are not."""
    for _ in range(most):
        if inbox.empty() or not isinstance(inbox.queue[0], Delivery):
            return
        event = inbox.get_nowait()
        link.acknowledge(event)  # type: ignore[arg-type]  # it is a Delivery


def shuffle(inbox: LinkInbox, rng: Random, copies: int) -> None:
    """Each message so many times, in another order; a link's own events stay ahead of what came after them."""
    events = list(inbox.queue)
    first = next((i for i, event in enumerate(events) if isinstance(event, Delivery)), len(events))
    messages = [event for event in events[first:] if isinstance(event, Delivery)] * copies
    news = [event for event in events[first:] if not isinstance(event, Delivery)]
    rng.shuffle(messages)
    inbox.queue.clear()
    inbox.queue.extend([*events[:first], *news, *messages])


UploadProtocol.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=50,
    phases=[Phase.generate],  # to shrink a failure takes minutes, and the test's time would be up before it is told
    deadline=None,
    derandomize=True,
    database=None,
)
TestUploadProtocol = UploadProtocol.TestCase
