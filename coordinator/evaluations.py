"""What the sites measured, in SQL: a site measures a version once, and the first message of it counts."""

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from coordinator import chaining
from coordinator.tables import EVALUATIONS, StoredEvaluation
from fedward.messages import Evaluation


def add(connection: Connection, evaluation: Evaluation, site: str, received_at_s: float) -> bool:
    """Record it; False, and nothing changes, when the site's measurement of this version is there already."""
    of = EVALUATIONS.c
    known = sql.select(of.version).where(of.version == evaluation.version, of.site == site)
    if connection.execute(known.limit(1)).first() is not None:
        return False
    rows = [
        {
            "version": evaluation.version,
            "site": site,
            "metric": metric,
            "numerator": ratio.numerator,
            "denominator": ratio.denominator,
            "num_examples": evaluation.num_examples,
            "received_at_s": received_at_s,
        }
        for metric, ratio in evaluation.metrics.items()
    ]
    connection.execute(sql.insert(EVALUATIONS), rows)
    chaining.append_evaluation(connection, evaluation.version, site)
    return True


def stored(connection: Connection) -> tuple[StoredEvaluation, ...]:
    """All that there are, by version and site."""
    query = sql.select(EVALUATIONS).order_by(EVALUATIONS.c.version, EVALUATIONS.c.site)
    return tuple(StoredEvaluation(**row) for row in connection.execute(query).mappings())


def latest(connection: Connection) -> tuple[StoredEvaluation, ...]:
    """Of each site, the rows of the newest version that it measured."""
    of = EVALUATIONS.c
    newest = sql.select(of.site, sql.func.max(of.version).label("version")).group_by(of.site).subquery()
    rows = sql.select(EVALUATIONS).join(newest, (of.site == newest.c.site) & (of.version == newest.c.version))
    ordered = rows.order_by(of.version, of.site, of.metric)
    return tuple(StoredEvaluation(**row) for row in connection.execute(ordered).mappings())
