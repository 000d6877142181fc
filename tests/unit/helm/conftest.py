"""The chart as common installations render it. `helm/prepare.py` is a script, not a package."""

import sys
from pathlib import Path

import pytest

from tests.support.chart import CI, Manifest, render, values_of

sys.path.append(str(Path(__file__).parents[3] / "helm"))


@pytest.fixture(params=CI)
def installation(request: pytest.FixtureRequest) -> str:
    """The name of each file in ci/."""
    return str(request.param)


@pytest.fixture
def manifests(installation: str) -> list[Manifest]:
    """What it renders."""
    return render(values_of(installation))
