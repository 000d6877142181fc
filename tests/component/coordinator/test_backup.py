"""Backups of a state folder, and a coordinator that goes on from one while its sites are ahead."""

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from coordinator.backup import ABANDONED_S, MANIFEST, PART, BackupManifest, back_up, drop_older, restore
from coordinator.enrolment.folder import Register
from coordinator.ledger import Ledger
from fedward.cli import EXIT_CONFIG, EXIT_INTEGRITY, EXIT_UNAVAILABLE, main
from fedward.errors import ConfigError, IntegrityError, RejectReason
from fedward.identity.certificates import load_certificate
from fedward.testing import ManualClock
from tests.support.authority import Authority
from tests.support.coordinator_bench import Bench, accepted, refused
from tests.support.site import Site
from tests.support.updates import FEDERATION, inline


def round_of(bench: Bench, north: Site, south: Site, first_seed: int) -> None:
    """One version of an update of each site."""
    base = bench.versions.current.version
    north.offer(inline(first_seed, "north", base))
    south.offer(inline(first_seed + 1, "south", base))
    bench.settle()
    assert bench.versions.current.version == base + 1


@pytest.fixture
def running(start: Callable[..., Bench], north: Site, south: Site) -> Bench:
    """A coordinator that made two versions and holds one update more."""
    bench = start()
    bench.settle()
    for seed in (1, 3):
        round_of(bench, north, south, seed)
    north.offer(inline(5, "north", 2))
    bench.settle()
    return bench


@pytest.fixture
def backup(running: Bench, tmp_path: Path, clock: ManualClock) -> Path:
    """Of the running coordinator."""
    back_up(running.ledger, running.config.state_folder, tmp_path / "backup", clock.now_s())
    return tmp_path / "backup"


def restored(start: Callable[..., Bench], backup: Path, tmp_path: Path, clock: ManualClock) -> Bench:
    """The coordinator that runs from the backup instead."""
    state_folder = tmp_path / "state"
    restore(backup, state_folder, FEDERATION, clock.now_s(), force=True)
    bench = start()
    bench.settle()
    return bench


def test_a_backup_holds_every_blob_that_its_ledger_names(running: Bench, backup: Path) -> None:
    manifest = json.loads((backup / MANIFEST).read_text())
    named = {digest.hex() for digest in running.ledger.blobs()}
    assert {path.name for path in (backup / "blobs").iterdir()} == named
    assert (manifest["version"], manifest["num_blobs"]) == (2, len(named))
    head = running.ledger.newest_entry()
    assert head is not None
    assert manifest["chain_head"] == str(head.mark)


def test_a_coordinator_goes_on_from_a_backup_where_it_was(
    running: Bench, backup: Path, tmp_path: Path, clock: ManualClock, start: Callable[..., Bench], south: Site
) -> None:
    running.kill()
    again = restored(start, backup, tmp_path, clock)
    assert again.ledger.versions() == running.ledger.versions()
    assert len(again.ledger.buffered()) == 1
    south.offer(inline(6, "south", 2))
    again.settle()
    assert again.versions.current.version == 3
    again.ledger.check_chain()


def test_a_backup_is_unchanged_by_what_the_coordinator_does_later(
    running: Bench, backup: Path, tmp_path: Path, clock: ManualClock, start: Callable[..., Bench], south: Site
) -> None:
    south.offer(inline(6, "south", 2))
    running.settle()
    assert running.versions.current.version == 3
    running.kill()
    assert restored(start, backup, tmp_path, clock).versions.current.version == 2


def test_a_restored_coordinator_announces_above_all_that_was_announced_before(
    running: Bench, backup: Path, tmp_path: Path, clock: ManualClock, start: Callable[..., Bench],
    north: Site, south: Site,
) -> None:  # fmt: skip
    south.offer(inline(6, "south", 2))
    running.settle()
    for seed in (7, 9, 11):
        round_of(running, north, south, seed)
    before = north.announcements()[-1]
    running.kill()
    clock.advance(60.0)
    again = restored(start, backup, tmp_path, clock)
    after = north.announcements()[-1]
    assert (before.version, after.version) == (6, 2)
    assert after.sequence > before.sequence
    assert (before.epoch or 0) < before.sequence < (after.epoch or 0) < after.sequence
    assert after.epoch == again.ledger.epoch

    again.kill()
    clock.advance(60.0)
    restored(start, backup, tmp_path, clock)
    assert north.announcements()[-1].sequence > after.sequence
    assert (north.announcements()[-1].epoch or 0) > (after.epoch or 0)


def test_a_federation_that_begins_anew_announces_above_all_that_one_of_its_name_announced_before(
    running: Bench, clock: ManualClock, start: Callable[..., Bench], north: Site
) -> None:
    before = north.announcements()[-1]
    running.kill()
    clock.advance(60.0)
    start(folder="anew").settle()
    after = north.announcements()[-1]
    assert (before.version, after.version) == (2, 0)
    assert after.sequence > before.sequence
    assert (after.epoch or 0) > (before.epoch or 0)


def test_an_update_from_a_version_that_the_restored_coordinator_never_made_is_refused(
    running: Bench, backup: Path, tmp_path: Path, clock: ManualClock, start: Callable[..., Bench],
    north: Site, south: Site,
) -> None:  # fmt: skip
    south.offer(inline(6, "south", 2))
    running.settle()
    lost = running.versions.current.model_digest
    running.kill()
    again = restored(start, backup, tmp_path, clock)
    south.offer(ahead := inline(7, "south", 3))
    again.settle()
    assert south.receipts()[-1] == refused(ahead, RejectReason.UNKNOWN_BASE)

    south.offer(inline(8, "south", 2))  # another update than before: version 3 comes out as another model
    again.settle()
    own = again.versions.current.model_digest
    assert again.versions.current.version == 3
    assert own != lost
    north.offer(other := replace(inline(9, "north", 3), base_digest=lost))
    south.offer(ours := replace(inline(10, "south", 3), base_digest=own))
    again.settle()
    assert north.receipts()[-1] == refused(other, RejectReason.UNKNOWN_BASE)
    assert south.receipts()[-1] == accepted(ours)


def test_what_was_receipted_before_the_backup_counts_once_and_after_it_can_be_delivered_again(
    running: Bench, backup: Path, tmp_path: Path, clock: ManualClock, start: Callable[..., Bench],
    north: Site, south: Site,
) -> None:  # fmt: skip
    south.offer(late := inline(6, "south", 2))
    running.settle()
    running.kill()
    again = restored(start, backup, tmp_path, clock)
    north.offer(inline(5, "north", 2))
    again.settle()
    assert [row.sequence for row in again.ledger.buffered()] == [5]
    south.offer(late)
    again.settle()
    assert south.receipts()[-1] == accepted(late)
    assert [row.sequence for row in again.ledger.updates_of(3)] == [5, 6]


def test_a_restore_keeps_what_was_there_aside(running: Bench, backup: Path, tmp_path: Path, clock: ManualClock) -> None:
    running.kill()
    state_folder = tmp_path / "state"
    with pytest.raises(ConfigError, match="not empty; --force moves what is there aside"):
        restore(backup, state_folder, FEDERATION, clock.now_s(), force=False)
    clock.advance(1.0)
    restore(backup, state_folder, FEDERATION, clock.now_s(), force=True)
    (aside,) = state_folder.glob("replaced-*")
    kept = Ledger.in_folder(aside)
    assert (kept.epoch or 0) < clock.now_s() * 1e6
    assert len(kept.versions()) == 3
    kept.close()


@pytest.mark.parametrize("damage", ["blob", "missing blob", "ledger"])
def test_a_backup_that_is_not_as_it_was_made_changes_nothing(
    running: Bench, backup: Path, tmp_path: Path, clock: ManualClock, damage: str
) -> None:
    running.kill()
    blob = backup / "blobs" / running.ledger.updates()[0].digest.hex()
    content = blob.read_bytes()
    blob.unlink()
    match damage:
        case "blob":
            blob.write_bytes(content[:-1] + b"?")
        case "ledger":
            blob.write_bytes(content)
            with closing(sqlite3.connect(backup / "ledger.sqlite")) as connection:
                connection.execute("UPDATE updates SET weight = 2.0 WHERE number = 1")
                connection.commit()
    before = sorted((tmp_path / "state").rglob("*"))
    with pytest.raises(IntegrityError):
        restore(backup, tmp_path / "state", FEDERATION, clock.now_s(), force=True)
    after = sorted((tmp_path / "state").rglob("*"))
    assert after == before


def test_a_backup_whose_ledger_breaks_its_chain_is_not_gone_on_from(
    running: Bench, tmp_path: Path, clock: ManualClock
) -> None:
    running.kill()
    with closing(sqlite3.connect(tmp_path / "state" / "ledger.sqlite")) as connection:
        connection.execute("UPDATE updates SET weight = 2.0 WHERE number = 1")
        connection.commit()
    with (
        closing(Ledger.in_folder(tmp_path / "state")) as ledger,
        pytest.raises(IntegrityError, match="kept as evidence, nothing can be restored"),
    ):
        back_up(ledger, tmp_path / "state", tmp_path / "backup", clock.now_s())
    (tmp_path / "new").mkdir()
    with pytest.raises(IntegrityError, match="fold 1: changed"):
        restore(tmp_path / "backup", tmp_path / "new", FEDERATION, clock.now_s(), force=False)


def test_a_clock_that_is_behind_the_backup_is_refused(
    running: Bench, backup: Path, tmp_path: Path, clock: ManualClock
) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(ConfigError, match="clock is behind the one that wrote"):
        restore(backup, tmp_path / "new", FEDERATION, clock.now_s() - 3600.0, force=False)


def test_a_damaged_blob_cannot_be_backed_up(running: Bench, tmp_path: Path, clock: ManualClock) -> None:
    path = running.blobs.path(running.ledger.updates()[0].digest)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match=r"update 1 of north: blob [0-9a-f]{64} is damaged"):
        back_up(running.ledger, running.config.state_folder, tmp_path / "backup", clock.now_s())
    assert not (tmp_path / "backup").exists()


def test_a_backup_on_another_file_system_is_a_copy(
    running: Bench, tmp_path: Path, clock: ManualClock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    if os.stat(elsewhere).st_dev == os.stat(tmp_path).st_dev:  # noqa: PTH116 - which file system it is on
        pytest.skip("needs a second file system beside the folder for temporary files, such as /dev/shm")
    back_up(running.ledger, running.config.state_folder, elsewhere / "backup", clock.now_s())
    for path in (elsewhere / "backup" / "blobs").iterdir():
        assert path.stat().st_nlink == 1
        assert path.read_bytes() == running.blobs.path(bytes.fromhex(path.name)).read_bytes()


def backup_of(folder: Path, federation: str, made_at_s: float) -> Path:
    """What is looked at of one, and a file."""
    folder.mkdir()
    manifest = BackupManifest(
        federation=federation, version=1, chain_head="", ledger_digest="", num_blobs=0, made_at_s=made_at_s
    )
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest)))
    (folder / "ledger.sqlite").write_text("rows")
    return folder


def test_the_newest_backups_are_kept_whatever_their_names(tmp_path: Path) -> None:
    third, first, second = (
        backup_of(tmp_path / name, FEDERATION, at_s) for name, at_s in (("a", 3), ("b", 1), ("c", 2))
    )
    assert drop_older(third, FEDERATION, 2) == [first]
    assert sorted(tmp_path.iterdir()) == [third, second]
    assert drop_older(third, FEDERATION, 2) == []


def test_the_backup_that_was_just_made_stays_when_the_clock_was_ahead_before(tmp_path: Path) -> None:
    ahead, older, newest = (
        backup_of(tmp_path / name, FEDERATION, at_s) for name, at_s in (("a", 9), ("b", 8), ("c", 3))
    )
    assert drop_older(newest, FEDERATION, 2) == [older]
    assert drop_older(newest, FEDERATION, 1) == [ahead]
    assert newest.exists()


def test_what_a_failed_or_killed_backup_has_left_is_deleted(running: Bench, tmp_path: Path, clock: ManualClock) -> None:
    old, young = (tmp_path / f".{name}{PART}" for name in ("old", "young"))
    for folder, age_s in ((old, 2 * ABANDONED_S), (young, 60.0)):
        (folder / "blobs").mkdir(parents=True)
        os.utime(folder, (clock.now_s() - age_s, clock.now_s() - age_s))
    kept = running.blobs.path(running.ledger.updates()[0].digest)
    blob = kept.read_bytes()
    kept.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        back_up(running.ledger, running.config.state_folder, tmp_path / "backup", clock.now_s())
    assert list(tmp_path.glob(f".*{PART}")) == [young]
    kept.write_bytes(blob)
    back_up(running.ledger, running.config.state_folder, tmp_path / "backup", clock.now_s())
    assert list(tmp_path.glob(f".*{PART}")) == [young]


def test_what_is_not_this_federation_s_backup_is_never_deleted(tmp_path: Path) -> None:
    old = backup_of(tmp_path / "other", "another", 1)
    half = backup_of(tmp_path / ".half.part", FEDERATION, 1)
    (half / MANIFEST).unlink()
    (tmp_path / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    newest = backup_of(tmp_path / "newest", FEDERATION, 3)
    assert drop_older(newest, FEDERATION, 1) == []
    assert sorted(tmp_path.rglob("*")) == sorted([*before, newest, *newest.iterdir()])
    assert old.exists()


def fedward(folder: Path, verb: str, *arguments: object) -> int:
    return main(["coordinator", verb, "--config", str(folder / "federation.yaml"), *map(str, arguments)])


def test_the_commands_back_up_and_restore(after_a_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backup = after_a_run / "backup"
    assert fedward(after_a_run, "backup", "--out", backup) == 0
    shutil.rmtree(after_a_run / "state")
    assert fedward(after_a_run, "restore", "--from", backup) == 0
    assert fedward(after_a_run, "replay") == 0
    assert "2 versions made again of 2 updates" in capsys.readouterr().out


def test_the_commands_bring_back_the_register_of_a_centre_that_lost_all(
    after_a_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backup, identity = after_a_run / "backup", after_a_run / "identity"
    monkeypatch.setenv("FEDWARD_IDENTITY__FOLDER", str(identity))
    enrolled = Authority(after_a_run / "authority").party("north").certificate_file
    Register(identity).enter(load_certificate(enrolled))
    assert fedward(after_a_run, "backup", "--out", backup) == 0
    shutil.rmtree(after_a_run / "state")
    shutil.rmtree(identity)
    assert fedward(after_a_run, "restore", "--from", backup) == 0
    assert Register(identity).sites().keys() == {"north"}
    assert "register with 1 enrolled sites: restored; whom you revoked after" in capsys.readouterr().out


def test_a_backup_that_cannot_be_restored_brings_no_register(
    after_a_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup, identity = after_a_run / "backup", after_a_run / "identity"
    monkeypatch.setenv("FEDWARD_IDENTITY__FOLDER", str(identity))
    Register(identity).enter(load_certificate(Authority(after_a_run / "authority").party("north").certificate_file))
    assert fedward(after_a_run, "backup", "--out", backup) == 0
    shutil.rmtree(identity)
    (backup / MANIFEST).unlink()
    assert fedward(after_a_run, "restore", "--from", backup) == EXIT_CONFIG
    assert not identity.exists()


def test_the_command_keeps_as_many_backups_as_it_is_told_to(
    after_a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two", "three"):
        assert fedward(after_a_run, "backup", "--out", after_a_run / "backups" / name, "--keep", 2) == 0
    assert {path.name for path in (after_a_run / "backups").iterdir()} == {"two", "three"}
    assert fedward(after_a_run, "backup", "--out", after_a_run / "backups" / "four", "--keep", 0) == EXIT_CONFIG
    assert "expected 1 or more" in capsys.readouterr().err


def test_a_second_backup_does_not_overwrite_the_first(after_a_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedward(after_a_run, "backup", "--out", after_a_run / "backup") == 0
    assert fedward(after_a_run, "backup", "--out", after_a_run / "backup") == EXIT_CONFIG
    assert "a backup goes into a new folder" in capsys.readouterr().err


def test_a_folder_that_is_no_backup_is_refused(after_a_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedward(after_a_run, "restore", "--from", after_a_run, "--force") == EXIT_CONFIG
    assert "not a backup" in capsys.readouterr().err


def test_nothing_is_restored_under_a_running_coordinator(after_a_run: Path) -> None:
    assert fedward(after_a_run, "backup", "--out", after_a_run / "backup") == 0
    with (after_a_run / "state" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert fedward(after_a_run, "restore", "--from", after_a_run / "backup", "--force") == EXIT_UNAVAILABLE


def test_a_backup_of_another_federation_is_refused(after_a_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fedward(after_a_run, "backup", "--out", after_a_run / "backup") == 0
    monkeypatch.setenv("FEDWARD_FEDERATION", "other")
    assert fedward(after_a_run, "restore", "--from", after_a_run / "backup", "--force") == EXIT_CONFIG


def test_a_damaged_backup_ends_the_command_with_its_own_exit_code(after_a_run: Path) -> None:
    assert fedward(after_a_run, "backup", "--out", after_a_run / "backup") == 0
    for path in (after_a_run / "backup" / "blobs").iterdir():
        path.unlink()
    assert fedward(after_a_run, "restore", "--from", after_a_run / "backup", "--force") == EXIT_INTEGRITY
