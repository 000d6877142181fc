"""A disk that really is full, on either side: intake stops, nothing is lost, and it heals by itself."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedward.disk import RESERVE_BYTES, free_bytes
from fedward.limits import MIB
from sandbox.federation import Federation
from tests.integration.conftest import READY_S

pytestmark = [pytest.mark.slow, pytest.mark.network]

DISK_BYTES = RESERVE_BYTES + 48 * MIB


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a file system of DISK_BYTES on the folder."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system: run as root to run this test")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no more than the reserve: less than anything that is begun anew needs."""
    filler = folder / "filler"
    filler.write_bytes(bytes(free_bytes(folder) - RESERVE_BYTES))
    return filler


def test_a_coordinator_without_room_answers_busy_and_goes_on_when_there_is_room(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    disk = tmp_path / "federation" / "state" / "coordinator"
    with small_disk(disk):
        running = federation(finish={"version": 500})
        running.wait_for(lambda state: state["version"] >= 2, READY_S, "two versions")
        filler = fill(disk)
        full = running.wait_for(lambda state: state["refused"]["busy"] >= 1, 30, "an offer to be answered busy")
        assert running.page("/readyz") is None  # 503: no room on the disk
        running.wait_for(
            lambda state: all(site["phase"] == "publishing" for site in state["sites"].values()),
            30,
            "the sites to keep their updates",
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
