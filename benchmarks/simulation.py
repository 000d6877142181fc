"""A federation in one process and in simulated seconds: what a pair of codecs does to a model, and to nothing else.

Training, codecs, engine, versions and ledger are the real ones. Network and clock are not: an update takes as long as
the site's records times its pace, and transfers take no time. So two runs with the same conditions differ in their
codecs alone: the same sites train from versions of the same number, at the same time, in the same order of records,
from the same initial weights.

Each site makes version 0 itself from the announced seed, as an agent does where that spares bytes. Not so float32 both
ways, which stands for the plain way: there each site downloads its first model. Shape letter: P parameters.
"""

import heapq
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from coordinator.aggregate import Aggregator
from coordinator.blobs import BlobFolder
from coordinator.clock import Moment
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.making import Settings
from coordinator.members import Members
from coordinator.precision import Precision, UpdateCodecs
from coordinator.versions import Versions
from edge_agent.training.capability import measure
from edge_agent.training.encode import encode
from edge_agent.training.module import initial_model
from edge_agent.training.task import Task, load_task
from edge_agent.training.train import train
from fedward.chunks import manifest_of
from fedward.codec import codec, norm
from fedward.errors import IntegrityError
from fedward.identity.names import update_id_of, update_seed
from fedward.layout import Layout, Vector, vector_digest
from fedward.messages import Announcement, FederationState, Initial, Offer, Status, Work
from fedward.pack import pack
from fedward.recipe import apply_part, cheapest_recipe, initial_to_make, size_of
from sandbox.datasets import Split

UPDATE_CODECS = ("q8", "eden4", "eden2", "eden1")
"""What the federation allows beside the codec of a pair."""

SPREAD = 0.5
"""Standard deviation of the logarithm of the sites' paces: of four, the slowest takes about 2.8 times the fastest's."""

JITTER = 0.05
"""And of one site's updates among each other."""


@dataclass(frozen=True)
class Pair:
    """The codec of the updates and that of the model's deltas."""

    up: str
    down: str


FLOAT32 = Pair("f32", "f32")
"""The plain way, which all others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What is the same for all pairs. The seed gives initial weights, order of records, and paces."""

    task: str
    split: Split
    work: Work
    engine: EngineSettings
    seed: int
    precision: Precision

    @property
    def federation(self) -> str:
        """Its name, which is in every update's id and so in the order of records."""
        return f"seed-{self.seed}"

    @cached_property
    def initial(self) -> tuple[Layout, Vector]:
        """Version 0."""
        return initial_model(load_task(self.task, {}), self.seed)


@dataclass
class Traffic:
    """Bytes over all sites since the start.

    `up` and `down` are payloads, `joining` the part of `down` that brought each site its first model, where it did not
    make it, `messages` the
    offers and announcements as they are packed, without what they carry inline. Headers of MQTT and TCP, receipts,
    and requests for chunks are not counted: some hundred bytes an update.
    """

    up: int = 0
    down: int = 0
    joining: int = 0
    messages: int = 0
    num_updates: int = 0
    num_fetches: int = 0

    @property
    def total(self) -> int:
        return self.up + self.down + self.messages


@dataclass
class Site:
    """One hospital: its records, its pace, and the version that it holds."""

    name: str
    task: Task
    num_train: int
    pace: float
    rng: np.random.Generator
    held: int | None = None
    vector_P: Vector | None = None
    sequence: int = 0
    trained_from: int | None = None


@dataclass(frozen=True, order=True)
class Training:
    """An update under way: when it is done, and whose it is."""

    done_s: float
    site: int
    base_version: int = field(compare=False)
    work_s: float = field(compare=False)


class Simulation:
    """A run from version 0, on a folder of its own."""

    def __init__(self, folder: Path, conditions: Conditions, pair: Pair) -> None:
        self.traffic = Traffic()
        self._conditions = conditions
        self._capability = measure("cpu")
        self._layout, self._initial_P = conditions.initial
        self._plain = pair == FLOAT32
        self._announced: Announcement
        self._codecs = UpdateCodecs.of(pair.up, UPDATE_CODECS, conditions.precision, self._layout.size)
        self._ledger = Ledger.in_folder(folder)
        self._blobs = BlobFolder(folder / "blobs")
        settings = Settings(conditions.engine, pair.down)
        self.versions = Versions(self._ledger, self._blobs, self._layout, settings, conditions.precision)
        self.versions.begin(self._initial_P, now_s=0.0)
        self._members = Members([site.name for site in conditions.split], self._ledger)
        self._aggregator = Aggregator(self._ledger, self.versions, self._members, conditions.engine)
        self._sites = list(_sites(conditions))
        for site in self._sites:
            self._members.on_status(site.name, Status(boot_id=bytes(8), online=True))
        self._training: list[Training] = []

    def run(self, num_versions: int) -> Iterator[Vector]:
        """What the sites hold at version 1, 2, ... `num_versions`: (P,) float32 each, as soon as it is made."""
        self._announce(0.0)
        while (made := self.versions.current.version) < num_versions:
            now_s = self._step()
            if self._aggregator.make_if_ready(Moment(now_s, now_s)):
                yield self.versions.vector(made + 1)
                self._announce(now_s)
            else:
                self._begin_all(now_s)
        self._ledger.close()

    def _step(self) -> float:
        """The next arrival, or the buffer's deadline if that is earlier; when it was."""
        now_s = self._training[0].done_s
        due_s = self._aggregator.due_s(now_s)
        if due_s is not None and due_s < now_s:
            return due_s
        self._deliver(heapq.heappop(self._training))
        return now_s

    def _begin_all(self, now_s: float) -> None:
        """Each site that does nothing fetches the newest version and trains, where the rules let it."""
        newest, busy = self.versions.current.version, {training.site for training in self._training}
        for index, site in enumerate(self._sites):
            if index not in busy and (site.trained_from != newest or self._conditions.engine.repeat_base):
                self._fetch(site, newest)
                work_s = site.num_train * site.pace * float(np.exp(JITTER * site.rng.standard_normal()))
                heapq.heappush(self._training, Training(now_s + work_s, index, newest, work_s))

    def _fetch(self, site: Site, version: int) -> None:
        """By the cheapest recipe, as an agent does. Raises IntegrityError unless it leads to what was announced."""
        joins = site.held is None
        if joins and initial_to_make(self._announced):
            site.held, site.vector_P = 0, self._initial_P.copy()
        recipe = cheapest_recipe(self.versions.parts(), version, site.held)
        for part in recipe:
            site.vector_P = apply_part(site.vector_P, part, self._blobs.view(part.manifest.digest), self._layout)
        if site.vector_P is None or vector_digest(site.vector_P) != self.versions.current.model_digest:
            raise IntegrityError(f"version {version} at {site.name} is not what was announced")
        size_bytes = size_of(recipe)
        self.traffic.down += size_bytes
        self.traffic.joining += size_bytes if joins else 0
        self.traffic.num_fetches += 1 if recipe else 0
        site.held = version

    def _deliver(self, training: Training) -> None:
        """Train and encode, and have the update accepted."""
        site, version = self._sites[training.site], training.base_version
        up = codec(self._codecs.asked(version))
        assert site.vector_P is not None
        site.sequence += 1
        site.trained_from = version
        update_id = update_id_of(self._conditions.federation, site.name, version, site.sequence)
        delta_P, trained = train(
            site.task,
            self._layout,
            site.vector_P,
            self._conditions.work,
            capability=self._capability,
            seed=int.from_bytes(update_id[:7], "little"),
            on_step=lambda _: None,
            stop=threading.Event(),
        )
        payload = encode(delta_P, self._layout, up.name, update_seed(up, version, update_id))
        self._blobs.put(payload)
        offer = Offer(
            federation=self._conditions.federation,
            update_id=update_id,
            sequence=site.sequence,
            base_version=version,
            codec=up.name,
            layout_digest=self._layout.digest,
            num_examples=trained.num_examples,
            num_steps=trained.num_steps,
            work_s=training.work_s,
            manifest=manifest_of(payload),
            base_digest=vector_digest(site.vector_P),
        )
        self.traffic.up += len(payload)
        self.traffic.messages += len(pack(offer))
        self.traffic.num_updates += 1
        length = norm(payload, up, self._layout, update_seed(up, version, update_id))
        row = self._ledger.add_update(offer, site.name, Moment(training.done_s, training.done_s), length, None)
        self._members.on_update(row)
        self._aggregator.add(row)

    def _announce(self, now_s: float) -> None:
        """Tell all sites of the newest version; those that wait for one begin."""
        current, conditions = self.versions.current, self._conditions
        self._announced = Announcement(
            federation=conditions.federation,
            sequence=self._ledger.next_sequence(),
            boot_id=bytes(8),
            state=FederationState.RUNNING,
            version=current.version,
            model_digest=current.model_digest,
            layout_digest=self._layout.digest,
            parts=self.versions.parts(),
            task=conditions.task,
            work=conditions.work,
            codec=self._codecs.asked(current.version),
            max_staleness=conditions.engine.max_staleness,
            repeat_base=conditions.engine.repeat_base,
            epoch=self._ledger.epoch,
            codecs=self._codecs.allowed,
            initial=None if self._plain else Initial(seed=conditions.seed, model_digest=vector_digest(self._initial_P)),
        )
        self.traffic.messages += len(self._sites) * len(pack(self._announced))
        self._begin_all(now_s)


def _sites(conditions: Conditions) -> Iterator[Site]:
    """Each with seconds a record and a generator of its own, drawn from the seed: what one draws moves no other."""
    for index, data in enumerate(conditions.split):
        rng = np.random.default_rng([conditions.seed, index])
        pace = float(np.exp(SPREAD * rng.standard_normal()))
        yield Site(data.name, load_task(conditions.task, data.options), data.num_train, pace, rng)
