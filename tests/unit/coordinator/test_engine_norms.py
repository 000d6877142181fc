"""How long updates usually are, and what is far too long, whoever tries to move it."""

import pytest

from coordinator.engine.norms import PER_SITE, clip_scale, is_outlier, norm_bound, typical_norm, waits_for_norms
from coordinator.engine.settings import PRESETS, engine_settings

DEFAULT = engine_settings("default")
HONEST = [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0)]


def test_the_typical_norm_is_the_lower_median_of_the_sites() -> None:
    assert typical_norm(HONEST) == 2.0
    assert typical_norm(HONEST[:3]) == 2.0


def test_a_site_counts_with_the_median_of_its_newest_norms() -> None:
    newest = [("a", 5.0)] * PER_SITE
    assert typical_norm([*newest, ("a", 0.1), ("a", 0.1), ("b", 9.0), ("c", 1.0)]) == 5.0
    assert typical_norm([("a", 7.0), ("a", 5.0), ("a", 1.0), ("b", 9.0), ("c", 1.0)]) == 5.0


def test_one_site_of_five_cannot_move_the_typical_norm_beyond_the_others_by_sending_often() -> None:
    for norm in (1e-12, 1e12):
        flooded = [("hostile", norm)] * 200 + HONEST
        assert typical_norm(flooded) in {2.0, 3.0}


def test_nothing_is_typical_of_two_sites() -> None:
    assert typical_norm([("a", 1.0), ("b", 100.0)] * 20) is None
    assert norm_bound([("a", 1.0), ("b", 100.0)], DEFAULT) is None
    assert not is_outlier(1e9, [("a", 1.0), ("b", 100.0)], DEFAULT)


def test_an_update_that_moves_nothing_says_nothing_of_others() -> None:
    assert typical_norm([("e", 0.0), ("f", 0.0), ("g", 0.0), *HONEST]) == 2.0
    assert typical_norm([("e", 0.0), ("f", 0.0), ("g", 0.0)]) is None


def test_longer_updates_are_cut_to_the_bound_and_others_are_left_alone() -> None:
    bound = norm_bound(HONEST, DEFAULT)
    assert bound == 4.0
    assert clip_scale(8.0, bound) == 0.5
    assert clip_scale(4.0, bound) == clip_scale(0.0, bound) == clip_scale(9.0, None) == 1.0


def test_an_outlier_is_thirty_times_longer_than_typical() -> None:
    assert is_outlier(60.1, HONEST, DEFAULT)
    assert not is_outlier(60.0, HONEST, DEFAULT)


@pytest.mark.parametrize(
    ("num_delivered", "num_active", "expected"), [(2, 3, True), (0, 9, True), (3, 9, False), (1, 2, False)]
)
def test_the_first_version_waits_for_three_sites_where_three_are_here(
    num_delivered: int, num_active: int, expected: bool
) -> None:
    assert waits_for_norms(num_delivered, num_active, DEFAULT) is expected


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"default"}))
def test_the_methods_of_the_literature_are_left_as_published(preset: str) -> None:
    settings = engine_settings(preset)
    assert norm_bound(HONEST, settings) is None
    assert not is_outlier(1e9, HONEST, settings)
    assert not waits_for_norms(0, 9, settings)
    assert settings.weight_cap is None
