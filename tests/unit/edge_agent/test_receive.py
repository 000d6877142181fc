"""What comes in is typed and bounded before anything looks at it."""

import pytest

from edge_agent.receive import MOST_BYTES, receive
from fedward import topics
from fedward.errors import PeerError, RejectReason
from fedward.messages import Chunk, Control, Grant, Range, Receipt
from fedward.pack import pack
from fedward.topics import Down, Up

DIGEST = bytes(range(32))


def test_a_chunk_is_read_from_its_topic_whether_for_all_or_for_this_site() -> None:
    for topic in (topics.part_chunk("ward", DIGEST, 3), topics.down_chunk("ward", "st-anna", DIGEST, 3)):
        assert receive(topic, b"bytes", "st-anna") == Chunk(DIGEST, 3, b"bytes")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Down.CONTROL, Control(sequence=1, paused=True)),
        (Down.GRANT, Grant(update_id=DIGEST, missing=(Range(start=0, stop=2),))),
        (Down.RECEIPT, Receipt(update_id=DIGEST, outcome="later")),  # type: ignore[arg-type]
    ],
)
def test_a_message_is_read_as_what_its_topic_says(kind: Down, message: Control | Grant | Receipt) -> None:
    assert receive(topics.down("ward", "st-anna", kind), pack(message), "st-anna") == message


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        (topics.part_chunk("ward", DIGEST, 0), bytes(MOST_BYTES + 1), RejectReason.TOO_LARGE),
        (topics.down("ward", "st-anna", Down.RECEIPT), bytes(2000), RejectReason.TOO_LARGE),
        (topics.down("ward", "st-anna", Down.RECEIPT), pack(Control(sequence=1, paused=True)), RejectReason.MALFORMED),
        (topics.up("ward", "st-anna", Up.GET), b"", RejectReason.MALFORMED),
        ("fl/v1/ward/dn/st-anna/unheard-of", b"", RejectReason.MALFORMED),
        ("fl/v2/ward/pub/announce", b"", RejectReason.MALFORMED),
    ],
)
def test_what_the_coordinator_would_never_send_is_refused(topic: str, payload: bytes, reason: RejectReason) -> None:
    with pytest.raises(PeerError) as error:
        receive(topic, payload, "st-anna")
    assert error.value.reason is reason
