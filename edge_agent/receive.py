"""What came in: a delivery -> a typed, bounded message of the coordinator. Pure."""

from collections.abc import Callable

from fedward import topics
from fedward.errors import PeerError, RejectReason
from fedward.identity.sealing import TAG_BYTES
from fedward.identity.signing import EVERYBODY
from fedward.limits import CHUNK_BYTES
from fedward.messages import Announcement, Chunk, Control, Grant, Receipt, Renewed, SealedKey
from fedward.pack import Check, unpack
from fedward.topics import Down

KINDS: dict[Down, type[Announcement | Grant | Receipt | Control | Renewed | SealedKey]] = {
    Down.ANNOUNCE: Announcement,
    Down.GRANT: Grant,
    Down.RECEIPT: Receipt,
    Down.CONTROL: Control,
    Down.RENEWED: Renewed,
    Down.KEY: SealedKey,
}

MOST_BYTES = CHUNK_BYTES + TAG_BYTES
"""Of a chunk, which may be sealed."""


CheckOf = Callable[[str], Check]
"""Receiver -> what lets the coordinator's messages to it pass."""


def receive(
    topic: str, payload: bytes, site: str, check_of: CheckOf | None = None
) -> Announcement | Chunk | Grant | Receipt | Control | Renewed | SealedKey:
    """What the coordinator says to this `site`, or to all.

    `check_of` is None where nothing is signed; a chunk never is: the digests in a signed announcement prove it.

    Raises PeerError: MALFORMED, TOO_LARGE, PROTOCOL_VERSION or BAD_SIGNATURE.
    """
    address = topics.parse(topic)
    if not isinstance(address.kind, Down):
        raise PeerError(RejectReason.MALFORMED, "not a topic that the coordinator sends to")
    if address.site not in (None, site):
        raise PeerError(RejectReason.MALFORMED, "said to another site")
    if address.kind is Down.CHUNK and address.owner is not None and address.index is not None:
        if len(payload) > MOST_BYTES:
            raise PeerError(RejectReason.TOO_LARGE, f"a chunk of {len(payload)} bytes, the limit is {MOST_BYTES}")
        return Chunk(address.owner, address.index, payload)
    return unpack(payload, KINDS[address.kind], check_of and check_of(address.site or EVERYBODY))
