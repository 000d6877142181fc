"""Packing: what was sent is what is read, and nothing that is not a message within its bounds is believed."""

import dataclasses
import math
from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedward.errors import PeerError, RejectReason
from fedward.limits import INLINE_BYTES, KIB, MAX_METRICS, MAX_RANGES, MAX_VERSION
from fedward.messages import (
    Control,
    Evaluation,
    Get,
    Grant,
    Manifest,
    Offer,
    Outcome,
    Phase,
    Range,
    Ratio,
    Receipt,
    Status,
    Telemetry,
)
from fedward.pack import MAX_FIELDS, PROTOCOL_VERSION, SIZE_LIMITS, pack, unpack

DIGEST = bytes(range(32))
STATUS = Status(boot_id=bytes(8), online=True, software="fedward")
RATIO = Ratio(numerator=1.0, denominator=2.0)
EVALUATION = Evaluation(federation="f", version=1, num_examples=10, metrics={"loss": RATIO})
GET = Get(federation="f", digest=DIGEST, missing=(Range(start=0, stop=1),))
OFFER = Offer(
    federation="f",
    update_id=DIGEST,
    sequence=0,
    base_version=0,
    codec="q8",
    layout_digest=DIGEST,
    num_examples=1,
    num_steps=1,
    work_s=1.0,
    manifest=Manifest(size_bytes=1, digest=DIGEST, chunk_digests=DIGEST),
)

quick = settings(max_examples=100, deadline=None, derandomize=True)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=40)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.binary(), inner, max_size=4),
    max_leaves=12,
)
kinds = st.sampled_from(sorted(SIZE_LIMITS, key=lambda kind: kind.__name__))


def enveloped(body: object, kind: str, **changes: object) -> bytes:
    envelope = {"v": PROTOCOL_VERSION, "m": kind, "b": msgpack.packb(body), "s": b"", **changes}
    packed: bytes = msgpack.packb(envelope)
    return packed


def body_of(message: object) -> dict[str, object]:
    body: dict[str, object] = msgpack.unpackb(msgpack.unpackb(pack(message))["b"])
    return body


def changed(message: object, **changes: object) -> bytes:
    return enveloped({**body_of(message), **changes}, type(message).__name__.lower())


def refusal(data: bytes, kind: type) -> PeerError:
    with pytest.raises(PeerError) as error:
        unpack(data, kind)
    return error.value


def assert_malformed(data: bytes, kind: type, place: str) -> None:
    error = refusal(data, kind)
    assert error.reason is RejectReason.MALFORMED
    assert place in error.detail


def assert_a_message_or_a_refusal(data: bytes, kind: type) -> None:
    """Any other exception fails the test."""
    try:
        message: object = unpack(data, kind)
    except PeerError:
        return
    assert unpack(pack(message), kind) == message


def test_the_envelope_holds_version_kind_body_and_an_empty_signature():
    envelope = msgpack.unpackb(pack(Control(sequence=1, paused=True)))
    assert envelope == {"v": 1, "m": "control", "b": msgpack.packb({"sequence": 1, "paused": True}), "s": b""}


def test_a_field_that_is_none_is_not_sent():
    assert "reason" not in body_of(Receipt(update_id=DIGEST, outcome=Outcome.ACCEPTED))


def test_a_missing_field_is_refused_by_name():
    body = body_of(STATUS)
    del body["online"]
    assert_malformed(enveloped(body, "status"), Status, "Status.online: missing")


def test_a_field_that_may_be_none_may_be_missing_even_without_a_default():
    telemetry = Telemetry(
        boot_id=bytes(8), phase=Phase.IDLE, version=None, step=0, num_steps=0, num_updates=0, num_refused=0,
        num_fetched=0, bytes_sent=0, bytes_received=0,
    )  # fmt: skip
    assert "version" not in body_of(telemetry)
    assert unpack(pack(telemetry), Telemetry).version is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("online", 1), ("online", None), ("boot_id", "12345678"), ("software", b"x"), ("software", 1), ("boot_id", [1])],
)
def test_a_field_of_another_type_is_refused_by_name(field, value):
    assert_malformed(changed(STATUS, **{field: value}), Status, f"Status.{field}: expected")


@pytest.mark.parametrize("value", [-1, MAX_VERSION + 1, 2**64 - 1, True, 1.0, "1"])
def test_a_counter_is_an_integer_within_its_bounds(value):
    assert_malformed(changed(Control(sequence=0, paused=False), sequence=value), Control, "Control.sequence")


@pytest.mark.parametrize("value", [-0.5, math.nan, math.inf, 1e11, 2**63, True, "1"])
def test_a_duration_is_finite_and_within_its_bounds(value):
    assert_malformed(changed(OFFER, work_s=value), Offer, "Offer.work_s")


def test_a_float_field_may_arrive_as_an_integer():
    work_s = unpack(changed(OFFER, work_s=3), Offer).work_s
    assert (work_s, type(work_s)) == (3.0, float)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_digest_has_32_bytes(length):
    assert_malformed(changed(OFFER, update_id=bytes(length)), Offer, "Offer.update_id: expected a length of 32 to 32")


@pytest.mark.parametrize("name", ["", "A", "a/b", "a+", "#", "a" * 65, "a\n", "ü"])
def test_a_name_is_safe_as_a_topic_level(name):
    assert_malformed(changed(GET, federation=name), Get, "Get.federation")


@pytest.mark.parametrize("value", ["ACCEPTED", "", 1, b"accepted", [1], {"a": 1}, None])
def test_an_unknown_value_of_an_enumeration_is_refused(value):
    receipt = Receipt(update_id=DIGEST, outcome=Outcome.ACCEPTED)
    assert_malformed(changed(receipt, outcome=value), Receipt, "Receipt.outcome: expected one of")


def test_the_place_of_a_mistake_inside_an_array_is_told():
    assert_malformed(changed(GET, missing=[{"start": 0}]), Get, "Get.missing.stop: missing")


@pytest.mark.parametrize("missing", [[], {}, "0-1", None, [[0, 1]], [None]])
def test_ranges_are_an_array_of_maps(missing):
    assert_malformed(changed(GET, missing=missing), Get, "Get.missing")


@pytest.mark.parametrize("metrics", [{}, [], {"Loss": {"numerator": 1, "denominator": 1}}, {"loss": 1}, {b"loss": {}}])
def test_metrics_are_a_map_of_names_to_ratios(metrics):
    assert_malformed(changed(EVALUATION, metrics=metrics), Evaluation, "Evaluation.metrics")


def test_too_many_metrics_are_refused():
    ratio = dataclasses.asdict(RATIO)
    metrics = {f"m{number}": ratio for number in range(MAX_METRICS + 1)}
    assert_malformed(changed(EVALUATION, metrics=metrics), Evaluation, f"length of 1 to {MAX_METRICS}")


def test_the_most_ranges_fit_and_one_more_is_refused():
    ranges = [{"start": 2 * index, "stop": 2 * index + 1} for index in range(MAX_RANGES)]
    assert len(unpack(enveloped({"update_id": DIGEST, "missing": ranges}, "grant"), Grant).missing) == MAX_RANGES
    assert_malformed(enveloped({"update_id": DIGEST, "missing": [*ranges, ranges[0]]}, "grant"), Grant, "msgpack")


def test_a_map_of_too_many_keys_is_refused():
    body = {f"key{number}": 1 for number in range(MAX_FIELDS + 1)}
    assert_malformed(enveloped(body, "status"), Status, "not msgpack within bounds")


def test_a_refusal_names_no_content():
    error = refusal(changed(STATUS, online="patient 4711"), Status)
    assert "4711" not in str(error)


def test_a_message_larger_than_its_kind_is_refused_unread():
    assert refusal(b"\xc1" * (KIB + 1), Status).reason is RejectReason.TOO_LARGE


def test_packing_refuses_what_the_other_side_would():
    with pytest.raises(ValueError, match="the limit is 1024"):
        pack(Status(boot_id=bytes(8), online=True, software="x" * KIB))


def test_the_largest_inline_payload_fits():
    offer = dataclasses.replace(OFFER, payload=bytes(INLINE_BYTES))
    assert unpack(pack(offer), Offer) == offer
    assert_malformed(changed(OFFER, payload=bytes(INLINE_BYTES + 1)), Offer, "Offer.payload")


@pytest.mark.parametrize("version", [2, 0, -1, "1", True, None, b"\x01"])
def test_another_protocol_version_is_refused(version):
    data = enveloped(body_of(STATUS), "status", v=version)
    assert refusal(data, Status).reason is RejectReason.PROTOCOL_VERSION


def test_another_protocol_version_is_refused_before_its_body_is_looked_at():
    assert refusal(msgpack.packb({"v": 2}), Status).reason is RejectReason.PROTOCOL_VERSION


@pytest.mark.parametrize("changes", [{"m": "control"}, {"m": None}, {"b": {}}, {"b": "text"}, {"b": b""}])
def test_a_broken_envelope_is_refused(changes):
    assert refusal(enveloped(body_of(STATUS), "status", **changes), Status).reason is RejectReason.MALFORMED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",  # never used by msgpack
        b"\x91" * 900,  # nested deeper than any message
        b"\xdd\xff\xff\xff\xff",  # an array that claims four billion items
        b"\xdf\xff\xff\xff\xff",  # a map that does
        b"\x81\x90\x01",  # an array as a key
        b"\x81\xa1\xff\x01",  # a key that is not UTF-8
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
        msgpack.packb([1, 2]),
    ],
)
def test_bytes_that_are_no_envelope_are_refused(data):
    assert refusal(data, Status).reason is RejectReason.MALFORMED


def test_trailing_bytes_are_refused():
    assert refusal(pack(STATUS) + b"\x00", Status).reason is RejectReason.MALFORMED


@pytest.mark.slow
@quick
@given(st.binary(max_size=300), kinds)
def test_any_bytes_are_a_message_or_refused(data, kind):
    assert_a_message_or_a_refusal(data, kind)


@pytest.mark.slow
@quick
@given(anything, kinds)
def test_any_body_is_a_message_or_refused(body, kind):
    assert_a_message_or_a_refusal(enveloped(body, kind.__name__.lower()), kind)


@pytest.mark.slow
@quick
@given(st.data(), st.sampled_from([STATUS, EVALUATION, GET, OFFER]))
def test_any_value_in_any_field_is_a_message_or_refused(data, message):
    field = data.draw(st.sampled_from([field.name for field in dataclasses.fields(message)]))
    assert_a_message_or_a_refusal(changed(message, **{field: data.draw(anything)}), type(message))


@pytest.mark.slow
@quick
@given(st.data(), st.sampled_from([STATUS, EVALUATION, GET, OFFER]))
def test_a_message_with_damaged_bytes_is_a_message_or_refused(data, message):
    packed = bytearray(pack(message))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    del packed[data.draw(st.integers(0, len(packed))) :]
    assert_a_message_or_a_refusal(bytes(packed), type(message))


@pytest.mark.parametrize(
    "hostile",
    [
        lambda size: b"\x90" * size,
        lambda size: b"\x91" * size,
        lambda size: (b"\xdc\x10\x00" + b"\x90" * 4096) * (size // 4099),
        lambda size: b"\xdf\x00\x00\x00\x40" + b"\xa1a\xdc\x10\x00" * (size // 6),
        lambda size: b"\xc6" + (size - 5).to_bytes(4, "big") + bytes(size - 5),
    ],
    ids=["empty arrays", "nesting", "wide arrays", "promises", "one blob"],
)
@pytest.mark.timeout(5)
def test_a_hostile_message_of_full_size_is_refused_in_bounded_time(hostile: Callable[[int], bytes]):
    assert refusal(hostile(SIZE_LIMITS[Offer]), Offer).reason is RejectReason.MALFORMED
