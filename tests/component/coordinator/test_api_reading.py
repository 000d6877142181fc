"""What the API reads from a ledger, in a SQLite file and in PostgreSQL, in sessions that only read."""

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sql
from sqlalchemy.engine import Engine

from coordinator import database
from coordinator.api.reading import Reading
from coordinator.database import LedgerAwayError
from coordinator.ledger import Ledger
from coordinator.tables import FACTS, StoredVersion
from fedward.errors import RejectReason, TransientError
from fedward.messages import Evaluation, Ratio
from tests.support.coordinator_bench import at
from tests.support.updates import SITES, offer_of


@pytest.fixture
def pair(engine_of: Callable[..., Engine]) -> Iterator[tuple[Ledger, Reading, Engine]]:
    """A ledger, and who reads it beside."""
    writing = engine_of()
    ledger = Ledger(writing)
    url = writing.url
    if url.get_backend_name() == "sqlite":
        beside = database.in_folder(ledger.path.parent)  # type: ignore[union-attr]
    else:
        beside = database.on_server(url.set(drivername="postgresql").render_as_string(hide_password=False))
    engine = database.reading(beside)
    reading = Reading(engine, SITES)
    for name, value in (("federation", "ward"), ("task", "tabular")):
        ledger.claim(name, value)
    yield ledger, reading, engine
    reading.close()
    ledger.close()


def make_version(ledger: Ledger, number: int, weights: dict[int, float] | None = None) -> None:
    row = StoredVersion(
        version=number, created_at_s=float(number), model_digest=b"m" * 32, state_digest=b"s" * 32, settings={}
    )
    ledger.add_version(row, [], weights or {})


def test_a_session_that_reads_can_write_nothing(pair: tuple[Ledger, Reading, Engine]) -> None:
    _, _, engine = pair
    refusal = (sql.exc.SQLAlchemyError, LedgerAwayError)  # of SQLite, and of a server
    with engine.connect() as connection, pytest.raises(refusal, match=r"readonly|25006"):
        connection.execute(sql.insert(FACTS).values(name="x", value="y"))


def test_a_long_reader_does_not_keep_the_writer_waiting(pair: tuple[Ledger, Reading, Engine]) -> None:
    ledger, reading, _ = pair
    make_version(ledger, 0)
    with reading.session() as session:
        session.execute(sql.select(FACTS)).all()
        make_version(ledger, 1)
        ledger.add_update(offer_of(b"1", 1), "north", at(1.0), 0.5, None)
    assert reading.federation().version == 1


def test_a_ledger_without_a_version_is_asked_again_later(pair: tuple[Ledger, Reading, Engine]) -> None:
    _, reading, _ = pair
    with pytest.raises(TransientError, match="no version"):
        reading.federation()


def test_updates_are_counted_by_site_and_reason(pair: tuple[Ledger, Reading, Engine]) -> None:
    ledger, reading, _ = pair
    make_version(ledger, 0)
    for seed, reason in enumerate([None, RejectReason.STALE, RejectReason.STALE, RejectReason.OUTLIER, None], 1):
        ledger.add_update(offer_of(b"%d" % seed, seed), "north", at(float(seed)), 0.5 * seed, reason)
    north, south = reading.sites().sites
    assert (north.num_accepted, north.num_refused, north.recent_norms) == (2, 3, [0.5, 2.0, 2.5])
    assert (south.num_accepted, south.last_update) == (0, None)
    told = reading.site("north")
    assert told
    assert told.refused == {"stale": 2, "outlier": 1}


def test_metrics_are_those_of_all_records_together(pair: tuple[Ledger, Reading, Engine]) -> None:
    ledger, reading, _ = pair
    make_version(ledger, 0)
    for site, right, of in (("north", 9.0, 10.0), ("south", 40.0, 90.0)):
        metrics = {"accuracy": Ratio(numerator=right, denominator=of), "auc": Ratio(numerator=0.0, denominator=0.0)}
        told = Evaluation(federation="ward", version=0, num_examples=int(of), metrics=metrics)
        ledger.add_evaluation(told, site, 1.0)
    assert reading.federation().metrics == {"accuracy": 0.49}
    version = reading.version(0)
    assert version
    assert [(row.site, row.metric, row.ratio) for row in version.evaluations] == [
        ("north", "accuracy", 0.9),
        ("north", "auc", None),
        ("south", "accuracy", 40 / 90),
        ("south", "auc", None),
    ]


def test_three_outliers_in_a_row_are_a_quarantine_here_as_in_the_coordinator(
    pair: tuple[Ledger, Reading, Engine],
) -> None:
    ledger, reading, _ = pair
    make_version(ledger, 0)
    for seed in (1, 2):
        ledger.add_update(offer_of(b"%d" % seed, seed), "north", at(1.0), 9.0, RejectReason.OUTLIER)
    assert not reading.sites().sites[0].quarantined
    ledger.add_update(offer_of(b"3", 3), "north", at(1.0), 9.0, RejectReason.OUTLIER)
    assert reading.sites().sites[0].quarantined


def test_a_server_that_is_away_is_told_as_such() -> None:
    gone = database.on_server("postgresql://nobody@127.0.0.1:1/gone")
    with pytest.raises(database.LedgerAwayError):
        Reading(database.reading(gone), SITES).head()
