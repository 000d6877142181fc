"""Copies of an agent's state, and the journal: whole or not there, private, and without what must not go back."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from edge_agent.appliance.archives import Pieces, folder_archive, only_file
from edge_agent.appliance.journal import JournalFile
from edge_agent.appliance.snapshots import SnapshotError, Snapshots
from edge_agent.appliance.steps import Change, Deployment, Journal, Kind, Release
from edge_agent.approvals import ApprovalsFile
from edge_agent.permission import APPROVALS_FILE
from edge_agent.policy import WorkOrder
from fedward.errors import IntegrityError

STATE = {
    "outbox/1.offer": b"work" * 1000,
    "identity/north.key": b"key",
    "egress/lines": b"what left",
    "counter.json": b"{}",
    "model/3/weights": b"large",
    "progress.json": b"{}",
}


def state_of(files: Mapping[str, bytes]) -> list[bytes]:
    """A tar as the engine gives it, in pieces of an odd size."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        top = tarfile.TarInfo("fedward")
        top.type = tarfile.DIRTYPE
        archive.addfile(top)
        for name, content in files.items():
            member = tarfile.TarInfo(f"fedward/{name}")
            member.size, member.uid, member.mode = len(content), 10001, 0o600
            archive.addfile(member, io.BytesIO(content))
    content = buffer.getvalue()
    return [content[start : start + 777] for start in range(0, len(content), 777)]


def read(file: io.IOBase) -> dict[str, bytes]:
    with tarfile.open(fileobj=file) as archive:  # type: ignore[call-overload]
        assert {(member.uid, member.mode) for member in archive} == {(10001, 0o600)}
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_a_snapshot_is_the_state_without_models_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "snapshots")
    snapshots.take(4, state_of(STATE))
    assert snapshots.generations() == {4}
    path = tmp_path / "snapshots" / "4.tar"
    assert path.stat().st_mode & 0o077 == 0
    with path.open("rb") as file:
        assert read(file) == {name: content for name, content in STATE.items() if not name.startswith("model")}
    snapshots.drop(4)
    assert snapshots.generations() == frozenset()


def test_what_left_and_the_counter_are_never_put_back(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.take(1, state_of(STATE))
    with snapshots.to_put_back(1) as archive:
        assert sorted(read(archive)) == ["identity/north.key", "outbox/1.offer", "progress.json"]  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["1.tar"]


def test_what_people_decided_is_never_put_back(tmp_path: Path) -> None:
    """Otherwise a refusal of after the copy would be undone with the release."""
    state = tmp_path / "state"
    state.mkdir()
    ApprovalsFile(state / APPROVALS_FILE).ask(
        WorkOrder("ward", "breast-cancer", "00" * 32, "training"), 0, automatic=True
    )
    written = {path.name: path.read_bytes() for path in state.iterdir()}
    snapshots = Snapshots(tmp_path / "snapshots")
    snapshots.take(1, state_of(written | {"progress.json": b"{}"}))
    with snapshots.to_put_back(1) as archive:
        assert sorted(read(archive)) == ["progress.json"]  # type: ignore[arg-type]


def test_a_snapshot_that_is_cut_off_is_none(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    with pytest.raises(SnapshotError):
        snapshots.take(1, state_of(STATE)[:3])
    assert snapshots.generations() == frozenset()
    snapshots.take(1, state_of(STATE))
    assert snapshots.generations() == {1}


def test_a_copy_that_can_not_be_put_back_is_told(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.take(1, state_of(STATE))
    (tmp_path / ".part").mkdir()  # as a full disk, it takes no file
    with (
        pytest.raises(SnapshotError, match=r"1\.tar: this copy of the state can't be put back"),
        snapshots.to_put_back(1),
    ):
        raise AssertionError("there is nothing to put back")
    (tmp_path / ".part").rmdir()
    copy = tmp_path / "1.tar"
    copy.write_bytes(copy.read_bytes()[:3000])
    with pytest.raises(SnapshotError, match="it is cut off, or changed"), snapshots.to_put_back(1):
        raise AssertionError("half of a state is put back")
    assert [path.name for path in tmp_path.iterdir()] == ["1.tar"]


def test_pieces_are_read_as_a_file() -> None:
    pieces = Pieces(iter([b"ab", b"", b"cdef"]))
    assert [pieces.read(1), pieces.read(4), pieces.read(), pieces.read(1)] == [b"a", b"bcde", b"f", b""]


def test_files_of_an_errand_are_the_users_alone() -> None:
    with tarfile.open(fileobj=io.BytesIO(folder_archive("files", {"token": b"secret"}))) as archive:
        assert [(each.name, each.uid, each.mode) for each in archive] == [
            ("files", 10001, 0o700),
            ("files/token", 10001, 0o400),
        ]
    assert only_file([_tar_of_one()]) == b"a request"
    with pytest.raises(ValueError, match="expected one file"):
        only_file([folder_archive("files", {})])


def _tar_of_one() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("request.json")
        member.size = 9
        archive.addfile(member, io.BytesIO(b"a request"))
    return buffer.getvalue()


def test_a_journal_is_read_as_it_was_written_and_another_file_is_none(tmp_path: Path) -> None:
    file = JournalFile(tmp_path / "appliance" / "journal.json")
    assert file.load() == Journal()
    target = Deployment(2, Release("sha256:1", "fedward:1", "1"), {"mounts": [{"ReadOnly": True}], "mem_limit": 5})
    journal = Journal(2, None, target, Change(Kind.UPGRADE, target, "why", restore=1), "failure")
    file.save(journal)
    assert file.load() == journal
    (tmp_path / "appliance" / "journal.json").write_text("{")
    with pytest.raises(IntegrityError, match="no journal of an appliance"):
        file.load()
