"""The engine against methods and optimizers written down independently, on a layout of several blocks."""

from collections.abc import Sequence

import numpy as np
import pytest

from coordinator.engine.aggregate import fold, with_cache
from coordinator.engine.buffer import divisor
from coordinator.engine.contribution import Contribution, EncodedDelta
from coordinator.engine.optimizer import ServerState
from coordinator.engine.settings import EngineSettings, OptimizerSettings, engine_settings
from coordinator.engine.weigh import Arrival, weights
from fedward.codec import codec
from fedward.layout import Kind, Layout, Tensor, Vector

LAYOUT = Layout.of(
    [
        Tensor("conv.weight", (300, 300)),  # 90,000 elements: two blocks
        Tensor("head.weight", (70, 100)),
        Tensor("head.bias", (100,)),
        Tensor("norm.running_var", (64,), Kind.STATISTIC),
    ]
)
WEIGHTS, STATISTICS = slice(0, LAYOUT.num_weights), slice(LAYOUT.num_weights, LAYOUT.size)


def vectors(number: int, seed: int = 0) -> list[Vector]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(LAYOUT.size, np.float32) for _ in range(number)]


def exact(vector_P: Vector) -> EncodedDelta:
    return EncodedDelta(codec("f32"), memoryview(codec("f32").encode(vector_P, LAYOUT, b"")), b"")


def arrivals_of(sites: Sequence[str], examples: Sequence[int], base_versions: Sequence[int]) -> list[Arrival]:
    return [
        Arrival(site, base, n, num_steps=10, work_s=1.0, received_at_s=0.0)
        for site, n, base in zip(sites, examples, base_versions, strict=True)
    ]


def fold_buffer(
    w_P: Vector, deltas: Sequence[Vector], arrivals: Sequence[Arrival], settings: EngineSettings, version: int,
    bases: Sequence[Vector] | None = None,
) -> Vector:  # fmt: skip
    """One version the way the coordinator makes it: weights, divisor, fold."""
    given = weights(arrivals, version, {}, settings, len(arrivals), 0.0)
    contributions = [
        Contribution(weight, exact(delta_P), None if bases is None else bases[i])
        for i, (weight, delta_P) in enumerate(zip(given, deltas, strict=True))
    ]
    state = ServerState.initial(w_P, settings.optimizer)
    fold(state, LAYOUT, contributions, divisor(given, arrivals, settings), settings)
    return state.w


def test_the_layout_of_these_tests_has_several_segments_and_blocks() -> None:
    assert len(LAYOUT.segments) == 4
    assert len(LAYOUT.blocks) == 5


def test_fedavg_is_the_numpy_reference_bit_for_bit() -> None:
    w_P, *deltas = vectors(5)
    examples = [101, 7, 90_001, 12_345]
    sum_P = np.zeros(LAYOUT.size, np.float32)
    for n, delta_P in zip(examples, deltas, strict=True):
        sum_P += np.float32(n) * delta_P
    reference_P = w_P + sum_P / np.float32(sum(examples))
    arrivals = arrivals_of("abcd", examples, [3, 3, 3, 3])
    got_P = fold_buffer(w_P, deltas, arrivals, engine_settings("fedavg"), version=3)
    assert got_P.tobytes() == reference_P.tobytes()


def test_fedasync_mixes_the_sites_model_into_the_servers() -> None:
    w_P, base_P, delta_P = vectors(3)
    alpha = 0.6 / np.sqrt(1 + 3)
    reference_P = (1 - alpha) * w_P + alpha * (base_P + delta_P)
    arrivals = arrivals_of("a", [50], [4])
    got_P = fold_buffer(w_P, [delta_P], arrivals, engine_settings("fedasync"), version=7, bases=[base_P])
    assert np.abs(got_P - reference_P)[WEIGHTS].max() < 1e-6


def test_fedbuff_of_one_without_staleness_is_sgd_on_deltas() -> None:
    w_P, *deltas = vectors(4)
    settings = engine_settings("fedbuff", buffer_size=1, staleness_exponent=0.0)
    got_P, reference_P = w_P, w_P.copy()
    for version, delta_P in enumerate(deltas):
        got_P = fold_buffer(got_P, [delta_P], arrivals_of("a", [9], [0]), settings, version)
        reference_P += delta_P
    assert got_P.tobytes() == reference_P.tobytes()


def test_fedbuff_averages_the_deltas_with_their_staleness_weights() -> None:
    w_P, first_P, second_P = vectors(3)
    arrivals = arrivals_of("aa", [5, 9], [8, 0])
    got_P = fold_buffer(w_P, [first_P, second_P], arrivals, engine_settings("fedbuff"), version=8)
    assert np.abs(got_P - (w_P + (first_P + second_P / 3) / 2)).max() < 1e-6


def test_ca2fl_is_its_reference_over_several_versions() -> None:
    settings = engine_settings("ca2fl")
    num_sites, buffers = 5, ["abc", "bcd", "aab", "cde"]
    w_P, *deltas = (np.float32(0.2) * vector_P for vector_P in vectors(13))  # float32 below 1 resolves 6e-8
    reference_P, cached_P = w_P.astype(np.float64), {site: np.zeros(LAYOUT.size) for site in "abcde"}
    state, cached = ServerState.initial(w_P, settings.optimizer), dict[str, EncodedDelta]()
    for buffer in buffers:
        now = [deltas.pop() for _ in buffer]
        averages = {s: np.mean([d for d, t in zip(now, buffer, strict=True) if t == s], axis=0) for s in set(buffer)}
        mean_P = sum(cached_P.values()) / num_sites
        correction_P = sum(averages[site] - cached_P[site] for site in averages) / len(averages)
        reference_P = reference_P + mean_P + correction_P
        cached_P |= {site: np.asarray(delta, np.float64) for site, delta in averages.items()}

        arrivals = arrivals_of(buffer, [10] * 3, [0] * 3)
        given = weights(arrivals, 3, {}, settings, 3, 0.0)
        total = divisor(given, arrivals, settings)
        plain = [Contribution(weight, exact(d)) for weight, d in zip(given, now, strict=True)]
        fold(state, LAYOUT, with_cache(plain, buffer, cached, num_sites, total), total, settings)
        cached |= {site: exact(np.asarray(delta, np.float32)) for site, delta in averages.items()}
    assert np.abs(state.w - reference_P)[WEIGHTS].max() < 1e-6


def test_ca2fl_needs_every_cached_site_to_take_part() -> None:
    (delta_P,) = vectors(1)
    with pytest.raises(ValueError, match="2 sites are cached"):
        with_cache([], [], {"a": exact(delta_P), "b": exact(delta_P)}, num_sites=1, divisor=1.0)


def test_the_order_within_a_buffer_hardly_matters() -> None:
    w_P, *deltas = vectors(9)
    arrivals = arrivals_of("abcdefgh", range(1, 9), range(8))
    settings = engine_settings("default")
    forwards_P = fold_buffer(w_P, deltas, arrivals, settings, version=8)
    backwards_P = fold_buffer(w_P, deltas[::-1], arrivals[::-1], settings, version=8)
    assert np.abs(forwards_P - backwards_P).max() < 1e-6


def test_the_same_buffer_makes_the_same_bytes() -> None:
    w_P, *deltas = vectors(4)
    arrivals = arrivals_of("abc", [5, 6, 7], [0, 1, 2])
    made = {fold_buffer(w_P, deltas, arrivals, engine_settings("default"), 3).tobytes() for _ in range(2)}
    assert len(made) == 1


@pytest.mark.parametrize("name", ["momentum", "adagrad", "adam", "yogi", "amsgrad"])
def test_an_optimizer_is_its_formula(name: str) -> None:
    optimizer = OptimizerSettings(name=name, server_lr=0.1)  # type: ignore[arg-type]  # from the list above
    settings = engine_settings("default", optimizer=optimizer)
    w_P, *means = vectors(5)
    means[2] *= 0.1  # a falling second moment tells yogi from adam and amsgrad from both
    state = ServerState.initial(w_P, optimizer)
    for mean_P in means:
        fold(state, LAYOUT, [Contribution(1.0, exact(mean_P))], 1.0, settings)
    assert np.abs(state.w - reference_optimizer(name, w_P, means))[WEIGHTS].max() < 1e-5


def reference_optimizer(name: str, w_P: Vector, means: Sequence[Vector]) -> np.ndarray:
    """The formulas in float64, b1 = 0.9, b2 = 0.99, eps = 1e-3, lr = 0.1, momentum 0.5."""
    w, m, u = w_P.astype(np.float64), np.zeros(LAYOUT.size), np.full(LAYOUT.size, 1e-6)
    u_max = u
    for g in (mean_P.astype(np.float64) for mean_P in means):
        if name == "momentum":
            m = 0.5 * m + g
            w = w + 0.1 * m
            continue
        m = 0.9 * m + 0.1 * g
        u = {
            "adagrad": u + g**2,
            "adam": 0.99 * u + 0.01 * g**2,
            "amsgrad": 0.99 * u + 0.01 * g**2,
            "yogi": u - 0.01 * g**2 * np.sign(u - g**2),
        }[name]
        u_max = np.maximum(u_max, u)
        w = w + 0.1 * m / (np.sqrt(u_max if name == "amsgrad" else u) + 1e-3)
    return w


def test_statistics_skip_the_optimizer() -> None:
    w_P, *deltas = vectors(3)
    settings = engine_settings("default", optimizer={"name": "adam"})
    got_P = fold_buffer(w_P, deltas, arrivals_of("ab", [8, 8], [0, 0]), settings, version=0)
    mean_P = w_P + (deltas[0] + deltas[1]) / 2
    assert np.abs(got_P - mean_P)[STATISTICS].max() < 1e-6
    assert np.abs(got_P - w_P)[WEIGHTS].max() < 0.02  # two of adam's steps at most, where the mean moves by 1


def test_heavy_weights_do_not_carry_a_variance_below_zero() -> None:
    w_P = np.ones(LAYOUT.size, np.float32)
    halved_P = np.full(LAYOUT.size, -0.5, np.float32)
    state, settings = ServerState.initial(w_P, OptimizerSettings()), engine_settings("default")
    fold(state, LAYOUT, [Contribution(4.0, exact(halved_P))] * 2, 2.0, settings)
    assert np.all(state.w[WEIGHTS] == -1.0)
    assert np.all(state.w[STATISTICS] == 0.5)


def test_the_first_state_is_a_copy_of_the_model() -> None:
    (w_P,) = vectors(1)
    state = ServerState.initial(w_P, OptimizerSettings())
    state.w += 1.0
    assert np.abs(state.w - w_P).min() > 0.5
    assert state.m is None


def test_pull_without_a_base_is_refused() -> None:
    w_P, delta_P = vectors(2)
    state, settings = ServerState.initial(w_P, OptimizerSettings()), engine_settings("fedasync")
    with pytest.raises(ValueError, match="base model"):
        fold(state, LAYOUT, [Contribution(1.0, exact(delta_P))], 1.0, settings)


def test_a_state_made_for_another_optimizer_is_refused() -> None:
    w_P, delta_P = vectors(2)
    state, settings = (
        ServerState.initial(w_P, OptimizerSettings()),
        engine_settings("default", optimizer={"name": "adam"}),
    )
    with pytest.raises(ValueError, match="another optimizer"):
        fold(state, LAYOUT, [Contribution(1.0, exact(delta_P))], 1.0, settings)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_divisor_that_is_not_positive_is_refused(bad: float) -> None:
    w_P, delta_P = vectors(2)
    state, settings = ServerState.initial(w_P, OptimizerSettings()), engine_settings("default")
    with pytest.raises(ValueError, match="divisor"):
        fold(state, LAYOUT, [Contribution(1.0, exact(delta_P))], bad, settings)
    assert np.array_equal(state.w, w_P)
