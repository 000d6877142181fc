"""What came in: a delivery -> a typed, bounded message of the coordinator. Pure."""

from fedward import topics
from fedward.errors import PeerError, RejectReason
from fedward.limits import CHUNK_BYTES
from fedward.messages import Announcement, Chunk, Control, Grant, Receipt, Renewed
from fedward.pack import unpack
from fedward.topics import Down

KINDS: dict[Down, type[Announcement | Grant | Receipt | Control | Renewed]] = {
    Down.ANNOUNCE: Announcement,
    Down.GRANT: Grant,
    Down.RECEIPT: Receipt,
    Down.CONTROL: Control,
    Down.RENEWED: Renewed,
}


def receive(topic: str, payload: bytes) -> Announcement | Chunk | Grant | Receipt | Control | Renewed:
    """Raises PeerError: MALFORMED, TOO_LARGE or PROTOCOL_VERSION."""
    address = topics.parse(topic)
    if not isinstance(address.kind, Down):
        raise PeerError(RejectReason.MALFORMED, "not a topic that the coordinator sends to")
    if address.kind is Down.CHUNK and address.owner is not None and address.index is not None:
        if len(payload) > CHUNK_BYTES:
            raise PeerError(RejectReason.TOO_LARGE, f"a chunk of {len(payload)} bytes, the limit is {CHUNK_BYTES}")
        return Chunk(address.owner, address.index, payload)
    return unpack(payload, KINDS[address.kind])
