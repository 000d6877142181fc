"""The layout: one order of the tensors for everybody, and blocks that cover the vector."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedward.errors import PeerError, RejectReason
from fedward.layout import (
    BLOCK_ELEMENTS,
    MAX_TENSOR_NAME,
    QUANTIZED_FROM,
    Block,
    Kind,
    Layout,
    Segment,
    Tensor,
    vector_digest,
)
from fedward.limits import MAX_TENSORS

BIG = Tensor("conv.weight", (32, 16, 3, 3))
HUGE = Tensor("head.weight", (70_000,))
BIAS = Tensor("conv.bias", (32,))
SCALAR = Tensor("temperature", ())
MEAN = Tensor("bn.running_mean", (5000,), Kind.STATISTIC)
LAYOUT = Layout.of([MEAN, SCALAR, HUGE, BIAS, BIG])

tensors = st.lists(
    st.builds(
        Tensor,
        st.text("abc.", min_size=1, max_size=4),
        st.lists(st.integers(1, 400), max_size=3).map(tuple),
        st.sampled_from(Kind),
    ).filter(lambda tensor: tensor.size <= 200_000),
    min_size=1,
    max_size=6,
    unique_by=lambda tensor: tensor.name,
)


def assert_refused(*refused: Tensor) -> None:
    with pytest.raises(PeerError) as error:
        Layout.of(refused)
    assert error.value.reason is RejectReason.LAYOUT_MISMATCH


def test_large_weights_come_first_then_small_ones_then_statistics():
    assert LAYOUT.tensors == (BIG, HUGE, BIAS, SCALAR, MEAN)
    assert LAYOUT.num_weights == BIG.size + HUGE.size + 32 + 1
    assert LAYOUT.size == LAYOUT.num_weights + 5000


def test_each_large_weight_is_a_segment_and_small_ones_share_an_exact_one():
    first, second, third = BIG.size, BIG.size + HUGE.size, BIG.size + HUGE.size + 33
    assert LAYOUT.segments == (
        Segment("conv.weight", 0, first, exact=False),
        Segment("head.weight", first, second, exact=False),
        Segment("exact weights", second, third, exact=True),
        Segment("exact statistics", third, third + 5000, exact=True),
    )


def test_a_tensor_is_quantized_from_the_named_size_on():
    assert Layout.of([Tensor("w", (QUANTIZED_FROM - 1,))]).segments[0].exact
    assert not Layout.of([Tensor("w", (QUANTIZED_FROM,))]).segments[0].exact


def test_a_long_segment_is_cut_into_full_blocks_and_a_rest():
    start = BIG.size
    assert LAYOUT.blocks[1:3] == (
        Block(1, start, start + BLOCK_ELEMENTS, 0),
        Block(1, start + BLOCK_ELEMENTS, start + 70_000, BLOCK_ELEMENTS),
    )


@settings(max_examples=30, deadline=None)
@given(tensors, st.randoms(use_true_random=False))
def test_the_order_in_which_tensors_are_given_changes_nothing(given_tensors, random):
    shuffled = list(given_tensors)
    random.shuffle(shuffled)
    assert Layout.of(shuffled) == Layout.of(given_tensors)
    assert Layout.of(shuffled).digest == Layout.of(given_tensors).digest


@settings(max_examples=30, deadline=None)
@given(tensors)
def test_blocks_cover_the_vector_in_order_and_stay_in_their_segment(given_tensors):
    layout = Layout.of(given_tensors)
    end = 0
    for block in layout.blocks:
        segment = layout.segments[block.segment]
        assert block.start == end
        assert 1 <= block.size <= BLOCK_ELEMENTS
        assert segment.start + block.offset == block.start < block.stop <= segment.stop
        assert block.offset % BLOCK_ELEMENTS == 0
        end = block.stop
    assert end == layout.size == sum(segment.size for segment in layout.segments)


@pytest.mark.parametrize(
    "changed",
    [Tensor("conv.bia", (32,)), Tensor("conv.bias", (8, 4)), Tensor("conv.bias", (32,), Kind.STATISTIC)],
    ids=["name", "shape", "kind"],
)
def test_the_digest_changes_with(changed):
    assert Layout.of([BIG, changed]).digest != Layout.of([BIG, BIAS]).digest


def test_the_digest_of_a_layout_stays_what_it_was_at_the_first_release():
    assert (
        Layout.of([Tensor("w", (2, 3)), Tensor("b", (3,))]).digest
        == hashlib.sha256(b"b\0weight\x003\nw\0weight\x002,3\n").digest()
    )


def test_tensors_of_no_use_to_a_layout_are_refused():
    assert_refused()
    assert_refused(BIAS, BIAS)
    assert_refused(Tensor("", (3,)))
    assert_refused(Tensor("n" * (MAX_TENSOR_NAME + 1), (3,)))
    assert_refused(Tensor("w", (3, 0)))
    assert_refused(Tensor("w", (-3, -1)))


def test_a_model_beyond_the_limits_is_refused():
    assert_refused(Tensor("w", (2**29 + 1,)))
    assert_refused(*[Tensor("w", ())] * (MAX_TENSORS + 1))


def test_split_undoes_join():
    rng = np.random.default_rng(1)
    arrays = {tensor.name: rng.standard_normal(tensor.shape).astype(np.float32) for tensor in LAYOUT.tensors}
    parts = dict(LAYOUT.split(LAYOUT.join(arrays)))
    assert set(parts) == set(LAYOUT.tensors)
    for tensor, view in parts.items():
        np.testing.assert_array_equal(view, arrays[tensor.name])


def test_split_gives_views_so_that_a_model_can_be_changed_in_place():
    vector_P = np.zeros(LAYOUT.size, np.float32)
    dict(LAYOUT.split(vector_P))[SCALAR][...] = 7
    assert vector_P[BIG.size + HUGE.size + 32] == 7


def test_join_names_the_tensor_that_is_missing_or_of_another_shape():
    with pytest.raises(ValueError, match=r"conv\.weight: got nothing, expected shape \(32, 16, 3, 3\)"):
        LAYOUT.join({})
    layout = Layout.of([BIAS])
    with pytest.raises(ValueError, match=r"conv\.bias: got \(31,\), expected shape \(32,\)"):
        layout.join({"conv.bias": np.zeros(31)})


@pytest.mark.parametrize("vector", [np.zeros(31, np.float32), np.zeros(32), np.zeros((1, 32), np.float32)])
def test_a_vector_of_another_length_or_type_is_no_vector_of_the_layout(vector):
    with pytest.raises(ValueError, match=r"expected float32 \(32,\)"):
        Layout.of([BIAS]).check(vector)


def test_the_vector_digest_is_that_of_its_little_endian_bytes():
    vector_P = np.array([1.0, -0.0, 3e-45, np.inf], np.float32)
    assert vector_digest(vector_P) == hashlib.sha256(vector_P.astype("<f4").tobytes()).digest()
    assert vector_digest(vector_P) == vector_digest(np.repeat(vector_P, 2)[::2])
    assert vector_digest(vector_P) != vector_digest(np.abs(vector_P))
