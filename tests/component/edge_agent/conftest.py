"""A hospital: a real agent with real training of three parameters, on a folder of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_agent.config import SiteConfig
from fedward.messages import Offer
from fedward.testing import MemoryBroker
from tests.support.hospital import Hospital
from tests.support.office import offer_of, site_config


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config(tmp_path: Path) -> SiteConfig:
    return site_config(tmp_path)


@pytest.fixture
def hospital(config: SiteConfig, broker: MemoryBroker) -> Iterator[Hospital]:
    running = Hospital(config, broker)
    yield running
    running.compute.stop(10.0)


@pytest.fixture
def new_hospital(broker: MemoryBroker, tmp_path: Path) -> Iterator[Callable[..., Hospital]]:
    """A hospital whose configuration differs."""
    running = list[Hospital]()

    def build(**changes: Any) -> Hospital:
        running.append(Hospital(site_config(tmp_path, **changes), broker))
        return running[-1]

    yield build
    for hospital in running:
        hospital.compute.stop(10.0)


@pytest.fixture
def new_offer() -> Callable[..., Offer]:
    return offer_of
