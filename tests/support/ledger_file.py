"""The ledger's file, damaged the way disks do it: bytes that are others, or not there any more."""

import sqlite3
from contextlib import closing
from pathlib import Path

FLIPPED_BYTES = 64


def page_of(ledger: Path, name: str) -> tuple[int, int]:
    """Where the first page of a table or index begins, and how long pages are, in bytes."""
    with closing(sqlite3.connect(ledger)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        (length,) = connection.execute("PRAGMA page_size").fetchone()
    return (root - 1) * length, length


def settle_log(ledger: Path) -> bool:
    """Move everything from the write-ahead log into the ledger's file; False while another process is in its way."""
    with closing(sqlite3.connect(ledger, timeout=0.0)) as connection:
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def flip(path: Path, start: int, length: int = FLIPPED_BYTES) -> None:
    """Invert bytes in place."""
    with path.open("r+b") as file:
        file.seek(start)
        content = file.read(length)
        file.seek(start)
        file.write(bytes(byte ^ 0xFF for byte in content))
