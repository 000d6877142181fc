"""How a version is made of the model before it and the updates of its buffer: one function, for life and for replay.

It reads from the ledger and the blobs what its arguments name, and writes nothing, so whoever calls it with the same
rows gets the same model. What leaves for the sites is handed out piece by piece, and never held: a large model is in
memory twice, as it is and as the agents hold it, and a third time only where `pull` asks for a base.
Shape letters: P parameters, B elements of a block.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from coordinator.blobs import BlobFolder
from coordinator.engine.aggregate import fold, with_cache
from coordinator.engine.buffer import divisor
from coordinator.engine.contribution import Contribution, EncodedDelta
from coordinator.engine.norms import clip_scale
from coordinator.engine.optimizer import ServerState
from coordinator.engine.rates import Arrival
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.tables import StoredUpdate, StoredVersion
from fedward.codec import Codec, codec
from fedward.errors import IntegrityError, PeerError
from fedward.identity.names import update_seed
from fedward.layout import Layout, Vector, vector_digest
from fedward.messages import PartKind
from fedward.recipe import apply_part, cheapest_recipe


@dataclass(frozen=True)
class Settings:
    """What decides how a version is made of a buffer; recorded with each version."""

    engine: EngineSettings
    model_codec: str
    """Codec of the deltas that agents download; an exact one publishes a snapshot every time."""
    norm_bound: float | None = None
    """Norm to which updates are clipped: of one version, because it follows from the norms accepted before it."""

    def recorded(self) -> dict[str, Any]:
        """As a version's row keeps them."""
        engine = self.engine.model_dump(mode="json")
        return {"engine": engine, "model_codec": self.model_codec, "norm_bound": self.norm_bound}

    @classmethod
    def of(cls, row: StoredVersion) -> Self:
        """Those that a version was made with; an older release clipped nothing."""
        engine = EngineSettings.model_validate(row.settings["engine"])
        return cls(engine, row.settings["model_codec"], row.settings.get("norm_bound"))


@dataclass
class Model:
    """The true model with its moments, and what agents hold; `make_version` moves both on."""

    state: ServerState
    what_P: Vector
    step_norm: float | None = None
    """L2 norm of what the last version added to the true model; None before the first that was made here."""

    @classmethod
    def initial(cls, initial_P: Vector, settings: Settings) -> Self:
        return cls(ServerState.initial(initial_P, settings.engine.optimizer), initial_P.copy())

    @property
    def digest(self) -> bytes:
        """Of what agents hold."""
        return vector_digest(self.what_P)

    def packed_state(self) -> Iterator[memoryview]:
        """The state's arrays one after another, float32 little-endian: w, then the moments that there are."""
        for array_P in _arrays(self.state):
            yield memoryview(array_P.astype("<f4", copy=False).data).cast("B")

    def state_digest(self) -> bytes:
        digest = hashlib.sha256()
        for piece in self.packed_state():
            digest.update(piece)
        return digest.digest()


@dataclass(frozen=True)
class Store:
    """Where the rows and payloads are that a version is made of."""

    ledger: Ledger
    blobs: BlobFolder
    layout: Layout


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
    store: Store, model: Model, updates: Sequence[StoredUpdate], weights: Sequence[float], how: Settings
) -> Iterator[bytes]:
    """Fold the updates into `model`, in the order given, and move what agents hold on to it.

    Yields the pieces of the payload that moves the agents on, a delta or a snapshot (`kind_of_payload`). Both are done
    when the last piece was taken, and not before: whatever ends it earlier leaves a model to throw away.
    Raises IntegrityError for a stored payload that can't be read.
    """
    model.step_norm = _fold(store, model.state, updates, weights, how)
    down = codec(how.model_codec)
    if down.exact:
        model.what_P[:] = model.state.w
        yield from snapshot_of(store.layout, model, down)
    else:
        yield from _delta(store.layout, model, down)


def kind_of_payload(how: Settings) -> PartKind:
    """Of what `make_version` yields: an exact codec leaves nothing over that a next delta would have to carry."""
    return PartKind.SNAPSHOT if codec(how.model_codec).exact else PartKind.DELTA


def _delta(layout: Layout, model: Model, down: Codec) -> Iterator[bytes]:
    """Q(w - what), block by block; each is decoded and added to `what` here as every agent will do it."""
    sizes = []
    for block in layout.blocks:
        what_B = model.what_P[block.start : block.stop]
        piece = down.encode_block(model.state.w[block.start : block.stop] - what_B, layout, block, b"")
        what_B += down.decode_encoded(memoryview(piece), layout, block, b"")
        sizes.append(len(piece))
        yield piece
    yield down.index(layout, sizes)


def snapshot_of(layout: Layout, model: Model, how: Codec) -> Iterator[bytes]:
    """The pieces of what agents hold, as an exact codec has it."""
    sizes = []
    for block in layout.blocks:
        piece = how.encode_block(model.what_P[block.start : block.stop], layout, block, b"")
        sizes.append(len(piece))
        yield piece
    yield how.index(layout, sizes)


def vector_of(store: Store, version: int) -> Vector:
    """(P,) float32 that agents hold at `version`, rebuilt from the stored parts.

    Raises KeyError for a version that was never made, IntegrityError for parts that don't lead to it.
    """
    ledger = store.ledger
    digest = ledger.version(version).model_digest
    parts = ledger.parts(ledger.newest_snapshot(version), version)
    vector_P: Vector | None = None
    for part in cheapest_recipe(parts, version, None):
        with _of_the_store(f"version {part.version}: its {part.kind}"):
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
    how: Settings,
) -> float:
    engine = how.engine
    base_versions = {update.base_version for update in updates} if engine.pull else set()
    bases = {version: vector_of(store, version) for version in base_versions}
    total = divisor(weights, [arrival_of(update) for update in updates], engine)
    with ExitStack() as opened:
        contributions: Sequence[Contribution] = [
            Contribution(weight, _encoded(store, update, how, opened), bases.get(update.base_version), update.site)
            for update, weight in zip(updates, weights, strict=True)
        ]
        if engine.cache:
            latest: Mapping[str, StoredUpdate] = store.ledger.latest_of_sites(updates[0].number)
            cached = {site: _encoded(store, update, how, opened) for site, update in latest.items()}
            sites = [update.site for update in updates]
            contributions = with_cache(contributions, sites, cached, len({*cached, *sites}), total)
        with _of_the_store("an update of the buffer"):
            return fold(state, store.layout, contributions, total, engine)


@contextmanager
def _of_the_store(what: str) -> Iterator[None]:
    """What is stored was checked before: a payload that can't be read any more is the disk's doing, not a site's."""
    try:
        yield
    except PeerError as error:
        raise IntegrityError(f"{what} can't be read: {error.detail}; see the runbook: The ledger is damaged") from error


def _encoded(store: Store, update: StoredUpdate, how: Settings, opened: ExitStack) -> EncodedDelta:
    """The update as the engine takes it, clipped; its blob stays open until `opened` is closed."""
    up = codec(update.codec)
    seed = update_seed(up, update.base_version, update.update_id)
    payload = opened.enter_context(store.blobs.open(update.digest))
    return EncodedDelta(up, payload, seed, clip_scale(update.norm, how.norm_bound))


def _arrays(state: ServerState) -> list[Vector]:
    return [array for array in (state.w, state.m, state.u, state.u_max) if array is not None]
