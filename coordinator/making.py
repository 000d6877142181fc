"""How a version is made of the model before it and the updates of its buffer: one function, for life and for replay.

It reads from the ledger and the blobs what its arguments name, and writes nothing, so whoever calls it with the same
rows gets the same bytes. Shape letter: P parameters.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from coordinator.blobs import BlobFolder
from coordinator.engine.aggregate import Contribution, EncodedDelta, fold, with_cache
from coordinator.engine.buffer import divisor
from coordinator.engine.optimizer import ServerState
from coordinator.engine.rates import Arrival
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.tables import StoredUpdate, StoredVersion
from fedward.chunks import manifest_of
from fedward.codec import codec
from fedward.errors import IntegrityError
from fedward.identity import update_seed
from fedward.layout import Layout, Vector, vector_digest
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

    def recorded(self) -> dict[str, Any]:
        """As a version's row keeps them."""
        return {"engine": self.engine.model_dump(mode="json"), "model_codec": self.model_codec}

    @classmethod
    def of(cls, row: StoredVersion) -> Self:
        """Those that a version was made with."""
        return cls(EngineSettings.model_validate(row.settings["engine"]), row.settings["model_codec"])


@dataclass
class Model:
    """The true model with its moments, and what agents hold; `make_version` moves both on."""

    state: ServerState
    what_P: Vector

    @classmethod
    def initial(cls, initial_P: Vector, settings: Settings) -> Self:
        return cls(ServerState.initial(initial_P, settings.engine.optimizer), initial_P.copy())

    @property
    def digest(self) -> bytes:
        """Of what agents hold."""
        return vector_digest(self.what_P)

    def packed_state(self) -> memoryview:
        """The state's arrays one after another, float32 little-endian: w, then the moments that there are."""
        return memoryview(np.concatenate(_arrays(self.state)).astype("<f4", copy=False).data).cast("B")

    def state_digest(self) -> bytes:
        return hashlib.sha256(self.packed_state()).digest()


@dataclass(frozen=True)
class Store:
    """Where the rows and payloads are that a version is made of."""

    ledger: Ledger
    blobs: BlobFolder
    layout: Layout


@dataclass(frozen=True)
class Published:
    """The parts of a version, and the payload of each."""

    parts: tuple[Part, ...]
    payloads: tuple[bytes, ...]


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


def make_version(
    store: Store, model: Model, version: int, updates: Sequence[StoredUpdate], weights: Sequence[float], how: Settings
) -> Published:
    """Fold the updates into `model`, in the order given, so that it is `version`; returns what agents need for it."""
    _fold(store, model.state, updates, weights, how.engine)
    down = codec(how.model_codec)
    if down.name == "f32":
        model.what_P[:] = model.state.w
        return snapshot_of(store.layout, model, version)
    payload = down.encode(model.state.w - model.what_P, store.layout, b"")
    part = Part(kind=PartKind.DELTA, version=version, codec=down.name, manifest=manifest_of(payload))
    model.what_P = apply_part(model.what_P, part, memoryview(payload), store.layout)
    delta = Published((part,), (payload,))
    if not _needs_snapshot(store, part):
        return delta
    snapshot = snapshot_of(store.layout, model, version)
    return Published((*delta.parts, *snapshot.parts), (*delta.payloads, *snapshot.payloads))


def snapshot_of(layout: Layout, model: Model, version: int) -> Published:
    """What agents hold, as a snapshot; version 0 consists of it alone."""
    payload = codec("f32").encode(model.what_P, layout, b"")
    part = Part(kind=PartKind.SNAPSHOT, version=version, codec="f32", manifest=manifest_of(payload))
    return Published((part,), (payload,))


def vector_of(store: Store, version: int) -> Vector:
    """(P,) float32 that agents hold at `version`, rebuilt from the stored parts.

    Raises KeyError for a version that was never made, IntegrityError for parts that don't lead to it.
    """
    ledger = store.ledger
    digest = ledger.version(version).model_digest
    parts = ledger.parts(ledger.newest_snapshot(version), version)
    vector_P: Vector | None = None
    for part in cheapest_recipe(parts, version, None):
        vector_P = apply_part(vector_P, part, store.blobs.view(part.manifest.digest), store.layout)
    if vector_P is None or vector_digest(vector_P) != digest:
        raise IntegrityError(f"version {version}: the stored parts do not lead to the recorded model digest")
    return vector_P


def model_of(store: Store, row: StoredVersion, optimizer_of: Settings) -> Model:
    """The model at a version whose state is stored, to go on from with the optimizer of these settings."""
    flat = np.frombuffer(store.blobs.view(row.state_digest), "<f4")
    zeros_P = np.zeros(store.layout.size, np.float32)
    model = Model(ServerState.initial(zeros_P, optimizer_of.engine.optimizer), vector_of(store, row.version))
    arrays = _arrays(model.state)
    if flat.size != len(arrays) * store.layout.size:
        raise RuntimeError(
            f"version {row.version}: the stored optimizer state has {flat.size} elements, "
            f"the configured optimizer needs {len(arrays) * store.layout.size}"
        )
    for array, stored in zip(arrays, flat.reshape(len(arrays), -1), strict=True):
        array[:] = stored
    return model


def _fold(
    store: Store,
    state: ServerState,
    updates: Sequence[StoredUpdate],
    weights: Sequence[float],
    engine: EngineSettings,
) -> None:
    base_versions = {update.base_version for update in updates} if engine.pull else set()
    bases = {version: vector_of(store, version) for version in base_versions}
    total = divisor(weights, [arrival_of(update) for update in updates], engine)
    with ExitStack() as opened:
        contributions: Sequence[Contribution] = [
            Contribution(weight, _encoded(store, update, opened), bases.get(update.base_version))
            for update, weight in zip(updates, weights, strict=True)
        ]
        if engine.cache:
            latest: Mapping[str, StoredUpdate] = store.ledger.latest_of_sites(updates[0].number)
            cached = {site: _encoded(store, update, opened) for site, update in latest.items()}
            sites = [update.site for update in updates]
            contributions = with_cache(contributions, sites, cached, len({*cached, *sites}), total)
        fold(state, store.layout, contributions, total, engine)


def _encoded(store: Store, update: StoredUpdate, opened: ExitStack) -> EncodedDelta:
    """The update as the engine takes it; its blob stays open until `opened` is closed."""
    how = codec(update.codec)
    seed = update_seed(how, update.base_version, update.update_id)
    return EncodedDelta(how, opened.enter_context(store.blobs.open(update.digest)), seed)


def _needs_snapshot(store: Store, newest: Part) -> bool:
    """True when the deltas since the last snapshot are many, or together larger than a snapshot is."""
    snapshot = store.ledger.newest_snapshot(newest.version - 1)
    chain = [*store.ledger.parts(snapshot + 1, newest.version - 1), newest]
    size_bytes = sum(part.manifest.size_bytes for part in chain)
    return len(chain) >= LONGEST_CHAIN or size_bytes > 4 * store.layout.size


def _arrays(state: ServerState) -> list[Vector]:
    return [array for array in (state.w, state.m, state.u, state.u_max) if array is not None]
