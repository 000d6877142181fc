"""What came in: a delivery -> who sent what, typed and bounded. Pure; nothing is believed beyond its form."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fedward import topics
from fedward.errors import PeerError, RejectReason, UnprovenError
from fedward.identity.names import update_id_of
from fedward.limits import CHUNK_BYTES
from fedward.messages import Chunk, Evaluation, Get, Offer, Renewal, Status, Telemetry
from fedward.pack import Envelope, unpack
from fedward.topics import Up

KINDS: dict[Up, type[Offer | Get | Evaluation | Status | Telemetry | Renewal]] = {
    Up.OFFER: Offer,
    Up.GET: Get,
    Up.EVALUATION: Evaluation,
    Up.STATUS: Status,
    Up.TELEMETRY: Telemetry,
    Up.RENEWAL: Renewal,
}


@dataclass(frozen=True)
class Received:
    """A message and the site whose topic it came on: the broker authenticated the topic, so the payload names none."""

    site: str
    message: Offer | Chunk | Get | Evaluation | Status | Telemetry | Renewal


Check = Callable[[str, Envelope], None]
"""Raises PeerError unless this site has signed the envelope, and never before."""


def receive(topic: str, payload: bytes, federation: str, sites: frozenset[str], check: Check | None = None) -> Received:
    """`check` is None where nothing is signed; a chunk never is: the digests in a signed offer prove it.

    Raises PeerError: MALFORMED, TOO_LARGE, PROTOCOL_VERSION, UNKNOWN_SITE, WRONG_FEDERATION, BAD_SIGNATURE, REPLAYED.
    """
    address = topics.parse(topic)
    if address.site is None or not isinstance(address.kind, Up):
        raise PeerError(RejectReason.MALFORMED, "not a topic that sites send to")
    if address.federation != federation:
        raise UnprovenError(RejectReason.WRONG_FEDERATION, "a topic of another federation")
    if address.site not in sites:
        raise PeerError(RejectReason.UNKNOWN_SITE, "the topic's site is not admitted")
    if address.kind is Up.CHUNK and address.owner is not None and address.index is not None:
        if len(payload) > CHUNK_BYTES:
            raise PeerError(RejectReason.TOO_LARGE, f"a chunk of {len(payload)} bytes, the limit is {CHUNK_BYTES}")
        return Received(address.site, Chunk(address.owner, address.index, payload))
    message = unpack(payload, KINDS[address.kind], check and partial(check, address.site))
    named = message.federation if isinstance(message, Offer | Get | Evaluation) else address.federation
    if named != federation:
        raise PeerError(RejectReason.WRONG_FEDERATION, "the message is for another federation")
    if isinstance(message, Offer):
        _check_id(message, address.site, address.owner)
    return Received(address.site, message)


def _check_id(offer: Offer, site: str, owner: bytes | None) -> None:
    """An id is of its own site: otherwise one site could take another's id, and the receipt that goes with it.

    No signature covers the topic's id: an offer that somebody moved to the topic of another update says nothing of it.
    """
    if owner != offer.update_id:
        raise UnprovenError(RejectReason.MALFORMED, "an offer on the topic of another update")
    if offer.update_id != update_id_of(offer.federation, site, offer.base_version, offer.sequence):
        raise PeerError(RejectReason.MALFORMED, "the update_id is not that of the site, base version and sequence")
