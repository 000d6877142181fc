"""`backup` and `restore`, killed at each durable step: what is half done is never taken for whole."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.backup import PART, RESTORING
from coordinator.ledger import Ledger
from fedward.cli import EXIT_CONFIG, main
from fedward.errors import ConfigError
from fedward.testing import ManualClock, MemoryBroker
from sandbox.steps import BACKUP_STEPS, RESTORE_STEPS
from tests.support.coordinator_bench import Bench, config_of, write_config
from tests.support.site import Site
from tests.support.updates import SITES, inline

pytestmark = pytest.mark.slow

SIDES = [pytest.param("before", marks=pytest.mark.sweep), "after"]


def make_versions(folder: Path, first: int, last: int) -> None:
    """A coordinator that makes versions up to `last` and leaves its state folder."""
    broker = MemoryBroker()
    bench = Bench(config_of(folder), broker, ManualClock())
    bench.settle()
    sites = [Site(broker, name) for name in SITES]
    bench.settle()
    for base in range(first, last):
        for site in sites:
            site.offer(inline(10 * base + SITES.index(site.name), site.name, base))
        bench.settle()
    assert bench.versions.current.version == last
    bench.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder with one version."""
    write_config(tmp_path)
    make_versions(tmp_path, 0, 1)
    return tmp_path


@pytest.fixture
def with_backup(folder: Path) -> Path:
    """A backup of one version, and a state folder with two."""
    assert fedward(folder, "backup", "--out", folder / "backup") == 0
    make_versions(folder, 1, 2)
    return folder


def command(folder: Path, verb: str, *arguments: object) -> list[str]:
    return ["coordinator", verb, "--config", str(folder / "federation.yaml"), *map(str, arguments)]


def fedward(folder: Path, verb: str, *arguments: object) -> int:
    return main(command(folder, verb, *arguments))


def die(step: str, side: str, arguments: list[str]) -> None:
    killed = subprocess.run([sys.executable, "-m", "sandbox.die", step, side, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL


def num_versions(folder: Path) -> int:
    """Without the initial one."""
    ledger = Ledger.in_folder(folder, create=False)
    found = len(ledger.versions()) - 1
    ledger.close()
    return found


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("step", RESTORE_STEPS)
def test_a_restore_that_dies_just(with_backup: Path, step: str, side: str, capsys: pytest.CaptureFixture[str]) -> None:
    state_folder = with_backup / "state"
    die(step, side, command(with_backup, "restore", "--from", with_backup / "backup", "--force"))
    half = (state_folder / RESTORING).exists()
    if half:  # neither a coordinator nor a command takes it for a state folder
        with pytest.raises(ConfigError, match="a restore was interrupted here"):
            Bench(config_of(with_backup), MemoryBroker(), ManualClock())
        assert fedward(with_backup, "status") == EXIT_CONFIG
        assert "a restore was interrupted here" in capsys.readouterr().err
    else:
        assert num_versions(state_folder) == (1 if (step, side) == ("all in place", "after") else 2)
        assert fedward(with_backup, "replay") == 0
    assert fedward(with_backup, "restore", "--from", with_backup / "backup", *([] if half else ["--force"])) == 0
    assert num_versions(state_folder) == 1
    assert fedward(with_backup, "replay") == 0
    replaced = sorted(state_folder.glob("replaced-*"))
    assert num_versions(replaced[0]) == 2
    assert len(list((replaced[0] / "blobs").iterdir())) > len(list((with_backup / "backup" / "blobs").iterdir()))
    assert not list(state_folder.glob(".restoring*"))


def test_another_backup_can_be_restored_after_a_restore_that_died(with_backup: Path) -> None:
    newer = with_backup / "newer"
    assert fedward(with_backup, "backup", "--out", newer) == 0
    die("new blobs put in", "after", command(with_backup, "restore", "--from", with_backup / "backup", "--force"))
    assert fedward(with_backup, "restore", "--from", newer) == EXIT_CONFIG  # it is whole, and not empty
    assert fedward(with_backup, "restore", "--from", newer, "--force") == 0
    assert num_versions(with_backup / "state") == 2


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("step", BACKUP_STEPS)
def test_a_backup_that_dies_just(folder: Path, step: str, side: str) -> None:
    out = folder / "backup"
    die(step, side, command(folder, "backup", "--out", out))
    named = (step, side) == ("backup named", "after")
    assert out.exists() == named
    for path in folder.glob(f".backup{PART}"):  # only one that has its manifest, which is written last, is a backup
        whole = (path / "manifest.json").exists()
        assert fedward(folder, "restore", "--from", path, "--force") == (0 if whole else EXIT_CONFIG)
    if not named:
        assert fedward(folder, "backup", "--out", out) == 0
    assert not list(folder.glob(f".backup{PART}"))
    assert fedward(folder, "restore", "--from", out, "--force") == 0
    assert fedward(folder, "replay") == 0
