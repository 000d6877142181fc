"""The ledger, in a SQLite file and in PostgreSQL."""

import dataclasses
from collections.abc import Callable

import pytest
from sqlalchemy.engine import Engine

from coordinator.ledger import Ledger
from coordinator.tables import ALL, StoredVersion
from fedward.chunks import manifest_of
from fedward.errors import ConfigError, RejectReason
from fedward.messages import Evaluation, FederationState, Offer, Outcome, Part, PartKind, Ratio
from tests.support.coordinator_bench import at
from tests.support.updates import offer_of, update_id


def offer(seed: int) -> Offer:
    return offer_of(f"payload {seed}".encode(), seed)


def version(number: int, state: bytes = b"s" * 32) -> StoredVersion:
    return StoredVersion(
        version=number, created_at_s=float(number), model_digest=b"m" * 32, state_digest=state, settings={"k": [1]}
    )


def part(number: int, kind: PartKind = PartKind.DELTA) -> Part:
    return Part(kind=kind, version=number, codec="q8", manifest=manifest_of(f"{kind} {number}".encode()))


def evaluation(number: int, value: float) -> Evaluation:
    ratio = Ratio(numerator=value, denominator=10.0)
    return Evaluation(federation="ward", version=number, num_examples=10, metrics={"accuracy": ratio})


def test_the_same_update_a_second_time_returns_the_first_row(ledger: Ledger) -> None:
    first = ledger.add_update(offer(1), "north", at(10.0), 0.5, None)
    second = ledger.add_update(offer(1), "south", at(20.0), None, RejectReason.STALE)
    assert second == first
    assert ledger.updates() == (first,)
    assert (first.site, first.received_at_s, first.norm, first.outcome) == ("north", 10.0, 0.5, Outcome.ACCEPTED)


def test_a_row_has_what_the_offer_said(ledger: Ledger) -> None:
    said = offer(1)
    row = ledger.add_update(said, "north", at(10.0), 0.5, None)
    for name in ("update_id", "sequence", "base_version", "codec", "num_examples", "num_steps", "work_s"):
        assert getattr(row, name) == getattr(said, name)
    assert (row.size_bytes, row.digest) == (said.manifest.size_bytes, said.manifest.digest)


def test_a_refused_update_is_kept_with_its_reason_and_never_buffered(ledger: Ledger) -> None:
    row = ledger.add_update(offer(1), "north", at(10.0), None, RejectReason.STALE)
    assert (row.reason, row.outcome) == ("stale", Outcome.REFUSED)
    assert ledger.updates() == (row,)
    assert ledger.buffered() == ledger.accepted() == ()


def test_a_version_takes_its_updates_out_of_the_buffer_with_their_weights(ledger: Ledger) -> None:
    rows = [ledger.add_update(offer(seed), "north", at(10.0), 0.5, None) for seed in (3, 1, 2)]
    assert ledger.buffered() == tuple(rows)
    ledger.add_version(version(0), [part(0)], {rows[0].number: 0.25, rows[1].number: 2.0})
    assert [row.update_id for row in ledger.buffered()] == [update_id(2)]
    assert [(row.version, row.weight) for row in ledger.updates_of(0)] == [(0, 0.25), (0, 2.0)]


def test_a_version_is_recorded_with_all_that_belongs_to_it_or_not_at_all(ledger: Ledger) -> None:
    row = ledger.add_update(offer(1), "north", at(10.0), 0.5, None)
    ledger.add_version(version(0), [part(0)], {})
    with pytest.raises(Exception, match=r"UNIQUE|UniqueViolation"):
        ledger.add_version(version(1), [part(1), part(1)], {row.number: 1.0})
    assert [known.version for known in ledger.versions()] == [0]
    assert ledger.parts(0, 9) == (part(0),)
    assert ledger.buffered() == (row,)


def test_a_version_that_was_never_made_is_a_key_error(ledger: Ledger) -> None:
    assert ledger.newest_version() is None
    ledger.add_version(version(0), [], {})
    assert ledger.version(0) == ledger.newest_version() == version(0)
    with pytest.raises(KeyError):
        ledger.version(1)


def test_parts_come_in_the_order_of_versions_and_only_of_those_asked_for(ledger: Ledger) -> None:
    for number in (2, 0, 1, 3):
        ledger.add_version(version(number), [part(number)], {})
    assert ledger.parts(1, 2) == (part(1), part(2))


def test_the_newest_snapshot_is_the_last_one_up_to_a_version(ledger: Ledger) -> None:
    for number in range(6):
        parts = [part(number)] + [part(number, PartKind.SNAPSHOT)] * (number in (0, 3))
        ledger.add_version(version(number), parts, {})
    assert [ledger.newest_snapshot(up_to) for up_to in range(6)] == [0, 0, 0, 3, 3, 3]


def test_the_latest_update_of_each_site_is_one_that_was_folded_before(ledger: Ledger) -> None:
    rows = [ledger.add_update(offer(seed), site, at(1.0), 0.5, None) for seed, site in enumerate("aabab")]
    ledger.add_version(version(0), [], {row.number: 1.0 for row in rows[:3]})
    latest = ledger.latest_of_sites(before_number=rows[2].number)
    assert {site: row.number for site, row in latest.items()} == {"a": rows[1].number}
    assert ledger.latest_of_sites(rows[4].number)["b"].number == rows[2].number


def test_the_sequence_grows_over_reopening(engine_of: Callable[..., Engine]) -> None:
    numbers = []
    for _ in range(3):
        ledger = Ledger(engine_of())
        numbers += [ledger.next_sequence(), ledger.next_sequence()]
        ledger.close()
    assert numbers == sorted(set(numbers))


def test_a_ledger_refuses_to_be_of_another_federation(ledger: Ledger) -> None:
    ledger.claim("federation", "ward")
    ledger.claim("federation", "ward")
    with pytest.raises(ConfigError, match="belongs to federation ward, the configuration says other"):
        ledger.claim("federation", "other")
    assert ledger.fact("federation") == "ward"
    assert ledger.fact("task") is None


def test_the_last_wish_for_a_target_holds(ledger: Ledger) -> None:
    ledger.wish(ALL, FederationState.PAUSED, 1.0)
    ledger.wish("north", FederationState.PAUSED, 2.0)
    ledger.wish(ALL, FederationState.RUNNING, 3.0)
    assert ledger.wishes() == {ALL: FederationState.RUNNING, "north": FederationState.PAUSED}


def test_a_site_measures_a_version_once_and_a_repeated_message_changes_nothing(ledger: Ledger) -> None:
    assert ledger.add_evaluation(evaluation(1, 5.0), "north", 10.0)
    assert not ledger.add_evaluation(evaluation(1, 7.0), "north", 11.0)
    assert ledger.add_evaluation(evaluation(1, 3.0), "south", 12.0)
    rows = {row.site: (row.numerator, row.received_at_s) for row in ledger.evaluations()}
    assert rows == {"north": (5.0, 10.0), "south": (3.0, 12.0)}
    ledger.check_chain()


def test_the_latest_evaluations_are_those_of_each_sites_newest_version(ledger: Ledger) -> None:
    for number, value in ((2, 6.0), (1, 5.0)):
        ledger.add_evaluation(evaluation(number, value), "north", 10.0)
    ledger.add_evaluation(evaluation(1, 3.0), "south", 10.0)
    assert {row.site: row.numerator for row in ledger.latest_evaluations()} == {"north": 6.0, "south": 3.0}


@pytest.mark.parametrize("named", ["part", "state", "accepted"])
def test_a_blob_of_a_row_that_is_kept_is_needed(ledger: Ledger, named: str) -> None:
    row = ledger.add_update(offer(1), "north", at(10.0), 0.5, None)
    ledger.add_version(version(0, state=b"s" * 32), [part(0)], {row.number: 1.0})
    digests = {"part": part(0).manifest.digest, "state": b"s" * 32, "accepted": row.digest}
    assert ledger.needs_blob(digests[named])


def test_a_blob_of_a_refused_update_or_of_most_old_states_is_not_needed(ledger: Ledger) -> None:
    refused = ledger.add_update(offer(1), "north", at(10.0), None, RejectReason.NOT_FINITE)
    for number in range(3):
        ledger.add_version(version(number, state=bytes([number]) * 32), [], {})
    assert not ledger.needs_blob(refused.digest)
    assert [ledger.needs_blob(bytes([number]) * 32) for number in range(3)] == [True, False, True]


def test_a_reopened_ledger_has_everything(engine_of: Callable[..., Engine]) -> None:
    def content(ledger: Ledger) -> list[object]:
        return [
            ledger.updates(),
            ledger.versions(),
            ledger.parts(0, 9),
            ledger.evaluations(),
            ledger.wishes(),
            ledger.fact("federation"),
        ]

    ledger = Ledger(engine_of())
    ledger.claim("federation", "ward")
    row = ledger.add_update(offer(1), "north", at(10.0), 0.5, None)
    ledger.add_update(offer(2), "north", at(11.0), None, RejectReason.STALE)
    ledger.add_version(version(0), [part(0, PartKind.SNAPSHOT)], {row.number: 0.5})
    ledger.add_evaluation(evaluation(0, 7.0), "north", 12.0)
    ledger.wish("north", FederationState.PAUSED, 2.0)
    before = content(ledger)
    ledger.close()
    reopened = Ledger(engine_of())
    assert content(reopened) == before
    assert dataclasses.asdict(reopened.updates()[0])["weight"] == 0.5
    reopened.close()
