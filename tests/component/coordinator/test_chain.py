"""The chain, and every way of changing a ledger behind its back."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.blobs import BlobFolder
from coordinator.chain import GENESIS, Entry, Kind, Mark, Value, canonical, digest_of, first_fault, missing, next_entry
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.making import Settings
from coordinator.versions import Versions
from fedward.errors import IntegrityError, RejectReason
from tests.support.coordinator_bench import at
from tests.support.updates import FEDERATION, SMALL, offer_of, payload_of, vector


def after(newest: Entry | None, kind: Kind, key: str, row: Value) -> Entry:
    return next_entry(newest, kind, key, digest_of(kind, key, row))


ENTRIES = (
    (first := after(None, Kind.UPDATE, "1", (1, b"a"))),
    (second := after(first, Kind.UPDATE, "2", (2, b"b"))),
    after(second, Kind.FOLD, "1", ((1, 0.5), (2, 1.0))),
)
DIGESTS = {(entry.kind, entry.key): entry.digest for entry in ENTRIES}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of two versions of two updates each, one refused update and one in the buffer."""
    folder = tmp_path_factory.mktemp("original")
    ledger, blobs = Ledger.in_folder(folder), BlobFolder(folder / "blobs")
    ledger.claim("federation", FEDERATION)
    versions = Versions(ledger, blobs, SMALL, Settings(EngineSettings(), "q8"))
    versions.begin(vector(SMALL, seed=0, scale=1.0), now_s=1.0)
    for seed in range(1, 6):
        payload = payload_of(SMALL, seed)
        blobs.put(payload)
        ledger.add_update(offer_of(payload, seed), "north", at(float(seed)), 1.0, None)
        if seed in (2, 4):
            versions.make(ledger.buffered(), [1.0, 0.5], now_s=10.0 + seed)
    ledger.add_update(offer_of(b"refused", 9), "south", at(9.0), None, RejectReason.STALE)
    ledger.close()
    return folder / "ledger.sqlite"


@pytest.fixture
def tampered(original: Path, tmp_path: Path) -> Iterator[Callable[..., Ledger]]:
    """A copy of the ledger, changed by these statements."""
    opened: list[Ledger] = []

    def change(*statements: str) -> Ledger:
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        (folder / "ledger.sqlite").write_bytes(original.read_bytes())
        with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount != 0, f"nothing was changed by {statement}"
            connection.commit()
        opened.append(Ledger.in_folder(folder))
        return opened[-1]

    yield change
    for ledger in opened:
        ledger.close()


def test_an_untouched_ledger_follows_its_chain(tampered: Callable[..., Ledger]) -> None:
    ledger = tampered()
    ledger.check_chain()
    kinds = [entry.kind for entry in ledger.chain()]
    assert kinds == [
        "fact", "version", "part", "fold", "update", "update", "version", "part", "fold",
        "update", "update", "version", "part", "fold", "update", "update",
    ]  # fmt: skip


COLUMNS_OF_AN_UPDATE = [
    "update_id = x'00'", "site = 'south'", "sequence = 99", "base_version = 7", "codec = 'q8'", "num_examples = 5",
    "num_steps = 5", "work_s = 5.5", "size_bytes = 5", "digest = x'01'", "received_at_s = 0.5", "arrived_s = 0.5",
    "norm = 2.0", "reason = 'stale'",
]  # fmt: skip


@pytest.mark.parametrize("change", COLUMNS_OF_AN_UPDATE)
def test_a_changed_update_is_named(tampered: Callable[..., Ledger], change: str) -> None:
    ledger = tampered(f"UPDATE updates SET {change} WHERE number = 2")  # noqa: S608 - the test's own words
    with pytest.raises(IntegrityError, match="update 2: changed since chain entry 6 recorded it"):
        ledger.check_chain()


INSERT_UPDATE = (
    "INSERT INTO updates SELECT 7, x'77', site, 7, base_version, codec, num_examples, num_steps, work_s, size_bytes, "
    "digest, received_at_s, arrived_s, norm, reason, NULL, NULL FROM updates WHERE number = 5"
)
INSERT_VERSION = (
    "INSERT INTO versions SELECT 3, created_at_s, model_digest, state_digest, settings FROM versions WHERE version = 2"
)
INSERT_PART = (
    "INSERT INTO parts SELECT version, 'snapshot', codec, size_bytes, digest, chunk_digests FROM parts "
    "WHERE version = 2"
)


@pytest.mark.parametrize(
    ("statements", "fault"),
    [
        (["UPDATE versions SET model_digest = x'00' WHERE version = 1"], "version 1: changed"),
        (["UPDATE versions SET state_digest = x'00' WHERE version = 1"], "version 1: changed"),
        (["UPDATE versions SET created_at_s = 5.0 WHERE version = 1"], "version 1: changed"),
        (["UPDATE versions SET settings = replace(settings, 'q8', 'f32') WHERE version = 2"], "version 2: changed"),
        (["UPDATE parts SET digest = x'00' WHERE version = 1"], "part 1 delta: changed"),
        (["UPDATE parts SET codec = 'f32' WHERE version = 1"], "part 1 delta: changed"),
        (["UPDATE parts SET kind = 'snapshot' WHERE version = 1"], "part 1 delta: recorded in .* removed since"),
        (["UPDATE updates SET weight = 0.75 WHERE number = 4"], "fold 2: changed"),
        (["UPDATE updates SET version = 1 WHERE number = 4"], "fold 1: changed"),
        (["UPDATE updates SET version = NULL, weight = NULL WHERE number = 1"], "fold 1: changed"),
        (["UPDATE updates SET version = 2, weight = 1.0 WHERE number = 5"], "fold 2: changed"),
        (["UPDATE updates SET version = 9, weight = 1.0 WHERE number = 5"], "fold 9: no chain entry records it"),
        (["UPDATE updates SET weight = 1.0 WHERE number = 5"], "fold None: no chain entry records it"),
        (["UPDATE facts SET value = 'other' WHERE name = 'federation'"], "fact federation: changed"),
        (["DELETE FROM updates WHERE number = 2"], "update 2: recorded in chain entry 6, and removed since"),
        (["DELETE FROM updates WHERE number = 6"], "update 6: recorded in chain entry 16, and removed since"),
        (["DELETE FROM versions WHERE version = 2"], "version 2: recorded in .* removed since"),
        (["DELETE FROM parts WHERE version = 2"], "part 2 delta: recorded in .* removed since"),
        (
            [INSERT_UPDATE],
            "update 7: no chain entry records it",
        ),
        (
            [INSERT_VERSION],
            "version 3: no chain entry records it",
        ),
        (
            [INSERT_PART],
            "part 2 snapshot: no chain entry records it",
        ),
        (
            ["UPDATE updates SET number = 99 WHERE number = 1", "UPDATE updates SET number = 1 WHERE number = 2",
             "UPDATE updates SET number = 2 WHERE number = 99"],
            "update 1: changed",
        ),
        (["DELETE FROM chain WHERE entry = 6"], "chain entry 6 is missing, before version 1"),
        (["DELETE FROM chain WHERE entry = 1"], "chain entry 1 is missing"),
        (["DELETE FROM chain WHERE entry = 16"], "update 6: no chain entry records it"),
        (["UPDATE chain SET digest = x'00' WHERE entry = 5"], "chain entry 5, of update 1: does not follow"),
        (["UPDATE chain SET head = x'00' WHERE entry = 5"], "chain entry 5, of update 1: does not follow"),
        (
            ["UPDATE chain SET entry = 99 WHERE entry = 5", "UPDATE chain SET entry = 5 WHERE entry = 6",
             "UPDATE chain SET entry = 6 WHERE entry = 99"],
            "chain entry 5, of update 2: does not follow",
        ),
        (["UPDATE chain SET \"key\" = '8' WHERE entry = 5"], "update 8: recorded in chain entry 5, and removed"),
    ],
)  # fmt: skip
def test_the_first_row_that_is_not_as_it_was_written_is_named(
    tampered: Callable[..., Ledger], statements: list[str], fault: str
) -> None:
    ledger = tampered(*statements)
    with pytest.raises(IntegrityError, match=fault):
        ledger.check_chain()


def test_rows_cut_off_at_the_end_together_with_their_entries_are_told_by_a_known_head(
    tampered: Callable[..., Ledger],
) -> None:
    head = tampered().chain()[-1].head
    cut = tampered("DELETE FROM updates WHERE number = 6", "DELETE FROM chain WHERE entry = 16")
    cut.check_chain()
    assert "its chain never had the head" in str(missing(cut.chain(), Mark(head)))
    assert missing(tampered().chain(), Mark(head)) is None


def test_what_the_chain_holds_is_what_the_rows_are() -> None:
    assert first_fault(ENTRIES, DIGESTS) is None
    assert first_fault((), {}) is None
    assert ENTRIES[0].head != ENTRIES[1].head != GENESIS


def test_a_head_depends_on_everything_before_it() -> None:
    other = after(None, Kind.UPDATE, "1", (1, b"other"))
    assert after(other, Kind.UPDATE, "2", (2, b"b")).digest == ENTRIES[1].digest
    assert after(other, Kind.UPDATE, "2", (2, b"b")).head != ENTRIES[1].head


def test_entries_in_another_order_do_not_follow() -> None:
    swapped = (replace(ENTRIES[1], entry=1), replace(ENTRIES[0], entry=2), ENTRIES[2])
    assert first_fault(swapped, DIGESTS) == "chain entry 1, of update 2: does not follow from the entry before it"


def test_values_that_look_alike_are_written_differently() -> None:
    alike = [None, "", b"", (), 1, 1.0, "1", b"1", (1,), ((1,),), (1, 1), (11,), ("1", "1"), ("11",), -0.0, 0.0]
    assert len({canonical(value) for value in alike}) == len(alike)


def test_a_bool_is_no_value_of_a_row() -> None:
    with pytest.raises(TypeError):
        canonical(True)
