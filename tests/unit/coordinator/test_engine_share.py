"""How much of a version one site can be."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coordinator.engine.rates import Arrival
from coordinator.engine.settings import engine_settings
from coordinator.engine.share import capped
from coordinator.engine.weigh import weights
from fedward.limits import MAX_EXAMPLES

FIVE = ["a", "b", "c", "d", "e"]
ARRIVAL = Arrival(site="a", base_version=0, num_examples=100, num_steps=10, work_s=1.0, received_at_s=0.0)


def test_weights_that_claim_little_come_back_as_they_are() -> None:
    given_ = (0.1, 1.3, 0.7, 1.1, 0.3)
    assert capped(given_, FIVE, cap=0.4, most=4.0) == given_


def test_what_is_cut_off_goes_to_the_others_in_proportion() -> None:
    assert capped((3.0, 1.0, 0.5, 0.25, 0.25), FIVE, cap=0.4, most=4.0) == pytest.approx((2.0, 1.5, 0.75, 0.375, 0.375))


def test_a_site_that_is_filled_up_to_the_cap_leaves_the_rest_to_the_others() -> None:
    assert capped((2.6, 1.8, 0.2, 0.2, 0.2), FIVE, cap=0.4, most=4.0) == pytest.approx((2.0, 2.0, 1 / 3, 1 / 3, 1 / 3))


def test_a_claim_of_a_thousand_million_records_neither_takes_the_version_nor_stops_it() -> None:
    arrivals = [replace(ARRIVAL, site=site) for site in FIVE]
    arrivals[4] = replace(arrivals[4], num_examples=MAX_EXAMPLES)
    found = weights(arrivals, 0, {}, engine_settings("default"), 5, 0.0)
    assert sum(found) == pytest.approx(5.0)
    assert found[4] == pytest.approx(0.3 * 5.0)


def test_of_two_sites_one_may_be_three_quarters() -> None:
    assert capped((9.0, 1.0), ["a", "b"], cap=0.3, most=4.0) == pytest.approx((1.5, 0.5))


def test_a_site_alone_is_bounded_by_the_most_a_weight_can_be() -> None:
    assert capped((20.0,), ["a"], cap=0.3, most=4.0) == (4.0,)
    assert capped((20.0,), ["a"], cap=0.3, most=math.inf) == (20.0,)


def test_the_updates_of_a_site_are_capped_together() -> None:
    found = capped((2.0, 2.0, 0.5, 0.5), ["a", "a", "b", "c"], cap=0.4, most=4.0)
    assert found == pytest.approx((0.75, 0.75, 0.75, 0.75))


@example([159614640.0, 159614640.0, 159614640.0, 871082583.609375, 1e-09, 1e-09], 0.25)
@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=12), st.floats(0.05, 1.0))
def test_no_site_is_above_its_share_and_no_order_changes(claims: list[float], cap: float) -> None:
    found = capped(claims, [str(index) for index in range(len(claims))], cap, math.inf)
    share = max(cap, 1.5 / len(claims))
    assert max(found) <= share * sum(found) * (1 + 1e-9) or len(claims) == 1
    assert all(weight > 0 for weight in found)
    by_claim = [found[index] for index in sorted(range(len(claims)), key=claims.__getitem__)]
    assert all(low <= high * (1 + 1e-9) for low, high in pairwise(by_claim))
