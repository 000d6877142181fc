"""Where a model comes from, proved: the versions are made again from the ledger, and every digest is compared.

Only reads, and of a copy of the ledger at one moment, so the coordinator may run meanwhile. It may also delete payloads
meanwhile that have become too old: `pruned_since` tells that from a loss.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coordinator.chain import Mark, missing
from coordinator.damage import LEDGER_FILE
from coordinator.ledger import Ledger
from coordinator.making import Model, Settings, Store, make_version, model_of
from coordinator.retention import check_kept
from coordinator.tables import StoredUpdate, StoredVersion
from fedward.errors import ConfigError, IntegrityError, PeerError
from fedward.layout import Vector, vector_digest
from fedward.messages import Part, PartKind
from fedward.recipe import apply_part


@dataclass(frozen=True)
class Replayed:
    """A version that came out as it is recorded."""

    version: int
    num_updates: int
    model_digest: bytes


@contextmanager
def snapshot_of_ledger(ledger: Ledger) -> Iterator[Ledger]:
    """A copy of the ledger as it is now, for the block."""
    with tempfile.TemporaryDirectory(prefix="fedward-") as folder:
        ledger.copy_to(Path(folder) / LEDGER_FILE)
        copy = Ledger.in_folder(Path(folder))
        try:
            yield copy
        finally:
            copy.close()


def check_ledger(ledger: Ledger, known: Mark | None) -> None:
    """Raise IntegrityError for a row that is not as it was written, or when the chain does not show a known head."""
    ledger.check_chain()
    reason = missing(ledger.chain(), known) if known else None
    if reason:
        raise IntegrityError(f"ledger: {reason}")


def pruned_since(live: Ledger, copy: Ledger) -> str | None:
    """Why a blob that the copy needs may be gone by right: the coordinator runs, and its floor rose; None if not."""
    if live.floor == copy.floor:
        return None
    return f"the coordinator deleted what is older than version {live.floor} meanwhile: begin again"


def replay(store: Store, from_version: int) -> Iterator[Replayed]:
    """Make every version again, and yield those from `from_version` on, each after its digests were found equal.

    Begins at the newest version before `from_version` whose state is still stored, so that `from_version` itself is
    made again too. Only the floor is not: what it was made of is gone, and its stored state and parts are compared.
    Raises ConfigError for a version that was never made or is below the floor, IntegrityError with the first
    difference.
    """
    rows, floor = store.ledger.versions(), store.ledger.floor
    if not 0 <= from_version <= rows[-1].version:
        raise ConfigError(f"--from {from_version}: never made; the newest version is {rows[-1].version}")
    check_kept(store.ledger, from_version, f"--from {from_version}")
    kept = [row for row in rows if row.version >= floor]
    first = _start(store, [row for row in kept if row.version < from_version] or kept[:1])
    model = _stored(store, first) if first.version else _initial(store, first)
    if first.version >= from_version:
        yield _compared(store, first, model, None)
    for row in kept[first.version + 1 - floor :]:
        before_P = model.what_P.copy()
        _make(store, model, row, store.ledger.updates_of(row.version))
        if row.version >= from_version:
            yield _compared(store, row, model, before_P)


def _start(store: Store, rows: Sequence[StoredVersion]) -> StoredVersion:
    """The newest of these versions whose state is kept, or the first.

    One that happens to be there still is no good: a running coordinator may just be deleting it.
    """
    return next((row for row in reversed(rows) if store.ledger.needs_blob(row.state_digest)), rows[0])


def _compared(store: Store, row: StoredVersion, model: Model, before_P: Vector | None) -> Replayed:
    """The version, found as it is recorded, and what each of its parts leads to as well.

    The payloads are not made again: another release of the entropy coder may write the same numbers in other bytes.
    `before_P` is what agents held before, None where that can't be made again.
    """
    for what, recorded, made in (
        ("model digest", row.model_digest, model.digest),
        ("state digest", row.state_digest, model.state_digest()),
    ):
        if recorded != made:
            raise IntegrityError(f"version {row.version}: {what} recorded {recorded.hex()}, made again {made.hex()}")
    for part in store.ledger.parts(row.version, row.version):
        store.blobs.check(part.manifest.digest, f"version {part.version}: its {part.kind}")
        if part.kind is PartKind.SNAPSHOT or before_P is not None:
            _check_part(store, row, part, before_P)
    return Replayed(row.version, len(store.ledger.updates_of(row.version)), row.model_digest)


def _check_part(store: Store, row: StoredVersion, part: Part, before_P: Vector | None) -> None:
    """Raise IntegrityError unless an agent that takes this part holds the recorded model."""
    start_P = None if before_P is None or part.kind is PartKind.SNAPSHOT else before_P.copy()
    try:
        vector_P = apply_part(start_P, part, store.blobs.view(part.manifest.digest), store.layout)
    except PeerError as error:
        raise IntegrityError(f"version {row.version}: its {part.kind} can't be applied: {error.detail}") from error
    if vector_digest(vector_P) != row.model_digest:
        raise IntegrityError(f"version {row.version}: its {part.kind} leads to another model than is recorded")


def _initial(store: Store, row: StoredVersion) -> Model:
    parts = store.ledger.parts(0, 0)
    snapshot = next((part for part in parts if part.kind is PartKind.SNAPSHOT), None)
    if snapshot is None:
        raise IntegrityError("version 0: has no snapshot")
    store.blobs.check(snapshot.manifest.digest, "version 0: its snapshot")
    initial_P: Vector = apply_part(None, snapshot, store.blobs.view(snapshot.manifest.digest), store.layout)
    return Model.initial(initial_P, Settings.of(row))


def _stored(store: Store, row: StoredVersion) -> Model:
    store.blobs.check(row.state_digest, f"version {row.version}: its state")
    return model_of(store, row, Settings.of(row))


def _make(store: Store, model: Model, row: StoredVersion, updates: Sequence[StoredUpdate]) -> None:
    """With the settings and weights that the version's rows record."""
    for update in updates:
        store.blobs.check(update.digest, f"version {row.version}: update {update.number} of {update.site}")
    weights = [update.weight for update in updates if update.weight is not None]
    if not updates or len(weights) != len(updates):
        raise IntegrityError(f"version {row.version}: {len(updates)} updates with {len(weights)} weights are recorded")
    for _piece in make_version(store, model, updates, weights, Settings.of(row)):
        pass  # what the sites got: `_compared` reads that
