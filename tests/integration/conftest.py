"""Real federations of real processes, small enough for a test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.federation import Federation, Plan

READY_S = 60.0
"""Five processes import torch on two busy cores."""


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Starts a federation of two hospitals, or as the arguments of Plan say, and ends it after the test."""
    started: list[Federation] = []

    def start(**plan: object) -> Federation:
        arguments = {"folder": tmp_path / "federation", "num_sites": 2, **plan}
        running = Federation(Plan(**arguments))  # type: ignore[arg-type]
        started.append(running)
        running.__enter__()
        return running

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def clinical_data() -> Path:
    """The folder with the clinical data sets."""
    folder = os.environ.get("FEDWARD_DATA", "")
    if not folder:
        pytest.skip("needs the clinical data sets: set FEDWARD_DATA to their folder to run this test")
    return Path(folder)
