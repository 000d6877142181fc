"""Updates on their way in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.uploads import Uploads
from fedward.errors import PeerError, RejectReason
from fedward.limits import CHUNK_BYTES
from fedward.messages import Chunk
from tests.support.updates import offer_of

PAYLOAD = CHUNK_BYTES * b"x" + b"rest"
FIRST, SECOND = offer_of(PAYLOAD, 1), offer_of(PAYLOAD, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "incoming"


@pytest.fixture
def uploads(folder: Path) -> Iterator[Uploads]:
    uploads = Uploads(folder)
    yield uploads
    uploads.close()


def test_the_same_offer_again_is_the_same_upload(uploads: Uploads) -> None:
    upload = uploads.open("north", FIRST)
    assert uploads.open("north", FIRST) is upload
    assert uploads.find("north", FIRST.update_id) is upload


@pytest.mark.parametrize(("site", "update_id"), [("south", FIRST.update_id), ("north", SECOND.update_id)])
def test_a_chunk_of_what_is_not_open_was_not_offered(uploads: Uploads, site: str, update_id: bytes) -> None:
    uploads.open("north", FIRST)
    with pytest.raises(PeerError) as refusal:
        uploads.find(site, update_id)
    assert refusal.value.reason is RejectReason.NOT_OFFERED


def test_a_newer_update_of_the_site_takes_the_place_of_the_older(uploads: Uploads, folder: Path) -> None:
    uploads.open("north", FIRST)
    uploads.open("north", SECOND)
    assert [path.name for path in folder.iterdir()] == [f"north.{SECOND.update_id.hex()}"]


def test_sites_whose_names_begin_alike_do_not_meet(uploads: Uploads, folder: Path) -> None:
    uploads.open("north", FIRST)
    uploads.open("north-east", SECOND)
    uploads.open("nor", FIRST)
    assert len(list(folder.iterdir())) == 3


def test_what_was_collected_is_found_by_the_next_process(folder: Path) -> None:
    before = Uploads(folder)
    before.open("north", FIRST).collected.add(1, b"rest")
    before.close()
    after = Uploads(folder)
    assert [(part.start, part.stop) for part in after.open("north", FIRST).collected.missing()] == [(0, 1)]
    after.close()


def test_what_an_earlier_process_left_of_another_update_is_deleted(folder: Path) -> None:
    before = Uploads(folder)
    before.open("north", FIRST)
    before.close()
    after = Uploads(folder)
    after.open("north", SECOND)
    after.close()
    assert [path.name for path in folder.iterdir()] == [f"north.{SECOND.update_id.hex()}"]


def test_an_abandoned_upload_leaves_nothing(uploads: Uploads, folder: Path) -> None:
    uploads.open("north", FIRST)
    uploads.abandon("north", SECOND.update_id)
    assert len(list(folder.iterdir())) == 1
    uploads.abandon("north", FIRST.update_id)
    assert list(folder.iterdir()) == []
    with pytest.raises(PeerError):
        uploads.find("north", FIRST.update_id)


def test_an_inline_payload_is_taken_whole(uploads: Uploads) -> None:
    upload = uploads.open("north", offer_of(b"small", 1, payload=b"small"))
    upload.take_inline()
    assert upload.collected.num_missing == 0


def test_an_inline_payload_that_is_not_the_promised_one_is_refused(uploads: Uploads) -> None:
    upload = uploads.open("north", offer_of(b"small", 1, payload=b"other"))
    with pytest.raises(PeerError) as refusal:
        upload.take_inline()
    assert refusal.value.reason is RejectReason.DIGEST_MISMATCH


def test_an_ended_upload_takes_no_more_chunks(uploads: Uploads) -> None:
    upload = uploads.open("north", FIRST)
    uploads.end(upload)
    with pytest.raises(PeerError):
        uploads.find("north", FIRST.update_id)
    upload.collected.close()


def test_only_a_chunk_that_was_not_held_yet_is_useful(uploads: Uploads) -> None:
    first = Chunk(owner=FIRST.update_id, index=0, payload=PAYLOAD[:CHUNK_BYTES])
    with pytest.raises(PeerError):
        uploads.add("north", first)
    uploads.open("north", FIRST)
    uploads.add("north", first)
    upload = uploads.add("north", first)
    assert upload.collected.num_missing == 1
    assert (uploads.num_received, uploads.num_useful) == (3, 1)
