"""The global model and its versions: made of the buffer, persisted, and rebuilt from the ledger.

`w` is the true model with its optimizer's moments. The agents hold `what` ("w hat"): what the announced parts
lead to. A version publishes Q(w - what), so what quantization leaves over is carried to the next version. With
Fedward's float32 codec the two are equal. Shape letter: P parameters.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from coordinator.blobs import BlobFolder
from coordinator.ledger import Ledger
from coordinator.making import (
    LONGEST_CHAIN,
    Model,
    Published,
    Settings,
    Store,
    make_version,
    model_of,
    snapshot_of,
    vector_of,
)
from coordinator.precision import Precision
from coordinator.retention import check_kept
from coordinator.tables import StoredUpdate, StoredVersion
from fedward.errors import ConfigError
from fedward.layout import Layout, Vector
from fedward.messages import Part, PartKind


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
        self._store = Store(ledger, blobs, layout)
        self.layout = layout
        self._current: StoredVersion | None = None
        self._parts: tuple[Part, ...] | None = None
        self._model: Model

    @property
    def current(self) -> StoredVersion:
        """The newest version. `begin` comes first."""
        if self._current is None:
            raise RuntimeError("begin() makes or loads the first version")
        return self._current

    def begin(self, initial_P: Vector, now_s: float) -> None:
        """Make version 0 of the initial model, unless the ledger has versions: then go on with the newest."""
        newest = self._ledger.newest_version()
        if newest is None:
            self._ledger.begin_epoch(int(now_s * 1e6))  # sites may remember another ledger of this name: docs/adr/0004
            self._model = Model.initial(initial_P, self._settings)
            self._persist(0, snapshot_of(self.layout, self._model, 0), [], [], now_s, self._settings)
            return
        self._check_optimizer(newest)
        self._current = newest
        self._model = model_of(self._store, newest, self._settings)

    def make(self, updates: Sequence[StoredUpdate], weights: Sequence[float], now_s: float) -> None:
        """Fold the updates into the model, in the order given, and persist the version; announce it after this."""
        base, usual = self.current.version, self._settings
        settings = replace(usual, model_codec=self._precision.codec(usual.model_codec, base))
        published = make_version(self._store, self._model, base + 1, updates, weights, settings)
        self._persist(base + 1, published, updates, weights, now_s, settings)

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
        return vector_of(self._store, version)

    def _persist(
        self,
        version: int,
        published: Published,
        updates: Sequence[StoredUpdate],
        weights: Sequence[float],
        now_s: float,
        settings: Settings,
    ) -> None:
        for payload in published.payloads:
            self._blobs.put(payload)
        row = StoredVersion(
            version=version,
            created_at_s=now_s,
            model_digest=self._model.digest,
            state_digest=self._blobs.put(self._model.packed_state()),
            settings=settings.recorded(),
        )
        folded = {update.number: weight for update, weight in zip(updates, weights, strict=True)}
        self._ledger.add_version(row, published.parts, folded)
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
