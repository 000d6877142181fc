"""Recipes: the fewest bytes to a version, and the same bits for everybody who follows one."""

import struct

import numpy as np
import pytest

from fedward.chunks import manifest_of
from fedward.codec import codec
from fedward.errors import PeerError, RejectReason
from fedward.layout import Layout, Tensor, Vector
from fedward.limits import MAX_VERSION
from fedward.messages import Announcement, FederationState, Initial, Manifest, Part, PartKind, Work
from fedward.recipe import apply_part, cheapest_recipe, initial_to_make

LAYOUT = Layout.of([Tensor("weight", (70_000,)), Tensor("bias", (3,))])
RNG = np.random.default_rng(3)


def part(kind: PartKind, version: int, size: int) -> Part:
    manifest = Manifest(size_bytes=size, digest=bytes(32), chunk_digests=bytes(32))
    return Part(kind=kind, version=version, codec="q8", manifest=manifest)


def snapshot(version: int, size: int = 100) -> Part:
    return part(PartKind.SNAPSHOT, version, size)


def delta(version: int, size: int = 25) -> Part:
    return part(PartKind.DELTA, version, size)


def encoded(kind: PartKind, name: str, vector_P: Vector, seed: bytes = b"") -> tuple[Part, memoryview]:
    payload = codec(name).encode(vector_P, LAYOUT, seed)
    return Part(kind=kind, version=1, codec=name, manifest=manifest_of(payload)), memoryview(payload)


def drawn(scale: float) -> Vector:
    return (scale * RNG.standard_normal(LAYOUT.size)).astype(np.float32)


def assert_leads_nowhere(parts: list[Part], version: int, held: int | None) -> None:
    with pytest.raises(PeerError) as error:
        cheapest_recipe(parts, version, held)
    assert error.value.reason is RejectReason.MALFORMED


def test_who_holds_the_version_needs_nothing():
    assert cheapest_recipe([snapshot(3)], 3, 3) == ()


def test_who_holds_nothing_takes_the_snapshot_and_the_deltas_after_it():
    parts = [snapshot(3), delta(3), delta(4), delta(5)]
    assert cheapest_recipe(parts, 5, None) == (snapshot(3), delta(4), delta(5))


def test_who_is_one_version_behind_takes_the_delta():
    assert cheapest_recipe([snapshot(4), delta(4), delta(5)], 5, 4) == (delta(5),)


def test_who_is_far_behind_takes_whichever_is_smaller():
    deltas = [delta(version) for version in range(1, 6)]
    assert cheapest_recipe([snapshot(5), *deltas], 5, 0) == (snapshot(5),)
    assert cheapest_recipe([snapshot(5), *deltas], 5, 2) == tuple(deltas[2:])


def test_who_is_behind_a_gap_in_the_deltas_takes_the_snapshot():
    assert cheapest_recipe([snapshot(4), delta(5)], 5, 2) == (snapshot(4), delta(5))


def test_who_is_ahead_goes_back_by_the_snapshot():
    assert cheapest_recipe([snapshot(2)], 2, 9) == (snapshot(2),)


def test_a_snapshot_of_a_later_version_is_of_no_use():
    assert_leads_nowhere([snapshot(6)], 5, None)


def test_the_order_of_the_parts_does_not_matter():
    parts = [delta(5), snapshot(3), delta(4)]
    assert cheapest_recipe(parts, 5, None) == (snapshot(3), delta(4), delta(5))


def test_deltas_without_a_beginning_lead_nowhere():
    assert_leads_nowhere([delta(4), delta(5)], 5, None)
    assert_leads_nowhere([delta(5)], 5, 3)


@pytest.mark.timeout(5)
def test_an_absurd_version_is_refused_in_bounded_time():
    assert_leads_nowhere([snapshot(0), delta(1)], MAX_VERSION, 0)


INITIAL = Initial(seed=1, model_digest=bytes([7]) * 32)


def announced(version: int, *parts: Part, initial: Initial | None = INITIAL, digest: bytes = bytes(32)) -> Announcement:
    return Announcement(
        federation="ward",
        sequence=1,
        boot_id=bytes(8),
        state=FederationState.RUNNING,
        version=version,
        model_digest=digest,
        layout_digest=LAYOUT.digest,
        parts=parts,
        task="tabular",
        work=Work(local_epochs=1, batch_size=1, local_lr=0.1),
        codec="eden4",
        max_staleness=20,
        repeat_base=False,
        initial=initial,
    )


@pytest.mark.parametrize(
    ("announcement", "made"),
    [
        (announced(0, snapshot(0), digest=INITIAL.model_digest), True),
        (announced(2, snapshot(0), delta(1), delta(2)), True),
        (announced(3, snapshot(0), delta(1), delta(2), delta(3), initial=None), False),
        (announced(0, snapshot(0)), False),  # another version 0 than the announced one
        (announced(5, snapshot(5), *(delta(version) for version in range(1, 6))), False),  # the snapshot is smaller
        (announced(3, snapshot(3), *(delta(version) for version in range(1, 4))), True),  # the deltas are
        (announced(5, snapshot(3), delta(4), delta(5)), False),  # the first deltas are not listed any more
    ],
)
def test_version_0_is_made_where_that_is_known_and_spares_whoever_holds_nothing_bytes(
    announcement: Announcement, made: bool
) -> None:
    assert initial_to_make(announcement) == (INITIAL if made else None)


def test_an_announcement_that_leads_nowhere_is_refused_with_an_initial_model_too() -> None:
    with pytest.raises(PeerError) as error:
        initial_to_make(announced(5, delta(4)))
    assert error.value.reason is RejectReason.MALFORMED


@pytest.mark.parametrize("name", ["f32", "q8"])
def test_a_snapshot_is_the_decoded_vector_bit_for_bit(name):
    new, payload = encoded(PartKind.SNAPSHOT, name, drawn(1.0))
    vector_P = apply_part(None, new, payload, LAYOUT)
    decoded = np.concatenate([codec(name).decode_block(payload, LAYOUT, block, b"") for block in LAYOUT.blocks])
    assert vector_P.tobytes() == decoded.tobytes()


def test_a_snapshot_replaces_whatever_was_held():
    vector_P = drawn(1.0)
    new, payload = encoded(PartKind.SNAPSHOT, "f32", vector_P)
    assert apply_part(drawn(1.0), new, payload, LAYOUT).tobytes() == vector_P.tobytes()


def test_a_q8_delta_is_one_float32_product_and_one_float32_sum_for_every_element():
    """Computed here with Python's own arithmetic, rounded to float32 after each step."""
    before_P = drawn(1.0)
    new, payload = encoded(PartKind.DELTA, "q8", drawn(0.01))
    after_P = apply_part(before_P.copy(), new, payload, LAYOUT)
    for index in (0, 1, 255, 256, 65_535, 65_536, 69_999):
        block_start, block_size = (0, 65_536) if index < 65_536 else (65_536, 70_000 - 65_536)
        groups = -(-block_size // 256)
        at = 0 if index < 65_536 else 4 * 256 + 65_536
        place = index - block_start
        (scale,) = struct.unpack_from("<f", payload, at + 4 * (place // 256))
        (code,) = struct.unpack_from("b", payload, at + 4 * groups + place)
        product = np.float32(code * scale)
        assert after_P[index] == np.float32(float(before_P[index]) + float(product))


def test_whoever_follows_a_chain_holds_the_same_bits():
    chain = [encoded(PartKind.DELTA, "q8", drawn(0.01)) for _ in range(5)]
    first, second = drawn(1.0), None
    second = first.copy()
    for new, payload in chain:
        first = apply_part(first, new, payload, LAYOUT)
    for new, payload in chain:
        second = apply_part(second, new, memoryview(bytes(payload)), LAYOUT)
    assert first.tobytes() == second.tobytes()


def test_the_vector_is_overwritten_not_copied():
    vector_P = drawn(1.0)
    new, payload = encoded(PartKind.DELTA, "q8", drawn(0.01))
    assert apply_part(vector_P, new, payload, LAYOUT) is vector_P


@pytest.mark.parametrize("kind", PartKind)
def test_eden4_may_not_carry_a_model(kind):
    new, payload = encoded(kind, "eden4", drawn(0.01), bytes(32))
    with pytest.raises(PeerError) as error:
        apply_part(drawn(1.0), new, payload, LAYOUT)
    assert error.value.reason is RejectReason.UNKNOWN_CODEC


def test_a_codec_that_is_not_known_is_refused():
    new = Part(kind=PartKind.SNAPSHOT, version=1, codec="q9", manifest=manifest_of(b"x"))
    with pytest.raises(PeerError) as error:
        apply_part(None, new, memoryview(b"x"), LAYOUT)
    assert error.value.reason is RejectReason.UNKNOWN_CODEC


def test_a_payload_of_another_size_is_refused_and_the_vector_untouched():
    vector_P = drawn(1.0)
    before = vector_P.tobytes()
    new, payload = encoded(PartKind.DELTA, "q8", drawn(0.01))
    with pytest.raises(PeerError) as error:
        apply_part(vector_P, new, payload[:-1], LAYOUT)
    assert error.value.reason is RejectReason.LAYOUT_MISMATCH
    assert vector_P.tobytes() == before


def test_a_delta_needs_a_version_before_it():
    new, payload = encoded(PartKind.DELTA, "q8", drawn(0.01))
    with pytest.raises(PeerError) as error:
        apply_part(None, new, payload, LAYOUT)
    assert error.value.reason is RejectReason.MALFORMED
