"""The chain in SQL: an entry is appended in the transaction that writes its row; the rows are read back for a check."""

from collections.abc import Sequence

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from coordinator.chain import Entry, Kind, Value, next_entry
from coordinator.tables import CHAIN, FACTS, PARTS, UPDATES, VERSIONS

CHAINED_FACTS = ("federation", "task", "layout")
"""Those that never change."""

FOLDED = ("version", "weight")
"""Columns of an update that are written when it goes into a version: the version's FOLD entry holds them."""

_OF_AN_UPDATE = tuple(column for column in UPDATES.c if column.name not in FOLDED)


def append_fact(connection: Connection, name: str) -> None:
    """Record a fact that was just written; the other functions do the same with their rows."""
    row = connection.execute(sql.select(FACTS).where(FACTS.c.name == name)).one()
    _append(connection, Kind.FACT, name, tuple(row))


def append_update(connection: Connection, update_id: bytes) -> None:
    row = connection.execute(sql.select(*_OF_AN_UPDATE).where(UPDATES.c.update_id == update_id)).one()
    _append(connection, Kind.UPDATE, str(row.number), tuple(row))


def append_version(connection: Connection, version: int) -> None:
    """Record a version, each of its parts, and the updates it is made of."""
    row = connection.execute(sql.select(VERSIONS).where(VERSIONS.c.version == version)).one()
    _append(connection, Kind.VERSION, str(version), tuple(row))
    parts = sql.select(PARTS).where(PARTS.c.version == version).order_by(PARTS.c.kind)
    for part in connection.execute(parts).all():
        _append(connection, Kind.PART, _part_key(part), tuple(part))
    _append(connection, Kind.FOLD, str(version), _folds(connection, UPDATES.c.version == version).get(version, ()))


def entries(connection: Connection) -> tuple[Entry, ...]:
    """The chain, oldest first."""
    return tuple(Entry(*row) for row in connection.execute(sql.select(CHAIN).order_by(CHAIN.c.entry)))


def newest_entry(connection: Connection) -> Entry | None:
    row = connection.execute(sql.select(CHAIN).order_by(CHAIN.c.entry.desc()).limit(1)).one_or_none()
    return Entry(*row) if row else None


def rows(connection: Connection) -> dict[tuple[str, str], Value]:
    """Everything that the chain should hold, as the tables have it now. An update in no version has no weight."""
    found: dict[tuple[str, str], Value] = {}
    for row in connection.execute(sql.select(FACTS).where(FACTS.c.name.in_(CHAINED_FACTS))):
        found[Kind.FACT, row.name] = tuple(row)
    for row in connection.execute(sql.select(*_OF_AN_UPDATE).order_by(UPDATES.c.number)):
        found[Kind.UPDATE, str(row.number)] = tuple(row)
    for row in connection.execute(sql.select(VERSIONS).order_by(VERSIONS.c.version)):
        found[Kind.VERSION, str(row.version)] = tuple(row)
        found[Kind.FOLD, str(row.version)] = ()
    for row in connection.execute(sql.select(PARTS).order_by(PARTS.c.version, PARTS.c.kind)):
        found[Kind.PART, _part_key(row)] = tuple(row)
    folded = UPDATES.c.version.is_not(None) | UPDATES.c.weight.is_not(None)
    for version, fold in _folds(connection, folded).items():
        found[Kind.FOLD, str(version)] = fold
    return found


def _folds(connection: Connection, where: sql.ColumnElement[bool]) -> dict[int, Sequence[Value]]:
    """Of each version, (number, weight) of its updates in ledger order."""
    query = sql.select(UPDATES.c.version, UPDATES.c.number, UPDATES.c.weight).where(where).order_by(UPDATES.c.number)
    folds: dict[int, list[Value]] = {}
    for version, number, weight in connection.execute(query):
        folds.setdefault(version, []).append((number, weight))
    return dict(folds)


def _part_key(row: sql.Row[tuple[object, ...]]) -> str:
    return f"{row.version} {row.kind}"


def _append(connection: Connection, kind: Kind, key: str, row: Value) -> None:
    """Two writers at once can't both append: the entry's number is a primary key."""
    entry = next_entry(newest_entry(connection), kind, key, row)
    connection.execute(sql.insert(CHAIN).values(vars(entry)))
