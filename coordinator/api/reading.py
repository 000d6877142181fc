"""The API's answers, read from the ledger in a session of its own that can write nothing.

Each answer is of one moment: one transaction reads all of it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from coordinator import chaining, evaluations, needed, pruning, verdicts
from coordinator.api.answers import (
    Contribution,
    Federation,
    Head,
    LastUpdate,
    Measurement,
    Part,
    Site,
    SiteDetail,
    Sites,
    Version,
    VersionDetail,
    Versions,
)
from coordinator.engine.norms import RECENT, typical_norm
from coordinator.quarantine import is_held
from coordinator.tables import (
    ALL,
    EVALUATIONS,
    FACTS,
    PARTS,
    UPDATES,
    VERSIONS,
    WISHES,
    StoredEvaluation,
    StoredUpdate,
    StoredVerdict,
    Totals,
)
from coordinator.verdicts import IN_A_ROW, JUDGED
from fedward.errors import TransientError
from fedward.messages import FederationState

LOOKED_AT = max(5, IN_A_ROW)
"""Last updates of a site whose norms are shown to whoever decides about it."""


class Reading:
    """Reads one federation's ledger; `sites` are those that the configuration admits, in its order."""

    def __init__(self, engine: Engine, sites: Sequence[str]) -> None:
        self._engine = engine
        self._sites = tuple(sites)

    def close(self) -> None:
        self._engine.dispose()

    def federation(self) -> Federation:
        """Raises TransientError where no version was made yet, and whatever the database raises, as all here do."""
        with self.session() as session:
            return _federation(session, len(self._sites))

    def versions(self, before: int | None, limit: int) -> Versions:
        """At most `limit` versions below `before`, or the newest, newest first."""
        query = sql.select(VERSIONS).order_by(VERSIONS.c.version.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(VERSIONS.c.version < before)
        with self.session() as session:
            rows = session.execute(query).mappings().all()
            shown = _versions(session, rows[:limit])
        return Versions(versions=shown, next_before=shown[-1].version if len(rows) > limit else None)

    def version(self, version: int) -> VersionDetail | None:
        """None for one of which there is no record."""
        of = EVALUATIONS.c
        with self.session() as session:
            rows = session.execute(sql.select(VERSIONS).where(VERSIONS.c.version == version)).mappings().all()
            if not rows:
                return None
            measured = sql.select(EVALUATIONS).where(of.version == version).order_by(of.site, of.metric)
            return VersionDetail(
                **_versions(session, rows)[0].model_dump(),
                contributions=[_contribution(update) for update in _updates(session, UPDATES.c.version == version)],
                evaluations=[_measurement(StoredEvaluation(**row)) for row in session.execute(measured).mappings()],
            )

    def model(self, version: int) -> tuple[str, bool] | None:
        """Digest of the model at a version, and whether it can be downloaded; None where there is no record of it."""
        query = sql.select(VERSIONS.c.model_digest).where(VERSIONS.c.version == version)
        with self.session() as session:
            digest = session.execute(query).scalar_one_or_none()
            return None if digest is None else (digest.hex(), version >= needed.number(session, needed.FLOOR))

    def sites(self) -> Sites:
        with self.session() as session:
            return Sites(sites=_sites(session, self._sites))

    def site(self, site: str) -> SiteDetail | None:
        """None for one that is not admitted."""
        if site not in self._sites:
            return None
        of = UPDATES.c
        refused = sql.select(of.reason, sql.func.count()).where(of.site == site, of.reason.is_not(None))
        with self.session() as session:
            return SiteDetail(
                **_sites(session, [site])[0].model_dump(),
                refused={row[0]: row[1] for row in session.execute(refused.group_by(of.reason))},
                evaluations=[_measurement(row) for row in evaluations.latest(session) if row.site == site],
            )

    def head(self) -> Head:
        with self.session() as session:
            newest = chaining.newest_entry(session)
        if newest is None:
            raise _not_begun()
        return Head(entry=newest.entry, head=newest.head.hex(), mark=str(newest.mark))

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A transaction that sees one moment."""
        try:
            with self._engine.connect() as connection, connection.begin():
                if connection.dialect.name == "sqlite":
                    connection.exec_driver_sql("BEGIN")  # the driver's own begin only for what writes
                yield connection
        except (sql.exc.OperationalError, sql.exc.ProgrammingError) as error:
            raise TransientError("the ledger is busy, or its tables are not those of this release") from error


def _not_begun() -> TransientError:
    return TransientError("no version was made yet")


def _federation(session: Connection, num_sites: int) -> Federation:
    newest = session.execute(sql.select(VERSIONS).order_by(VERSIONS.c.version.desc()).limit(1)).mappings().first()
    if newest is None:
        raise _not_begun()
    facts = {row.name: row.value for row in session.execute(sql.select(FACTS))}
    waiting = sql.select(sql.func.count()).where(UPDATES.c.version.is_(None), UPDATES.c.reason.is_(None))
    return Federation(
        name=facts["federation"],
        task=facts["task"],
        state=_wishes(session).get(ALL, FederationState.RUNNING).value,
        version=newest["version"],
        version_created_at_s=newest["created_at_s"],
        model_digest=newest["model_digest"].hex(),
        num_parameters=None,
        oldest_version=session.execute(sql.select(sql.func.min(VERSIONS.c.version))).scalar_one(),
        floor_version=needed.number(session, needed.FLOOR),
        buffer_updates=session.execute(waiting).scalar_one(),
        num_sites=num_sites,
        typical_norm=typical_norm(_recent_norms(session)),
        metrics=_pooled(evaluations.latest(session)),
        leads=None,
        connected=None,
    )


def _versions(session: Connection, rows: Sequence[Any]) -> list[Version]:
    """Of rows of `versions`, with what was made of how many updates; in the order of the rows."""
    numbers = [row["version"] for row in rows]
    floor = needed.number(session, needed.FLOOR)
    counts = sql.select(UPDATES.c.version, sql.func.count()).where(UPDATES.c.version.in_(numbers))
    num_updates = {row[0]: row[1] for row in session.execute(counts.group_by(UPDATES.c.version))}
    parts: dict[int, list[Part]] = defaultdict(list)
    for row in session.execute(sql.select(PARTS).where(PARTS.c.version.in_(numbers)).order_by(PARTS.c.kind)):
        if row.version >= floor:
            part = Part(kind=row.kind, codec=row.codec, size_bytes=row.size_bytes, digest=row.digest.hex())
            parts[row.version].append(part)
    return [
        Version(
            version=row["version"],
            created_at_s=row["created_at_s"],
            model_digest=row["model_digest"].hex(),
            num_updates=num_updates.get(row["version"], 0),
            parts=parts[row["version"]],
            kept=row["version"] >= floor,
        )
        for row in rows
    ]


def _sites(session: Connection, names: Sequence[str]) -> list[Site]:
    of = UPDATES.c
    ended: dict[str, Totals] = defaultdict(Totals, pruning.totals_of(session, sql.true()))
    counts = sql.select(of.site, of.reason.is_(None), sql.func.count()).group_by(of.site, of.reason.is_(None))
    for site, accepted, count in session.execute(counts):
        ended[site] += Totals(num_accepted=count) if accepted else Totals(num_refused=count)
    last = {update.site: update for update in _updates(session, of.number.in_(needed.last_of_sites(sql.true())))}
    wishes, given = _wishes(session), verdicts.latest(session)
    return [
        Site(
            site=name,
            num_accepted=ended[name].num_accepted,
            num_refused=ended[name].num_refused,
            last_update=_last_update(last[name]) if name in last else None,
            wish=wishes[name].value if name in wishes else None,
            **_norms(session, name, given.get(name)),
            online=None,
            phase=None,
            heard_at_s=None,
            held_version=None,
        )
        for name in names
    ]


def _norms(session: Connection, site: str, given: StoredVerdict | None) -> dict[str, Any]:
    """The last norms of a site, and whether it is in quarantine, by the coordinator's own rule."""
    rows = verdicts.judged(session, site, 0, JUDGED, LOOKED_AT)
    since = [row.reason for row in rows if given is None or row.number > given.after_number][:IN_A_ROW]
    return {
        "quarantined": is_held(given.verdict if given else None, since),
        "recent_norms": [row.norm for row in reversed(rows) if row.norm is not None],
    }


def _wishes(session: Connection) -> dict[str, FederationState]:
    rows = session.execute(sql.select(WISHES).order_by(WISHES.c.number))
    return {row.target: FederationState(row.state) for row in rows}


def _recent_norms(session: Connection) -> list[tuple[str, float]]:
    of = UPDATES.c
    query = sql.select(of.site, of.norm).where(of.reason.is_(None), of.norm.is_not(None))
    return [(site, norm) for site, norm in session.execute(query.order_by(of.number.desc()).limit(RECENT))]


def _pooled(measured: Sequence[StoredEvaluation]) -> dict[str, float]:
    totals: dict[str, tuple[float, float]] = {}
    for row in measured:
        above, below = totals.get(row.metric, (0.0, 0.0))
        totals[row.metric] = (above + row.numerator, below + row.denominator)
    return {metric: above / below for metric, (above, below) in sorted(totals.items()) if below > 0}


def _updates(session: Connection, where: sql.ColumnElement[bool]) -> list[StoredUpdate]:
    rows = session.execute(sql.select(UPDATES).where(where).order_by(UPDATES.c.number)).mappings()
    return [StoredUpdate(**row) for row in rows]


def _contribution(update: StoredUpdate) -> Contribution:
    return Contribution(**{name: getattr(update, name) for name in Contribution.model_fields})


def _last_update(update: StoredUpdate) -> LastUpdate:
    return LastUpdate(**{name: getattr(update, name) for name in LastUpdate.model_fields})


def _measurement(row: StoredEvaluation) -> Measurement:
    return Measurement(
        site=row.site,
        version=row.version,
        metric=row.metric,
        ratio=row.numerator / row.denominator if row.denominator else None,
        num_examples=row.num_examples,
    )
