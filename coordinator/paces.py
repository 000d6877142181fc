"""What the rows say of each site's pace, in SQL: what weighing would know had the process never ended.

A cut deletes rows and keeps, with the totals, the pace that they told: a site that left stays as late as it was, and
weights are the same in a process that was restarted and in one that was not.
"""

from collections.abc import Collection, Iterator
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from coordinator.engine.rates import Arrival, SiteRate, observe
from coordinator.tables import TOTALS, UPDATES
from fedward.errors import RejectReason

BATCH = 1000
"""Rows in memory at once: a ledger may hold millions."""


def of_sites(connection: Connection) -> dict[str, SiteRate]:
    """The rate of each site ever heard: as of the last cut, and observed since then over its updates in their order."""
    of = TOTALS.c
    last = sql.select(of.site, sql.func.max(of.up_to).label("up_to")).where(of.last_s.is_not(None)).group_by(of.site)
    newest = last.subquery()
    query = sql.select(TOTALS).join(newest, (of.site == newest.c.site) & (of.up_to == newest.c.up_to))
    rates = {row.site: _rate(row) for row in connection.execute(query)}
    return _observed(connection, rates, UPDATES.c.number > up_to_number(connection))


def at_cut(connection: Connection, sites: Collection[str], last_number: int) -> dict[str, SiteRate]:
    """The rate of these sites, and of those heard since the cut before this one, after the update of this number.

    No row up to it was deleted but by earlier cuts.
    """
    between = (UPDATES.c.number > up_to_number(connection)) & (UPDATES.c.number <= last_number)
    heard = connection.execute(sql.select(UPDATES.c.site).where(between).distinct()).scalars()
    known = {site: rate for site in {*sites, *heard} if (rate := _at_last_cut(connection, site))}
    return _observed(connection, known, between)


def up_to_number(connection: Connection) -> int:
    """The update up to which the paces of the last cut are observed; 0 before the first."""
    return int(connection.execute(sql.select(sql.func.max(TOTALS.c.up_to_number))).scalar() or 0)


def _at_last_cut(connection: Connection, site: str) -> SiteRate | None:
    of = TOTALS.c
    newest = sql.select(TOTALS).where(of.site == site, of.last_s.is_not(None)).order_by(of.up_to.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    return _rate(row) if row else None


def _rate(row: sql.Row[Any]) -> SiteRate:
    return SiteRate(gap_s=row.gap_s, last_s=row.last_s, num_examples=row.num_examples, work_s=row.work_s)


def _observed(
    connection: Connection, rates: dict[str, SiteRate], where: sql.ColumnElement[bool]
) -> dict[str, SiteRate]:
    for arrival in _arrivals(connection, where):
        rates[arrival.site] = observe(rates.get(arrival.site), arrival)
    return rates


def tells_pace(reason: str | None) -> bool:
    """Whether an update that ended so is observed: a stale one tells as much as an accepted one does."""
    return reason is None or reason == RejectReason.STALE


def _arrivals(connection: Connection, where: sql.ColumnElement[bool]) -> Iterator[Arrival]:
    """Of the updates that tell a pace, in ledger order."""
    of = UPDATES.c
    columns = sql.select(of.site, of.base_version, of.num_examples, of.num_steps, of.work_s, of.arrived_s)
    told = of.reason.is_(None) | (of.reason == RejectReason.STALE.value)
    query = columns.where(told, where).order_by(of.number).execution_options(yield_per=BATCH)
    return (Arrival(*row) for row in connection.execute(query))
