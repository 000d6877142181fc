"""Files are whole or not there."""

from pathlib import Path

import pytest

from fedward.files import move_durably, sync_folder, write_durably


def test_what_was_written_is_there(tmp_path: Path):
    write_durably(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_view_is_written_without_a_copy_of_ours(tmp_path: Path):
    write_durably(tmp_path / "file", memoryview(b"xcontentx")[1:-1])
    assert (tmp_path / "file").read_bytes() == b"content"


def test_nothing_else_stays_in_the_folder(tmp_path: Path):
    write_durably(tmp_path / "file", b"old")
    write_durably(tmp_path / "file", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"new")]


def test_the_old_content_is_replaced_and_never_overwritten(tmp_path: Path):
    """A reader that opened the old file goes on reading it: nobody sees a half."""
    write_durably(tmp_path / "file", b"old content")
    with (tmp_path / "file").open("rb") as reader:
        write_durably(tmp_path / "file", b"new")
        assert reader.read() == b"old content"


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path):
    write_durably(tmp_path / "file", b"old")
    with pytest.raises(TypeError):
        write_durably(tmp_path / "file", "text")  # type: ignore[arg-type]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_a_move_takes_the_source_away(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "source").write_bytes(b"content")
    move_durably(tmp_path / "source", tmp_path / "folder" / "target")
    assert not (tmp_path / "source").exists()
    assert (tmp_path / "folder" / "target").read_bytes() == b"content"


def test_a_folder_that_is_not_there_can_not_be_synced(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "missing")
