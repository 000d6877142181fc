"""A disk that really is full, on either side: intake stops, nothing is lost, and it heals by itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.federation import Federation
from tests.integration.conftest import READY_S
from tests.support.disk import fill, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.network]


def test_a_coordinator_without_room_answers_busy_and_goes_on_when_there_is_room(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    disk = tmp_path / "federation" / "state" / "coordinator"
    with small_disk(disk):
        # Sites train again from the same version: they offer, also when all had been accepted as the disk became full.
        running = federation(finish={"version": 500}, engine={"preset": "default", "repeat_base": True})
        running.wait_for(lambda state: state["version"] >= 2, READY_S, "two versions")
        filler = fill(disk)
        full = running.wait_for(lambda state: state["refused"]["busy"] >= 1, 30, "an offer to be answered busy")
        assert running.page("/readyz") is None  # 503: no room on the disk
        running.wait_for(
            lambda state: all(site["phase"] == "publishing" for site in state["sites"].values()),
            30,
            "each site to keep its update",
        )
        filler.unlink()
        running.wait_for(lambda state: state["version"] >= full["version"] + 3, 60, "versions after the space returned")
        assert running.page("/readyz") == "ok\n"
        running.stop()


def test_a_site_without_room_waits_and_goes_on_when_there_is_room(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    disk = tmp_path / "federation" / "state" / "hospital-a"
    with small_disk(disk):
        running = federation(finish={"version": 500})
        running.wait_for(lambda state: state["version"] >= 2, READY_S, "two versions")
        filler = fill(disk)
        full = running.wait_for(lambda state: state["sites"]["hospital-a"]["phase"] == "full", 30, "the site to stop")
        later = running.wait_for(lambda state: state["version"] > full["version"] + 1, 60, "the other site to go on")
        filler.unlink()
        running.wait_for(
            lambda state: (
                state["sites"]["hospital-a"]["num_accepted"] > later["sites"]["hospital-a"]["num_accepted"] + 1
            ),
            60,
            "the site to deliver again",
        )
        running.stop()
