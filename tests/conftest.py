"""For all tests."""

import gc

import pytest
from hypothesis import settings

from fedward.testing import MemoryBroker

settings.register_profile("fedward", deadline=None)  # a busy machine is no failure
settings.load_profile("fedward")


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not walk through torch and scikit-learn again for every test."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()
