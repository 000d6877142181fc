"""Updates on their way in."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.blobs import BlobFolder
from coordinator.uploads import Uploads
from fedward.errors import PeerError, RejectReason
from fedward.limits import CHUNK_BYTES
from fedward.messages import Chunk, Offer
from tests.support.updates import offer_of

PAYLOAD = CHUNK_BYTES * b"x" + b"rest"
FIRST, SECOND = offer_of(PAYLOAD, 1), offer_of(PAYLOAD, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "incoming"


@pytest.fixture
def process(folder: Path, blobs: BlobFolder) -> Iterator[Callable[[], Uploads]]:
    """The uploads of the next process: what the one before had open is only closed."""
    processes: list[Uploads] = []

    def start() -> Uploads:
        for before in processes:
            before.close()
        processes.append(Uploads(folder))
        return processes[-1]

    yield start
    for before in processes:
        before.close()


@pytest.fixture
def uploads(process: Callable[[], Uploads]) -> Uploads:
    return process()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def files_of(site: str, offer: Offer) -> set[str]:
    return {f"{site}.{offer.update_id.hex()}", f"{site}.{offer.update_id.hex()}.offer"}


def chunk(index: int, offer: Offer = FIRST) -> Chunk:
    return Chunk(owner=offer.update_id, index=index, payload=PAYLOAD[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])


def test_the_same_offer_again_is_the_same_upload(uploads: Uploads) -> None:
    upload = uploads.open("north", FIRST)
    assert uploads.open("north", FIRST) is upload
    assert uploads.find("north", FIRST.update_id) is upload


@pytest.mark.parametrize("restarted", [False, True])
def test_the_same_update_with_other_bytes_is_collected_anew(
    process: Callable[[], Uploads], folder: Path, restarted: bool
) -> None:
    """A site that lost its state trains again from the same base: the same id, and mostly another payload."""
    other = b"y" * CHUNK_BYTES
    retrained = offer_of(other, 1)
    uploads = process()
    uploads.open("north", FIRST)
    for index in range(2):
        uploads.add("north", chunk(index))
    if restarted:
        uploads = process()
    assert [(part.start, part.stop) for part in uploads.open("north", retrained).missing()] == [(0, 1)]
    after = process()  # which finds the files of the new one
    upload = after.add("north", Chunk(owner=retrained.update_id, index=0, payload=other))
    assert upload.is_complete()
    assert names(folder) == files_of("north", retrained)


@pytest.mark.parametrize(("site", "update_id"), [("south", FIRST.update_id), ("north", SECOND.update_id)])
def test_a_chunk_of_what_is_not_open_was_not_offered(uploads: Uploads, site: str, update_id: bytes) -> None:
    uploads.open("north", FIRST)
    with pytest.raises(PeerError) as refusal:
        uploads.find(site, update_id)
    assert refusal.value.reason is RejectReason.NOT_OFFERED


def test_a_newer_update_of_the_site_takes_the_place_of_the_older(uploads: Uploads, folder: Path) -> None:
    uploads.open("north", FIRST)
    uploads.open("north", SECOND)
    assert names(folder) == files_of("north", SECOND)


def test_sites_whose_names_begin_alike_do_not_meet(uploads: Uploads, folder: Path) -> None:
    uploads.open("north", FIRST)
    uploads.open("north-east", SECOND)
    uploads.open("nor", FIRST)
    assert names(folder) == files_of("north", FIRST) | files_of("north-east", SECOND) | files_of("nor", FIRST)


def test_what_was_collected_is_found_by_the_next_process(process: Callable[[], Uploads]) -> None:
    before = process()
    before.open("north", FIRST)
    before.add("north", chunk(1))
    assert [(part.start, part.stop) for part in process().open("north", FIRST).missing()] == [(0, 1)]


def test_a_chunk_that_comes_before_its_offer_is_repeated_finds_its_upload(process: Callable[[], Uploads]) -> None:
    process().open("north", FIRST)
    after = process()
    assert not after.add("north", chunk(1)).is_complete()
    assert after.add("north", chunk(0)).is_complete()
    assert after.num_useful == 2
    with pytest.raises(PeerError):
        after.find("south", FIRST.update_id)


def test_a_payload_that_became_a_blob_before_the_crash_is_not_asked_for(
    process: Callable[[], Uploads], blobs: BlobFolder, folder: Path
) -> None:
    upload = process().open("north", FIRST)
    for index in range(2):
        upload.add(index, chunk(index).payload)
    blobs.adopt(upload.collected)
    after = process()
    again = after.open("north", FIRST)
    assert again.is_complete()
    assert again.missing() == ()
    after.end(again)
    assert blobs.view(FIRST.manifest.digest) == PAYLOAD
    assert names(folder) == set()


def test_a_damaged_blob_is_replaced(uploads: Uploads, blobs: BlobFolder) -> None:
    blobs.path(FIRST.manifest.digest).write_bytes(PAYLOAD[:-1] + b"?")
    upload = uploads.open("north", FIRST)
    for index in range(2):
        upload.add(index, chunk(index).payload)
    blobs.adopt(upload.collected)
    assert blobs.view(FIRST.manifest.digest) == PAYLOAD


def test_what_an_earlier_process_left_of_another_update_is_deleted(
    process: Callable[[], Uploads], folder: Path
) -> None:
    process().open("north", FIRST)
    process().open("north", SECOND)
    assert names(folder) == files_of("north", SECOND)


def test_an_abandoned_upload_leaves_nothing(uploads: Uploads, folder: Path) -> None:
    uploads.open("north", FIRST)
    uploads.abandon("north", SECOND.update_id)
    assert names(folder) == files_of("north", FIRST)
    uploads.abandon("north", FIRST.update_id)
    assert names(folder) == set()
    with pytest.raises(PeerError):
        uploads.find("north", FIRST.update_id)


def test_an_inline_payload_is_taken_whole(uploads: Uploads) -> None:
    assert uploads.open("north", offer_of(b"small", 1, payload=b"small")).is_complete()


def test_an_inline_payload_that_is_not_the_promised_one_is_refused(uploads: Uploads) -> None:
    with pytest.raises(PeerError) as refusal:
        uploads.open("north", offer_of(b"small", 1, payload=b"other"))
    assert refusal.value.reason is RejectReason.DIGEST_MISMATCH


def test_an_ended_upload_takes_no_more_chunks(uploads: Uploads) -> None:
    uploads.end(uploads.open("north", FIRST))
    with pytest.raises(PeerError):
        uploads.find("north", FIRST.update_id)


def test_only_a_chunk_that_was_not_held_yet_is_useful(uploads: Uploads) -> None:
    with pytest.raises(PeerError):
        uploads.add("north", chunk(0))
    uploads.open("north", FIRST)
    uploads.add("north", chunk(0))
    assert not uploads.add("north", chunk(0)).is_complete()
    assert (uploads.num_received, uploads.num_useful) == (3, 1)


@pytest.mark.parametrize("content", [b"", b"of a release to come"])
def test_an_offer_that_cannot_be_read_is_deleted_at_the_start_and_made_again(
    process: Callable[[], Uploads], folder: Path, content: bytes
) -> None:
    process().open("north", FIRST)
    (file,) = folder.glob("*.offer")
    file.write_bytes(content)
    after = process()
    with pytest.raises(PeerError) as refusal:
        after.find("north", FIRST.update_id)
    assert refusal.value.reason is RejectReason.NOT_OFFERED
    after.tidy(["north"])
    assert not file.exists()
    after.open("north", FIRST)


def test_what_no_site_of_the_configuration_sent_is_deleted_at_the_start(
    process: Callable[[], Uploads], folder: Path
) -> None:
    before = process()
    before.open("north", FIRST)
    before.open("gone", SECOND)
    (folder / f".north.{FIRST.update_id.hex()}.offer.17.part").write_bytes(b"half")
    process().tidy(["north", "south"])
    assert names(folder) == files_of("north", FIRST)


def test_an_update_refused_after_a_restart_leaves_nothing(process: Callable[[], Uploads], folder: Path) -> None:
    process().open("north", FIRST)
    process().abandon("north", FIRST.update_id)
    assert names(folder) == set()
