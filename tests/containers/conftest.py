"""For the tests of the images. They need a Docker daemon and `make images`; without them they are skipped, loudly."""

from collections.abc import Iterator

import pytest

from tests.support.containers import Evaluation, images, why_not

FINISH_VERSION = 80


@pytest.fixture(scope="session")
def built() -> dict[str, dict[str, str]]:
    """The images by their short names; each with its tag, digests and files."""
    missing = why_not()
    if missing:
        pytest.skip(missing)
    return images()


@pytest.fixture(scope="session")
def federation(built: dict[str, dict[str, str]]) -> Iterator[Evaluation]:
    """The federation of docker/compose.yaml, up and healthy."""
    with Evaluation("fedward-test", FINISH_VERSION) as running:
        yield running
