"""What the operator decided of sites in quarantine, in SQL, and the updates that a decision is made on."""

from collections.abc import Collection, Iterator

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from coordinator import chaining
from coordinator.tables import UPDATES, VERDICTS, StoredUpdate, StoredVerdict, Verdict
from fedward.errors import RejectReason

IN_A_ROW = 3
"""Outliers of a site without an accepted update between them: one may be an accident of its data."""

JUDGED = (None, RejectReason.OUTLIER.value, RejectReason.QUARANTINED.value)
"""How an update ended whose norm was looked at; None is accepted."""


def give(connection: Connection, site: str, verdict: Verdict, at_s: float) -> None:
    """Record a decision; what the site sent up to now is covered by it."""
    last = connection.execute(sql.select(sql.func.max(UPDATES.c.number))).scalar() or 0
    row = {"site": site, "verdict": verdict.value, "after_number": last, "given_at_s": at_s}
    number = connection.execute(sql.insert(VERDICTS).values(row).returning(VERDICTS.c.number)).scalar_one()
    chaining.append_verdict(connection, number)


def latest(connection: Connection) -> dict[str, StoredVerdict]:
    """The last decision on each site."""
    rows = connection.execute(sql.select(VERDICTS).order_by(VERDICTS.c.number))
    return {row.site: StoredVerdict(Verdict(row.verdict), row.after_number) for row in rows}


def deciding(connection: Connection) -> Iterator[int]:
    """Numbers of the updates that say which sites are in quarantine, of every site that may be: its newest ones."""
    given, of = latest(connection), UPDATES.c
    long = of.reason.in_([end for end in JUDGED if end is not None])
    for site in connection.execute(sql.select(of.site).where(long).distinct()).scalars():
        since = given[site].after_number if site in given else 0
        for row in judged(connection, site, since, JUDGED, IN_A_ROW):
            yield row.number


def judged(
    connection: Connection, site: str, after_number: int, ends: Collection[str | None], most: int
) -> tuple[StoredUpdate, ...]:
    """The newest `most` updates of a site, newest first, that came after an update's number and ended so."""
    of = UPDATES.c
    ended = of.reason.in_([end for end in ends if end is not None])
    query = sql.select(UPDATES).where(of.site == site, of.number > after_number, of.reason.is_(None) | ended)
    rows = connection.execute(query.order_by(of.number.desc()).limit(most)).mappings()
    return tuple(StoredUpdate(**row) for row in rows)
