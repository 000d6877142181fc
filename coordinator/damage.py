"""Damage to the ledger's file: found before anything is told to a site, or at the page where it shows later.

A damaged ledger is never written to, repaired or begun anew: the process ends with one message, and the file stays.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from coordinator.wal import wal_fault
from fedward.errors import IntegrityError, TransientError
from fedward.process import only_process_in

LEDGER_FILE = "ledger.sqlite"
BLOBS_OF_VERSION_0 = 2
"""Its snapshot and its state: more blobs than these say that a ledger was there."""

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_UNREADABLE = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_CORRUPTFS, sqlite3.SQLITE_IOERR_DATA)
"""What the disk itself refuses. Other I/O errors may come from one that is only full."""

_PRIMARY_CODE = 0xFF


def check_ledger_file(state_folder: Path) -> None:
    """Raise IntegrityError when pages, indexes or write-ahead log of the ledger are damaged.

    Nothing is written, but that what a process began and did not commit before the log was made is undone.

    No ledger is right for a folder in which no version was made. The caller holds the folder's lock. What a row says
    is checked by its chain, not here: that takes seconds (`replay`, `restore`), this a fraction of one.
    """
    path = state_folder / LEDGER_FILE
    _end_first_transaction(path)
    if not path.exists() or path.stat().st_size == 0:
        check_nothing_lost(state_folder, str(path))
        return
    _check_log(path)
    check_pages(path)


def check_nothing_lost(state_folder: Path, ledger: str) -> None:
    """Raise IntegrityError where there are payloads of versions; for a ledger, by this name, that holds none."""
    if _num_blobs(state_folder) > BLOBS_OF_VERSION_0:
        raise IntegrityError(damaged(ledger, "it is missing or empty, and versions are not"))


def check_ledger_log(state_folder: Path) -> None:
    """What has to be checked before anybody opens the ledger, which would drop the damaged end of its log.

    Beside a coordinator, which has looked at its start, nothing is checked.
    """
    path = state_folder / LEDGER_FILE
    try:
        _check_log(path)
    except IntegrityError:  # or it was written to while we read
        with suppress(TransientError), only_process_in(state_folder):
            _check_log(path)


def check_pages(path: Path) -> None:
    """Raise IntegrityError unless every page and index entry of the ledger is in order. Others may write meanwhile."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        answer = str(error)
    if answer != "ok":
        raise IntegrityError(damaged(path, " ".join(answer.split())))


def name_damage(context: Any) -> None:
    """For the database's own errors, before they are raised: one that tells of damage is raised as IntegrityError."""
    error = context.original_exception
    if isinstance(error, sqlite3.Error) and is_damage(error):
        raise IntegrityError(damaged(Path(context.engine.url.database), str(error))) from error


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is not as SQLite wrote it; a full or locked one is another matter."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & _PRIMARY_CODE in _DAMAGE or code in _UNREADABLE


def damaged(path: Path | str, what: str) -> str:
    """What the operator reads."""
    return (
        f"{path}: the ledger is damaged ({what}). It is left as it is, and no site was told what is not in it. "
        "Go on from the last backup: `fedward coordinator restore --config FILE --from BACKUP --force` verifies it "
        "and keeps the damaged ledger aside; sites that are ahead keep their updates and go on (docs/runbook.md)"
    )


def _end_first_transaction(path: Path) -> None:
    """Let SQLite undo what the process was killed in that was making the ledger: a reader may not, and gives up."""
    if not path.with_name(f"{path.name}-journal").exists():
        return
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        raise IntegrityError(damaged(path, str(error))) from None


def _check_log(path: Path) -> None:
    try:
        fault = wal_fault(path.with_name(f"{path.name}-wal").read_bytes())
    except FileNotFoundError:
        return  # all of it is in the ledger's file
    if fault:
        raise IntegrityError(damaged(path, fault))


def _num_blobs(state_folder: Path) -> int:
    blobs = state_folder / "blobs"
    return sum(not path.name.startswith(".") for path in blobs.iterdir()) if blobs.exists() else 0
