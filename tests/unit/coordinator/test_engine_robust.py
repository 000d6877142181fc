"""Robust rules beside the same rules written down independently, in float64 and on whole vectors."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from coordinator.engine.aggregate import fold
from coordinator.engine.buffer import buffer_size
from coordinator.engine.contribution import Contribution, EncodedDelta
from coordinator.engine.optimizer import ServerState
from coordinator.engine.robust import num_trimmed
from coordinator.engine.settings import engine_settings
from fedward.codec import codec
from fedward.layout import Kind, Layout, Tensor, Vector

LAYOUT = Layout.of(
    [Tensor("weight", (300, 300)), Tensor("bias", (10,)), Tensor("running_var", (6,), Kind.STATISTIC)]
)  # the first tensor has two blocks
RULES = ("trimmed_mean", "median", "centered_clipping")
Matrix = npt.NDArray[np.float64]


def drawn(number: int, seed: int = 0) -> list[Vector]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(LAYOUT.size, np.float32) for _ in range(number)]


def exact(vector_P: Vector, scale: float = 1.0) -> EncodedDelta:
    return EncodedDelta(codec("f32"), memoryview(codec("f32").encode(vector_P, LAYOUT, b"")), b"", scale)


def contributions(deltas: Sequence[Vector], weights: Sequence[float]) -> list[Contribution]:
    return [
        Contribution(weight, exact(delta_P), site=f"s{index}")
        for index, (delta_P, weight) in enumerate(zip(deltas, weights, strict=True))
    ]


def folded(given: Sequence[Contribution], divisor: float, **settings: object) -> Vector:
    """What becomes of a model of zeros."""
    how = engine_settings("default", **settings)
    state = ServerState.initial(np.zeros(LAYOUT.size, np.float32), how.optimizer)
    fold(state, LAYOUT, given, divisor, how)
    return state.w


def reference_mean(rows: Matrix, weights: Sequence[float], dropped: int) -> npt.NDArray[np.float64]:
    columns = []
    for column in rows.T:
        ranked = sorted(zip(column, weights, strict=True), key=lambda pair: float(pair[0]))
        kept = ranked[dropped : len(ranked) - dropped]
        columns.append(sum(value * weight for value, weight in kept) / sum(weight for _, weight in kept))
    return np.array(columns)


@pytest.mark.parametrize(("rule", "dropped"), [("trimmed_mean", 1), ("median", 2)])
def test_a_rule_is_that_of_yin_and_others_with_the_weights_of_those_that_stay(rule: str, dropped: int) -> None:
    deltas, weights = drawn(5), [1.0, 0.5, 2.0, 1.5, 0.25]
    found = folded(contributions(deltas, weights), 5.0, robust=rule)
    expected = reference_mean(np.array(deltas, np.float64), weights, dropped) * sum(weights) / 5.0
    shown = slice(0, LAYOUT.size, 97)  # of both blocks
    np.testing.assert_allclose(found[: LAYOUT.num_weights][shown], expected[: LAYOUT.num_weights][shown], atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3])
def test_centered_clipping_moves_from_the_median_towards_rows_no_further_than_the_radius(steps: int) -> None:
    deltas, weights = drawn(5), np.array([1.0, 0.5, 2.0, 1.5, 0.25])
    deltas[3] = 50.0 * deltas[3]
    found = folded(
        contributions(deltas, weights.tolist()),
        float(weights.sum()),
        robust="centered_clipping",
        centering_radius=0.9,
        centering_steps=steps,
    )
    rows = np.array(deltas, np.float64)
    centre = np.median(rows, axis=0)
    for _ in range(steps):
        far = np.linalg.norm(rows - centre, axis=1)
        clipped = (rows - centre) * np.minimum(1.0, 0.9 * np.median(far) / far)[:, None]
        centre = centre + weights @ clipped / weights.sum()
    np.testing.assert_allclose(found, centre, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_one_site_of_five_cannot_move_the_model_further_than_the_others_want(rule: str) -> None:
    deltas = drawn(5)
    deltas[2] = np.full(LAYOUT.size, 1e6, np.float32)
    found = folded(contributions(deltas, [1.0] * 5), 5.0, robust=rule)
    assert np.abs(found).max() <= 10.0
    assert np.abs(folded(contributions(deltas, [1.0] * 5), 5.0)).max() > 1e5


@pytest.mark.parametrize("rule", RULES)
def test_a_site_has_one_vote_however_many_updates_it_sends(rule: str) -> None:
    deltas = drawn(4)
    spread = [Contribution(0.25, exact(deltas[3]), site="s3") for _ in range(4)]
    once = folded(contributions(deltas, [1.0] * 4), 4.0, robust=rule)
    np.testing.assert_allclose(
        folded([*contributions(deltas[:3], [1.0] * 3), *spread], 4.0, robust=rule), once, atol=1e-5
    )


@pytest.mark.parametrize("rule", RULES)
def test_equal_updates_come_out_as_the_mean_does(rule: str) -> None:
    given = contributions([drawn(1)[0]] * 5, [0.5, 1.0, 1.0, 2.0, 0.5])
    np.testing.assert_allclose(folded(given, 5.0, robust=rule), folded(given, 5.0), atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_statistic_stays_between_what_the_sites_sent(rule: str) -> None:
    deltas = [np.full(LAYOUT.size, value, np.float32) for value in (-0.5, -0.4, -0.3, 7.0, -0.2)]
    found = folded(contributions(deltas, [4.0] * 5), 2.0, robust=rule)[LAYOUT.num_weights :]
    assert (found >= -0.5).all()
    assert (found <= 7.0).all()


@pytest.mark.parametrize("rule", ["none", *RULES])
def test_a_clipped_delta_counts_with_its_scale(rule: str) -> None:
    deltas = drawn(3)
    halved = [Contribution(1.0, exact(2.0 * delta_P, 0.5), site=f"s{index}") for index, delta_P in enumerate(deltas)]
    plain = folded(contributions(deltas, [1.0] * 3), 3.0, robust=rule)
    np.testing.assert_allclose(folded(halved, 3.0, robust=rule), plain, atol=1e-6)


def test_a_contribution_without_a_site_has_no_vote() -> None:
    with pytest.raises(ValueError, match="site"):
        folded([Contribution(1.0, exact(drawn(1)[0]))], 1.0, robust="median")


@pytest.mark.parametrize(("num_sites", "expected"), [(1, 0), (2, 0), (3, 1), (5, 1), (6, 2), (10, 2), (100, 20)])
def test_a_fifth_of_the_sites_is_dropped_at_each_end_and_one_always_stays(num_sites: int, expected: int) -> None:
    assert num_trimmed(num_sites, engine_settings("default", robust="trimmed_mean")) == expected


def test_a_robust_version_has_three_sites_at_least_where_they_are_there() -> None:
    robust = engine_settings("default", robust="median")
    assert [buffer_size(robust, num_active) for num_active in (2, 3, 5, 20)] == [2, 3, 3, 6]


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("ca2fl", {"robust": "median"}),
        ("fedasync", {"robust": "median", "merge_site": True, "buffer_size": 3}),
        ("fedbuff", {"robust": "trimmed_mean"}),
        ("default", {"robust": "trimmed_mean", "buffer_size": 2}),
        ("default", {"robust": "krum"}),
    ],
)
def test_a_robust_rule_that_contradicts_the_method_is_refused(preset: str, overrides: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="robust"):
        engine_settings(preset, **overrides)
