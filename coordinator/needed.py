"""Which blobs the ledger needs: one rule, for the sweep, for a backup, and for a single blob.

Replay, export and agents reach back to the floor. Above it everything is kept; below it what the versions above are
made of: the parts since the snapshot that leads to the oldest base, and the last update of each site (engine.cache).
"""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from coordinator.tables import FACTS, PARTS, UPDATES, VERSIONS
from fedward.messages import PartKind

STATE_EVERY = 10
"""The state of every version that is a multiple of this is kept: the floor is one of them, and replay begins there."""

FLOOR, REACH = "floor", "reach"
"""Facts: the oldest version that can be replayed and exported; the snapshot from which on parts are kept."""


def number(connection: Connection, name: str) -> int:
    """Of the floor, or the reach; 0 before anything was deleted."""
    return int(connection.execute(sql.select(FACTS.c.value).where(FACTS.c.name == name)).scalar_one_or_none() or 0)


def reach_of(connection: Connection, floor: int) -> int:
    """The newest snapshot that leads to the floor and to every base of an update that was folded above it.

    An engine that pulls needs the base of each update, also in a replay from the floor.
    """
    above = UPDATES.c.version.is_(None) | (UPDATES.c.version > floor)
    oldest = sql.select(sql.func.min(UPDATES.c.base_version)).where(UPDATES.c.reason.is_(None), above)
    base = connection.execute(oldest).scalar()
    up_to = floor if base is None else min(floor, base)
    snapshot = sql.select(sql.func.max(PARTS.c.version)).where(
        PARTS.c.kind == PartKind.SNAPSHOT, PARTS.c.version <= up_to
    )
    return max(int(connection.execute(snapshot).scalar() or 0), number(connection, REACH))


def blobs(connection: Connection) -> dict[bytes, str]:
    """Every blob that is needed, and what it is. The newest state first: the next version replaces it."""
    named: dict[bytes, str] = {}
    for query in _needed(connection):
        for row in connection.execute(query):
            named.setdefault(row[0], row[1])
    return named


def is_needed(connection: Connection, digest: bytes) -> bool:
    """Whether this blob is."""
    return any(
        connection.execute(query.where(query.selected_columns[0] == digest).limit(1)).first()
        for query in _needed(connection)
    )


def _needed(connection: Connection) -> Iterator[sql.Select[Any]]:
    """Queries of (digest, what it is)."""
    floor, reach = number(connection, FLOOR), number(connection, REACH)
    of = VERSIONS.c
    newest = sql.select(sql.func.max(of.version)).scalar_subquery()
    kept = (of.version >= floor) & (of.version % STATE_EVERY == 0)
    states = sql.select(of.state_digest, _text("state of version ", of.version))
    yield states.where((of.version == newest) | kept).order_by(of.version.desc())
    parts = sql.select(PARTS.c.digest, _text(PARTS.c.kind, " of version ", PARTS.c.version))
    yield parts.where(PARTS.c.version >= reach)
    updates = sql.select(UPDATES.c.digest, _text("update ", UPDATES.c.number, " of ", UPDATES.c.site))
    above = UPDATES.c.version.is_(None) | (UPDATES.c.version > floor)
    last = last_of_sites(UPDATES.c.version <= floor)
    yield updates.where(UPDATES.c.reason.is_(None), above | UPDATES.c.number.in_(last))


def last_of_sites(where: sql.ColumnElement[bool]) -> sql.Select[tuple[int]]:
    """Of each site, the number of its last accepted update among these."""
    return sql.select(sql.func.max(UPDATES.c.number)).where(UPDATES.c.reason.is_(None), where).group_by(UPDATES.c.site)


def _text(*pieces: str | sql.ColumnElement[object]) -> sql.ColumnElement[str]:
    whole: sql.ColumnElement[str] = sql.literal("")
    for piece in pieces:
        whole = whole + (sql.literal(piece) if isinstance(piece, str) else sql.cast(piece, sql.String))
    return whole
