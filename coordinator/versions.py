"""The global model and its versions: made of the buffer, persisted, and rebuilt from the ledger.

`w` is the true model with its optimizer's moments. The agents hold `what` ("w hat"): what the announced parts
lead to. A version publishes Q(w - what), so what quantization leaves over is carried to the next version. With
Fedward's float32 codec the two are equal. Shape letter: P parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from coordinator.blobs import BlobFolder
from coordinator.engine.aggregate import Contribution, fold, with_cache
from coordinator.engine.buffer import divisor
from coordinator.engine.optimizer import ServerState
from coordinator.engine.rates import Arrival
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.tables import StoredUpdate, StoredVersion
from fedward.chunks import manifest_of
from fedward.codec import codec
from fedward.errors import ConfigError
from fedward.layout import Block, Layout, Vector, vector_digest
from fedward.limits import MAX_PARTS
from fedward.messages import Part, PartKind
from fedward.recipe import apply_part, cheapest_recipe

LONGEST_CHAIN = MAX_PARTS - 12
"""Deltas since the last snapshot at which a new one is made, and how far back an announcement lists deltas."""


@dataclass(frozen=True)
class Settings:
    """What decides how a version is made of a buffer; recorded with each version."""

    engine: EngineSettings
    model_codec: str
    """Codec of the deltas that agents download; `f32` publishes a snapshot every time."""


def arrival_of(update: StoredUpdate) -> Arrival:
    """What the engine needs to know of a stored update."""
    return Arrival(
        update.site,
        update.base_version,
        update.num_examples,
        update.num_steps,
        update.work_s,
        update.arrived_s,
    )


class Versions:
    """The current version in memory, every version in the ledger and the blob store."""

    def __init__(self, ledger: Ledger, blobs: BlobFolder, layout: Layout, settings: Settings) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._settings = settings
        self.layout = layout
        self._current: StoredVersion | None = None
        self._parts: tuple[Part, ...] | None = None
        self._state: ServerState
        self._what_P: Vector

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
            self._state = ServerState.initial(initial_P, self._settings.engine.optimizer)
            self._what_P = initial_P.copy()
            self._persist(0, [self._snapshot(0)], {}, now_s)
            return
        self._check_optimizer(newest)
        self._current = newest
        self._state = self._load_state(newest)
        self._what_P = self.vector(newest.version)

    def make(self, updates: Sequence[StoredUpdate], weights: Sequence[float], now_s: float) -> None:
        """Fold the updates into the model, in the order given, and persist the version; announce it after this."""
        self._fold(updates, weights)
        version = self.current.version + 1
        parts = self._publishable(version)
        self._persist(version, parts, {row.number: w for row, w in zip(updates, weights, strict=True)}, now_s)

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
        listed = self._ledger.parts(min(base, max(0, version - LONGEST_CHAIN)), version)
        snapshot = next(part for part in listed if part.kind is PartKind.SNAPSHOT and part.version == base)
        older = [part for part in listed if part.kind is PartKind.DELTA and part.version <= base]
        sizes = accumulate(part.manifest.size_bytes for part in reversed(older))
        useful = sum(1 for size_bytes in sizes if size_bytes < snapshot.manifest.size_bytes)
        newer = [part for part in listed if part.kind is PartKind.DELTA and part.version > base]
        return (*older[len(older) - useful :], snapshot, *newer)

    def vector(self, version: int) -> Vector:
        """(P,) float32 that agents hold at `version`, rebuilt from the stored parts. Raises KeyError if unknown."""
        digest = self._ledger.version(version).model_digest
        parts = self._ledger.parts(self._ledger.newest_snapshot(version), version)
        vector_P: Vector | None = None
        for part in cheapest_recipe(parts, version, None):
            vector_P = apply_part(vector_P, part, self._blobs.view(part.manifest.digest), self.layout)
        if vector_P is None or vector_digest(vector_P) != digest:
            raise RuntimeError(f"version {version}: the stored parts do not lead to the recorded model digest")
        return vector_P

    def _fold(self, updates: Sequence[StoredUpdate], weights: Sequence[float]) -> None:
        engine = self._settings.engine
        contributions: Sequence[Contribution] = [
            Contribution(weight, self._decoder(update), self.vector(update.base_version) if engine.pull else None)
            for update, weight in zip(updates, weights, strict=True)
        ]
        total = divisor(weights, [arrival_of(update) for update in updates], engine)
        if engine.cache:
            latest = self._ledger.latest_of_sites(updates[0].number)
            cached = {site: self._decoder(update) for site, update in latest.items()}
            sites = [update.site for update in updates]
            contributions = with_cache(contributions, sites, cached, len({*cached, *sites}), total)
        fold(self._state, self.layout, contributions, total, engine)

    def _decoder(self, update: StoredUpdate) -> Callable[[Block], Vector]:
        how, payload = codec(update.codec), self._blobs.view(update.digest)
        return lambda block: how.decode_block(payload, self.layout, block, update.update_id)

    def _publishable(self, version: int) -> list[Part]:
        """Advance `what` to the new version and store what agents need to do the same."""
        how = codec(self._settings.model_codec)
        if how.name == "f32":
            self._what_P[:] = self._state.w
            return [self._snapshot(version)]
        payload = how.encode(self._state.w - self._what_P, self.layout, b"")
        self._blobs.put(payload)
        part = Part(kind=PartKind.DELTA, version=version, codec=how.name, manifest=manifest_of(payload))
        self._what_P = apply_part(self._what_P, part, memoryview(payload), self.layout)
        return [part, self._snapshot(version)] if self._needs_snapshot(part) else [part]

    def _needs_snapshot(self, newest: Part) -> bool:
        """True when the deltas since the last snapshot are many, or together larger than a snapshot is."""
        snapshot = self._ledger.newest_snapshot(newest.version - 1)
        chain = [*self._ledger.parts(snapshot + 1, newest.version - 1), newest]
        size_bytes = sum(part.manifest.size_bytes for part in chain)
        return len(chain) >= LONGEST_CHAIN or size_bytes > 4 * self.layout.size

    def _snapshot(self, version: int) -> Part:
        payload = codec("f32").encode(self._what_P, self.layout, b"")
        self._blobs.put(payload)
        return Part(kind=PartKind.SNAPSHOT, version=version, codec="f32", manifest=manifest_of(payload))

    def _persist(self, version: int, parts: Sequence[Part], weights: Mapping[int, float], now_s: float) -> None:
        row = StoredVersion(
            version=version,
            created_at_s=now_s,
            model_digest=vector_digest(self._what_P),
            state_digest=self._blobs.put(self._packed_state()),
            settings={
                "engine": self._settings.engine.model_dump(mode="json"),
                "model_codec": self._settings.model_codec,
            },
        )
        self._ledger.add_version(row, parts, weights)
        replaced, self._current, self._parts = self._current, row, None
        if replaced is not None and not self._ledger.names_blob(replaced.state_digest):
            self._blobs.drop(replaced.state_digest)

    def _packed_state(self) -> memoryview:
        """The state's arrays one after another, float32 little-endian: w, then the moments that there are."""
        arrays = [array for array in self._arrays(self._state) if array is not None]
        return memoryview(np.concatenate(arrays).astype("<f4", copy=False).data).cast("B")

    def _check_optimizer(self, newest: StoredVersion) -> None:
        """The moments on disk are those of the optimizer that made them."""
        recorded, configured = newest.settings["engine"]["optimizer"]["name"], self._settings.engine.optimizer.name
        if recorded != configured:
            raise ConfigError(
                f"engine.optimizer.name: the state folder's model was made with {recorded}, got {configured}; "
                "go on with that one, or export the model and begin anew from it in another state_folder"
            )

    def _load_state(self, row: StoredVersion) -> ServerState:
        flat = np.frombuffer(self._blobs.view(row.state_digest), "<f4")
        state = ServerState.initial(np.zeros(self.layout.size, np.float32), self._settings.engine.optimizer)
        arrays = [array for array in self._arrays(state) if array is not None]
        if flat.size != len(arrays) * self.layout.size:
            raise RuntimeError(
                f"version {row.version}: the stored optimizer state has {flat.size} elements, "
                f"the configured optimizer needs {len(arrays) * self.layout.size}"
            )
        for array, stored in zip(arrays, flat.reshape(len(arrays), -1), strict=True):
            array[:] = stored
        return state

    @staticmethod
    def _arrays(state: ServerState) -> tuple[Vector | None, ...]:
        return state.w, state.m, state.u, state.u_max
