"""Old rows leave the ledger, together with their entries at the beginning of the chain; what is still needed stays.

The cut comes after the last entry of the version before the first one that is kept. Of the rows before it stay facts,
the last wish for each target, the last verdict on each site, the updates that say whether it is in quarantine, and of
each site its last update and its last measurement up to the floor: they are recorded again at the end of the chain, in
the same transaction. What the deleted updates come to is kept as totals, with the pace that they told of each site.
Whoever calls cuts in steps: the time and memory of a cut are those of its entries, not of the ledger.

Nothing counts twice for it: an update whose row was deleted has a base below the floor, and is refused as stale when it
is offered again.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from coordinator import chaining, needed, paces, verdicts
from coordinator.chain import Entry, Kind
from coordinator.tables import (
    CHAIN,
    EVALUATIONS,
    PARTS,
    TOTALS,
    UPDATES,
    VERDICTS,
    VERSIONS,
    WISHES,
    StoredUpdate,
    Totals,
)
from fedward.errors import IntegrityError

BATCH = 500
"""Keys in one statement."""


class RowChangedError(IntegrityError):
    """A row that was to be deleted is not as it was written: the ledger is left as it is, and can be read and used."""


@dataclass(frozen=True)
class Cut:
    """Where the ledger is cut."""

    last: Entry
    last_number: int  # of the updates before it


def prune(connection: Connection, first_version: int) -> None:
    """Delete what belongs to versions before `first_version`, which is above the oldest; one transaction.

    Raises RowChangedError, and deletes nothing, when a row of theirs is not as it was written: it is evidence.
    """
    last_fold = sql.select(CHAIN).where(CHAIN.c.kind == Kind.FOLD.value, CHAIN.c.key == str(first_version - 1))
    last = Entry(*connection.execute(last_fold).one())
    # A write comes first: from here on until the end nobody else appends to the chain.
    connection.execute(sql.update(CHAIN).where(CHAIN.c.entry == last.entry).values(kind=last.kind))
    fault = chaining.fault_before(connection, last, first_version)
    if fault:
        raise RowChangedError(f"ledger: {fault}; old rows are not deleted")
    entries = [entry for entry in chaining.entries(connection, last.entry) if entry.kind != Kind.ANCHOR]
    staying = _staying(connection, entries, first_version)
    stays = [entry for entry in entries if (entry.kind, entry.key) in staying]
    gone = _by_kind(entry for entry in entries if (entry.kind, entry.key) not in staying)
    numbers = [int(entry.key) for entry in entries if entry.kind == Kind.UPDATE]
    _add_totals(connection, gone, Cut(last, max(numbers, default=0)))
    _delete(connection, gone, first_version)
    chaining.cut_off(connection, last)
    for entry in stays:
        chaining.carry_over(connection, entry)
    for version in _versions_of(connection, stays, first_version):
        chaining.append_fold(connection, version)
    chaining.append_totals(connection, last.entry)


def _staying(connection: Connection, entries: Sequence[Entry], first_version: int) -> set[tuple[str, str]]:
    """Kind and key of the rows of these entries that are still needed; facts are few."""
    floor = needed.number(connection, needed.FLOOR)
    keys = _by_kind(entries)
    wishes = connection.execute(sql.select(sql.func.max(WISHES.c.number)).group_by(WISHES.c.target)).scalars()
    given = connection.execute(sql.select(sql.func.max(VERDICTS.c.number)).group_by(VERDICTS.c.site)).scalars()
    return {
        *((Kind.FACT.value, name) for name in chaining.CHAINED_FACTS),
        *((Kind.UPDATE.value, str(number)) for number in _staying_updates(connection, keys, first_version, floor)),
        *((Kind.UPDATE.value, str(number)) for number in verdicts.deciding(connection)),
        *((Kind.EVALUATION.value, key) for key in _staying_evaluations(connection, keys, floor)),
        *((Kind.WISH.value, str(number)) for number in wishes),
        *((Kind.VERDICT.value, str(number)) for number in given),
    }


def _staying_updates(
    connection: Connection, keys: Mapping[str, Sequence[str]], first_version: int, floor: int
) -> Iterator[int]:
    """What is not in an old version, and the last of a site at or below the floor: an engine's cache needs it."""
    of, last = UPDATES.c, dict[str, tuple[int, int]]()
    for numbers in _batches([int(key) for key in keys[Kind.UPDATE]]):
        query = sql.select(of.number, of.site, of.version).where(of.number.in_(numbers), of.reason.is_(None))
        for number, site, version in connection.execute(query):
            if version is None or version >= first_version:
                yield number
            else:
                last[site] = max(last.get(site, (0, 0)), (number, version))
    for site, (number, version) in last.items():
        later = (of.site == site) & of.version.between(version, floor) & (of.number > number) & of.reason.is_(None)
        if connection.execute(sql.select(of.number).where(later).order_by(of.version).limit(1)).first() is None:
            yield number


def _staying_evaluations(connection: Connection, keys: Mapping[str, Sequence[str]], floor: int) -> Iterator[str]:
    """The last measurement of a site at or below the floor: cards of the versions above list it."""
    of, last = EVALUATIONS.c, dict[str, int]()
    for key in keys[Kind.EVALUATION]:
        measured, site = key.split()
        last[site] = max(last.get(site, 0), int(measured))
    for site, version in last.items():
        later = (of.version > version) & (of.version <= floor) & (of.site == site)
        if connection.execute(sql.select(of.version).where(later).order_by(of.version).limit(1)).first() is None:
            yield f"{version} {site}"


def _by_kind(entries: Iterable[Entry]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        keys[entry.kind].append(entry.key)
    return keys


def _add_totals(connection: Connection, gone: dict[str, list[str]], cut: Cut) -> None:
    """What the updates that go come to, and the totals of earlier cuts that go with them; and each site's pace."""
    sums: dict[str, Totals] = defaultdict(Totals)
    for numbers in _batches([int(key) for key in gone[Kind.UPDATE]]):
        for row in connection.execute(sql.select(UPDATES).where(UPDATES.c.number.in_(numbers))).mappings():
            sums[row["site"]] += Totals.of(StoredUpdate(**row))
    for earlier in {int(key.split()[0]) for key in gone[Kind.TOTAL]}:
        for site, totals in totals_of(connection, TOTALS.c.up_to == earlier).items():
            sums[site] += totals
    rates = paces.at_cut(connection, sums.keys(), cut.last_number)
    up_to_number = max(cut.last_number, paces.up_to_number(connection))
    for site in sums.keys() | rates.keys():
        rate = vars(rates[site]) if site in rates else {}
        of_site = {"up_to": cut.last.entry, "site": site, "up_to_number": up_to_number}
        connection.execute(sql.insert(TOTALS).values({**of_site, **vars(sums[site]), **rate}))


def totals_of(connection: Connection, where: sql.ColumnElement[bool]) -> dict[str, Totals]:
    """Of each site, the sum of these rows of totals."""
    sums: dict[str, Totals] = defaultdict(Totals)
    for row in connection.execute(sql.select(TOTALS).where(where).order_by(TOTALS.c.up_to)).mappings():
        sums[row["site"]] += Totals(**{name: row[name] for name in vars(Totals())})
    return dict(sums)


def _delete(connection: Connection, gone: dict[str, list[str]], first_version: int) -> None:
    """Rows of versions go by range, the others by key: there may be rows among them that stay."""
    for table in (VERSIONS, PARTS):
        connection.execute(sql.delete(table).where(table.c.version < first_version))
    by_number = ((UPDATES, Kind.UPDATE), (WISHES, Kind.WISH), (VERDICTS, Kind.VERDICT))
    for column, kind in ((table.c.number, kind) for table, kind in by_number):
        for numbers in _batches([int(key) for key in gone[kind]]):
            connection.execute(sql.delete(column.table).where(column.in_(numbers)))
    measured = [key.split() for key in gone[Kind.EVALUATION]]
    if measured:
        one = sql.delete(EVALUATIONS).where(
            EVALUATIONS.c.version == sql.bindparam("of_version"), EVALUATIONS.c.site == sql.bindparam("of_site")
        )
        connection.execute(one, [{"of_version": int(version), "of_site": site} for version, site in measured])
    for up_to in {int(key.split()[0]) for key in gone[Kind.TOTAL]}:
        connection.execute(sql.delete(TOTALS).where(TOTALS.c.up_to == up_to))


def _versions_of(connection: Connection, stays: Sequence[Entry], first_version: int) -> list[int]:
    """The versions whose rows are gone and of whose updates one stays: its weight is still recorded by a fold."""
    numbers = [int(entry.key) for entry in stays if entry.kind == Kind.UPDATE]
    query = sql.select(UPDATES.c.version).where(UPDATES.c.number.in_(numbers), UPDATES.c.version < first_version)
    return sorted(set(connection.execute(query).scalars()))


def _batches(numbers: Sequence[int]) -> Iterable[Sequence[int]]:
    """A statement has room for some hundreds of values."""
    return (numbers[start : start + BATCH] for start in range(0, len(numbers), BATCH))
