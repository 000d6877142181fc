"""A line of versions without a broker: ledger, blobs and retention on a folder, fed with updates of two sites."""

from pathlib import Path
from typing import Any

from coordinator.blobs import BlobFolder
from coordinator.config import RetentionSettings
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.making import Settings, Store
from coordinator.retention import Retention
from coordinator.tables import ALL
from coordinator.versions import Versions
from fedward.chunks import manifest_of
from fedward.codec import codec
from fedward.errors import RejectReason
from fedward.layout import Kind, Layout, Tensor
from fedward.messages import Evaluation, FederationState, Ratio
from tests.support.coordinator_bench import at
from tests.support.updates import FEDERATION, SITES, offer_of, update_id, vector

TINY = Layout.of([Tensor("weight", (6, 5)), Tensor("mean", (2,), Kind.STATISTIC)])
SHORT = RetentionSettings(versions=12, records=30)
"""Bases are up to two versions old."""
KEEP_ALL = RetentionSettings(versions=10_000, records=10_000)
REFUSED_EVERY = 7
WISH_EVERY = 5


class VersionLine:
    """One process; another one on the same folder is the process after it, and makes the same versions."""

    def __init__(
        self,
        folder: Path,
        retention: RetentionSettings = SHORT,
        model_codec: str = "q8",
        **engine: Any,
    ) -> None:
        self.ledger = Ledger.in_folder(folder)
        self.ledger.claim("federation", FEDERATION)
        self.blobs = BlobFolder(folder / "blobs")
        self.versions = Versions(
            self.ledger, self.blobs, TINY, Settings(EngineSettings.model_validate(engine), model_codec)
        )
        self.versions.begin(vector(TINY, seed=0, scale=1.0), now_s=0.0)
        self.retention = Retention(self.ledger, self.blobs, retention)
        self.retention.begin()

    @property
    def newest(self) -> int:
        return self.versions.current.version

    @property
    def store(self) -> Store:
        return Store(self.ledger, self.blobs, TINY)

    def make(self, count: int, sites: list[str] = SITES) -> None:
        """Each version of an update of each of the sites; they measure it too."""
        for _ in range(count):
            for site in sites:
                self.deliver(site)
            buffered = self.ledger.buffered()
            self.versions.make(buffered, [1.25, 1 / 3][: len(buffered)], now_s=100.0 + self.newest)
            for site in sites:
                self.measure(site)
            if self.newest % WISH_EVERY == 0:
                self.ledger.wish(ALL, FederationState.RUNNING, 100.0 + self.newest)
            self.retention.apply()

    def deliver(self, site: str) -> None:
        seed, base_version = 1 + 2 * self.newest + SITES.index(site), max(0, self.newest - 2 * SITES.index(site))
        payload = codec("f32").encode(vector(TINY, seed), TINY, update_id(seed, site, base_version))
        offer = offer_of(payload, seed, site, base_version, layout_digest=TINY.digest)
        if seed % REFUSED_EVERY == 0:
            refused = offer_of(payload, seed + 1_000_000, site, base_version)
            self.ledger.add_update(refused, site, at(float(seed)), None, RejectReason.NOT_FINITE)
        assert self.blobs.put(payload) == manifest_of(payload).digest
        self.ledger.add_update(offer, site, at(float(seed)), 1.0, None)

    def measure(self, site: str) -> None:
        metrics = {"auc": Ratio(numerator=8.0, denominator=10.0), "loss": Ratio(numerator=1.0, denominator=10.0)}
        measured = Evaluation(federation=FEDERATION, version=self.newest, num_examples=10, metrics=metrics)
        self.ledger.add_evaluation(measured, site, 100.0 + self.newest)

    def close(self) -> None:
        self.ledger.close()
