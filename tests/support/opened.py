"""What the sealed updates among some messages hold, opened with the coordinator's key: a seal hides a leak, too."""

from collections.abc import Iterable, Iterator

from fedward import topics
from fedward.errors import PeerError
from fedward.identity.folder import CoordinatorIdentity
from fedward.limits import CHUNK_BYTES
from fedward.messages import Offer
from fedward.pack import unpack
from fedward.topics import Up


def opened(heard: Iterable[tuple[str, bytes]], identity: CoordinatorIdentity) -> Iterator[tuple[str, bytes]]:
    """Each sealed payload of which all was heard, inside its offer or in chunks, opened; with the topic of its offer.

    Raises PeerError for one that this coordinator can't open.
    """
    offers: dict[bytes, tuple[str, Offer]] = {}
    chunks: dict[tuple[bytes, int], bytes] = {}
    for topic, payload in heard:
        try:
            address = topics.parse(topic)
        except PeerError:
            continue
        if address.kind is Up.OFFER:
            offer = unpack(payload, Offer)
            offers[offer.update_id] = (topic, offer)
            for index, start in enumerate(range(0, len(offer.payload or b""), CHUNK_BYTES)):
                chunks[offer.update_id, index] = (offer.payload or b"")[start : start + CHUNK_BYTES]
        if address.kind is Up.CHUNK and address.owner is not None and address.index is not None:
            chunks[address.owner, address.index] = payload
    for update_id, (topic, offer) in offers.items():
        parts = [chunks.get((update_id, index)) for index in range(-(-offer.manifest.size_bytes // CHUNK_BYTES))]
        if offer.seal is not None and None not in parts:
            seal = identity.seal_of(offer)
            yield topic, b"".join(seal.open(index, part or b"") for index, part in enumerate(parts))
