"""The end of a federation, the operator's wishes, and who is there."""

import threading
from collections.abc import Callable
from queue import Empty, Queue

import pytest

from coordinator.announcer import ANNOUNCE_EVERY_S, ANNOUNCE_SOON_S
from coordinator.config import FinishSettings
from coordinator.engine.settings import EngineSettings
from coordinator.operation import LOOK_EVERY_S, is_done
from coordinator.service import TICK_S
from coordinator.state import SiteState, federation_metrics, middle_metrics
from coordinator.tables import ALL
from fedward import topics
from fedward.errors import RejectReason
from fedward.messages import (
    Control,
    Evaluation,
    FederationState,
    Ratio,
    Status,
)
from fedward.pack import unpack
from fedward.ports import LinkEvent
from fedward.testing import ManualClock, MemoryBroker
from fedward.topics import Down, Up
from tests.support.coordinator_bench import Bench, refusals, refused
from tests.support.site import Site
from tests.support.updates import FEDERATION, inline

Start = Callable[..., Bench]


def measured(version: int, loss: float, model_digest: bytes | None = None) -> Evaluation:
    metrics = {"loss": Ratio(numerator=loss, denominator=1.0)}
    return Evaluation(
        federation=FEDERATION, version=version, num_examples=10, metrics=metrics, model_digest=model_digest
    )


def test_the_federation_finishes_with_its_last_version(start: Start, north: Site, south: Site) -> None:
    bench = start(engine=EngineSettings(buffer_size=1), finish=FinishSettings(version=1))
    bench.settle()
    north.offer(inline(1))
    bench.settle()
    said = north.announcements()[-1]
    assert (said.version, said.state) == (1, FederationState.FINISHED)
    late = inline(2, base_version=1)
    north.offer(late)
    bench.settle()
    assert north.receipts()[-1] == refused(late, RejectReason.FINISHED)
    assert bench.ledger.wishes() == {ALL: FederationState.FINISHED}


def test_the_federation_finishes_when_all_sites_together_reach_the_metric(
    start: Start, north: Site, south: Site
) -> None:
    bench = start(engine=EngineSettings(buffer_size=1), finish=FinishSettings(metric="loss", value=0.5))
    bench.settle()
    north.offer(inline(1))
    south.say(Up.EVALUATION, measured(0, loss=0.1))
    bench.settle()
    north.say(Up.EVALUATION, measured(1, loss=0.2))
    bench.settle()
    assert north.announcements()[-1].state is FederationState.RUNNING, "south has not measured a trained version"
    south.say(Up.EVALUATION, measured(1, loss=0.1))
    bench.settle()
    assert north.announcements()[-1].state is FederationState.FINISHED


def test_what_a_site_measured_of_another_federations_version_neither_counts_nor_ends_this_one(
    start: Start, north: Site, south: Site
) -> None:
    bench = start(engine=EngineSettings(buffer_size=1), finish=FinishSettings(metric="loss", value=0.5))
    bench.settle()
    north.offer(inline(1))
    bench.settle()
    ours = bench.versions.current.model_digest
    for site in (north, south):
        site.say(Up.EVALUATION, measured(1, loss=0.1, model_digest=bytes(32)))
    bench.settle()
    assert refusals(bench) == {RejectReason.UNKNOWN_BASE: 2}
    assert bench.ledger.evaluations() == ()
    for site in (north, south):
        site.say(Up.EVALUATION, measured(1, loss=0.9, model_digest=ours))
    bench.settle()
    assert {row.numerator for row in bench.ledger.evaluations()} == {0.9}
    assert north.announcements()[-1].state is FederationState.RUNNING


def test_a_crash_between_the_last_version_and_the_end_makes_no_further_version(
    start: Start, north: Site, south: Site
) -> None:
    bench = start(engine=EngineSettings(buffer_size=1))
    bench.settle()
    north.offer(inline(1))
    bench.settle()
    bench.kill()  # nothing in the ledger tells the end yet
    again = start(engine=EngineSettings(buffer_size=1), finish=FinishSettings(version=1))
    again.settle()
    assert north.announcements()[-1].state is FederationState.FINISHED


class OneLook(Queue[LinkEvent]):
    """An inbox that is empty, notes how long the loop would have waited for it, and ends the loop."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self.stop = stop
        self.waited_s: float | None = None

    def get(self, block: bool = True, timeout: float | None = None) -> LinkEvent:
        self.waited_s = timeout
        self.stop.set()
        raise Empty


@pytest.mark.parametrize(
    ("wish", "later_s", "waits_s"),
    [
        (FederationState.RUNNING, 0.0, TICK_S),
        (FederationState.RUNNING, 599.9, 0.1),
        (FederationState.RUNNING, 700.0, 0.001),
        (FederationState.FINISHED, 700.0, TICK_S),
    ],
    ids=["far from the deadline", "just before it", "overdue", "finished with a rest in the buffer"],
)
def test_the_loop_waits_for_the_next_deadline_and_never_spins(
    start: Start, north: Site, south: Site, clock: ManualClock, wish: FederationState, later_s: float, waits_s: float
) -> None:
    bench = start()
    bench.settle()
    north.offer(inline(1))
    bench.settle()
    bench.ledger.wish(ALL, wish, 1.0)
    clock.advance(TICK_S)
    bench.settle()
    clock.advance(max(0.0, later_s - TICK_S))
    stop = threading.Event()
    inbox = OneLook(stop)
    bench.service.run(inbox, stop)
    assert inbox.waited_s == pytest.approx(waits_s)


def test_a_measurement_of_a_version_that_is_not_out_is_refused(start: Start, north: Site) -> None:
    bench = start()
    north.say(Up.EVALUATION, measured(1, loss=0.5))
    bench.settle()
    assert refusals(bench) == {"unknown_base": 1}
    assert bench.ledger.evaluations() == ()


@pytest.mark.parametrize(
    ("finish", "version", "metrics", "done"),
    [
        (FinishSettings(), 9, {"auc": 1.0}, False),
        (FinishSettings(version=9), 8, {}, False),
        (FinishSettings(version=9), 9, {}, True),
        (FinishSettings(metric="auc", value=0.9), 1, {}, False),
        (FinishSettings(metric="auc", value=0.9), 1, {"auc": 0.9}, True),
        (FinishSettings(metric="auc", value=0.9), 1, {"auc": 0.89}, False),
        (FinishSettings(metric="loss", value=0.1), 1, {"loss": 0.09}, True),
        (FinishSettings(metric="loss", value=0.1), 1, {"loss": 0.11}, False),
        (FinishSettings(version=9, metric="auc", value=0.9), 9, {"auc": 0.1}, True),
    ],
)
def test_the_end_is_what_the_configuration_says(
    finish: FinishSettings, version: int, metrics: dict[str, float], done: bool
) -> None:
    assert is_done(finish, version, metrics) is done


def test_one_site_that_claims_any_number_of_records_does_not_end_the_federation() -> None:
    told = {"north": (60.0, 100.0), "south": (55.0, 100.0), "east": (1e30, 1e30)}
    sites = {
        name: SiteState(metrics={"auc": Ratio(numerator=above, denominator=below)})
        for name, (above, below) in told.items()
    }
    finish = FinishSettings(metric="auc", value=0.9)
    assert federation_metrics(sites)["auc"] == 1.0
    assert middle_metrics(sites)["auc"] == 0.6
    assert not is_done(finish, 1, federation_metrics(sites), middle_metrics(sites))


def test_a_wish_for_all_is_announced_within_a_tick(start: Start, north: Site, clock: ManualClock) -> None:
    bench = start()
    bench.settle()
    bench.ledger.wish(ALL, FederationState.PAUSED, 1.0)
    clock.advance(LOOK_EVERY_S)
    bench.settle()
    assert north.announcements()[-1].state is FederationState.PAUSED


def test_a_wish_for_one_site_goes_to_it_alone_and_is_retained(
    start: Start, south: Site, broker: MemoryBroker, clock: ManualClock
) -> None:
    bench = start()
    bench.settle()
    bench.ledger.wish("north", FederationState.PAUSED, 1.0)
    clock.advance(LOOK_EVERY_S)
    bench.settle()
    late = Site(broker, "north")
    topic = topics.down(FEDERATION, "north", Down.CONTROL)
    [control] = [delivery for delivery in late.deliveries() if delivery.topic == topic]
    assert unpack(control.payload, Control).paused
    assert not [delivery for delivery in south.deliveries() if "/dn/" in delivery.topic]


def test_a_broker_that_forgot_everything_has_the_wishes_again(
    start: Start, broker: MemoryBroker, clock: ManualClock
) -> None:
    bench = start()
    bench.ledger.wish("north", FederationState.PAUSED, 1.0)
    clock.advance(LOOK_EVERY_S)
    bench.settle()
    broker.stop()
    broker.start()
    bench.settle()
    topic = topics.down(FEDERATION, "north", Down.CONTROL)
    assert [delivery.topic for delivery in Site(broker, "north").deliveries()].count(topic) == 1


def test_a_death_notice_of_an_older_process_is_not_believed(start: Start, north: Site) -> None:
    bench = start()
    north.say(Up.STATUS, Status(boot_id=b"boot-two", online=True))
    north.say(Up.STATUS, Status(boot_id=b"boot-one", online=False))
    bench.settle()
    assert bench.service.page()["sites"]["north"]["online"]
    north.say(Up.STATUS, Status(boot_id=b"boot-two", online=False, leaving=True))
    bench.settle()
    assert bench.service.page()["sites"]["north"]["phase"] == "leaving"


def test_the_announcement_is_repeated_for_whoever_missed_it(start: Start, clock: ManualClock, north: Site) -> None:
    bench = start()
    bench.settle()
    clock.advance(ANNOUNCE_SOON_S)
    bench.settle()  # for the sites that were heard first
    before = len(north.announcements())
    clock.advance(ANNOUNCE_EVERY_S - 1)
    bench.settle()
    assert len(north.announcements()) == before
    clock.advance(1)
    bench.settle()
    first, second = north.announcements()[-2:]
    assert (second.version, second.sequence > first.sequence) == (first.version, True)


def test_the_new_process_of_a_site_is_announced_to_soon_and_many_of_them_at_once(
    start: Start, clock: ManualClock, north: Site, south: Site
) -> None:
    bench = start()
    bench.settle()
    for _ in range(2):
        clock.advance(ANNOUNCE_SOON_S)
        bench.settle()
    before = len(north.announcements())
    for site in (north, south):
        site.say(Up.STATUS, Status(boot_id=b"boot-two", online=True))
    bench.settle()
    assert len(north.announcements()) == before + 1
    north.say(Up.STATUS, Status(boot_id=b"boot-two", online=True))  # the same process again
    for _ in range(3):
        clock.advance(ANNOUNCE_SOON_S)
        bench.settle()
    assert len(north.announcements()) == before + 2  # one at once, and one for all that came since
