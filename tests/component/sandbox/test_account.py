"""The account of updates says what does not add up; the logs it reads may be torn anywhere."""

import json
from dataclasses import replace
from pathlib import Path

from sandbox.account import Account, Ids, torn_versions
from sandbox.logs import Log

NONE: Ids = frozenset()
CLEAN = Account(
    trained=frozenset({"a", "b", "c"}), saved_again=NONE, receipted=frozenset({"a"}), accepted=frozenset({"a"}),
    refused=frozenset({"b"}), waiting=frozenset({"c"}), applied=frozenset({"a"}), miscounted=(), torn_versions=(),
    num_versions=1, num_chunks=1,
)  # fmt: skip


def test_updates_that_are_each_in_one_place_add_up() -> None:
    assert CLEAN.difference() == []


def test_each_kind_of_loss_and_doubling_is_a_difference() -> None:
    assert "in an outbox: c" in replace(CLEAN, waiting=NONE).difference()[0]
    assert "never trained: a" in replace(CLEAN, trained=frozenset({"b", "c"})).difference()
    assert "accepted and refused: a" in replace(CLEAN, refused=frozenset({"a", "b"})).difference()
    assert "ended, and still in an outbox: a" in replace(CLEAN, waiting=frozenset({"a", "c"})).difference()
    assert "receipted, and not in the ledger: c" in replace(CLEAN, receipted=frozenset({"c"})).difference()
    assert len(replace(CLEAN, saved_again=frozenset({"a"})).difference()) == 1
    assert len(replace(CLEAN, torn_versions=(4,)).difference()) == 1
    assert replace(CLEAN, miscounted=("north",)).difference() == ["north: counts other receipts than the ledger"]


def test_a_version_whose_updates_the_ledger_gives_to_another_is_torn() -> None:
    said = [{"event": "version", "version": 1, "numbers": [1, 2]}, {"event": "version", "version": 2, "numbers": [3]}]
    assert torn_versions({1: {1, 2}, 2: {3}}, iter(said)) == []
    assert torn_versions({1: {1}, 2: {2, 3}}, iter(said)) == [1, 2]
    assert torn_versions({1: {1, 2}, 2: {3}, 3: set()}, iter(said)) == [3]


def test_a_log_gives_each_whole_event_once_and_skips_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "site.log"
    log = Log(path)
    assert list(log.events()) == []
    path.write_text('{"event": "saved"}\nTraceback (most recent call last):\n[1]\n{"event": "sa')
    assert log.count("saved") == 1
    with path.open("a") as file:
        file.write('ved"}\n' + json.dumps({"event": "receipt"}) + "\n")
    assert [event["event"] for event in log.events()] == ["saved", "receipt"]
    assert list(Log(path, from_end=True).events()) == []
