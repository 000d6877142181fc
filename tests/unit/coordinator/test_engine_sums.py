"""What the engine makes of encoded deltas of several codecs and seeds, beside the sum in float64."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.engine.aggregate import fold, with_cache
from coordinator.engine.contribution import Contribution, EncodedDelta
from coordinator.engine.optimizer import ServerState
from coordinator.engine.settings import EngineSettings, OptimizerSettings, engine_settings
from fedward.codec import codec, decode, seed_of
from fedward.layout import Kind, Layout, Tensor, Vector

LAYOUT = Layout.of(
    [
        Tensor("conv.weight", (9001,)),  # three rotation blocks, the last cut off
        Tensor("head.bias", (10,)),
        Tensor("norm.running_var", (6,), Kind.STATISTIC),
    ]
)
PLAIN = engine_settings("fedbuff")
KINDS = [("eden4", "a"), ("eden4", "b"), ("eden2", "a"), ("eden2", "b"), ("q8", "a"), ("f32", "a")]


def drawn(number: int) -> Vector:
    return np.random.default_rng(number).standard_normal(LAYOUT.size, np.float32)


def encoded(number: int, name: str, seed: str) -> EncodedDelta:
    key = seed_of(seed)
    return EncodedDelta(codec(name), memoryview(codec(name).encode(drawn(number), LAYOUT, key)), key)


def decoded(delta: EncodedDelta) -> np.ndarray:
    return decode(delta.payload[0 : delta.payload.nbytes], delta.codec, LAYOUT, delta.seed).astype(np.float64)


def folded(contributions: Sequence[Contribution], divisor: float = 1.0, how: EngineSettings = PLAIN) -> Vector:
    """What becomes of a model of zeros."""
    state = ServerState.initial(np.zeros(LAYOUT.size, np.float32), OptimizerSettings())
    fold(state, LAYOUT, contributions, divisor, how)
    return state.w


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.floats(0.125, 4.0, width=32)), min_size=1, max_size=20))
def test_any_mixture_is_summed_as_if_each_had_been_decoded(chosen: list[tuple[tuple[str, str], float]]) -> None:
    given_ = [Contribution(weight, encoded(number, *kind)) for number, (kind, weight) in enumerate(chosen)]
    divisor = sum(weight for _, weight in chosen)
    terms = [one.weight * decoded(one.delta) / divisor for one in given_]
    added = sum(float(np.linalg.norm(term)) for term in terms)
    assert np.linalg.norm(folded(given_, divisor) - sum(terms)) <= 1e-5 * added


def test_the_same_contributions_in_the_same_order_are_the_same_bytes() -> None:
    given_ = [Contribution(0.3 + number, encoded(number, *KINDS[number % 6])) for number in range(18)]
    assert folded(given_).tobytes() == folded(list(given_)).tobytes()
    assert folded(given_).tobytes() != folded(given_[::-1]).tobytes()


def test_what_has_one_seed_is_summed_where_the_first_of_it_stands() -> None:
    a1, a2, a3 = (Contribution(0.7 + number, encoded(number, "eden4", "a")) for number in range(3))
    b1, b2, b3 = (Contribution(0.9 + number, encoded(3 + number, "eden4", "b")) for number in range(3))
    assert folded([a1, b1, a2, b2, a3, b3]).tobytes() == folded([a1, a2, a3, b1, b2, b3]).tobytes()
    assert folded([a1, b1, a2, b2, a3, b3]).tobytes() != folded([a1, b1, a3, b2, a2, b3]).tobytes()


@pytest.mark.parametrize("name", ["eden4", "f32"])
def test_a_pull_goes_towards_each_base_by_its_weight(name: str) -> None:
    weights, bases = [0.5, 0.25, 0.125], [drawn(100), drawn(101), drawn(100)]
    given_ = [
        Contribution(weight, encoded(number, name, "a"), base_P)
        for number, (weight, base_P) in enumerate(zip(weights, bases, strict=True))
    ]
    w_P = drawn(200)
    state = ServerState.initial(w_P, OptimizerSettings())
    fold(state, LAYOUT, given_, 1.0, engine_settings("fedasync", optimizer={"server_lr": 1.0}))
    moves = [one.weight * (decoded(one.delta) + one.base - w_P) for one in given_ if one.base is not None]
    assert len(moves) == 3
    assert np.linalg.norm(state.w - (w_P + sum(moves))) <= 1e-6 * sum(float(np.linalg.norm(move)) for move in moves)


def test_the_corrections_of_cached_updates_are_summed_with_what_shares_their_seed() -> None:
    buffer = [encoded(0, "eden4", "a"), encoded(1, "eden4", "b")]
    cached = {"north": encoded(2, "eden4", "a"), "east": encoded(3, "eden4", "a")}
    plain = [Contribution(1.0, delta) for delta in buffer]
    got_P = folded(with_cache(plain, ["north", "south"], cached, 3, 2.0), 2.0)
    h_north, h_east = decoded(cached["north"]), decoded(cached["east"])
    expected = (h_north + h_east) / 3 + (decoded(buffer[0]) - h_north + decoded(buffer[1])) / 2
    np.testing.assert_allclose(got_P[: LAYOUT.num_weights], expected[: LAYOUT.num_weights], atol=1e-5)
