"""The database that holds the ledger: a SQLite file in the state folder, or PostgreSQL. What differs is told here.

A PostgreSQL ledger can be worked on from two machines. The coordinator that leads holds a lock of its session, and
writes through that session alone: whoever has lost the lock can write nothing, however late it notices.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import URL, Connection, Engine, make_url

from coordinator.damage import LEDGER_FILE, name_damage
from coordinator.schema import make_tables
from coordinator.tables import METADATA, UPDATES, VERDICTS, WISHES
from fedward.errors import TransientError

BATCH = 1000
"""Rows in memory at once while a ledger is copied."""

NUMBERED = [(table, "number") for table in (UPDATES, WISHES, VERDICTS)]
"""Columns that the database counts."""

CONNECT_S = 5
"""Seconds until a server that does not answer is taken for away."""

LONGEST_READ_MS = 10_000
"""Milliseconds after which a server ends a statement of a session that only reads."""

LEADER, WRITER = 0x46454457, 0x46455752
"""Keys of PostgreSQL's advisory locks, of one database: who leads, and who appends to the chain just now."""

INVALID_TRANSACTION = "25"
"""Class of the errors of a server that became read-only, or that has ended a transaction which stood still."""

SESSION = {
    "synchronous_commit": "on",  # a server may be set to lose the last commits
    "tcp_keepalives_idle": "3",  # of a machine that vanished the server ends the session, and with it the lock, in 9 s
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "60000",
}
"""What each session asks of the server."""


class LedgerAwayError(TransientError):
    """The server can't be used now. What the last transaction came to is known when the ledger is read again."""


def in_folder(folder: Path) -> Engine:
    """The ledger's SQLite file."""
    folder.mkdir(parents=True, exist_ok=True)
    engine = sql.create_engine(f"sqlite:///{folder / LEDGER_FILE}", hide_parameters=True)
    sql.event.listen(engine, "connect", _make_sqlite_durable)
    sql.event.listen(engine, "handle_error", name_damage)
    return engine


def reading(engine: Engine) -> Engine:
    """The engine itself: from now on its sessions can write nothing, and a statement may not take long.

    Nothing that one of them does keeps a writer waiting, in either database.
    """
    sql.event.listen(engine, "connect", _forbid_writing)
    return engine


def on_server(url: str, password: str | None = None, *, leads: bool = False) -> Engine:
    """A PostgreSQL database; with `leads` through one session, which is not replaced when it is lost.

    A lock can be had of a server that only reads, too, such as one that is a replica since a failover: who is to lead
    waits for one that writes.

    Raises LedgerAwayError, whichever way it is used.
    """
    one_session = {"pool_size": 1, "max_overflow": 0, "pool_timeout": CONNECT_S}
    engine = sql.create_engine(
        _with_driver(url, password),
        hide_parameters=True,
        connect_args={
            "connect_timeout": CONNECT_S,
            "options": " ".join(f"-c {name}={value}" for name, value in SESSION.items()),
            "keepalives_idle": 3,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 9_000,
            **({"target_session_attrs": "read-write"} if leads else {}),
        },
        **(one_session if leads else {"poolclass": sql.NullPool}),
    )
    sql.event.listen(engine, "handle_error", _name_loss)
    if leads:
        sql.event.listen(engine, "connect", _Once())
    return engine


def lead(engine: Engine) -> bool:
    """Take the lock of the one coordinator that works; False while another has it. SQLite's is that of the folder.

    It is let go when the session ends: with the process, however it ends.
    """
    if engine.dialect.name == "sqlite":
        return True
    with engine.connect() as connection:
        return bool(connection.execute(sql.select(sql.func.pg_try_advisory_lock(LEADER))).scalar_one())


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that may append to the chain: one at a time, also of several processes."""
    with engine.begin() as connection:
        if engine.dialect.name != "sqlite":  # whose transactions exclude each other
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(WRITER)))
        yield connection


def copy_to_file(engine: Engine, path: Path) -> None:
    """Copy a ledger to a new SQLite file, as it is at one moment, while others write."""
    if engine.dialect.name == "sqlite":
        with closing(sqlite3.connect(path)) as target, closing(engine.raw_connection()) as source:
            source.driver_connection.backup(target)  # type: ignore[union-attr]  # open: it was just made
        return
    copy = sql.create_engine(f"sqlite:///{path}")
    try:
        make_tables(copy)
        at_one_moment = engine.execution_options(isolation_level="REPEATABLE READ")
        with at_one_moment.connect() as connection, copy.begin() as target:
            _copy_rows(connection, target)
    finally:
        copy.dispose()


def load_from_file(path: Path, engine: Engine) -> None:
    """Copy the ledger in a SQLite file into an empty database on a server, all of it or nothing."""
    source = sql.create_engine(f"sqlite:///{path}")
    try:
        with source.connect() as connection, engine.begin() as target:
            _copy_rows(connection, target)
            for table, column in NUMBERED:
                newest = sql.select(sql.func.coalesce(sql.func.max(table.c[column]) + 1, 1)).scalar_subquery()
                sequence = sql.func.pg_get_serial_sequence(table.name, column)
                target.execute(sql.select(sql.func.setval(sequence, newest, False)))
    finally:
        source.dispose()


def _copy_rows(source: Connection, target: Connection) -> None:
    for table in METADATA.sorted_tables:
        rows = source.execution_options(yield_per=BATCH).execute(sql.select(table)).mappings()
        for some in rows.partitions():
            target.execute(sql.insert(table), [dict(row) for row in some])


def _forbid_writing(connection: Any, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA query_only=ON")
        return
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ")
        cursor.execute(f"SET statement_timeout = {LONGEST_READ_MS}")
    connection.commit()


class _Once:
    """Lets the first session be made, and no second: it would not hold the lock of the first."""

    def __init__(self) -> None:
        self._made = False

    def __call__(self, _connection: Any, _record: object) -> None:
        if self._made:
            raise LedgerAwayError("the session that held the coordinator's lock was lost")
        self._made = True


def _with_driver(url: str, password: str | None) -> URL:
    whole = make_url(url).set(drivername="postgresql+psycopg")
    return whole.set(password=password) if password else whole


def _name_loss(context: Any) -> None:
    """For the server's errors, before they are raised. Neither statement nor values: they go to a log."""
    code = getattr(context.original_exception, "sqlstate", None) or "no answer"
    lost = isinstance(context.sqlalchemy_exception, sql.exc.OperationalError | sql.exc.InterfaceError)
    if lost or code.startswith(INVALID_TRANSACTION):
        raise LedgerAwayError(f"the ledger's database can't be used now ({code})") from None


def _make_sqlite_durable(connection: Any, _record: object) -> None:
    """WAL lets the status command read while the service writes; FULL survives power loss, not only a crash."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
        connection.execute(f"PRAGMA {pragma}")
