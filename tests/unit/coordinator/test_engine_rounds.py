"""When a version is made."""

from dataclasses import replace

import pytest

from coordinator.engine.rates import Arrival, SiteRate
from coordinator.engine.rounds import (
    LONGEST_BARRIER_S,
    LONGEST_DEADLINE_S,
    SHORTEST_DEADLINE_S,
    flush_after_s,
    flush_at_s,
    is_ready,
)
from coordinator.engine.settings import engine_settings

DEFAULT, FEDAVG = engine_settings("default"), engine_settings("fedavg")
ARRIVAL = Arrival(site="s0", base_version=0, num_examples=1, num_steps=1, work_s=1.0, received_at_s=100.0)
SITES = [f"s{i}" for i in range(10)]


def buffer_of(*sites: str) -> list[Arrival]:
    return [replace(ARRIVAL, site=site, received_at_s=100.0 + i) for i, site in enumerate(sites)]


def rates_of(*works_s: float, gap_s: float | None = None, last_s: float = 0.0) -> dict[str, SiteRate]:
    return {f"s{i}": SiteRate(gap_s, last_s, 1, work_s) for i, work_s in enumerate(works_s)}


def test_the_deadline_is_twice_the_time_in_which_the_buffer_should_fill() -> None:
    assert flush_after_s(DEFAULT, 3, rates_of(10.0, 20.0, 20.0), now_s=0.0) == pytest.approx(
        2 * 3 / (0.1 + 0.05 + 0.05)
    )


def test_the_deadline_does_not_follow_the_gaps() -> None:
    deadlines = {flush_after_s(DEFAULT, 3, rates_of(10.0, 30.0, gap_s=gap_s), 0.0) for gap_s in (None, 10.0, 5000.0)}
    assert len(deadlines) == 1


def test_the_deadline_of_a_barrier_is_twice_the_slowest_sites_training() -> None:
    assert flush_after_s(FEDAVG, 3, rates_of(1.0, 1.0, 20.0), now_s=0.0) == pytest.approx(40.0)
    assert flush_after_s(FEDAVG, 2, rates_of(1.0, 1e10), now_s=0.0) == LONGEST_BARRIER_S


def test_a_barrier_waits_for_a_site_whose_training_time_is_not_known_yet() -> None:
    assert flush_after_s(FEDAVG, 3, rates_of(1.0, 1.0), now_s=0.0) == LONGEST_BARRIER_S


def test_the_deadline_has_a_shortest_and_a_longest() -> None:
    assert flush_after_s(DEFAULT, 2, rates_of(0.0, 0.001), now_s=0.0) == SHORTEST_DEADLINE_S
    assert flush_after_s(DEFAULT, 2, rates_of(1e6, 1e6), now_s=0.0) == LONGEST_DEADLINE_S
    assert flush_after_s(DEFAULT, 2, {}, now_s=0.0) == LONGEST_DEADLINE_S


def test_a_dead_site_does_not_shorten_the_deadline() -> None:
    rates = rates_of(10.0, 20.0) | {"gone": SiteRate(gap_s=1.0, last_s=-100.0, num_examples=1, work_s=1.0)}
    assert flush_after_s(DEFAULT, 3, rates, now_s=0.0) == flush_after_s(DEFAULT, 3, rates_of(10.0, 20.0), now_s=0.0)


def test_when_every_site_is_silent_the_deadline_still_follows_their_training() -> None:
    assert flush_after_s(DEFAULT, 3, rates_of(10.0, gap_s=1.0), now_s=1e6) == pytest.approx(60.0)


def test_a_deadline_that_is_set_is_kept() -> None:
    assert flush_after_s(engine_settings("default", flush_after_s=0.5), 3, rates_of(10.0), now_s=0.0) == 0.5


def test_an_empty_buffer_is_never_ready() -> None:
    assert flush_at_s([], deadline_s=1.0) is None
    assert not is_ready([], DEFAULT, SITES, deadline_s=1.0, now_s=1e9)
    assert not is_ready([], FEDAVG, [], deadline_s=1.0, now_s=1e9)


def test_a_full_buffer_is_ready_at_once() -> None:
    assert not is_ready(buffer_of("s0", "s1"), DEFAULT, SITES, deadline_s=50.0, now_s=103.0)
    assert is_ready(buffer_of("s0", "s1", "s2"), DEFAULT, SITES, deadline_s=50.0, now_s=103.0)


def test_one_eager_site_cannot_fill_a_buffer_that_merges() -> None:
    assert not is_ready(buffer_of("s0", "s0", "s0", "s0"), DEFAULT, SITES, deadline_s=50.0, now_s=104.0)


def test_the_deadline_counts_from_the_first_arrival() -> None:
    pair = buffer_of("s0", "s1")
    assert flush_at_s(pair[::-1], deadline_s=50.0) == 150.0
    assert not is_ready(pair, DEFAULT, SITES, deadline_s=50.0, now_s=149.9)
    assert is_ready(pair, DEFAULT, SITES, deadline_s=50.0, now_s=150.0)


def test_a_barrier_waits_for_every_active_site_and_no_other() -> None:
    assert not is_ready(buffer_of("s0", "s1"), FEDAVG, ["s0", "s1", "s2"], deadline_s=50.0, now_s=110.0)
    assert is_ready(buffer_of("s0", "s1", "left"), FEDAVG, ["s0", "s1"], deadline_s=50.0, now_s=110.0)


def test_a_barrier_gives_up_at_the_deadline() -> None:
    assert is_ready(buffer_of("s0"), FEDAVG, SITES, deadline_s=50.0, now_s=150.0)


def test_a_site_that_claims_to_train_in_no_time_does_not_shorten_the_deadline_to_nothing() -> None:
    honest_s = flush_after_s(DEFAULT, 2, rates_of(60.0, 60.0, 60.0, 60.0), 0.0)
    assert flush_after_s(DEFAULT, 2, rates_of(0.0, 60.0, 60.0, 60.0, 60.0), 0.0) > honest_s / 4
