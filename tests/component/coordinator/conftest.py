"""Real rooms of a coordinator, each on a folder of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from coordinator import database
from coordinator.blobs import BlobFolder
from coordinator.journeys import Tell
from coordinator.ledger import Ledger
from fedward.identity.folder import CoordinatorIdentity
from fedward.layout import Layout
from fedward.testing import ManualClock, MemoryBroker
from sandbox.postgres import PostgresServer
from tests.support.coordinator_bench import Bench, config_of, write_config
from tests.support.postgres import server
from tests.support.site import Site
from tests.support.updates import SMALL, offer_of, payload_of


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests, without waiting for the disk."""
    with server(fsync=False) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def engine_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Engine]:
    """Connects to the ledger of this name: the same database each time, of both kinds in turn."""
    urls: dict[str, str] = {}

    def engine(name: str = "") -> Engine:
        if request.param == "sqlite":
            return database.in_folder(tmp_path / name)
        if name not in urls:
            urls[name] = request.getfixturevalue("postgres").new_schema_url()
        return database.on_server(urls[name], leads=True)

    return engine


@pytest.fixture
def ledger(engine_of: Callable[..., Engine]) -> Iterator[Ledger]:
    ledger = Ledger(engine_of())
    yield ledger
    ledger.close()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "blobs")


@pytest.fixture
def start(tmp_path: Path, broker: MemoryBroker, clock: ManualClock) -> Iterator[Callable[..., Bench]]:
    """Starts a coordinator with the settings given by name, and ends it after the test."""
    started: list[Bench] = []

    def begin(
        layout: Layout = SMALL,
        folder: str = "",
        window: int = 8,
        identity: CoordinatorIdentity | None = None,
        tell: Tell | None = None,
        **changes: object,
    ) -> Bench:
        bench = Bench(config_of(tmp_path / folder, **changes), broker, clock, layout, window, identity, tell)
        started.append(bench)
        return bench

    yield begin
    for bench in started:
        bench.kill()


@pytest.fixture
def north(broker: MemoryBroker) -> Site:
    return Site(broker, "north")


@pytest.fixture
def south(broker: MemoryBroker) -> Site:
    return Site(broker, "south")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration file and the initial model; nothing has run yet."""
    write_config(tmp_path)
    return tmp_path


@pytest.fixture
def after_a_run(folder: Path, start: Callable[..., Bench], north: Site, south: Site) -> Path:
    """One version of two updates, and a third in the buffer."""
    bench = start()
    bench.settle()
    for seed, site, base_version in ((1, north, 0), (2, south, 0), (3, north, 1)):
        payload = payload_of(SMALL, seed)
        site.offer(offer_of(payload, seed, site.name, base_version, payload=payload))
    bench.settle()
    bench.kill()
    return folder
