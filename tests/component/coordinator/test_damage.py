"""A ledger whose file is damaged: named before anything is told to a site, left as it is, and replaced by a backup."""

import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.damage import check_ledger_file, is_damage
from coordinator.ledger import Ledger
from coordinator.wal import FRAME, HEADER
from fedward.cli import EXIT_INTEGRITY, main
from fedward.errors import IntegrityError
from fedward.messages import FederationState
from tests.support.coordinator_bench import Bench
from tests.support.ledger_file import flip, page_of, settle_log
from tests.support.site import Site
from tests.support.updates import inline

Start = Callable[..., Bench]
LOG = bytes.fromhex("377f06")
"""How a write-ahead log begins."""


def files_of(state_folder: Path) -> dict[str, bytes]:
    """What SQLite reads: not its shared memory, nor a log without content, which whoever opens the ledger makes."""
    found = {path.name: path.read_bytes() for path in state_folder.glob("ledger.sqlite*")}
    return {name: content for name, content in found.items() if name == "ledger.sqlite" or content.startswith(LOG)}


def damage(ledger: Path, how: str) -> None:
    match how:
        case "the header":
            flip(ledger, 16)
        case "the schema":
            flip(ledger, page_of(ledger, "updates")[1] - 400, 400)
        case "a page of a table":
            flip(ledger, page_of(ledger, "updates")[0])
        case "an entry of an index":
            start, length = page_of(ledger, "updates_of_a_site")
            flip(ledger, start + length - 4, 2)
        case "the end is missing":
            ledger.write_bytes(ledger.read_bytes()[: ledger.stat().st_size // 2])
        case "it is empty":
            ledger.write_bytes(b"")
        case "it is missing":
            ledger.unlink()


DAMAGES = [
    "the header", "the schema", "a page of a table", "an entry of an index", "the end is missing", "it is empty",
    "it is missing",
]  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_a_coordinator_does_not_start_on_a_damaged_ledger_and_changes_nothing(
    after_a_run: Path, start: Start, north: Site, how: str
) -> None:
    ledger = after_a_run / "state" / "ledger.sqlite"
    damage(ledger, how)
    before, announced = files_of(ledger.parent), len(north.announcements())
    with pytest.raises(IntegrityError, match=r"ledger\.sqlite: the ledger is damaged .* coordinator restore"):
        start()
    assert files_of(ledger.parent) == before
    assert len(north.announcements()) == announced


@pytest.mark.parametrize("how", DAMAGES[:3])
@pytest.mark.parametrize("verb", ["status", "replay", "backup"])
def test_a_command_on_a_damaged_ledger_says_so(
    after_a_run: Path, capsys: pytest.CaptureFixture[str], verb: str, how: str
) -> None:
    damage(after_a_run / "state" / "ledger.sqlite", how)
    arguments = ["--out", str(after_a_run / "backup")] if verb == "backup" else []
    code = main(["coordinator", verb, "--config", str(after_a_run / "federation.yaml"), *arguments])
    lines = capsys.readouterr().err.splitlines()
    assert (code, len(lines)) == (EXIT_INTEGRITY, 1)
    assert "the ledger is damaged" in lines[0]
    assert not (after_a_run / "backup").exists()


def test_a_damaged_page_is_not_carried_into_a_backup(after_a_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(after_a_run / "state" / "ledger.sqlite", "an entry of an index")
    arguments = ["--config", str(after_a_run / "federation.yaml"), "--out", str(after_a_run / "backup")]
    assert main(["coordinator", "backup", *arguments]) == EXIT_INTEGRITY
    assert not (after_a_run / "backup").exists()


def after_a_kill(bench: Bench, folder: Path) -> Path:
    """The state folder as SIGKILL would leave it: what was written last is in the write-ahead log only."""
    shutil.copytree(bench.config.state_folder, folder / "state")
    (folder / "state" / "ledger.sqlite-shm").unlink()
    return folder / "state"


@pytest.fixture
def running(start: Start, north: Site) -> Bench:
    """A coordinator that has told a site of an accepted update."""
    bench = start()
    bench.settle()
    north.offer(inline(1))
    bench.settle()
    assert len(north.receipts()) == 1
    return bench


def test_a_damaged_write_ahead_log_is_named_before_sqlite_drops_what_stands_after_it(
    running: Bench, tmp_path: Path, start: Start
) -> None:
    state_folder = after_a_kill(running, tmp_path / "copy")
    flip(state_folder / "ledger.sqlite-wal", 1000)
    before = files_of(state_folder)
    with pytest.raises(IntegrityError, match=r"frame 1 of its write-ahead log is damaged, and \d+ transactions"):
        start(folder="copy")
    assert files_of(state_folder) == before


def test_status_on_a_damaged_write_ahead_log_does_not_drop_it(
    running: Bench, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = after_a_kill(running, tmp_path / "copy")
    running.kill()
    shutil.rmtree(folder / "state")
    shutil.move(copy, folder / "state")
    flip(folder / "state" / "ledger.sqlite-wal", 1000)
    before = files_of(folder / "state")
    assert main(["coordinator", "status", "--config", str(folder / "federation.yaml")]) == EXIT_INTEGRITY
    assert "write-ahead log is damaged" in capsys.readouterr().err
    assert files_of(folder / "state") == before


def test_a_coordinator_goes_on_after_a_kill_that_left_a_write_ahead_log(
    running: Bench, tmp_path: Path, start: Start
) -> None:
    after_a_kill(running, tmp_path / "copy")
    running.kill()
    assert len(start(folder="copy").ledger.updates()) == 1


def test_a_second_power_loss_that_tears_the_last_write_is_no_damage_either(
    running: Bench, tmp_path: Path, start: Start
) -> None:
    """What the first one tore was long, so its end would still stand after what was written over its beginning."""
    before = num_frames(running.config.state_folder)
    with closing(sqlite3.connect(running.config.state_folder / "ledger.sqlite")) as other:
        other.execute("INSERT INTO facts VALUES ('long', zeroblob(400000))")
        other.commit()
    first = after_a_kill(running, tmp_path / "first")
    tear(first, before + 1)
    again = start(folder="first")
    again.ledger.wish("north", FederationState.PAUSED, 1.0)
    last = num_frames(first)
    second = after_a_kill(again, tmp_path / "second")
    tear(second, last)
    assert start(folder="second").ledger.wishes() == {}


def num_frames(state_folder: Path) -> int:
    """That SQLite takes of the write-ahead log, as its shared memory says: https://sqlite.org/walformat.html."""
    (number,) = struct.unpack_from("=I", (state_folder / "ledger.sqlite-shm").read_bytes(), 16)
    return int(number)


def tear(state_folder: Path, frame: int) -> None:
    """Let a part of the page of a frame, counted from 1, be another one than was written."""
    length = FRAME.size + 4096
    flip(state_folder / "ledger.sqlite-wal", HEADER.size + frame * length - length // 2, 1000)


def test_a_page_that_is_found_damaged_while_running_ends_the_work_without_a_receipt(
    running: Bench, north: Site, south: Site
) -> None:
    ledger = running.config.state_folder / "ledger.sqlite"
    assert settle_log(ledger)
    flip(ledger, page_of(ledger, "updates")[0])
    other = Ledger.in_folder(running.config.state_folder)
    other.wish("north", FederationState.RUNNING, 1.0)  # what another process writes makes SQLite read its pages anew
    other.close()
    south.offer(inline(2, "south"))
    told = len(north.deliveries()), len(south.deliveries())
    with pytest.raises(IntegrityError, match="the ledger is damaged"):
        running.settle()
    assert (len(north.deliveries()), len(south.deliveries())) == told


def test_a_folder_in_which_the_first_start_died_is_no_damaged_one(tmp_path: Path, start: Start) -> None:
    bench = start()
    bench.kill()
    (tmp_path / "state" / "ledger.sqlite").write_bytes(b"")  # blobs of version 0 are stored before it is recorded
    check_ledger_file(tmp_path / "state")
    assert start().versions.current.version == 0


DIES_IN_ITS_FIRST_TRANSACTION = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
connection.execute("CREATE TABLE payloads (payload BLOB)")
connection.execute("INSERT INTO payloads VALUES (randomblob(100000))")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_first_start_that_was_killed_while_it_wrote_the_ledger_is_begun_again(tmp_path: Path, start: Start) -> None:
    ledger = tmp_path / "state" / "ledger.sqlite"
    ledger.parent.mkdir()
    died = subprocess.run([sys.executable, "-c", DIES_IN_ITS_FIRST_TRANSACTION, str(ledger)], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert ledger.stat().st_size > 0
    assert ledger.with_name("ledger.sqlite-journal").stat().st_size > 0
    check_ledger_file(tmp_path / "state")
    assert start().versions.current.version == 0


def test_a_locked_or_full_database_is_no_damage(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "full.sqlite", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE payloads (payload BLOB)")
        connection.execute("PRAGMA max_page_count = 4")
        with pytest.raises(sqlite3.OperationalError, match="disk is full") as full:
            connection.execute("INSERT INTO payloads VALUES (randomblob(100000))")
        with closing(sqlite3.connect(tmp_path / "full.sqlite", timeout=0.0, isolation_level=None)) as other:
            connection.execute("BEGIN EXCLUSIVE")
            with pytest.raises(sqlite3.OperationalError, match="locked") as locked:
                other.execute("INSERT INTO payloads VALUES (1)")
    assert not is_damage(full.value)
    assert not is_damage(locked.value)


@pytest.mark.parametrize(
    ("code", "is_one"),
    [
        (sqlite3.SQLITE_CORRUPT_INDEX, True),
        (sqlite3.SQLITE_IOERR_READ, True),
        (sqlite3.SQLITE_IOERR_SHMSIZE, False),  # what a full disk can look like
        (sqlite3.SQLITE_FULL, False),
    ],
)
def test_a_sector_that_cannot_be_read_is_damage_and_one_that_cannot_be_written_is_not(code: int, is_one: bool) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    assert is_damage(error) == is_one
