"""A configured site, and the coordinator's end of its wire."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.config import SiteConfig
from fedward.layout import Layout, Tensor
from fedward.messages import Offer
from fedward.testing import MemoryBroker
from tests.support.office import Office, offer_of, site_config


@pytest.fixture
def config(tmp_path: Path) -> SiteConfig:
    return site_config(tmp_path)


@pytest.fixture
def office(broker: MemoryBroker) -> Office:
    """An office whose model is four chunks long."""
    return Office(broker, Layout.of([Tensor("weight", (260_000,))]))


@pytest.fixture
def new_offer() -> Callable[..., Offer]:
    return offer_of
