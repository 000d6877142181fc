"""Weighted sums and norms of payloads: what they save must not show in their values."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedward.codec import CODECS, Codec, codec, decode, norm, seed_of
from fedward.errors import PeerError, RejectReason
from fedward.identity.names import update_seed
from fedward.layout import Kind, Layout, Tensor, Vector

# A block with a tail in both codecs; a small weight; statistics.
LAYOUT = Layout.of([Tensor("a", (9001,)), Tensor("bias", (10,)), Tensor("mean", (10,), Kind.STATISTIC)])
ONE = Layout.of([Tensor("w", (4096,))])
SEED = seed_of("test", 1)

every_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
every_eden = pytest.mark.parametrize("name", ["eden4", "eden2", "eden1"])
quick = settings(max_examples=20, deadline=None)


def payloads_of(codec: Codec, count: int, scale: float = 1.0) -> list[memoryview]:
    rng = np.random.default_rng(3)
    vectors = scale * rng.standard_normal((count, LAYOUT.size))
    return [memoryview(codec.encode(vector_P.astype(np.float32), LAYOUT, SEED)) for vector_P in vectors]


def summed(codec: Codec, payloads: list[memoryview], weights: list[float]) -> Vector:
    return np.concatenate([codec.sum_block(payloads, weights, LAYOUT, block, SEED) for block in LAYOUT.blocks])


def assert_is_the_sum(sum_P: Vector, codec: Codec, payloads: list[memoryview], weights: list[float]) -> None:
    """To 1e-5 of what was added up, in float64."""
    terms = [
        weight * decode(payload, codec, LAYOUT, SEED).astype(np.float64)
        for payload, weight in zip(payloads, weights, strict=True)
    ]
    added = sum(float(np.linalg.norm(term_P)) for term_P in terms)
    assert np.linalg.norm(sum_P - sum(terms)) <= 1e-5 * added


@every_codec
@quick
@given(st.lists(st.floats(-5, 5).map(lambda weight: round(weight, 3)), min_size=1, max_size=20))
def test_a_sum_is_that_of_the_payloads_decoded_one_by_one(codec: Codec, weights: list[float]) -> None:
    payloads = payloads_of(codec, len(weights))
    assert_is_the_sum(summed(codec, payloads, weights), codec, payloads, weights)


@every_codec
@pytest.mark.parametrize("scale", [1e-33, 1e33])
def test_a_sum_keeps_its_digits_at_the_ends_of_what_can_be_encoded(codec: Codec, scale: float) -> None:
    payloads, weights = payloads_of(codec, 9, scale), [1.0, -0.5, 2.0] * 3
    assert_is_the_sum(summed(codec, payloads, weights), codec, payloads, weights)


@every_codec
def test_a_sum_of_large_and_small_updates_holds_both(codec: Codec) -> None:
    payloads, weights = payloads_of(codec, 2), [1e-4, 1e4]
    sum_P = summed(codec, payloads, weights).astype(np.float64)
    large_P = 1e4 * decode(payloads[1], codec, LAYOUT, SEED).astype(np.float64)
    small_P = 1e-4 * decode(payloads[0], codec, LAYOUT, SEED).astype(np.float64)
    assert np.linalg.norm(sum_P - large_P - small_P) < 1e-5 * np.linalg.norm(large_P)


@every_codec
def test_the_sum_of_one_is_the_decoded_block_bit_for_bit(codec: Codec) -> None:
    (payload,) = payloads_of(codec, 1)
    assert np.array_equal(summed(codec, [payload], [1.0]), decode(payload, codec, LAYOUT, SEED))


@every_codec
@pytest.mark.parametrize("scale", [1e-41, 1.0, 1e33])
def test_a_payload_of_no_weight_does_not_touch_the_sum(codec: Codec, scale: float) -> None:
    payload, other = payloads_of(codec, 2, scale)
    assert np.array_equal(summed(codec, [payload, other], [1.0, 0.0]), decode(payload, codec, LAYOUT, SEED))


@every_codec
def test_a_sum_is_fresh_and_the_same_bytes_each_time(codec: Codec) -> None:
    payloads, weights = payloads_of(codec, 17), [0.1 * number for number in range(17)]
    first = codec.sum_block(payloads, weights, LAYOUT, LAYOUT.blocks[0], SEED)
    kept = first.tobytes()
    again = codec.sum_block(payloads, weights, LAYOUT, LAYOUT.blocks[0], SEED)
    again *= 2
    assert first.tobytes() == kept == (again / 2).tobytes()


@every_codec
@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_payload_of_a_sum_needs_its_weight(codec: Codec, count: int) -> None:
    with pytest.raises(ValueError, match=f"got {count} weights of 3 payloads"):
        summed(codec, payloads_of(codec, 3), [1.0] * count)


def test_updates_from_one_version_share_a_seed_at_4_bits_only() -> None:
    ids = [seed_of("update", number) for number in range(2)]
    for name, known in CODECS.items():
        shared = update_seed(known, 7, ids[0]) == update_seed(known, 7, ids[1])
        assert shared == known.shared_seed == (name == "eden4")
        assert update_seed(known, 7, ids[0]) == (seed_of("rotation", 7) if shared else ids[0])
    assert update_seed(codec("eden4"), 7, ids[0]) != update_seed(codec("eden4"), 8, ids[0])


@pytest.mark.parametrize(("similarity", "most"), [(0.0, 1.02), (0.5, 1.2)])
def test_a_shared_seed_costs_little_at_4_bits(similarity: float, most: float) -> None:
    """The error of the mean of 16 updates with one seed, beside that with a seed each."""
    rng, eden4, layout = np.random.default_rng(5), codec("eden4"), Layout.of([Tensor("w", (65_536,))])
    common_P = rng.standard_normal(layout.size)
    own = rng.standard_normal((16, layout.size))
    updates = (np.sqrt(similarity) * common_P + np.sqrt(1 - similarity) * own).astype(np.float32)
    errors = []
    for seeds in ([SEED] * 16, [seed_of(number) for number in range(16)]):
        decoded = [decode(eden4.encode(u, layout, s), eden4, layout, s) for u, s in zip(updates, seeds, strict=True)]
        errors.append(float(np.square(np.mean(decoded, axis=0) - updates.mean(axis=0)).sum()))
    assert errors[0] < most * errors[1]


# Norms


def with_scale(name: str, bits: int, layout: Layout = ONE) -> bytes:
    """A payload whose first scale has these bits; all else decodes well."""
    vector_P = np.random.default_rng(11).standard_normal(layout.size, np.float32)
    return struct.pack("<I", bits) + codec(name).encode(vector_P, layout, SEED)[4:]


def padded(layout: Layout) -> Layout:
    """The same payloads are those of this layout, whose large tensors are whole rotation blocks."""
    sizes = {tensor.name: -(-tensor.size // 4096) * 4096 for tensor in layout.tensors if tensor.size >= 4096}
    return Layout.of([Tensor(each.name, (sizes.get(each.name, each.size),), each.kind) for each in layout.tensors])


def bits_of(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


@every_codec
@pytest.mark.parametrize("size", [4096, 4097, 8191, 65_536, 70_000])
@pytest.mark.parametrize("scale", [1e-41, 1e-30, 1.0, 1e30])
def test_a_norm_is_that_of_all_that_is_encoded_to_a_millionth(codec: Codec, size: int, scale: float) -> None:
    layout = Layout.of([Tensor("w", (size,)), Tensor("bias", (3,))])
    vector_P = (scale * np.random.default_rng(size).standard_normal(layout.size)).astype(np.float32)
    payload = codec.encode(vector_P, layout, SEED)
    encoded_P = decode(payload, codec, padded(layout) if codec.name.startswith("eden") else layout, SEED)
    expected = float(np.linalg.norm(encoded_P.astype(np.float64)))
    assert norm(payload, codec, layout, SEED) == pytest.approx(expected, rel=1e-6, abs=0)
    decoded_P = decode(payload, codec, layout, SEED)
    assert norm(payload, codec, layout, SEED) >= (1 - 1e-6) * float(np.linalg.norm(decoded_P.astype(np.float64)))


@pytest.mark.parametrize("name", ["eden4", "eden2", "eden1", "q8"])
@pytest.mark.parametrize(
    "value", [9e35, 1.1e36, 1e37, 2.6e36, 2.66e36, 2.68e36, 1e38, -1e36, -3e38, 1e-31, 1e-45, -0.0]
)
def test_a_scale_that_no_site_would_send_is_judged_by_what_it_decodes_to(name: str, value: float) -> None:
    payload = with_scale(name, bits_of(value))
    decoded_P = decode(payload, codec(name), ONE, SEED).astype(np.float64)
    if np.isfinite(decoded_P).all():
        expected = float(np.linalg.norm(decoded_P))
        assert norm(payload, codec(name), ONE, SEED) == pytest.approx(expected, rel=1e-6, abs=0)
    else:
        with pytest.raises(PeerError) as error:
            norm(payload, codec(name), ONE, SEED)
        assert error.value.reason is RejectReason.NOT_FINITE


@pytest.mark.parametrize("times", [1.0, 1.0001])
def test_the_code_that_q8_never_sends_counts_in_the_norm_and_may_overflow(times: float) -> None:
    step = float(np.finfo(np.float32).max) / 128 * times
    payload = with_scale("q8", bits_of(step))
    payload = payload[:64] + b"\x80" + payload[65:]  # -128
    decoded_P = decode(payload, codec("q8"), ONE, SEED).astype(np.float64)
    assert np.isfinite(decoded_P[0]) == (times == 1.0)
    if times == 1.0:
        assert norm(payload, codec("q8"), ONE, SEED) == pytest.approx(float(np.linalg.norm(decoded_P)), rel=1e-6)
    else:
        with pytest.raises(PeerError):
            norm(payload, codec("q8"), ONE, SEED)


def hidden_in_the_padding(name: str, layout: Layout, size: float) -> bytes:
    """A payload whose last rotation block has all of `size` in one element of its padding, and zeros elsewhere."""
    how, whole = codec(name), padded(layout)
    vector_P = np.zeros(whole.size, np.float32)
    vector_P[layout.tensors[0].size + 10] = 1.0
    payload = bytearray(how.encode(vector_P, whole, SEED))
    rotations = whole.tensors[0].size // 4096
    payload[4 * rotations - 4 : 4 * rotations] = struct.pack("<f", size)
    return bytes(payload)


@every_eden
@pytest.mark.parametrize("size", [1e14, 1e36, 3.4e38])
def test_what_is_hidden_in_the_padding_of_a_rotation_counts(name: str, size: float) -> None:
    """It is cut off when it is decoded; a sum takes it in before, and would lose what others sent beside it."""
    layout = Layout.of([Tensor("w", (5000,))])
    payload = hidden_in_the_padding(name, layout, size)
    tail_P = decode(payload, codec(name), layout, SEED)[4096:]
    assert np.abs(tail_P).max() < 1e-3 * size, "hardly any of it is in the decoded vector"
    try:
        assert norm(payload, codec(name), layout, SEED) > 10 * size
    except PeerError as error:
        assert error.reason is RejectReason.NOT_FINITE  # noqa: PT017 - one or the other
