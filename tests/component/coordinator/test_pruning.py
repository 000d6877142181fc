"""A ledger whose beginning was cut off: what is left is held by the chain as before, and what was there is told."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.chain import Kind, Mark, anchor_of, first_fault, missing
from coordinator.ledger import Ledger
from coordinator.replay import check_ledger
from coordinator.tables import ALL, Verdict
from fedward.errors import IntegrityError
from fedward.messages import FederationState
from tests.support.version_line import KEEP_ALL, VersionLine

OLDEST = 11
"""The first version whose rows are left."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mark, Mark]:
    """A ledger of 40 versions, a mark from before the cut, and one from after it; a site left before the cut."""
    folder = tmp_path_factory.mktemp("original")
    line = VersionLine(folder, retention=KEEP_ALL)
    line.ledger.wish("south", FederationState.PAUSED, 1.0)
    for verdict in (Verdict.RELEASED, Verdict.REFUSED):
        line.ledger.give_verdict("south", verdict, 1.0)
    line.make(4)
    line.make(36, sites=["north"])
    early = line.ledger.chain()[0].mark
    line.ledger.raise_floor(OLDEST - 1)
    line.ledger.prune(OLDEST)
    mark = line.ledger.chain()[20].mark
    assert early.entry == 1
    line.close()
    return folder / "ledger.sqlite", early, mark


@pytest.fixture
def tampered(original: tuple[Path, Mark, Mark], tmp_path: Path) -> Iterator[Callable[..., Ledger]]:
    """A copy of the ledger, changed by these statements."""
    opened: list[Ledger] = []

    def change(*statements: str) -> Ledger:
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        with closing(sqlite3.connect(original[0])) as source, closing(sqlite3.connect(folder / "ledger.sqlite")) as to:
            source.backup(to)
            for statement in statements:
                assert to.execute(statement).rowcount > 0, f"nothing was changed by {statement}"
            to.commit()
        opened.append(Ledger.in_folder(folder))
        return opened[-1]

    yield change
    for ledger in opened:
        ledger.close()


def test_what_is_left_is_held_by_the_chain_from_its_anchor_on(tampered: Callable[..., Ledger]) -> None:
    ledger = tampered()
    ledger.check_chain()
    anchor = anchor_of(ledger.chain())
    assert anchor is not None
    assert ledger.chain()[1].entry == anchor.entry + 1 > 30
    assert [row.version for row in ledger.versions()] == list(range(OLDEST, 41))
    assert {part.version for part in ledger.parts(0, 40)} == set(range(OLDEST, 41))


def test_facts_wishes_and_the_last_of_each_site_stay(tampered: Callable[..., Ledger]) -> None:
    ledger = tampered()
    assert ledger.fact("federation") == "ward"
    assert ledger.wishes() == {"south": FederationState.PAUSED, ALL: FederationState.RUNNING}
    assert {site: one.verdict for site, one in ledger.verdicts().items()} == {"south": Verdict.REFUSED}
    assert {(row.site, row.version) for row in ledger.updates() if row.version and row.version < OLDEST} == {
        ("south", 4),
        ("north", 10),
    }
    measured = {(row.site, row.version) for row in ledger.evaluations() if row.version < OLDEST}
    assert measured == {("south", 4), ("north", 10)}
    totals = ledger.totals()
    assert (totals["south"].num_accepted, totals["north"].num_accepted) == (3, 9)
    assert totals["north"].num_steps == 90


@pytest.mark.parametrize(
    ("statements", "fault"),
    [
        (["UPDATE updates SET num_steps = 5 WHERE version = 20"], "update .*: changed"),
        (["UPDATE updates SET num_steps = 5 WHERE version = 4"], "update .*: changed"),
        (["UPDATE updates SET weight = 5.0 WHERE version = 4"], "fold 4: changed"),
        (["UPDATE updates SET version = 5 WHERE version = 4"], "fold 4: recorded in .* removed since"),
        (["DELETE FROM updates WHERE version = 4"], "update .*: recorded in .* removed since"),
        (["DELETE FROM versions WHERE version = 11"], "version 11: recorded in .* removed since"),
        (["UPDATE facts SET value = 'other' WHERE name = 'federation'"], "fact federation: changed"),
        (["UPDATE wishes SET state = 'running' WHERE target = 'south'"], "wish 1: changed"),
        (["DELETE FROM wishes WHERE target = 'south'"], "wish 1: recorded in .* removed since"),
        (["INSERT INTO wishes VALUES (99, 'south', 'running', 9.0)"], "wish 99: no chain entry records it"),
        (["UPDATE verdicts SET after_number = 9"], "verdict 2: changed"),
        (["DELETE FROM verdicts"], "verdict 2: recorded in .* removed since"),
        (["INSERT INTO verdicts VALUES (9, 'south', 'released', 0, 9.0)"], "verdict 9: no chain entry records it"),
        (["UPDATE evaluations SET numerator = 9.0 WHERE version = 30"], "evaluation 30 north: changed"),
        (["DELETE FROM evaluations WHERE version = 4 AND metric = 'auc'"], "evaluation 4 south: changed"),
        (["DELETE FROM evaluations WHERE version = 30"], "evaluation 30 north: recorded in .* removed since"),
        (
            ["INSERT INTO evaluations VALUES (30, 'south', 'auc', 1.0, 1.0, 1, 9.0)"],
            "evaluation 30 south: no chain entry records it",
        ),
        (["UPDATE totals SET num_accepted = 99 WHERE site = 'south'"], "total .* south: changed"),
        (["DELETE FROM totals WHERE site = 'south'"], "total .* south: recorded in .* removed since"),
        (["DELETE FROM chain WHERE kind = 'anchor'"], "chain entry 1 is missing"),
        (["UPDATE chain SET head = x'00' WHERE kind = 'anchor'"], "does not follow from the entry before it"),
        (["UPDATE chain SET entry = entry - 1 WHERE kind = 'anchor'"], "chain entry .* is missing"),
        (
            ["DELETE FROM chain WHERE entry = (SELECT entry + 1 FROM chain WHERE kind = 'anchor')"],
            "chain entry .* is missing",
        ),
        (
            ["UPDATE chain SET kind = 'anchor' WHERE entry = (SELECT max(entry) - 5 FROM chain)"],
            "anchor .*: recorded in .* removed since",
        ),
    ],
)
def test_a_change_of_what_is_left_is_still_named(
    tampered: Callable[..., Ledger], statements: list[str], fault: str
) -> None:
    ledger = tampered(*statements)
    with pytest.raises(IntegrityError, match=fault):
        ledger.check_chain()


def test_a_ledger_that_was_changed_is_not_cut(tampered: Callable[..., Ledger]) -> None:
    ledger = tampered("UPDATE updates SET num_steps = 5 WHERE version = 15")
    before = ledger.chain()
    with pytest.raises(IntegrityError, match=r"update .*: changed since .*; old rows are not deleted"):
        ledger.prune(20)
    assert ledger.chain() == before
    assert ledger.oldest_version() == OLDEST


def test_a_second_cut_deletes_what_the_first_one_recorded_again(tampered: Callable[..., Ledger]) -> None:
    ledger = tampered()
    ledger.prune(20)
    ledger.prune(35)
    ledger.check_chain()
    assert ledger.wishes()["south"] is FederationState.PAUSED
    assert ledger.latest_of_sites(10**9)["south"].version == 4
    still_there = Counter(row.site for row in ledger.accepted())
    deleted = {site: sums.num_accepted for site, sums in ledger.totals().items()}
    assert still_there + Counter(deleted) == {"south": 4, "north": 40}
    assert still_there["north"] < 10


def test_a_head_from_before_the_cut_is_told_from_one_that_never_was(
    tampered: Callable[..., Ledger], original: tuple[Path, Mark, Mark]
) -> None:
    _, early, late = original
    ledger = tampered()
    check_ledger(ledger, late)
    check_ledger(ledger, Mark(late.head))
    with pytest.raises(IntegrityError, match=rf"the head {early} lies before entry .*deleted because they were old"):
        check_ledger(ledger, early)
    with pytest.raises(IntegrityError, match=r"never had the head .*a head without a number may lie before it"):
        check_ledger(ledger, Mark(early.head))
    with pytest.raises(IntegrityError, match=r"never had the head .*or the head is of another ledger$"):
        check_ledger(ledger, Mark(early.head, late.entry))


def test_the_cut_itself_is_a_head_that_the_chain_had(tampered: Callable[..., Ledger]) -> None:
    chain = tampered().chain()
    assert chain[0].kind == Kind.ANCHOR
    assert missing(chain, chain[0].mark) is None
    assert first_fault(chain[:1], {}) is None


@pytest.mark.parametrize("text", ["", "12", "12:", "x:" + "ab" * 32, "ab" * 31, "1:2:" + "ab" * 32])
def test_what_is_no_head_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"64 hexadecimal digits"):
        Mark.parse(text)


def test_a_head_is_read_as_it_is_written() -> None:
    for mark in (Mark(bytes(range(32)), 12), Mark(bytes(32))):
        assert Mark.parse(str(mark)) == mark
