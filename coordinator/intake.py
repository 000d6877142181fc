"""The way of an update into the ledger: offered, collected chunk by chunk, verified whole, stored, or refused.

What comes back is what the site is told, and what is new for everybody else. Nothing is told before it is recorded.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from coordinator.allowance import Allowance, Allowances
from coordinator.clock import FederationClock
from coordinator.config import FederationConfig
from coordinator.engine.norms import is_outlier
from coordinator.making import Store
from coordinator.quarantine import Quarantine
from coordinator.tables import StoredUpdate
from coordinator.uploads import SealOf, Upload, Uploads
from coordinator.verify import Terms, check_offer, check_update
from fedward.disk import has_room
from fedward.errors import PeerError, RejectReason
from fedward.messages import Chunk, Grant, Offer, Outcome, Receipt

VERSION_BYTES = 24
"""What a version writes at most, for each parameter: four arrays of state, a snapshot and a delta."""

REFUSED_S = 2.0
"""Refusals of one site that are recorded, a second, in the long run: each is a row and a commit, for which all others
wait. An honest site has one refused in a training."""


@dataclass(frozen=True)
class Ended:
    """The receipt of an update; its row, if it was recorded just now; and why it was refused, if it was just now."""

    receipt: Receipt
    row: StoredUpdate | None = None
    error: PeerError | None = None


class Intake:
    """Every update that is on its way in, of all sites. `terms` says what is asked of an offer now."""

    def __init__(
        self,
        config: FederationConfig,
        store: Store,
        clock: FederationClock,
        terms: Callable[[Offer], Terms],
        seal_of: SealOf | None = None,
    ) -> None:
        self._config = config
        self._ledger, self._blobs, self._layout = store.ledger, store.blobs, store.layout
        self._clock = clock
        self._terms = terms
        self.quarantine = Quarantine(store.ledger, config.sites)
        self.uploads = Uploads(config.state_folder / "incoming", seal_of)
        self.uploads.tidy(config.sites)
        self._refusals = Allowances(Allowance(REFUSED_S, bytes_s=1e18))

    def offer(self, site: str, offer: Offer) -> Grant | Ended:
        """Ask for what is missing of an update; or store it, where nothing is, or refuse it."""
        known = self.known(site, offer.update_id)
        if known:
            self.uploads.abandon(site, offer.update_id)
            return Ended(known)
        no_room = self._no_room(site, offer.manifest.size_bytes)
        if no_room:
            later = Receipt(update_id=offer.update_id, outcome=Outcome.LATER, reason=RejectReason.BUSY)
            return Ended(later, error=PeerError(RejectReason.BUSY, no_room))
        try:
            self._check_offer(site, offer)
            upload = self.uploads.open(site, offer)
        except PeerError as error:
            return self._refuse(site, offer, error)
        if upload.is_complete():
            return self._store(upload)
        return Grant(update_id=offer.update_id, missing=upload.missing())

    def chunk(self, site: str, chunk: Chunk) -> Ended | None:
        """Take a chunk; None while others are missing. Raises PeerError (BUSY), and as `Uploads.add` does."""
        if self.is_full():  # others were granted the same room: offered again, this one is told to come later
            raise PeerError(RejectReason.BUSY, "no room on the disk for a chunk")
        try:
            upload = self.uploads.add(site, chunk)
        except PeerError as error:
            if error.reason is not RejectReason.CANNOT_OPEN:
                raise
            return self._refuse(site, self.uploads.find(site, chunk.owner).offer, error)
        return self._store(upload) if upload.is_complete() else None

    def known(self, site: str, update_id: bytes) -> Receipt | None:
        """The receipt, again, of a site's update that had its end; None when it had none."""
        row = self._ledger.update(update_id)
        return _receipt(row) if row and row.site == site else None

    def is_full(self, payload_bytes: int = 0) -> bool:
        """Whether an update and the version made of it (state, delta, snapshot) would not fit."""
        version_bytes = VERSION_BYTES * self._layout.size
        return not has_room(self._config.state_folder, payload_bytes + version_bytes)

    def _no_room(self, site: str, size_bytes: int) -> str | None:
        """Why an update of this size is told to come later; None where it may come. One of a site always may."""
        if self.is_full(size_bytes):
            return "no room on the disk"
        waiting = self._ledger.buffered_bytes(site)
        if waiting and waiting + size_bytes > self._config.limits.storage_bytes:
            return f"{waiting} bytes of the site wait for a version, limits.storage_bytes"
        return None

    def _check_offer(self, site: str, offer: Offer) -> None:
        repeated = not self._config.engine.repeat_base and self._ledger.has_delivered(site, offer.base_version)
        check_offer(offer, self._terms(offer), repeated)

    def _store(self, upload: Upload) -> Ended:
        """Verify the whole, make it durable, and only then have the site told."""
        site, offer = upload.site, upload.offer
        known = self.known(site, offer.update_id)
        if known:  # recorded just before a crash, which left its files
            self.uploads.end(upload)
            return Ended(known)
        recorded, norm = offer, None
        try:
            self._check_offer(site, offer)  # again: versions may have been made while the chunks came
            recorded = _recorded(offer, upload.collected.size_bytes, self._blobs.adopt(upload.collected))
            norm = check_update(self._blobs.view(recorded.manifest.digest), offer, self._layout)
            self._check_norm(site, norm)
        except PeerError as error:
            ended = self._refuse(site, offer, error, norm)
            self._drop_unless_needed(recorded)
            return ended
        row = self._ledger.add_update(recorded, site, self._clock.now(), norm, None)
        self.uploads.end(upload)
        return Ended(_receipt(row), row)

    def _check_norm(self, site: str, norm: float) -> None:
        """Raise PeerError (QUARANTINED, OUTLIER) where it, or those of the site before it, are far too long."""
        if site in self.quarantine.held:
            raise PeerError(RejectReason.QUARANTINED, f"norm {norm:g}, the site is in quarantine")
        if is_outlier(norm, self._ledger.recent_norms(), self._config.engine):
            raise PeerError(RejectReason.OUTLIER, f"norm {norm:g}, above engine.outlier_norm")

    def _refuse(self, site: str, offer: Offer, error: PeerError, norm: float | None = None) -> Ended:
        """Record the end of an update. A site that has one refused after the other is told to come later instead."""
        if not self._refusals.admit(site, 0, chunk=False, now_s=self._clock.now().own_s):
            later = Receipt(update_id=offer.update_id, outcome=Outcome.LATER, reason=RejectReason.BUSY)
            return Ended(later, error=PeerError(RejectReason.BUSY, "too many refused updates of one site"))
        row = self._ledger.add_update(offer, site, self._clock.now(), norm, error.reason)
        self.quarantine.on_update(row)
        self.uploads.abandon(site, offer.update_id)
        self._drop_unless_needed(offer)
        return Ended(_receipt(row), row, error)

    def _drop_unless_needed(self, offer: Offer) -> None:
        if not self._ledger.needs_blob(offer.manifest.digest):
            self._blobs.drop(offer.manifest.digest)


def _recorded(offer: Offer, size_bytes: int, digest: bytes) -> Offer:
    """The offer as the ledger keeps it: with size and digest of the payload itself, which was sealed on its way."""
    return replace(offer, manifest=replace(offer.manifest, size_bytes=size_bytes, digest=digest))


def _receipt(row: StoredUpdate) -> Receipt:
    reason = RejectReason(row.reason) if row.reason else None
    return Receipt(update_id=row.update_id, outcome=row.outcome, reason=reason)
