"""A coordinator on the bench: the real service, SQLite and files, around a broker in memory and a clock that waits."""

from pathlib import Path
from queue import Queue
from typing import Any

import yaml

from coordinator.blobs import BlobFolder
from coordinator.clock import Moment
from coordinator.config import CoordinatorBrokerSettings, FederationConfig, FinishSettings, WorkSettings
from coordinator.engine.settings import EngineSettings
from coordinator.journeys import Tell
from coordinator.ledger import Ledger
from coordinator.making import Settings
from coordinator.opening import open_ledger
from coordinator.service import LISTEN_S, Service
from coordinator.versions import Versions
from fedward import topics
from fedward.errors import RejectReason
from fedward.identity.folder import CoordinatorIdentity
from fedward.layout import Layout
from fedward.messages import Offer, Outcome, Range, Receipt
from fedward.modelfile import load_seed, save_model
from fedward.ports import LinkInbox
from fedward.testing import ManualClock, MemoryBroker, MemoryLink
from tests.support.updates import FEDERATION, SITES, SMALL, vector


def at(seconds: float) -> Moment:
    """A moment that is the same on both clocks."""
    return Moment(seconds, seconds)


def config_of(folder: Path, **changes: Any) -> FederationConfig:
    """Two sites, float32 updates, a version of two updates without weights, q8 down."""
    fields = {
        "federation": FEDERATION,
        "sites": SITES,
        "task": "tabular",
        "model": folder / "initial.safetensors",
        "work": WorkSettings(local_epochs=1, batch_size=16, local_lr=0.1),
        "state_folder": folder / "state",
        "broker": CoordinatorBrokerSettings(host="localhost"),
        "engine": EngineSettings(buffer_size=2, flush_after_s=600.0),
        "codec": "f32",
        "precise_versions": 0,
        "finish": FinishSettings(),
        **changes,
    }
    return FederationConfig(**fields)


def write_config(folder: Path, layout: Layout = SMALL) -> Path:
    """federation.yaml, as `config_of` says, for the commands; and the initial model."""
    save_model(folder / "initial.safetensors", layout, vector(layout, 0, scale=1.0), {})
    settings = {
        "federation": FEDERATION,
        "sites": SITES,
        "task": "tabular",
        "model": str(folder / "initial.safetensors"),
        "work": {"local_epochs": 1, "batch_size": 16, "local_lr": 0.1},
        "state_folder": str(folder / "state"),
        "broker": {"host": "localhost"},
    }
    (folder / "federation.yaml").write_text(yaml.safe_dump(settings))
    return folder / "federation.yaml"


class Bench:
    """One coordinator process; another Bench on the same folder, broker and clock is the process after it."""

    def __init__(
        self,
        config: FederationConfig,
        broker: MemoryBroker,
        clock: ManualClock,
        layout: Layout = SMALL,
        window: int = 8,
        identity: CoordinatorIdentity | None = None,
        tell: Tell | None = None,
    ) -> None:
        self.config = config
        self.killed = False
        self.clock = clock
        self.listened = False
        self.ledger: Ledger = open_ledger(config, layout)
        self.blobs = BlobFolder(config.state_folder / "blobs")
        settings = Settings(config.engine, config.model_codec)
        self.versions = Versions(self.ledger, self.blobs, layout, settings, config.precision)
        seed = load_seed(config.model, config.task) if config.model.exists() else None
        self.versions.begin(vector(layout, seed=0, scale=1.0), clock.now_s(), seed)
        self.inbox: LinkInbox = Queue()
        self.link = MemoryLink(broker, "coordinator", self.inbox, window=window)
        self.service = Service(config, self.versions, self.link, clock, identity, tell)
        self.link.subscribe(topics.up_all(FEDERATION))
        self.link.open()

    def settle(self) -> None:
        """Handle what is there, as `run` does, and look at the time once.

        The first time, the clock moves on by LISTEN_S: no version is made before.
        """
        if not self.listened and not self.inbox.empty():
            self.service.handle(self.inbox.get_nowait())
            self.clock.advance(LISTEN_S)
            self.listened = True
        while not self.inbox.empty():
            self.service.handle(self.inbox.get_nowait())
            self.service.tick()
        self.service.acknowledge()
        self.service.tick()

    def kill(self) -> None:
        """End without another event or acknowledgement; what is open is only closed, so that no test leaks it.

        May be called twice.
        """
        if self.killed:
            return
        self.killed = True
        self.link.kill()
        self.service.close()
        self.ledger.close()


def accepted(offer: Offer) -> Receipt:
    return Receipt(update_id=offer.update_id, outcome=Outcome.ACCEPTED)


def refused(offer: Offer, reason: RejectReason) -> Receipt:
    return Receipt(update_id=offer.update_id, outcome=Outcome.REFUSED, reason=reason)


def missing(*ranges: tuple[int, int]) -> tuple[Range, ...]:
    return tuple(Range(start=start, stop=stop) for start, stop in ranges)


def refusals(bench: Bench) -> dict[str, int]:
    return {reason: count for reason, count in bench.service.page()["refused"].items() if count}
