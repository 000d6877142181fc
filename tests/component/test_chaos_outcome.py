"""When a run of chaos has passed, and what its table says."""

from dataclasses import replace

import pytest

from benchmarks.chaos_outcome import Outcome, table
from sandbox.account import Account

NONE: frozenset[str] = frozenset()
UPDATES = Account(
    trained=frozenset({"a", "b"}),
    saved_again=NONE,
    receipted=frozenset({"a", "b"}),
    accepted=frozenset({"a"}),
    refused=frozenset({"b"}),
    waiting=NONE,
    applied=frozenset({"a"}),
    miscounted=(),
    torn_versions=(),
    num_versions=1,
    num_chunks=310,
)
GOOD = Outcome(
    seed=3,
    seconds=12.0,
    planned_kills=2,
    faults={"broker": 1, "hospital-a": 1, "cut": 4},
    updates=UPDATES,
    chunks_received=1000,
    chunks_redundant=20,
    moving=[],
    replay="2 versions made again",
)


def test_a_run_passes_with_as_many_kills_as_planned_and_a_redundant_share_at_the_bar() -> None:
    assert GOOD.failures() == []
    assert GOOD.kills == 2
    assert GOOD.figures()["chunks an update"] == 310


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (replace(GOOD, difference=["replay: version 1: model digest"]), "replay: version 1: model digest"),
        (replace(GOOD, updates=replace(UPDATES, torn_versions=(1,))), "1 duplicates"),
        (replace(GOOD, updates=replace(UPDATES, saved_again=frozenset({"a"}))), "1 duplicates"),
        (replace(GOOD, moving=["a is training"]), "it did not settle: a is training"),
        (replace(GOOD, planned_kills=3), "2 of 3 kills in the time given"),
        (replace(GOOD, chunks_redundant=21), "redundant chunk share 2.1%, the bar is 2%"),
    ],
)
def test_each_failure_is_named(bad: Outcome, why: str) -> None:
    assert bad.failures() == [why]


def test_the_table_has_a_line_for_each_seed_with_its_verdict() -> None:
    headings, good, bad = table([GOOD, replace(GOOD, seed=4, moving=["a is training"])])
    assert headings.split()[:4] == ["seed", "kills", "seconds", "trained"]
    assert good.split() == ["3", "2", "12.0", "2", "1", "1", "0", "1", "2.00%", "passed"]
    assert bad.endswith("it did not settle: a is training")
