"""The chain in SQL: an entry is appended in the transaction that writes its row; the rows are read back for a check."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from coordinator.chain import Entry, Kind, Value, digest_of, first_fault, next_entry
from coordinator.tables import CHAIN, EVALUATIONS, FACTS, PARTS, TOTALS, UPDATES, VERDICTS, VERSIONS, WISHES

CHAINED_FACTS = ("federation", "task", "layout")
"""Those that never change."""

FOLDED = ("version", "weight")
"""Columns of an update that are written when it goes into a version: the version's FOLD entry holds them."""

_OF_AN_UPDATE = tuple(column for column in UPDATES.c if column.name not in FOLDED)


@dataclass(frozen=True)
class Range:
    """Rows to read: of versions before one, of updates up to a number, and of the totals of some cuts; all without."""

    before_version: int | None = None
    up_to_number: int | None = None
    cuts: frozenset[int] | None = None

    def versions(self, column: sql.ColumnElement[int]) -> sql.ColumnElement[bool]:
        return sql.true() if self.before_version is None else column < self.before_version

    def numbers(self, column: sql.ColumnElement[int]) -> sql.ColumnElement[bool]:
        return sql.true() if self.up_to_number is None else column <= self.up_to_number

    def totals(self, column: sql.ColumnElement[int]) -> sql.ColumnElement[bool]:
        return sql.true() if self.cuts is None else column.in_(self.cuts)


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
    append_fold(connection, version)


def append_fold(connection: Connection, version: int) -> None:
    fold = dict(_folds(connection, UPDATES.c.version == version)).get(version, ())
    _append(connection, Kind.FOLD, str(version), fold)


def append_evaluation(connection: Connection, version: int, site: str) -> None:
    where = (EVALUATIONS.c.version == version) & (EVALUATIONS.c.site == site)
    for key, row in _evaluations(connection, where):
        _append(connection, Kind.EVALUATION, key, row)


def append_wish(connection: Connection, number: int) -> None:
    row = connection.execute(sql.select(WISHES).where(WISHES.c.number == number)).one()
    _append(connection, Kind.WISH, str(number), tuple(row))


def append_verdict(connection: Connection, number: int) -> None:
    row = connection.execute(sql.select(VERDICTS).where(VERDICTS.c.number == number)).one()
    _append(connection, Kind.VERDICT, str(number), tuple(row))


def append_totals(connection: Connection, up_to: int) -> None:
    """Record those of one cut."""
    for row in connection.execute(sql.select(TOTALS).where(TOTALS.c.up_to == up_to).order_by(TOTALS.c.site)).all():
        _append(connection, Kind.TOTAL, f"{row.up_to} {row.site}", tuple(row))


def carry_over(connection: Connection, entry: Entry) -> None:
    """Record again at the end a row that stays although its entry is cut off."""
    _link(connection, entry.kind, entry.key, entry.digest)


def cut_off(connection: Connection, last: Entry) -> None:
    """Delete the entries up to `last`, which becomes the anchor."""
    connection.execute(sql.delete(CHAIN).where(CHAIN.c.entry < last.entry))
    connection.execute(sql.update(CHAIN).where(CHAIN.c.entry == last.entry).values(kind=Kind.ANCHOR.value, key=""))


def entries(connection: Connection, up_to: int | None = None) -> tuple[Entry, ...]:
    """The chain, oldest first; all of it, or up to an entry."""
    query = sql.select(CHAIN).where(sql.true() if up_to is None else CHAIN.c.entry <= up_to)
    return tuple(Entry(*row) for row in connection.execute(query.order_by(CHAIN.c.entry)))


def newest_entry(connection: Connection) -> Entry | None:
    row = connection.execute(sql.select(CHAIN).order_by(CHAIN.c.entry.desc()).limit(1)).one_or_none()
    return Entry(*row) if row else None


def fault(connection: Connection) -> str | None:
    """What is wrong with the first row or entry that is not as it was written. Not while another one writes."""
    return first_fault(entries(connection), dict(_digests(connection, Range())))


def fault_before(connection: Connection, last: Entry, first_version: int) -> str | None:
    """The same of the entries up to `last`, before which nothing of `first_version` is: a small part of all."""
    before = entries(connection, last.entry)
    keys = {(entry.kind, entry.key) for entry in before}
    numbers = [int(entry.key) for entry in before if entry.kind == Kind.UPDATE]
    cuts = frozenset(int(entry.key.split()[0]) for entry in before if entry.kind == Kind.TOTAL)
    found = _digests(connection, Range(first_version, max(numbers, default=0), cuts))
    return first_fault(before, {key: digest for key, digest in found if key in keys})


def _digests(connection: Connection, within: Range) -> Iterator[tuple[tuple[str, str], bytes]]:
    return (((kind.value, key), digest_of(kind, key, row)) for kind, key, row in _rows(connection, within))


def _rows(connection: Connection, within: Range) -> Iterator[tuple[Kind, str, Value]]:
    """What the chain should hold, as the tables have it now. An update in no version has no weight.

    One by one: a row of a large model's part holds tens of kilobytes of chunk digests.
    """
    for row in connection.execute(sql.select(FACTS).where(FACTS.c.name.in_(CHAINED_FACTS))):
        yield Kind.FACT, row.name, tuple(row)
    updates = sql.select(*_OF_AN_UPDATE).where(within.numbers(UPDATES.c.number))
    for row in connection.execute(updates.order_by(UPDATES.c.number)):
        yield Kind.UPDATE, str(row.number), tuple(row)
    versions = sql.select(VERSIONS).where(within.versions(VERSIONS.c.version))
    for row in connection.execute(versions.order_by(VERSIONS.c.version)):
        yield Kind.VERSION, str(row.version), tuple(row)
        yield Kind.FOLD, str(row.version), ()
    parts = sql.select(PARTS).where(within.versions(PARTS.c.version))
    for row in connection.execute(parts.order_by(PARTS.c.version, PARTS.c.kind)):
        yield Kind.PART, _part_key(row), tuple(row)
    folded = UPDATES.c.version.is_not(None) | UPDATES.c.weight.is_not(None)
    for version, fold in _folds(connection, folded & within.versions(UPDATES.c.version)):
        yield Kind.FOLD, str(version), fold  # in place of the empty one
    for key, evaluation in _evaluations(connection, within.versions(EVALUATIONS.c.version)):
        yield Kind.EVALUATION, key, evaluation
    for row in connection.execute(sql.select(WISHES).order_by(WISHES.c.number)):
        yield Kind.WISH, str(row.number), tuple(row)
    for row in connection.execute(sql.select(VERDICTS).order_by(VERDICTS.c.number)):
        yield Kind.VERDICT, str(row.number), tuple(row)
    totals = sql.select(TOTALS).where(within.totals(TOTALS.c.up_to))
    for row in connection.execute(totals.order_by(TOTALS.c.up_to, TOTALS.c.site)):
        yield Kind.TOTAL, f"{row.up_to} {row.site}", tuple(row)


def _folds(connection: Connection, where: sql.ColumnElement[bool]) -> Iterator[tuple[int, Sequence[Value]]]:
    """Of each version, (number, weight) of its updates in ledger order."""
    columns = sql.select(UPDATES.c.version, UPDATES.c.number, UPDATES.c.weight)
    query = columns.where(where).order_by(UPDATES.c.version, UPDATES.c.number)
    for version, group in groupby(connection.execute(query), lambda row: row.version):
        yield version, tuple((row.number, row.weight) for row in group)


def _evaluations(connection: Connection, where: sql.ColumnElement[bool]) -> Iterator[tuple[str, Value]]:
    """Of each measurement its key, and the rows of its metrics in order."""
    of = EVALUATIONS.c
    query = sql.select(EVALUATIONS).where(where).order_by(of.version, of.site, of.metric)
    for key, group in groupby(connection.execute(query), lambda row: f"{row.version} {row.site}"):
        yield key, tuple(tuple(row) for row in group)


def _part_key(row: sql.Row[tuple[object, ...]]) -> str:
    return f"{row.version} {row.kind}"


def _append(connection: Connection, kind: Kind, key: str, row: Value) -> None:
    _link(connection, kind, key, digest_of(kind, key, row))


def _link(connection: Connection, kind: str, key: str, digest: bytes) -> None:
    """Two writers at once can't both append: the entry's number is a primary key."""
    entry = next_entry(newest_entry(connection), kind, key, digest)
    connection.execute(sql.insert(CHAIN).values(vars(entry)))
