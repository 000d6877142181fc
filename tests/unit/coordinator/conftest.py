"""Real rooms of a coordinator, each on a folder of its own."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.blobs import BlobFolder
from coordinator.ledger import Ledger
from fedward.layout import Layout
from fedward.testing import ManualClock, MemoryBroker
from tests.unit.coordinator.coordinator_bench import SMALL, Bench, Site, config_of

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder with a random name is made in it


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the machine has one: syncing to a disk takes longer than all the rest."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="fedward-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.in_folder(tmp_path)
    yield ledger
    ledger.close()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "blobs")


@pytest.fixture
def start(tmp_path: Path, broker: MemoryBroker, clock: ManualClock) -> Iterator[Callable[..., Bench]]:
    """Starts a coordinator with the settings given by name, and ends it after the test."""
    started: list[Bench] = []

    def begin(layout: Layout = SMALL, folder: str = "", window: int = 8, **changes: object) -> Bench:
        bench = Bench(config_of(tmp_path / folder, **changes), broker, clock, layout, window)
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
