"""The egress log on disk: over restarts, kills, full disks and its own limit; and what `--verify` finds."""

import errno
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent import egress_log
from edge_agent.egress_lines import What
from edge_agent.egress_log import EgressLog, files_of, lines_in, read_head
from edge_agent.egress_report import document, report, time_of, verdict, verify
from fedward.errors import ConfigError, IntegrityError, TransientError
from fedward.limits import MIB
from fedward.testing import ManualClock

MESSAGE = {"what": What.MESSAGE, "kind": "u", "federation": "ward", "size": 10, "sha256": "ab" * 32}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "egress"


@pytest.fixture
def new_log(folder: Path) -> Callable[..., EgressLog]:
    """Another process's log on the same folder; the one before was closed, or killed where it stood."""
    clock = ManualClock()

    def build(*, num_messages: int = 0, close: bool = False) -> EgressLog:
        log = EgressLog(folder, 64 * MIB, clock)
        log.open()
        for _ in range(num_messages):
            log.write(MESSAGE)
        if close:
            log.close()
        return log

    return build


def fields_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_in(folder)]


def whats(folder: Path) -> list[str]:
    return [fields["what"] for fields in fields_in(folder)]


def test_the_chain_goes_on_over_processes(folder: Path, new_log: Any) -> None:
    new_log(num_messages=2, close=True)
    new_log(num_messages=1, close=True)
    found = verify(folder)
    assert whats(folder) == ["start", "message", "message", "stop", "start", "message", "stop"]
    assert [fields["ended"] for fields in fields_in(folder) if fields["what"] == "start"] == ["new", "in order"]
    assert (found.num_lines, found.head.n, found.num_killed, found.torn_bytes) == (7, 7, 0, 0)
    assert read_head(folder) == (found.head, egress_log.MACHINE.read_text().strip())


def test_a_line_is_in_the_file_before_anything_else_happens(folder: Path, new_log: Any) -> None:
    new_log(num_messages=1)
    assert whats(folder) == ["start", "message"], "a process that is killed now loses none"


def test_a_killed_process_is_named_and_its_lines_are_all_there(folder: Path, new_log: Any) -> None:
    new_log(num_messages=3)
    new_log(close=True)
    found = verify(folder)
    assert whats(folder) == ["start", "message", "message", "message", "start", "stop"]
    assert (found.num_killed, found.num_power_cuts) == (1, 0)
    assert "the agent was killed 1 times: no line is lost by that" in list(verdict(found))


def test_after_a_power_cut_the_log_says_that_lines_may_be_missing(
    folder: Path, new_log: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    new_log(num_messages=3)
    other_start = tmp_path / "boot_id"
    other_start.write_text("after the power came back")
    monkeypatch.setattr(egress_log, "MACHINE", other_start)
    new_log(close=True)
    found = verify(folder)
    assert (found.num_killed, found.num_power_cuts) == (1, 1)
    assert any("lines of the last second may be missing" in line for line in verdict(found))


@pytest.mark.parametrize("torn", [b'{"n":5,"at', b"\0" * 4096, b"\0" * 100 + b"\n{}\n", b'{"n":5}\n'])
def test_what_a_power_cut_left_of_unsynced_lines_is_removed_and_named(folder: Path, new_log: Any, torn: bytes) -> None:
    new_log(num_messages=3)
    with files_of(folder)[-1].open("ab") as file:
        file.write(torn)
    new_log(close=True)
    verify(folder)
    assert whats(folder) == ["start", "message", "message", "message", "torn", "start", "stop"]
    assert next(fields["size"] for fields in fields_in(folder) if fields["what"] == "torn") == len(torn)


def test_a_line_that_is_being_written_is_no_damage(folder: Path, new_log: Any) -> None:
    new_log(num_messages=3)
    with files_of(folder)[-1].open("ab") as file:
        file.write(b'{"n":5,"at')
    assert verify(folder).torn_bytes == 10


def test_lines_are_synced_within_a_second_and_the_head_names_the_last_one(folder: Path) -> None:
    clock = ManualClock()
    log = EgressLog(folder, 64 * MIB, clock)
    log.open()
    log.write(MESSAGE)
    log.sync_if_due()
    assert (read_head(folder) or [None])[0].n == 1  # type: ignore[union-attr]
    clock.advance(egress_log.SYNC_S)
    log.sync_if_due()
    assert (read_head(folder) or [None])[0].n == 2  # type: ignore[union-attr]


def test_every_sync_is_one_of_the_file_first_and_then_of_the_head(
    folder: Path, new_log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = new_log(num_messages=1)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda _file: synced.append((read_head(folder) or [None])[0].n))  # type: ignore[union-attr]
    log.sync()
    assert synced == [1], "a head never names a line that a power cut may take"
    assert (read_head(folder) or [None])[0].n == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("room", [0, 20])
def test_a_full_disk_leaves_no_half_line_and_is_told(
    folder: Path, new_log: Any, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    log = new_log(num_messages=1)
    write, left = os.write, [room]

    def full(file: int, content: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count, left[0] = left[0], 0
        return write(file, content[:count])

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            log.write(MESSAGE)
    assert verify(folder).torn_bytes == 0
    log.write(MESSAGE)
    log.close()
    assert whats(folder) == ["start", "message", "message", "stop"]
    verify(folder)


def test_without_room_for_the_first_line_nothing_begins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: int, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(TransientError, match="no room on the disk for the egress log"):
        EgressLog(folder, 64 * MIB, ManualClock()).open()


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_log, "FILE_BYTES", 1000)


@pytest.mark.usefixtures("small_files")
def test_the_disk_that_it_takes_is_bounded_and_what_is_left_is_proved(folder: Path) -> None:
    log = EgressLog(folder, 4000, ManualClock())
    log.open()
    for _ in range(100):
        log.write(MESSAGE)
        assert sum(path.stat().st_size for path in files_of(folder)) < 4000 + 500
        verify(folder)
    log.close()
    found = verify(folder)
    assert found.head.n > 100 > found.num_lines
    assert "cut" in whats(folder)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("num_deleted", [0, 1, 2])
def test_a_cut_that_was_interrupted_is_none_that_somebody_else_made(folder: Path, num_deleted: int) -> None:
    log = EgressLog(folder, 100_000, ManualClock())
    log.open()
    for _ in range(40):
        log.write(MESSAGE)
    first, second, third = files_of(folder)[:3]
    following = json.loads(third.read_bytes().splitlines()[0])
    log.write({"what": What.CUT, "through": following["n"] - 1, "head": following["previous"]})
    log.close()
    for path in (first, second)[:num_deleted]:
        path.unlink()
    verify(folder)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_file_that_somebody_deleted_is_found(folder: Path, which: int) -> None:
    log = EgressLog(folder, 100_000, ManualClock())
    log.open()
    for _ in range(40):
        log.write(MESSAGE)
    log.close()
    files_of(folder)[which].unlink()
    with pytest.raises(IntegrityError, match="missing"):
        verify(folder)


def test_lines_cut_off_at_the_end_are_found_by_the_head(folder: Path, new_log: Any) -> None:
    new_log(num_messages=3, close=True)
    path = files_of(folder)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        path.write_bytes(b"".join(lines[:kept]))
        with pytest.raises(IntegrityError, match="missing at the end"):
            verify(folder)
        with pytest.raises(IntegrityError, match="missing"):
            new_log()


def test_the_end_of_a_line_that_is_missing_is_found(folder: Path, new_log: Any) -> None:
    new_log(num_messages=1, close=True)
    path = files_of(folder)[0]
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    with pytest.raises(IntegrityError):
        verify(folder)


def test_a_head_that_is_gone_or_damaged_is_found(folder: Path, new_log: Any) -> None:
    new_log(num_messages=1, close=True)
    for content in (b"", b"{}", b'{"n": "x", "digest": 1}', b'{"n": Infinity, "digest": ""}', b"[" * 100_000):
        (folder / "head.json").write_bytes(content)
        with pytest.raises(IntegrityError, match=r"head\.json"):
            verify(folder)
    (folder / "head.json").unlink()
    for look in (lambda: verify(folder), new_log):
        with pytest.raises(IntegrityError, match=r"head\.json is missing"):
            look()


def test_a_process_does_not_go_on_with_a_changed_log(folder: Path, new_log: Any) -> None:
    new_log(num_messages=3, close=True)
    path = files_of(folder)[0]
    path.write_bytes(path.read_bytes().replace(b'"size":10', b'"size":11', 1))
    with pytest.raises(IntegrityError):
        new_log()


def test_any_byte_changed_on_disk_is_found(folder: Path, new_log: Any) -> None:
    new_log(num_messages=5, close=True)
    path = files_of(folder)[0]
    content, rng = path.read_bytes(), random.Random(7)
    for place in rng.sample(range(len(content)), 60):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(IntegrityError):
            verify(folder)


def test_a_digest_that_was_written_down_elsewhere_must_be_in_the_log(folder: Path, new_log: Any) -> None:
    new_log(num_messages=1, close=True)
    noted = verify(folder).head.digest
    new_log(num_messages=1, close=True)
    verify(folder, noted)
    with pytest.raises(IntegrityError, match="no line has the digest"):
        verify(folder, "0" * 64)


@pytest.mark.parametrize("what", ["message", "will", "unsent", "start", "cut", "of tomorrow"])
def test_what_lacks_a_fact_is_passed_over_by_the_report_and_named_by_verify(
    folder: Path, new_log: Any, what: str
) -> None:
    new_log(num_messages=1, close=True)
    path = files_of(folder)[0]
    path.write_bytes(path.read_bytes().replace(b'"what":"message","kind":"u"', b'"what":"%s"' % what.encode()))
    assert list(report(folder, ""))[-1].startswith("day")
    with pytest.raises(IntegrityError):
        verify(folder)


def test_a_log_that_is_not_there_is_empty(folder: Path) -> None:
    assert verify(folder).num_lines == 0
    assert document(folder, "") == {"totals": [], "messages": []}
    assert [line[:15] for line in verdict(verify(folder))] == ["there is no log"], "and not: none is missing"


def test_people_see_every_message_and_the_sums(folder: Path, new_log: Any) -> None:
    new_log(num_messages=2, close=True)
    lines = list(report(folder, ""))
    assert sum(f"sha256 {'ab' * 32}" in line for line in lines) == 2
    assert lines[-1].split() == ["2023-11-14", "u", "2", "20"]
    assert list(report(folder, "2024"))[-1].startswith("day")


@pytest.mark.parametrize(
    ("text", "time"),
    [("2026-11-24", "2026-11-24T00:00:00.000Z"), ("2026-11-24T17:00:00Z", "2026-11-24T17:00:00.000Z"),
     ("2026-11-24T17:00:00+01:00", "2026-11-24T16:00:00.000Z"), ("2026-11-24 17:00", "2026-11-24T17:00:00.000Z")],
)  # fmt: skip
def test_a_time_without_a_zone_is_of_utc(text: str, time: str) -> None:
    assert time_of(text) == time


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="--since yesterday"):
        time_of("yesterday")
