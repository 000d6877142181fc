"""Where a model comes from, proved: the versions are made again from the ledger, and every digest is compared.

Only reads, and of a copy of the ledger at one moment, so the coordinator may run meanwhile: the blobs that it needs
are never dropped.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coordinator.blobs import BlobFolder
from coordinator.chain import contains
from coordinator.ledger import Ledger
from coordinator.making import Model, Published, Settings, Store, make_version, model_of, snapshot_of
from coordinator.tables import StoredUpdate, StoredVersion
from fedward.errors import ConfigError, IntegrityError
from fedward.layout import Vector
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
        ledger.copy_to(Path(folder) / "ledger.sqlite")
        copy = Ledger.in_folder(Path(folder))
        try:
            yield copy
        finally:
            copy.close()


def check_ledger(ledger: Ledger, known_head: bytes | None) -> None:
    """Raise IntegrityError for a row that is not as it was written, or when the chain never was at `known_head`."""
    ledger.check_chain()
    if known_head is not None and not contains(ledger.chain(), known_head):
        raise IntegrityError(
            f"ledger: its chain never had the head {known_head.hex()}; rows were removed at its end, "
            "all of it was written anew, or the head is of another ledger"
        )


def replay(store: Store, from_version: int) -> Iterator[Replayed]:
    """Make every version again, and yield those from `from_version` on, each after its digests were found equal.

    Begins at the newest version before `from_version` whose state is still stored, for most at the initial model, so
    `from_version` itself is made again too. Raises ConfigError for a version that was never made, IntegrityError with
    the first difference.
    """
    rows = store.ledger.versions()
    if not 0 <= from_version < len(rows):
        raise ConfigError(f"--from {from_version}: never made; the newest version is {len(rows) - 1}")
    start = _start(store.blobs, rows[:from_version])
    model = _initial(store, rows[0]) if start == 0 else _stored(store, rows[start])
    for row in rows[start:]:
        updates = store.ledger.updates_of(row.version)
        parts = store.ledger.parts(row.version, row.version)
        made = snapshot_of(store.layout, model, row.version) if row.version == start else None
        published = made or _made(store, model, row, updates)
        if row.version >= from_version:
            _check_parts(store.blobs, parts)
            _compare(row, parts, model, published)
            yield Replayed(row.version, len(updates), row.model_digest)


def _start(blobs: BlobFolder, rows: Sequence[StoredVersion]) -> int:
    """The newest of these versions whose state is stored, or 0."""
    return next((row.version for row in reversed(rows) if blobs.path(row.state_digest).exists()), 0)


def _initial(store: Store, row: StoredVersion) -> Model:
    parts = store.ledger.parts(0, 0)
    _check_parts(store.blobs, parts)
    snapshot = next((part for part in parts if part.kind is PartKind.SNAPSHOT), None)
    if snapshot is None:
        raise IntegrityError("version 0: has no snapshot")
    initial_P: Vector = apply_part(None, snapshot, store.blobs.view(snapshot.manifest.digest), store.layout)
    return Model.initial(initial_P, Settings.of(row))


def _stored(store: Store, row: StoredVersion) -> Model:
    store.blobs.check(row.state_digest, f"version {row.version}: its state")
    return model_of(store, row, Settings.of(row))


def _made(store: Store, model: Model, row: StoredVersion, updates: Sequence[StoredUpdate]) -> Published:
    """With the settings and weights that the version's rows record."""
    for update in updates:
        store.blobs.check(update.digest, f"version {row.version}: update {update.number} of {update.site}")
    weights = [update.weight for update in updates if update.weight is not None]
    if not updates or len(weights) != len(updates):
        raise IntegrityError(f"version {row.version}: {len(updates)} updates with {len(weights)} weights are recorded")
    return make_version(store, model, row.version, updates, weights, Settings.of(row))


def _check_parts(blobs: BlobFolder, parts: Sequence[Part]) -> None:
    for part in parts:
        blobs.check(part.manifest.digest, f"version {part.version}: its {part.kind}")


def _compare(row: StoredVersion, parts: Sequence[Part], model: Model, published: Published) -> None:
    for what, recorded, made in (
        ("model digest", row.model_digest.hex(), model.digest.hex()),
        ("parts", _described(parts), _described(published.parts)),
        ("state digest", row.state_digest.hex(), model.state_digest().hex()),
    ):
        if recorded != made:
            raise IntegrityError(f"version {row.version}: {what} recorded {recorded}, made again {made}")


def _described(parts: Sequence[Part]) -> str:
    """Kind, codec and digest of each; the digest holds the rest of the manifest."""
    return ", ".join(sorted(f"{part.kind} {part.codec} {part.manifest.digest.hex()}" for part in parts))
