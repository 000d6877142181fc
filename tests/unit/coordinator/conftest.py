from pathlib import Path

import pytest

from coordinator.blobs import BlobFolder
from fedward.testing import MemoryBroker
from tests.support.site import Site


@pytest.fixture
def blobs(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "blobs")


@pytest.fixture
def north(broker: MemoryBroker) -> Site:
    return Site(broker, "north")


@pytest.fixture
def south(broker: MemoryBroker) -> Site:
    return Site(broker, "south")
