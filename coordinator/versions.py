"""The global model and its versions: made of the buffer, persisted, and rebuilt from the ledger.

`w` is the true model with its optimizer's moments. The agents hold `what` ("w hat"): what the announced parts
lead to. A version publishes Q(w - what), so what quantization leaves over is carried to the next version. With an exact
codec the two are equal. Shape letter: P parameters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

from coordinator.blobs import BlobFolder
from coordinator.engine.norms import norm_bound
from coordinator.ledger import Ledger
from coordinator.making import (
    Model,
    Settings,
    Store,
    kind_of_payload,
    make_version,
    model_of,
    snapshot_of,
    vector_of,
)
from coordinator.precision import Precision
from coordinator.retention import check_kept
from coordinator.tables import StoredUpdate, StoredVersion
from fedward.chunks import manifest_of
from fedward.codec import codec
from fedward.errors import ConfigError
from fedward.layout import Layout, Vector, vector_digest
from fedward.limits import MAX_PARTS
from fedward.messages import Initial, Part, PartKind

LONGEST_CHAIN = MAX_PARTS - 12
"""Deltas since the last snapshot at which a new one is made, and how far back an announcement lists deltas."""


SNAPSHOT_CODEC = "f32z"
"""The snapshot is what agents hold to the last bit."""


class Versions:
    """The current version in memory, every version in the ledger and the blob store."""

    def __init__(
        self,
        ledger: Ledger,
        blobs: BlobFolder,
        layout: Layout,
        settings: Settings,
        precision: Precision = Precision(),  # noqa: B008 - a frozen value: no version is special
    ) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._settings = settings
        self._precision = precision
        self.store = Store(ledger, blobs, layout)
        self.layout = layout
        self.initial: Initial | None = None
        """How version 0 of this ledger was made, for sites that make it themselves; None where that is not known."""
        self._current: StoredVersion | None = None
        self._parts: tuple[Part, ...] | None = None
        self._model: Model

    @property
    def current(self) -> StoredVersion:
        """The newest version. `begin` comes first."""
        if self._current is None:
            raise RuntimeError("begin() makes or loads the first version")
        return self._current

    @property
    def step_norm(self) -> float | None:
        """L2 norm of what the last version added to the model; None where this process has made none."""
        return self._model.step_norm

    def begin(self, initial_P: Vector, now_s: float, seed: int | None = None) -> None:
        """Make version 0 of the initial model, unless the ledger has versions: then go on with the newest.

        `seed` is the one that the initial model was made with, where that is known.
        """
        newest = self._ledger.newest_version()
        if newest is None:
            self._ledger.begin_epoch(int(now_s * 1e6))  # sites may remember another ledger of this name: docs/adr/0004
            self._model = Model.initial(initial_P, self._settings)
            self._persist(0, [self._snapshot(0)], [], [], now_s, self._settings)
        else:
            self._check_optimizer(newest)
            self._current = newest
            self._model = model_of(self.store, newest, self._settings)
        if seed is not None:
            self.initial = self._made_with(seed, vector_digest(initial_P))

    def make(self, updates: Sequence[StoredUpdate], weights: Sequence[float], now_s: float) -> None:
        """Fold the updates into the model, in the order given, and persist the version; announce it after this.

        Whatever is raised, such as by a full disk, leaves half of a model: nothing works any more before `begin`, which
        takes up the last version that was persisted.
        """
        try:
            self._make(updates, weights, now_s)
        except BaseException:
            self._current = None
            raise

    def _make(self, updates: Sequence[StoredUpdate], weights: Sequence[float], now_s: float) -> None:
        base, usual = self.current.version, self._settings
        settings = replace(
            usual,
            model_codec=self._precision.delta_codec(usual.model_codec, base),
            norm_bound=norm_bound(self._ledger.recent_norms(), usual.engine),
        )
        pieces = make_version(self.store, self._model, updates, weights, settings)
        parts = [self._write(kind_of_payload(settings), base + 1, settings.model_codec, pieces)]
        if self._needs_snapshot(parts[0]):
            parts.append(self._snapshot(base + 1))
        self._persist(base + 1, parts, updates, weights, now_s, settings)

    def parts(self) -> tuple[Part, ...]:
        """What an announcement lists, in the order of versions: the newest snapshot and the deltas after it.

        And of the deltas that lead to the snapshot the last ones, while they are together smaller than it is: a
        longer chain is nobody's cheapest recipe, and would make the announcement too large to send.
        """
        if self._parts is None:
            self._parts = self._list_parts()
        return self._parts

    def _list_parts(self) -> tuple[Part, ...]:
        version = self.current.version
        base = self._ledger.newest_snapshot(version)
        oldest = max(self._ledger.reach, version - LONGEST_CHAIN)
        listed = self._ledger.parts(min(base, oldest), version)
        snapshot = next(part for part in listed if part.kind is PartKind.SNAPSHOT and part.version == base)
        older = [part for part in listed if part.kind is PartKind.DELTA and part.version <= base]
        sizes = accumulate(part.manifest.size_bytes for part in reversed(older))
        useful = sum(1 for size_bytes in sizes if size_bytes < snapshot.manifest.size_bytes)
        newer = [part for part in listed if part.kind is PartKind.DELTA and part.version > base]
        return (*older[len(older) - useful :], snapshot, *newer)

    def vector(self, version: int) -> Vector:
        """(P,) float32 that agents hold at `version`, rebuilt from the stored parts.

        Raises as `vector_of` does, and ConfigError for one that is older than those whose payloads are kept.
        """
        check_kept(self._ledger, version, f"version {version}")
        return vector_of(self.store, version)

    def _made_with(self, seed: int, digest: bytes) -> Initial | None:
        """None where the ledger began with another model than the configured one of today, or its row is deleted."""
        return Initial(seed=seed, model_digest=digest) if self._ledger.model_digest(0) == digest else None

    def _snapshot(self, version: int) -> Part:
        pieces = snapshot_of(self.layout, self._model, codec(SNAPSHOT_CODEC))
        return self._write(PartKind.SNAPSHOT, version, SNAPSHOT_CODEC, pieces)

    def _write(self, kind: PartKind, version: int, codec_name: str, pieces: Iterable[bytes]) -> Part:
        """Store a payload before anything names it."""
        digest = self._blobs.write(pieces)
        return Part(kind=kind, version=version, codec=codec_name, manifest=manifest_of(self._blobs.view(digest)))

    def _needs_snapshot(self, newest: Part) -> bool:
        """True when the deltas since the last snapshot are many, or together larger than it: nobody takes them then."""
        if newest.kind is PartKind.SNAPSHOT:
            return False
        base = self._ledger.newest_snapshot(newest.version - 1)
        listed = [*self._ledger.parts(base, newest.version - 1), newest]
        snapshot = next(part for part in listed if part.kind is PartKind.SNAPSHOT and part.version == base)
        chain = [part for part in listed if part.kind is PartKind.DELTA and part.version > base]
        size_bytes = sum(part.manifest.size_bytes for part in chain)
        return len(chain) >= LONGEST_CHAIN or size_bytes > snapshot.manifest.size_bytes

    def _persist(
        self,
        version: int,
        parts: Sequence[Part],
        updates: Sequence[StoredUpdate],
        weights: Sequence[float],
        now_s: float,
        settings: Settings,
    ) -> None:
        row = StoredVersion(
            version=version,
            created_at_s=now_s,
            model_digest=self._model.digest,
            state_digest=self._blobs.write(self._model.packed_state()),
            settings=settings.recorded(),
        )
        folded = {update.number: weight for update, weight in zip(updates, weights, strict=True)}
        self._ledger.add_version(row, parts, folded)
        replaced, self._current, self._parts = self._current, row, None
        if replaced is not None and not self._ledger.needs_blob(replaced.state_digest):
            self._blobs.drop(replaced.state_digest)

    def _check_optimizer(self, newest: StoredVersion) -> None:
        """The moments on disk are those of the optimizer that made them."""
        recorded, configured = newest.settings["engine"]["optimizer"]["name"], self._settings.engine.optimizer.name
        if recorded != configured:
            raise ConfigError(
                f"engine.optimizer.name: the state folder's model was made with {recorded}, got {configured}; "
                "go on with that one, or export the model and begin anew from it in another state_folder"
            )
