"""SQLite's write-ahead log: damage that SQLite passes over is found, and the torn end of a write is none."""

import sqlite3
from pathlib import Path
from random import Random

import pytest

from coordinator.wal import FRAME, HEADER, wal_fault

COMMITS = 12
PAGE_BYTES = 512
FRAME_BYTES = FRAME.size + PAGE_BYTES


@pytest.fixture
def log(tmp_path: Path) -> bytes:
    """Of COMMITS transactions, as a process leaves it that is killed."""
    connection = sqlite3.connect(tmp_path / "some.sqlite", isolation_level=None)
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE payloads (payload BLOB)")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for _ in range(COMMITS):
        connection.execute("INSERT INTO payloads VALUES (randomblob(900))")
    content = (tmp_path / "some.sqlite-wal").read_bytes()
    connection.close()
    return content


def flipped(log: bytes, at: int) -> bytes:
    return log[:at] + bytes([log[at] ^ 1]) + log[at + 1 :]


def test_a_log_as_it_was_written_has_no_fault(log: bytes) -> None:
    assert wal_fault(log) is None
    assert wal_fault(b"") is None


def test_a_log_that_was_cut_short_anywhere_has_no_fault(log: bytes) -> None:
    for length in range(HEADER.size, len(log), 97):
        assert wal_fault(log[:length]) is None, length


def test_a_flipped_bit_anywhere_before_the_last_transactions_is_found(log: bytes) -> None:
    rng = Random(3)
    last = len(log) - 8 * FRAME_BYTES
    for at in (*(rng.randrange(HEADER.size, last) for _ in range(60)), HEADER.size + 9, HEADER.size + 17):
        number = (at - HEADER.size) // FRAME_BYTES + 1
        fault = wal_fault(flipped(log, at))
        assert fault is not None, at
        assert fault.startswith(f"frame {number} of its write-ahead log is damaged"), at


def test_the_last_transaction_may_be_torn_by_power_loss(log: bytes) -> None:
    assert wal_fault(flipped(log, len(log) - PAGE_BYTES // 2)) is None


@pytest.mark.parametrize("at", [0, 5, 17, 25])
def test_a_damaged_header_is_found(log: bytes, at: int) -> None:
    assert wal_fault(flipped(log, at)) == "the header of its write-ahead log is not one"


def test_frames_left_from_before_the_log_was_begun_anew_are_no_fault(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "some.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE payloads (payload BLOB)")
    for _ in range(COMMITS):
        connection.execute("INSERT INTO payloads VALUES (randomblob(900))")
    connection.execute("PRAGMA wal_checkpoint(RESTART)")
    before = (tmp_path / "some.sqlite-wal").stat().st_size
    connection.execute("INSERT INTO payloads VALUES (randomblob(900))")
    content = (tmp_path / "some.sqlite-wal").read_bytes()
    connection.close()
    assert len(content) == before
    assert wal_fault(content) is None
