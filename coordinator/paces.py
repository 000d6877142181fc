"""What the rows say of each site's pace, in SQL: what weighing would know had the process never ended."""

from collections.abc import Iterator

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from coordinator.engine.rates import Arrival, SiteRate, observe
from coordinator.tables import UPDATES
from fedward.errors import RejectReason

BATCH = 1000
"""Rows in memory at once: a ledger may hold millions."""


def of_sites(connection: Connection) -> dict[str, SiteRate]:
    """The rate of each site ever heard, observed over its updates in ledger order."""
    rates: dict[str, SiteRate] = {}
    for arrival in _arrivals(connection, sql.true()):
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
