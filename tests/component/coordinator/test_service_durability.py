"""Whoever dies at whatever line: nothing is lost, nothing counts twice, nothing is told too early."""

import contextlib
import sqlite3
from collections.abc import Callable

import pytest

from fedward.testing import ManualClock
from tests.support.coordinator_bench import Bench, accepted
from tests.support.site import Site
from tests.support.updates import inline

Start = Callable[..., Bench]


def broken_insert(bench: Bench, table: str) -> Callable[[], None]:
    """From now on no row can be added to a table of the ledger, until the function that is returned mends it."""
    path = bench.config.state_folder / "ledger.sqlite"

    def change(statement: str) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    change(f"CREATE TRIGGER broken BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")
    return lambda: change("DROP TRIGGER broken")


def test_a_message_is_the_brokers_until_all_that_follows_is_durable(start: Start, north: Site) -> None:
    bench = start()
    bench.settle()
    north.offer(inline(1))
    bench.inbox.get_nowait()  # read by a process that dies before it is through
    bench.kill()
    again = start()
    again.settle()
    assert [row.update_id for row in again.ledger.updates()] == [inline(1).update_id]
    assert north.receipts() == [accepted(inline(1))]


def test_a_failure_before_the_update_is_recorded_tells_nobody_and_loses_nothing(start: Start, north: Site) -> None:
    bench = start()
    bench.settle()
    mend = broken_insert(bench, "updates")
    north.offer(inline(1))
    with pytest.raises(Exception, match="the disk is full"):
        bench.settle()
    bench.kill()
    assert north.receipts() == []
    mend()
    again = start()
    again.settle()
    assert north.receipts() == [accepted(inline(1))]
    assert len(again.ledger.updates()) == 1


def test_a_version_that_could_not_be_recorded_is_not_announced_and_made_later(start: Start, north: Site) -> None:
    bench = start()
    bench.settle()
    mend = broken_insert(bench, "versions")
    north.offer(inline(1))
    with pytest.raises(Exception, match="the disk is full"):
        bench.settle()
    bench.kill()
    assert [announcement.version for announcement in north.announcements()] == [0]
    mend()
    again = start()
    again.settle()
    assert north.announcements()[-1].version == 1
    assert again.ledger.buffered() == ()


def test_a_message_that_could_not_be_handled_comes_again(start: Start, north: Site) -> None:
    bench = start()
    bench.settle()
    (bench.config.state_folder / "incoming").rmdir()
    north.offer(inline(1))
    with pytest.raises(FileNotFoundError):
        bench.settle()
    bench.kill()
    again = start()
    again.settle()
    assert north.receipts() == [accepted(inline(1))]


def test_a_coordinator_that_died_before_its_version_makes_the_same_one(start: Start, north: Site, south: Site) -> None:
    digests = []
    for folder, dies in (("straight", False), ("killed", True)):
        bench = start(folder=folder)
        bench.settle()
        north.offer(inline(1))
        south.offer(inline(2, "south"))
        bench.settle()
        north.offer(inline(3, base_version=1))
        bench.settle()
        if dies:
            bench.kill()
            bench = start(folder=folder)
            bench.settle()
        assert len(bench.ledger.buffered()) == 1
        south.offer(inline(4, "south", base_version=1))
        bench.settle()
        digests.append(bench.ledger.version(2).model_digest)
        bench.kill()
    assert digests[0] == digests[1]


def test_a_version_that_was_due_when_the_coordinator_died_is_made_at_once(
    start: Start, north: Site, clock: ManualClock
) -> None:
    bench = start()
    north.offer(inline(1))
    bench.service.handle(bench.inbox.get_nowait())
    while not bench.inbox.empty():
        bench.service.handle(bench.inbox.get_nowait())
    bench.kill()
    clock.advance(10_000.0)
    again = start()
    again.settle()
    assert again.versions.current.version == 1


def test_a_buffer_that_does_not_fill_becomes_a_version_at_its_deadline(
    start: Start, north: Site, south: Site, clock: ManualClock
) -> None:
    bench = start()
    bench.settle()
    north.offer(inline(1))
    bench.settle()
    clock.advance(599.0)
    bench.settle()
    assert bench.versions.current.version == 0
    clock.advance(1.0)
    bench.settle()
    assert bench.versions.current.version == 1
    assert north.announcements()[-1].version == 1
