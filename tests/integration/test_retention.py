"""Backup and replay beside a process that deletes what is old as fast as it makes versions."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.backup import back_up
from coordinator.blobs import BlobFolder
from coordinator.ledger import Ledger
from coordinator.making import Store
from coordinator.replay import pruned_since, replay, snapshot_of_ledger
from fedward.errors import IntegrityError
from tests.support.version_line import TINY

pytestmark = [pytest.mark.sweep, pytest.mark.slow]

MANY = 100_000


def make_versions(folder: Path, version: int) -> list[str]:
    return [sys.executable, "-m", "tests.crash.make_versions", str(folder), str(version)]


@pytest.fixture
def state_folder(tmp_path: Path) -> Iterator[Path]:
    """Of a running process, which has made its first versions."""
    folder = tmp_path / "state"
    subprocess.run(make_versions(folder, 20), check=True)
    with subprocess.Popen(make_versions(folder, MANY)) as process:
        try:
            yield folder
            assert process.poll() is None
        finally:
            process.kill()


def test_a_backup_beside_a_coordinator_that_prunes_is_whole(state_folder: Path, tmp_path: Path) -> None:
    versions, floors, live = [20], set(), Ledger.in_folder(state_folder)
    while versions[-1] < 40:
        out = tmp_path / f"backup-{len(versions)}"
        versions.append(back_up(live, state_folder, out, 1e9).version)
        ledger, blobs = Ledger.in_folder(out), BlobFolder(out / "blobs")
        ledger.check_chain()
        assert blobs.digests() == set(ledger.blobs())
        done = [one.version for one in replay(Store(ledger, blobs, TINY), ledger.floor)]
        assert done == list(range(ledger.floor, versions[-1] + 1))
        floors.add(ledger.floor)
        ledger.close()
    live.close()
    assert versions == sorted(versions)
    assert len(floors) > 1


def test_a_replay_beside_a_coordinator_that_prunes_ends_or_says_that_it_was_overtaken(state_folder: Path) -> None:
    live = Ledger.in_folder(state_folder)
    floors: set[int] = set()
    while len(floors) < 3:
        with snapshot_of_ledger(live) as copy:
            copy.check_chain()
            floors.add(copy.floor)
            try:
                assert list(replay(Store(copy, BlobFolder(state_folder / "blobs"), TINY), copy.floor))
            except IntegrityError:
                assert pruned_since(live, copy)
    live.close()
