"""What a delivery is, and whose."""

import msgpack
import pytest

from coordinator.receive import receive
from fedward import topics
from fedward.errors import PeerError, RejectReason
from fedward.limits import CHUNK_BYTES, KIB, MAX_MESSAGE_BYTES
from fedward.messages import Chunk, Evaluation, Get, Phase, Range, Ratio, Status, Telemetry
from fedward.pack import pack
from fedward.topics import Down, Up
from tests.support.updates import FEDERATION, SITES, offer_of, update_id

ADMITTED = frozenset(SITES)
OFFER = offer_of(b"payload", 1)
GET = Get(federation=FEDERATION, digest=b"d" * 32, missing=(Range(start=0, stop=1),))
STATUS = Status(boot_id=b"boot-one", online=True)
TELEMETRY = Telemetry(
    boot_id=b"boot-one", phase=Phase.IDLE, version=None, step=0, num_steps=0, num_updates=0, num_refused=0,
    num_fetched=0, bytes_sent=0, bytes_received=0,
)  # fmt: skip
EVALUATION = Evaluation(
    federation=FEDERATION, version=1, num_examples=1, metrics={"loss": Ratio(numerator=1.0, denominator=1.0)}
)


def topic(kind: Up, site: str = "north", federation: str = FEDERATION) -> str:
    return topics.up(federation, site, kind)


OFFER_TOPIC = topics.offer(FEDERATION, "north", OFFER.update_id)
CHUNK_TOPIC = topics.update_chunk(FEDERATION, "north", OFFER.update_id, 3)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (OFFER_TOPIC, OFFER),
        (topic(Up.GET), GET),
        (topic(Up.STATUS), STATUS),
        (topic(Up.TELEMETRY), TELEMETRY),
        (topic(Up.EVALUATION), EVALUATION),
    ],
    ids=["offer", "get", "status", "telemetry", "evaluation"],
)
def test_each_kind_arrives_typed_with_the_site_of_its_topic(address: str, message: object) -> None:
    received = receive(address, pack(message), FEDERATION, ADMITTED)
    assert (received.site, received.message) == ("north", message)


def test_a_chunk_is_bare_bytes_addressed_by_its_topic() -> None:
    received = receive(CHUNK_TOPIC, b"bytes", FEDERATION, ADMITTED)
    assert received.message == Chunk(owner=OFFER.update_id, index=3, payload=b"bytes")


def of_version_2(message: object) -> bytes:
    packed: bytes = msgpack.packb({**msgpack.unpackb(pack(message)), "v": 2})
    return packed


@pytest.mark.parametrize(
    ("reason", "address", "payload"),
    [
        (RejectReason.MALFORMED, "something/else", pack(STATUS)),
        (RejectReason.MALFORMED, topics.announce(FEDERATION), pack(STATUS)),
        (RejectReason.MALFORMED, topics.down(FEDERATION, "north", Down.GRANT), pack(STATUS)),
        (RejectReason.MALFORMED, topic(Up.STATUS), b"\xc1"),
        (RejectReason.MALFORMED, topic(Up.STATUS), pack(TELEMETRY)),
        (RejectReason.MALFORMED, topics.offer(FEDERATION, "north", update_id(2)), pack(OFFER)),
        (RejectReason.TOO_LARGE, topic(Up.STATUS), bytes(KIB + 1)),
        (RejectReason.TOO_LARGE, OFFER_TOPIC, bytes(MAX_MESSAGE_BYTES)),
        (RejectReason.TOO_LARGE, CHUNK_TOPIC, bytes(CHUNK_BYTES + 1)),
        (RejectReason.PROTOCOL_VERSION, OFFER_TOPIC, of_version_2(OFFER)),
        (RejectReason.UNKNOWN_SITE, topic(Up.STATUS, site="stranger"), pack(STATUS)),
        (RejectReason.UNKNOWN_SITE, topics.update_chunk(FEDERATION, "stranger", OFFER.update_id, 0), b"bytes"),
        (RejectReason.WRONG_FEDERATION, OFFER_TOPIC, pack(offer_of(b"payload", 1, federation="other"))),
        (RejectReason.WRONG_FEDERATION, topic(Up.STATUS, federation="other"), pack(STATUS)),
    ],
)  # fmt: skip
def test_what_is_not_for_us_is_refused(reason: RejectReason, address: str, payload: bytes) -> None:
    with pytest.raises(PeerError) as refusal:
        receive(address, payload, FEDERATION, ADMITTED)
    assert refusal.value.reason is reason


@pytest.mark.parametrize("cut", [1, 5, 40, 100])
def test_half_a_message_is_malformed_and_never_anything_worse(cut: int) -> None:
    with pytest.raises(PeerError) as refusal:
        receive(OFFER_TOPIC, pack(OFFER)[:-cut], FEDERATION, ADMITTED)
    assert refusal.value.reason is RejectReason.MALFORMED
