"""Every codec keeps the promises of `Codec`; q8 and eden keep the error bounds that their modules state."""

import hashlib
import itertools
import math
import struct
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedward.codec import CODECS, check_payload, codec, decode, frame, norm, seed_of
from fedward.codec.eden import MAGNITUDES, signs
from fedward.codec.uqz import STEP
from fedward.errors import PeerError, RejectReason
from fedward.layout import Kind, Layout, Tensor

F32, Q8, EDEN4, UQZ, F32Z = (CODECS[name] for name in ("f32", "q8", "eden4", "uqz", "f32z"))
VARYING = ("f32z", "uqz")
"""The size of their payloads depends on the values."""

FIXED = tuple(name for name in CODECS if name not in VARYING)
LOSS = {"eden4": 0.0096, "eden2": 0.1331, "eden1": 0.5708}
"""D / (1 - D), where D is what the best quantizer of so many bits loses of a standard normal variable."""

SEED = seed_of("test", 1)
# Two blocks, the second with a tail in both codecs; a small weight; statistics.
LAYOUT = Layout.of(
    [Tensor("a", (70_001,)), Tensor("b", (64, 64)), Tensor("bias", (10,)), Tensor("mean", (10,), Kind.STATISTIC)]
)
LARGE = 70_001 + 4096
ONE = Layout.of([Tensor("w", (4096,))])
FLOAT32 = np.finfo(np.float32)

every_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
quick = settings(max_examples=20, deadline=None)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def fixed_vector(size):
    """(size,) float32 in [-1, 1), the same bits on every machine."""
    steps = np.arange(size, dtype=np.uint64) * 2_654_435_761 % 2**24
    return (steps.astype(np.float32) / np.float32(2**23) - 1).astype(np.float32)


def inputs(size):
    rng = np.random.default_rng(7)
    sparse = np.where(rng.random(size) < 0.01, rng.standard_normal(size), 0)
    drawn = {
        "normal": rng.standard_normal(size),
        "student-t(3)": rng.standard_t(3, size),
        "sparse": sparse,
        "constant": np.full(size, 0.3),
        "tiny": 1e-30 * rng.standard_normal(size),
        "huge": 1e34 * rng.standard_normal(size),
    }
    return {name: values.astype(np.float32) for name, values in drawn.items()}


def nmse(decoded, original):
    original = original.astype(np.float64)
    return float(np.sum((decoded - original) ** 2) / np.sum(original**2))


# Every codec


@pytest.mark.parametrize("name", FIXED)
def test_a_payload_has_the_size_that_the_layout_says(name):
    vector_P = fixed_vector(LAYOUT.size)
    assert len(codec(name).encode(vector_P, LAYOUT, SEED)) == codec(name).most_bytes(LAYOUT)
    assert len(codec(name).encode(0 * vector_P, LAYOUT, SEED)) == codec(name).most_bytes(LAYOUT)


@pytest.mark.parametrize("name", VARYING)
@pytest.mark.parametrize("content", ["normal", "student-t(3)", "sparse", "constant", "huge", "tiny", "bits"])
def test_a_payload_is_never_larger_than_the_layout_allows(name, content):
    random_bits = np.frombuffer(np.random.default_rng(3).bytes(4 * LAYOUT.size), np.uint32) & 0xBF7FFFFF
    drawn = {**inputs(LAYOUT.size), "bits": random_bits.view(np.float32)}  # of any magnitude below 1: no two alike
    assert len(codec(name).encode(drawn[content], LAYOUT, SEED)) <= codec(name).most_bytes(LAYOUT)


@every_codec
def test_a_payload_made_block_by_block_is_the_payload(codec):
    vector_P = fixed_vector(LAYOUT.size)
    pieces = [codec.encode_block(vector_P[at.start : at.stop], LAYOUT, at, SEED) for at in LAYOUT.blocks]
    whole = codec.encode(vector_P, LAYOUT, SEED)
    assert b"".join(pieces) + codec.index(LAYOUT, [len(piece) for piece in pieces]) == whole
    for block, piece in zip(LAYOUT.blocks, pieces, strict=True):
        np.testing.assert_array_equal(
            codec.decode_encoded(memoryview(piece), LAYOUT, block, SEED),
            codec.decode_block(memoryview(whole), LAYOUT, block, SEED),
        )


@pytest.mark.parametrize(
    ("name", "bits"), [("f32", 32), ("q8", 8.125), ("eden4", 4.0078125), ("eden2", 2.0078125), ("eden1", 1.0078125)]
)
def test_a_large_tensor_costs_the_stated_bits_a_parameter(name, bits):
    assert codec(name).most_bytes(Layout.of([Tensor("w", (1024, 1024))])) * 8 == bits * 2**20


@every_codec
def test_blocks_decode_alone_in_any_order_to_the_same_values(codec):
    payload = codec.encode(fixed_vector(LAYOUT.size), LAYOUT, SEED)
    whole_P = decode(payload, codec, LAYOUT, SEED)
    for block in reversed(LAYOUT.blocks):
        values_B = codec.decode_block(memoryview(payload), LAYOUT, block, SEED)
        assert values_B.dtype == np.float32
        np.testing.assert_array_equal(values_B, whole_P[block.start : block.stop])


@every_codec
def test_small_tensors_and_statistics_arrive_bit_for_bit(codec):
    vector_P = fixed_vector(LAYOUT.size)
    decoded_P = decode(codec.encode(vector_P, LAYOUT, SEED), codec, LAYOUT, SEED)
    assert decoded_P[LARGE:].tobytes() == vector_P[LARGE:].tobytes()


@every_codec
def test_zeros_come_back_as_zeros(codec):
    zeros_P = np.zeros(LAYOUT.size, np.float32)
    assert not decode(codec.encode(zeros_P, LAYOUT, SEED), codec, LAYOUT, SEED).any()


@every_codec
def test_a_strided_vector_encodes_like_its_copy(codec):
    strided_P = fixed_vector(2 * LAYOUT.size)[::2]
    assert codec.encode(strided_P, LAYOUT, SEED) == codec.encode(strided_P.copy(), LAYOUT, SEED)


@every_codec
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 70_000, LARGE, -1])
def test_a_vector_that_is_not_finite_is_not_encoded(codec, bad, where):
    vector_P = fixed_vector(LAYOUT.size)
    vector_P[where] = bad
    with pytest.raises(ValueError, match="NaN or an infinity"):
        codec.encode(vector_P, LAYOUT, SEED)


@every_codec
@pytest.mark.parametrize("other", [np.zeros(3, np.float32), np.zeros(LAYOUT.size)], ids=["shape", "dtype"])
def test_a_vector_of_another_shape_or_dtype_is_not_encoded(codec, other):
    with pytest.raises(ValueError, match="expected float32"):
        codec.encode(other, LAYOUT, SEED)


@every_codec
@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"\0", lambda _raw: b""])
@pytest.mark.parametrize("use", [check_payload, lambda *a: decode(*a, SEED), lambda *a: norm(*a, SEED)])
def test_a_payload_of_another_size_is_refused(codec, change, use):
    payload = change(codec.encode(fixed_vector(4096), ONE, SEED))
    with pytest.raises(PeerError) as error:
        use(payload, codec, ONE)
    assert error.value.reason is RejectReason.LAYOUT_MISMATCH


@every_codec
def test_the_size_of_a_payload_is_counted_in_bytes_whatever_the_view(codec):
    payload = codec.encode(np.zeros(4096, np.float32), ONE, SEED)
    check_payload(memoryview(payload), codec, ONE)
    if len(payload) % 4 == 0:
        check_payload(memoryview(payload).cast("f"), codec, ONE)


def test_an_unknown_codec_is_refused():
    with pytest.raises(PeerError) as error:
        codec("eden5")
    assert error.value.reason is RejectReason.UNKNOWN_CODEC


def test_only_the_codecs_without_matrix_products_may_carry_the_model_down():
    assert {name for name, known in CODECS.items() if known.deterministic} == {"f32", "f32z", "q8", "uqz"}


NUM_SEEDS = 400
LEFT_OVER = 0.003
"""NMSE of the mean of NUM_SEEDS payloads: eden1, which loses most, has 0.57 / 400 by chance; what is more is bias."""


@every_codec
def test_updates_are_carried_by_the_codecs_whose_error_averages_out_and_by_no_other(codec):
    vector_P = inputs(4096)["normal"]
    mean_P = np.zeros(4096)
    for number in range(NUM_SEEDS):
        seed = seed_of("mean", number)
        mean_P += decode(codec.encode(vector_P, ONE, seed), codec, ONE, seed) / NUM_SEEDS
    assert (nmse(mean_P, vector_P) < LEFT_OVER) == codec.carries_updates


def test_a_codec_of_more_bits_loses_less():
    vector_P = inputs(4096)["normal"]
    losses = {}
    for known in CODECS.values():
        lost = nmse(decode(known.encode(vector_P, ONE, SEED), known, ONE, SEED), vector_P)
        losses.setdefault(known.bits, []).append(lost)
    falling = [losses[bits] for bits in sorted(losses)]
    assert len(falling) == 5
    assert all(min(coarse) > max(fine) for coarse, fine in itertools.pairwise(falling))


@every_codec
def test_the_norm_is_that_of_the_decoded_vector(codec):
    payload = codec.encode(fixed_vector(LAYOUT.size), LAYOUT, SEED)
    expected = np.linalg.norm(decode(payload, codec, LAYOUT, SEED).astype(np.float64))
    rounded_in_the_padding = 1e-3 if codec.name.startswith("eden") else 0.0
    assert (1 - 1e-6) * expected <= norm(payload, codec, LAYOUT, SEED) <= (1 + 1e-6 + rounded_in_the_padding) * expected


@pytest.mark.parametrize("name", [*FIXED, "uqz"])
@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7FA00001], ids=["inf", "-inf", "nan", "snan"])
def test_a_payload_that_decodes_to_no_number_is_refused_by_its_norm(name, bits):
    payload = bytearray(codec(name).encode(fixed_vector(4096), ONE, SEED))
    payload[:4] = struct.pack("<I", bits)
    with pytest.raises(PeerError) as error:
        norm(bytes(payload), codec(name), ONE, SEED)
    assert error.value.reason is RejectReason.NOT_FINITE


@pytest.mark.parametrize("name", FIXED)
@quick
@given(st.binary(min_size=1, max_size=40))
def test_any_bytes_of_the_right_size_have_a_finite_norm_or_are_refused(name, pattern):
    size = codec(name).most_bytes(ONE)
    payload = (pattern * size)[:size]
    if np.isfinite(decode(payload, codec(name), ONE, SEED)).all():
        assert math.isfinite(norm(payload, codec(name), ONE, SEED))
    else:
        with pytest.raises(PeerError):
            norm(payload, codec(name), ONE, SEED)


# f32 and f32z


@pytest.mark.parametrize("name", ["f32", "f32z"])
@quick
@given(st.lists(finite, min_size=1, max_size=50))
def test_the_lossless_codecs_bring_back_every_bit(name, values):
    vector_P = np.resize(np.array(values, np.float32), 4096)
    how = codec(name)
    assert decode(how.encode(vector_P, ONE, SEED), how, ONE, SEED).tobytes() == vector_P.tobytes()


def test_f32z_makes_what_looks_like_weights_a_tenth_smaller_at_least():
    vector_P = inputs(2**20)["normal"]
    layout = Layout.of([Tensor("w", (1024, 1024))])
    assert len(F32Z.encode(vector_P, layout, SEED)) < 0.9 * 4 * 2**20


# uqz


def uqz_round_trip(vector_P, layout):
    return decode(UQZ.encode(vector_P, layout, SEED), UQZ, layout, SEED).astype(np.float64)


def assert_within_half_a_uqz_step(vector_P):
    decoded_P = uqz_round_trip(vector_P, ONE)
    exact_P = vector_P.astype(np.float64)
    step = max(float(STEP) * math.sqrt(np.square(exact_P).mean()) * (1 + 2**-23), float(FLOAT32.smallest_normal))
    assert np.abs(decoded_P - exact_P).max() <= (0.5 + 2**-15) * step


@pytest.mark.parametrize("content", ["normal", "student-t(3)", "sparse", "constant", "tiny", "huge"])
def test_uqz_is_off_by_at_most_half_a_step(content):
    assert_within_half_a_uqz_step(inputs(4096)[content])


@quick
@given(st.lists(st.floats(-(2.0**116), 2.0**116, width=32), min_size=1, max_size=64))
def test_uqz_is_off_by_at_most_half_a_step_whatever_the_values(values):
    assert_within_half_a_uqz_step(np.resize(np.array(values, np.float32), 4096))


@pytest.mark.parametrize("content", ["normal", "student-t(3)", "sparse", "constant", "huge"])
def test_uqz_loses_at_most_a_quarter_of_a_step_squared(content):
    vector_P = inputs(LAYOUT.size)[content]
    assert nmse(uqz_round_trip(vector_P, LAYOUT)[:LARGE], vector_P[:LARGE]) <= float(STEP) ** 2 / 4


def test_uqz_loses_what_its_step_says_of_normal_values_in_the_stated_bits():
    vector_P, layout = inputs(2**20)["normal"], Layout.of([Tensor("w", (1024, 1024))])
    assert nmse(uqz_round_trip(vector_P, layout), vector_P) == pytest.approx(float(STEP) ** 2 / 12, rel=0.03)
    assert 3.1 < 8 * len(UQZ.encode(vector_P, layout, SEED)) / 2**20 < 3.3


def test_a_value_far_outside_travels_exactly():
    vector_P = np.zeros(4096, np.float32)
    vector_P[[0, 1000, 4095]] = [1e-6, 12345.678, -0.1]
    decoded_P = uqz_round_trip(vector_P, ONE)
    assert decoded_P[1000] == vector_P[1000]
    assert not decoded_P[[0, 4095]].any()


def test_a_block_too_large_for_float32_is_not_encoded():
    with pytest.raises(ValueError, match="could not be decoded"):
        UQZ.encode(np.full(4096, 1e37, np.float32), ONE, SEED)


def test_most_bytes_of_a_frame_are_those_that_zstd_promises():
    # ZSTD_COMPRESSBOUND of zstd.h: the size, a 256th of it, and below 128 KiB a 2048th of what is missing to that
    assert [frame.most_bytes(size) for size in (0, 4096, 65_536, 262_144)] == [64, 4174, 65_824, 263_168]


# Payloads whose size depends on the values, from someone who means harm


def refused(name, payload):
    with pytest.raises(PeerError) as error:
        norm(payload, codec(name), TWO, SEED)
    return error.value.reason


TWO = Layout.of([Tensor("a", (70_001,)), Tensor("b", (4096,)), Tensor("bias", (10,))])


@pytest.mark.parametrize("name", VARYING)
@pytest.mark.parametrize(
    "sizes", [(0, 0, 0), (2**32 - 1, 0, 0), (1, 2, 3), None], ids=["none", "huge", "small", "swap"]
)
def test_an_index_that_does_not_fit_is_refused(name, sizes):
    payload = codec(name).encode(fixed_vector(TWO.size), TWO, SEED)
    found = np.frombuffer(payload[-12:], "<u4")
    forged = np.array(sizes or found[[1, 0, 2]], "<u4").tobytes()
    reason = refused(name, payload[:-12] + forged)
    assert reason in {RejectReason.LAYOUT_MISMATCH, *([] if sizes else [RejectReason.MALFORMED])}


@pytest.mark.parametrize("name", VARYING)
def test_any_damaged_byte_is_refused_or_decodes_to_numbers_of_the_right_count(name):
    payload = codec(name).encode(inputs(TWO.size)["student-t(3)"], TWO, SEED)
    rng = np.random.default_rng(11)
    reasons = Counter()
    for where in rng.integers(0, len(payload), 200):
        damaged = bytearray(payload)
        damaged[where] ^= 1 << rng.integers(8)
        try:
            assert decode(bytes(damaged), codec(name), TWO, SEED).size == TWO.size
        except PeerError as error:
            reasons[error.reason] += 1
    assert set(reasons) <= {RejectReason.LAYOUT_MISMATCH, RejectReason.MALFORMED}


@pytest.mark.parametrize("name", VARYING)
def test_random_bytes_are_refused_as_a_payload(name):
    layout, rng = ONE, np.random.default_rng(5)
    for size in (1, 7, 8, 20, 500, 4000):
        payload = rng.bytes(size) + struct.pack("<I", size)
        with pytest.raises(PeerError):
            decode(payload, codec(name), layout, SEED)


def frame_of(content):
    return frame.packed(np.frombuffer(content, np.uint8)).tobytes()


@pytest.mark.parametrize(
    "forged",
    [frame_of(bytes(4095)), frame_of(bytes(2**20)), frame_of(bytes(4096)) + b"x", frame_of(bytes(4096))[:-1], b""],
    ids=["short", "bomb", "followed", "cut", "nothing"],
)
def test_a_frame_of_another_size_is_refused(forged):
    with pytest.raises(PeerError) as error:
        frame.unpacked(memoryview(forged), 4096)
    assert error.value.reason is RejectReason.MALFORMED


def test_a_frame_that_lies_about_its_size_makes_room_for_no_more():
    honest = bytearray(frame_of(bytes(2**20)))
    assert struct.unpack_from("<I", honest, 6)[0] == 2**20, "the field of the frame's header"
    struct.pack_into("<I", honest, 6, 4096)
    with pytest.raises(PeerError):
        frame.unpacked(memoryview(bytes(honest)), 4096)


@pytest.mark.parametrize("indices", [(7, 7), (8, 7)], ids=["repeated", "falling"])
def test_elements_outside_the_codes_that_do_not_rise_are_refused(indices):
    sizes = Layout.of([Tensor("w", (8192,))])
    block = struct.pack("<fIII", 1.0, 2, *indices) + bytes(8) + frame_of(bytes(8192))
    with pytest.raises(PeerError) as error:
        decode(block + struct.pack("<I", len(block)), UQZ, sizes, SEED)
    assert error.value.reason is RejectReason.MALFORMED


def test_a_frame_with_a_large_window_is_refused():
    header = struct.pack("<IBBI", 0xFD2FB528, 0x80, 0x58, 4096)  # RFC 8878: a content size of 4 bytes, 2 MiB of window
    raw_block = (4096 << 3 | 1).to_bytes(3, "little") + bytes(4096)
    with pytest.raises(PeerError) as error:
        frame.unpacked(memoryview(header + raw_block), 4096)
    assert error.value.reason is RejectReason.MALFORMED
    small = struct.pack("<IBBI", 0xFD2FB528, 0x80, 0x50, 4096)
    assert not frame.unpacked(memoryview(small + raw_block), 4096).any()


@pytest.mark.parametrize(
    ("count", "index"), [(2**32 - 1, 0), (6, 0), (1, 4096), (1, 2**32 - 1)], ids=["many", "some", "beyond", "far"]
)
def test_elements_outside_their_block_are_refused(count, index):
    block = struct.pack("<fII", 1.0, count, index) + bytes(4) + frame_of(bytes(4096))
    with pytest.raises(PeerError) as error:
        decode(block + struct.pack("<I", len(block)), UQZ, ONE, SEED)
    assert error.value.reason is RejectReason.MALFORMED


# q8


def assert_within_half_a_step(vector_P, layout):
    decoded_P = decode(Q8.encode(vector_P, layout, SEED), Q8, layout, SEED).astype(np.float64)
    for start in range(0, vector_P.size, 256):
        group = vector_P[start : start + 256].astype(np.float64)
        step = max(np.abs(group).max() / 127 * (1 + 2**-24), float(FLOAT32.smallest_normal))
        assert np.abs(decoded_P[start : start + 256] - group).max() <= (0.5 + 2**-15) * step


@quick
@given(st.lists(finite, min_size=1, max_size=300))
def test_q8_is_off_by_at_most_half_a_step(values):
    assert_within_half_a_step(np.resize(np.array(values, np.float32), 4099), Layout.of([Tensor("w", (4099,))]))


@pytest.mark.parametrize("peak", [FLOAT32.max, FLOAT32.smallest_normal, FLOAT32.smallest_subnormal, 1e-38, 1.0])
def test_q8_is_off_by_at_most_half_a_step_at_the_ends_of_float32(peak):
    fractions_P = fixed_vector(4096).astype(np.float64)
    fractions_P[0] = 1
    assert_within_half_a_step((fractions_P * float(peak)).astype(np.float32), ONE)


def test_q8_decodes_by_one_multiplication_and_nothing_else():
    payload = Q8.encode(fixed_vector(4096), ONE, SEED)
    steps, codes = np.frombuffer(payload, "<f4", 16), np.frombuffer(payload, np.int8, offset=64)
    expected_P = codes.astype(np.float32) * np.repeat(steps, 256)
    assert decode(payload, Q8, ONE, SEED).tobytes() == expected_P.tobytes()


def test_q8_never_sends_a_subnormal_scale():
    payload = Q8.encode(np.full(4096, FLOAT32.smallest_subnormal), ONE, SEED)
    assert np.frombuffer(payload, "<f4", 16).min() == FLOAT32.smallest_normal


# eden

every_eden = pytest.mark.parametrize("eden", [CODECS[name] for name in LOSS], ids=LOSS)


@every_eden
@pytest.mark.parametrize(("name", "vector_P"), inputs(LARGE).items(), ids=inputs(1))
def test_eden_loses_the_same_share_whatever_the_input(eden, name, vector_P):
    layout = Layout.of([Tensor("w", (LARGE,))])
    loss = nmse(decode(eden.encode(vector_P, layout, SEED), eden, layout, SEED), vector_P)
    assert loss == pytest.approx(LOSS[eden.name], rel=0.06)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 8, 32])
def test_eden4_loses_at_most_two_percent_of_a_few_elements(count):
    vector_P = np.zeros(4096, np.float32)
    vector_P[97 * np.arange(count)] = 1
    assert nmse(decode(EDEN4.encode(vector_P, ONE, SEED), EDEN4, ONE, SEED), vector_P) < 0.02


@every_eden
@quick
@given(st.lists(finite.filter(lambda value: abs(value) < 1e35), min_size=1, max_size=300), st.binary(max_size=8))
def test_eden_keeps_the_length_along_the_input(eden, values, seed):
    vector_P = np.resize(np.array(values, np.float32), 4096)
    decoded_P = decode(eden.encode(vector_P, ONE, seed), eden, ONE, seed)
    energy = float(np.sum(vector_P.astype(np.float64) ** 2))
    # A subnormal scale holds fewer than 24 bits: its rounding shows when everything is below 1e-35.
    rounding = 1e-5 * energy + 1e-44 * float(np.abs(vector_P).sum()) * 64
    assert abs(float(decoded_P.astype(np.float64) @ vector_P) - energy) <= rounding


@every_eden
@pytest.mark.parametrize("name", ["normal", "sparse", "constant"])
def test_eden_is_unbiased_over_seeds(eden, name):
    vector_P = inputs(4096)[name]
    seeds = [seed_of(name, index) for index in range(200)]
    mean_P = np.mean([decode(eden.encode(vector_P, ONE, seed), eden, ONE, seed) for seed in seeds], axis=0)
    # The scale of least error shrinks by D: with eden4 that alone would come to 0.0096 / 200 + 0.0095 ** 2 = 0.00014.
    assert nmse(mean_P, vector_P) < 1.3 * LOSS[eden.name] / 200


@every_eden
def test_eden_refuses_what_could_decode_to_infinity(eden):
    with pytest.raises(ValueError, match="could not be decoded"):
        eden.encode(np.full(4096, FLOAT32.max), ONE, SEED)


@pytest.mark.parametrize("bits", MAGNITUDES)
def test_eden_levels_are_those_of_the_best_quantizer_of_a_gaussian(bits):
    count = 2 ** (bits - 1)
    levels = [0.3 * (index + 0.5) for index in range(count)]
    for _ in range(1500):  # Lloyd's iteration: boundaries half way between levels, levels at their cell's mean
        edges = [0.0, *((low + high) / 2 for low, high in itertools.pairwise(levels)), math.inf]
        density = [math.exp(-edge * edge / 2) / math.sqrt(2 * math.pi) for edge in edges]
        below = [math.erf(edge / math.sqrt(2)) / 2 for edge in edges]
        levels = [(density[i] - density[i + 1]) / (below[i + 1] - below[i]) for i in range(count)]
    assert pytest.approx(levels, abs=1e-4) == MAGNITUDES[bits]


def test_eden_signs_are_fair_and_differ_from_block_to_block():
    first, second, *_ = (signs(SEED, block) for block in LAYOUT.blocks)
    assert set(np.unique(first)) == {-1.0, 1.0}
    assert abs(float(first.mean())) < 0.02
    assert abs(float((first[:2] * second).mean())) < 0.05


@every_eden
def test_eden_with_another_seed_does_not_decode(eden):
    vector_P = fixed_vector(4096)
    assert nmse(decode(eden.encode(vector_P, ONE, SEED), eden, ONE, seed_of("other")), vector_P) > 1


# The wire format: who changes one of these digests makes a new codec under a new name.


WIRE = {
    "f32": "5d57b783c0aa7445cdcc25961ee1b304b0c82af89193cab97e7dcaa4c5a14cd9",
    "q8": "2b6176e019383d8ac62ae8bf1ee93ac27e593e649f18c64b729c2736c48f0cc1",
    "eden signs": "44ddcddaec61d1f7110f502277ed24418d6efcc2823fa422af8ca45d31b46484",
    "eden4 codes of a spike": "0a6ca294b3aa6a1b4d1df90b2f599dd697692e7ac169302203bb7b16c4c59d79",
    "eden2 codes of a spike": "67481ea75e45e114ac90743baea5772c7c09978b7fcf8cc00ccff1a2721c3fed",
    "eden1 codes of a spike": "cb580ecc6ca78fa149b4b4f8bfbd8f834a805ca0589ee76048ba2b9c88de24a1",
}


@pytest.mark.parametrize("name", ["f32", "q8"])
def test_the_bytes_of_a_fixed_vector_never_change(name):
    payload = codec(name).encode(fixed_vector(LAYOUT.size), LAYOUT, SEED)
    assert hashlib.sha256(payload).hexdigest() == WIRE[name]


def test_the_signs_of_a_fixed_seed_never_change():
    bits = np.packbits(signs(bytes(32), LAYOUT.blocks[1]) < 0, bitorder="little")
    assert hashlib.sha256(bits.tobytes()).hexdigest() == WIRE["eden signs"]


@pytest.mark.parametrize(("name", "level"), [("eden4", 0.94234), ("eden2", 1.51042), ("eden1", 0.79788)])
def test_the_eden_codes_of_a_single_spike_never_change(name, level):
    # The rotation spreads a spike to +-1 everywhere, which is far from every boundary: no BLAS rounds it elsewhere.
    vector_P = np.zeros(4096, np.float32)
    vector_P[1234] = 64
    payload = codec(name).encode(vector_P, ONE, SEED)
    assert struct.unpack("<f", payload[:4])[0] == pytest.approx(1 / level, rel=5e-6)  # of sums that BLAS rounds
    assert hashlib.sha256(payload[4:]).hexdigest() == WIRE[f"{name} codes of a spike"]


def test_a_fixed_eden4_payload_decodes_to_the_same_values():
    payload = struct.pack("<f", 2.0) + hashlib.shake_128(b"codes").digest(2048)
    decoded_P = decode(payload, EDEN4, ONE, SEED)
    np.testing.assert_allclose(decoded_P[[0, 1, 1000, 4095]], [3.312467, -1.632633, -0.9803793, -1.884555], rtol=1e-5)


# Seeds


def test_a_seed_depends_on_every_part_and_on_where_one_ends():
    parts = [("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"), (b"a", "b"), ("1",), (1,), (b"1",), (-1,), ()]
    seeds = {seed_of(*each) for each in parts}
    assert len(seeds) == len(parts)
    assert {len(seed) for seed in seeds} == {32}


def test_the_seed_of_fixed_parts_never_changes():
    framed = b"s\x03" + bytes(7) + b"rot" + b"i\x02" + bytes(7) + b"12" + b"b\x01" + bytes(7) + b"\xff"
    assert seed_of("rot", 12, b"\xff") == hashlib.sha256(framed).digest()
