"""Whether an update may count: its offer before a byte of payload moves, its payload before it is stored. Pure.

And whether a measurement is of one of our versions.
"""

from dataclasses import dataclass

from fedward.chunks import check_manifest
from fedward.codec import codec, norm
from fedward.errors import PeerError, RejectReason
from fedward.identity.names import update_seed
from fedward.identity.sealing import opened_size
from fedward.layout import Layout
from fedward.limits import MAX_NORM
from fedward.messages import Evaluation, FederationState, Offer


@dataclass(frozen=True)
class Terms:
    """What the current announcement asks of updates."""

    layout: Layout
    version: int
    max_staleness: int
    codecs: tuple[str, ...]
    state: FederationState
    base_digest: bytes | None
    """Of the model at the offered base version; None where it was never made."""
    sealed: bool = False
    """Whether updates come sealed."""


def check_offer(offer: Offer, terms: Terms, repeated: bool) -> None:
    """`repeated`: the federation takes one update of a site from a version, and has one from this base.

    Raises PeerError: FINISHED, STALE, UNKNOWN_BASE, REPEATED, LAYOUT_MISMATCH, UNKNOWN_CODEC, CANNOT_OPEN, MALFORMED.
    """
    if terms.state is FederationState.FINISHED:
        raise PeerError(RejectReason.FINISHED, "the federation takes no more updates")
    if offer.base_version > terms.version:
        raise PeerError(RejectReason.UNKNOWN_BASE, f"base {offer.base_version}, newest is {terms.version}")
    if terms.version - offer.base_version > terms.max_staleness:  # first: such a version's digest may be gone
        staleness = terms.version - offer.base_version
        raise PeerError(RejectReason.STALE, f"{staleness} versions old, the limit is {terms.max_staleness}")
    if offer.base_digest not in (None, terms.base_digest):
        raise PeerError(RejectReason.UNKNOWN_BASE, f"trained from another version {offer.base_version} than ours")
    if repeated:
        raise PeerError(RejectReason.REPEATED, f"another update from version {offer.base_version} was accepted")
    if offer.layout_digest != terms.layout.digest:
        raise PeerError(RejectReason.LAYOUT_MISMATCH, "the update is of another model")
    if offer.codec not in terms.codecs:
        allowed = ", ".join(terms.codecs)
        raise PeerError(RejectReason.UNKNOWN_CODEC, f"got {offer.codec}, the announcement allows {allowed}")
    _check_sizes(offer, terms)


def _check_sizes(offer: Offer, terms: Terms) -> None:
    check_manifest(offer.manifest)
    size_bytes = offer.manifest.size_bytes
    if terms.sealed and offer.seal is None:
        raise PeerError(RejectReason.CANNOT_OPEN, "the update is not sealed")
    codec(offer.codec).check_size(opened_size(size_bytes) if terms.sealed else size_bytes, terms.layout)
    if offer.payload is not None and len(offer.payload) != offer.manifest.size_bytes:
        expected = offer.manifest.size_bytes
        raise PeerError(RejectReason.MALFORMED, f"{len(offer.payload)} bytes inside the offer, expected {expected}")


def check_update(payload: memoryview, offer: Offer, layout: Layout) -> float:
    """The L2 norm of the delta, whose digest was checked while it was collected.

    Raises PeerError: LAYOUT_MISMATCH, MALFORMED, NOT_FINITE, NORM_TOO_LARGE.
    """
    how = codec(offer.codec)
    length = norm(payload, how, layout, update_seed(how, offer.base_version, offer.update_id))
    if length > MAX_NORM:
        raise PeerError(RejectReason.NORM_TOO_LARGE, f"norm above {MAX_NORM:g}")
    return length


def check_evaluation(evaluation: Evaluation, version: int, model_digest: bytes | None) -> None:
    """It counts if it is of a version that is out, and of our model of that number.

    `version` is our newest one, `model_digest` that of the measured number, None where there is no such row (any more).
    Raises PeerError (UNKNOWN_BASE).
    """
    if evaluation.version > version:
        raise PeerError(RejectReason.UNKNOWN_BASE, f"measured version {evaluation.version}, which is not out")
    if evaluation.model_digest not in (None, model_digest):
        raise PeerError(RejectReason.UNKNOWN_BASE, f"measured another version {evaluation.version} than ours")
