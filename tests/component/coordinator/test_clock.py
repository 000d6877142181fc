"""The federation's own clock, and a wall clock that is wrong."""

from collections.abc import Callable

import pytest

from coordinator.clock import FederationClock, Moment
from coordinator.engine.settings import EngineSettings
from fedward.testing import ManualClock
from tests.support.coordinator_bench import Bench
from tests.support.site import Site
from tests.support.updates import inline

HOURS_S = 5 * 3600.0


class WrongClock(ManualClock):
    """A clock whose wall time somebody sets."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong_by_s = 0.0

    def now_s(self) -> float:
        return super().now_s() + self.wrong_by_s


def test_it_goes_on_from_the_last_arrival_and_stands_still_between_two_processes() -> None:
    clock = ManualClock()
    own = FederationClock(clock, recorded_s=100.0)
    clock.advance(7.0)
    assert own.now() == Moment(clock.now_s(), 107.0)
    clock.advance(HOURS_S)  # nobody runs
    assert FederationClock(clock, recorded_s=107.0).now().own_s == 107.0


@pytest.fixture
def clock() -> WrongClock:
    """In place of the bench's clock."""
    return WrongClock()


@pytest.mark.parametrize("wrong_by_s", [0.0, HOURS_S], ids=["right", "set back and forth by hours"])
def test_a_wall_clock_that_is_set_changes_no_weight_and_no_version(
    start: Callable[..., Bench], north: Site, south: Site, clock: WrongClock, wrong_by_s: float
) -> None:
    bench = start(engine=EngineSettings(buffer_size=2, flush_after_s=600.0))
    bench.settle()
    first_s = bench.ledger.latest_arrival_s() + 1.0  # the bench lets a second pass before the first version
    for number in range(4):
        clock.wrong_by_s = wrong_by_s * (-1) ** number
        for site in (north, south):
            site.offer(inline(number, site.name, base_version=number))
            bench.settle()
            clock.advance(3.0)
    made = [row for version in range(1, 5) for row in bench.ledger.updates_of(version)]
    assert [row.version for row in made] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [row.arrived_s for row in made] == [first_s + 3.0 * n for n in range(8)]
    assert [row.weight for row in made] == pytest.approx([1.0] * 8), "two sites of equal pace"


def test_a_deadline_passes_by_the_federations_clock(
    start: Callable[..., Bench], north: Site, south: Site, clock: WrongClock
) -> None:
    bench = start(engine=EngineSettings(buffer_size=2, flush_after_s=600.0))
    bench.settle()
    north.offer(inline(1))
    bench.settle()
    clock.wrong_by_s = HOURS_S
    bench.settle()
    assert bench.versions.current.version == 0, "hours on the wall are not hours of waiting"
    clock.wrong_by_s = -HOURS_S
    clock.advance(600.0)
    bench.settle()
    assert bench.versions.current.version == 1
