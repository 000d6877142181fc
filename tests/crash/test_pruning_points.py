"""Every durable step of pruning, killed just before and just after it: the next process sweeps and goes on."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.blobs import BlobFolder
from coordinator.ledger import Ledger
from coordinator.replay import replay
from sandbox.steps import PRUNING_STEPS
from tests.crash.make_versions import SHORTEST
from tests.support.version_line import VersionLine

pytestmark = pytest.mark.slow

FIRST, END = 11, 27
"""The floor rises for the first time after FIRST; rows are deleted before END."""
LEAVES_ORPHANS = {("floor recorded", "after"), ("blob pruned", "before"), ("blob pruned", "after")}


def make_versions(folder: Path, version: int, *death: str) -> int:
    arguments = [sys.executable, "-m", "tests.crash.make_versions", str(folder), str(version), *death]
    return subprocess.run(arguments, timeout=60, check=False).returncode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert make_versions(folder, END) == 0
    ledger = Ledger.in_folder(folder)
    yield ledger
    ledger.close()


def orphans(folder: Path) -> set[bytes]:
    """Blobs that the ledger does not need."""
    ledger = Ledger.in_folder(folder)
    left = BlobFolder(folder / "blobs").digests() - ledger.blobs().keys()
    ledger.close()
    return left


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("step", PRUNING_STEPS)
def test_a_coordinator_that_dies_while_it_prunes(tmp_path: Path, undisturbed: Ledger, step: str, side: str) -> None:
    assert make_versions(tmp_path, FIRST) == 0
    assert make_versions(tmp_path, END, step, side) == -signal.SIGKILL
    assert bool(orphans(tmp_path)) == ((step, side) in LEAVES_ORPHANS)
    after = VersionLine(tmp_path, retention=SHORTEST)
    assert after.blobs.digests() == set(after.ledger.blobs())
    after.ledger.check_chain()
    assert FIRST < after.newest < END
    assert [done.version for done in replay(after.store, after.ledger.floor)][-1] == after.newest
    after.make(END - after.newest)
    assert [row.model_digest for row in after.ledger.versions()] == [row.model_digest for row in undisturbed.versions()]
    assert after.ledger.floor == undisturbed.floor
    assert after.ledger.totals() == undisturbed.totals()
    after.ledger.check_chain()
    after.close()
