"""Rates, weights and the buffer: whose update counts how much."""

import math
from collections import defaultdict
from dataclasses import replace

import pytest

from coordinator.engine.buffer import buffer_size, count, divisor
from coordinator.engine.rates import MIN_GAP_S, SiteRate, is_live, live, mean_rate, observe
from coordinator.engine.settings import engine_settings
from coordinator.engine.weigh import Arrival, data_weight, rate_weight, staleness_weight, step_weight, weights

ARRIVAL = Arrival(site="a", base_version=5, num_examples=100, num_steps=10, work_s=1.0, received_at_s=0.0)
DEFAULT = engine_settings("default")


def arrival(site: str, **changes: float) -> Arrival:
    return replace(ARRIVAL, site=site, **changes)  # type: ignore[arg-type]  # replace knows no field types


def rate(gap_s: float | None, last_s: float = 0.0, num_examples: int = 100) -> SiteRate:
    return SiteRate(gap_s, last_s, num_examples, work_s=1.0)


def test_the_first_arrival_tells_no_gap() -> None:
    assert observe(None, ARRIVAL) == SiteRate(gap_s=None, last_s=0.0, num_examples=100, work_s=1.0)


def test_gaps_are_averaged_with_a_fifth_for_the_newest() -> None:
    second = observe(observe(None, ARRIVAL), arrival("a", received_at_s=10.0))
    third = observe(second, arrival("a", received_at_s=30.0, num_examples=7))
    assert second.gap_s == 10.0
    assert third.gap_s == pytest.approx(12.0)
    assert (third.last_s, third.num_examples) == (30.0, 7)


def test_a_backlog_that_comes_at_once_does_not_make_a_site_fast() -> None:
    slow = observe(observe(None, ARRIVAL), arrival("a", work_s=600.0, received_at_s=0.1))
    assert slow.gap_s == 600.0


def test_a_gap_is_never_zero_even_where_no_training_time_is_reported() -> None:
    assert observe(observe(None, ARRIVAL), arrival("a", work_s=0.0)).gap_s == MIN_GAP_S


def test_a_site_is_dead_after_ten_of_its_gaps() -> None:
    assert is_live(rate(gap_s=2.0), now_s=20.0)
    assert not is_live(rate(gap_s=2.0), now_s=20.1)
    assert is_live(rate(gap_s=None), now_s=1e9)
    assert live({"a": rate(2.0), "b": rate(20.0)}, now_s=30.0).keys() == {"b"}


def test_the_mean_rate_leaves_dead_sites_and_unknown_gaps_out() -> None:
    rates = {"a": rate(2.0, last_s=100.0), "b": rate(4.0, last_s=100.0), "c": rate(None), "d": rate(1.0)}
    assert mean_rate(rates, now_s=100.0) == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert mean_rate({"c": rate(None)}, now_s=0.0) is None


def test_a_silence_longer_than_its_gap_lowers_a_sites_rate() -> None:
    assert mean_rate({"a": rate(2.0)}, now_s=8.0) == pytest.approx(1 / 8)


def test_data_weight_is_the_power_of_the_examples_over_the_mean() -> None:
    assert data_weight(400, mean=10.0, exponent=0.5) == pytest.approx(2.0)
    assert data_weight(400, mean=1.0, exponent=0.0) == 1.0
    with pytest.raises(ValueError, match="num_examples"):
        data_weight(0, mean=1.0, exponent=1.0)


def test_staleness_within_the_free_allowance_costs_nothing() -> None:
    assert staleness_weight(3, free=3, exponent=0.5) == 1.0
    assert staleness_weight(6, free=3, exponent=0.5) == pytest.approx(1 / 2)
    assert staleness_weight(3, free=0, exponent=0.5) == pytest.approx(1 / 2)


def test_an_update_from_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="future"):
        weights([ARRIVAL], version=4, rates={}, settings=DEFAULT, size=2, now_s=0.0)


@pytest.mark.parametrize(("gap_s", "expected"), [(2.0, 1.0), (4.0, 2.0), (100.0, 4.0), (0.01, 0.25), (None, 1.0)])
def test_the_rate_correction_follows_the_gap_and_is_capped(gap_s: float | None, expected: float) -> None:
    assert rate_weight(gap_s, mean_rate_per_s=0.5, cap=4.0, exponent=1.0) == pytest.approx(expected)


def test_more_local_steps_count_less_where_steps_are_normalised() -> None:
    assert step_weight(20, reference_steps=10.0, exponent=1.0) == pytest.approx(0.5)
    assert step_weight(20, reference_steps=10.0, exponent=0.0) == 1.0
    settings = engine_settings("fedbuff", step_exponent=1.0)
    pair = [arrival("a", num_steps=10), arrival("b", num_steps=30)]
    assert weights(pair, 5, {}, settings, 2, 0.0) == pytest.approx((2.0, 2 / 3))
    with pytest.raises(ValueError, match="num_steps"):
        step_weight(0, reference_steps=1.0, exponent=1.0)


def test_fedavg_weights_are_exactly_the_numbers_of_examples() -> None:
    pair = [arrival("a", num_examples=101), arrival("b", num_examples=999_999_937)]
    rates = {"a": rate(1.0), "b": rate(9.0)}
    assert weights(pair, 5, rates, engine_settings("fedavg"), 2, 0.0) == (101.0, 999_999_937.0)


def test_fedbuff_weights_are_those_of_staleness_alone() -> None:
    pair = [arrival("a", base_version=8, num_examples=7), arrival("b", base_version=0)]
    rates = {"a": rate(1.0), "b": rate(9.0)}
    assert weights(pair, 8, rates, engine_settings("fedbuff"), 10, 0.0) == pytest.approx((1.0, 1 / 3))


def test_free_staleness_is_how_many_versions_all_active_sites_take() -> None:
    settings = engine_settings("default", rate_exponent=0.0, data_exponent=0.0)
    rates = {f"s{i}": rate(None) for i in range(6)} | {"gone": rate(1.0, last_s=-100.0)}
    six = [arrival(f"s{i}", base_version=base) for i, base in enumerate([5, 3, 2, 0, 5, 5])]
    assert weights(six, 5, rates, settings, size=2, now_s=0.0)[:4] == pytest.approx((1, 1, 1, 1 / math.sqrt(3)))


def test_updates_of_one_site_share_the_weight_of_their_average() -> None:
    three = [arrival("a"), arrival("a"), arrival("b")]
    assert weights(three, 5, {}, DEFAULT, 2, 0.0) == pytest.approx((0.5, 0.5, 1.0))
    assert weights(three, 5, {}, engine_settings("fedbuff"), 2, 0.0) == pytest.approx((1.0, 1.0, 1.0))


def test_shares_follow_the_data_whatever_the_speeds() -> None:
    settings = engine_settings("default", data_exponent=1.0, staleness_exponent=0.0)
    gaps_s, examples = {"fast": 2.0, "usual": 4.0, "slow": 8.0}, {"fast": 100, "usual": 300, "slow": 200}
    arrivals = sorted(
        (arrival(site, num_examples=examples[site], received_at_s=k * gap_s) for site, gap_s in gaps_s.items()
         for k in range(1, 1 + int(800 / gap_s))),
        key=lambda update: update.received_at_s,
    )  # fmt: skip
    rates: dict[str, SiteRate] = {}
    total: dict[str, float] = defaultdict(float)
    for update in arrivals:
        rates[update.site] = observe(rates.get(update.site), update)
        total[update.site] += weights([update], 5, rates, settings, 1, update.received_at_s)[0]
    shares = {site: weight / sum(total.values()) for site, weight in total.items()}
    assert shares == pytest.approx({"fast": 1 / 6, "usual": 3 / 6, "slow": 2 / 6}, abs=0.02)
    assert sum(total.values()) / len(arrivals) == pytest.approx(1.0, abs=0.02)  # the step keeps its size


@pytest.mark.parametrize(
    ("preset", "num_active", "expected"),
    [("default", 0, 1), ("default", 1, 1), ("default", 2, 2), ("default", 5, 2), ("default", 10, 3),
     ("default", 100, 10), ("fedavg", 7, 7), ("fedasync", 7, 1), ("fedbuff", 4, 10)],
)  # fmt: skip
def test_the_buffer_size_is_the_presets(preset: str, num_active: int, expected: int) -> None:
    assert buffer_size(engine_settings(preset), num_active) == expected


def test_a_buffer_that_active_sites_cannot_fill_is_made_smaller() -> None:
    assert buffer_size(engine_settings("default", buffer_size=6), num_active=4) == 4


def test_a_merged_site_counts_once() -> None:
    three = [arrival("a"), arrival("a"), arrival("b")]
    assert count(three, DEFAULT) == 2
    assert count(three, engine_settings("fedbuff")) == 3


def test_the_divisor_is_the_count_or_the_sum_of_weights() -> None:
    three = [arrival("a"), arrival("a"), arrival("b")]
    assert divisor((0.5, 0.5, 4.0), three, DEFAULT) == 2.0
    assert divisor((0.5, 0.5, 4.0), three, engine_settings("default", normalisation="weight")) == 5.0


@pytest.mark.parametrize("given", [(), (0.0, 0.0), (math.inf, 1.0)])
def test_a_buffer_without_weight_makes_no_version(given: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="sum up to"):
        divisor(given, [ARRIVAL] * len(given), engine_settings("default", normalisation="weight"))
