"""The blob store."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.blobs import BlobFolder
from fedward.chunks import ChunkFile, manifest_of
from fedward.errors import IntegrityError, PeerError, RejectReason


def test_a_blob_is_found_by_its_digest(blobs: BlobFolder) -> None:
    digest = blobs.put(b"content")
    assert digest == hashlib.sha256(b"content").digest()
    assert bytes(blobs.view(digest)) == b"content"


def test_an_open_blob_gives_any_of_its_bytes(blobs: BlobFolder) -> None:
    with blobs.open(blobs.put(b"content")) as blob:
        assert bytes(blob[0:7]) == b"content"
        assert bytes(blob[3:5]) == b"te"


def test_a_blob_that_ends_too_soon_or_is_not_there_is_named(blobs: BlobFolder) -> None:
    digest = blobs.put(b"content")
    with blobs.open(digest) as blob, pytest.raises(IntegrityError, match=f"blob {digest.hex()} is cut off before"):
        blob[3:8]
    with pytest.raises(IntegrityError, match=f"blob {bytes(32).hex()} is missing"):
        blobs.open(bytes(32))


def test_storing_the_same_content_again_changes_nothing(blobs: BlobFolder) -> None:
    digest = blobs.put(b"content")
    before = blobs.path(digest).stat()
    assert blobs.put(memoryview(b"content")) == digest
    assert blobs.path(digest).stat().st_ino == before.st_ino


def test_a_blob_that_comes_in_pieces_is_the_same_blob(blobs: BlobFolder) -> None:
    assert blobs.write(iter([b"con", memoryview(b"ten"), b"t"])) == blobs.put(b"content")
    assert blobs.digests() == {hashlib.sha256(b"content").digest()}


def test_pieces_that_end_in_an_error_leave_nothing(blobs: BlobFolder) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"con"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        blobs.write(pieces())
    assert not list(blobs.path(bytes(32)).parent.iterdir())


def test_a_complete_upload_becomes_a_blob(blobs: BlobFolder, tmp_path: Path) -> None:
    collected = ChunkFile(tmp_path / "incoming", manifest_of(b"content"))
    collected.add(0, b"content")
    blobs.adopt(collected)
    collected.drop()
    assert bytes(blobs.view(collected.manifest.digest)) == b"content"
    assert not (tmp_path / "incoming").exists()


def test_an_incomplete_upload_never_becomes_a_blob(blobs: BlobFolder, tmp_path: Path) -> None:
    collected = ChunkFile(tmp_path / "incoming", manifest_of(b"content"))
    with pytest.raises(PeerError) as refusal:
        blobs.adopt(collected)
    assert refusal.value.reason is RejectReason.DIGEST_MISMATCH
    assert not blobs.path(collected.manifest.digest).exists()


def test_a_dropped_blob_is_gone_and_may_be_dropped_again(blobs: BlobFolder) -> None:
    digest = blobs.put(b"content")
    view = blobs.view(digest)
    blobs.drop(digest)
    blobs.drop(digest)
    assert not blobs.path(digest).exists()
    assert bytes(view) == b"content", "what is mapped stays readable"


def test_what_a_crash_left_half_written_is_deleted(blobs: BlobFolder) -> None:
    digest = blobs.put(b"content")
    half = blobs.path(digest).with_name(f".{digest.hex()}.17.part")
    half.write_bytes(b"con")
    blobs.tidy()
    assert not half.exists()
    assert blobs.digests() == {digest}
