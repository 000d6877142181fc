"""Chunks: what arrived is kept over a restart, and only the promised bytes are ever taken."""

import dataclasses
import errno
import hashlib
import resource
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedward.chunks import ChunkFile, check_manifest, chunk_of, indices_of, manifest_of, num_chunks, ranges_of
from fedward.errors import PeerError, RejectReason
from fedward.limits import CHUNK_BYTES, MAX_CHUNKS, MAX_PAYLOAD_BYTES, MAX_RANGES
from fedward.messages import Manifest, Range
from tests.support.disk import break_open_file

PAYLOAD = np.random.default_rng(1).bytes(2 * CHUNK_BYTES + 100)
CHUNKS = [PAYLOAD[at : at + CHUNK_BYTES] for at in range(0, len(PAYLOAD), CHUNK_BYTES)]
MANIFEST = manifest_of(PAYLOAD)
LARGEST = Manifest(size_bytes=MAX_PAYLOAD_BYTES, digest=bytes(32), chunk_digests=bytes(32 * MAX_CHUNKS))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "payload.part"


def assert_refused(error: "pytest.ExceptionInfo[PeerError]", reason: RejectReason) -> None:
    assert error.value.reason is reason


def test_a_manifest_holds_size_digest_and_a_digest_a_chunk():
    assert MANIFEST.size_bytes == len(PAYLOAD)
    assert MANIFEST.digest == hashlib.sha256(PAYLOAD).digest()
    assert MANIFEST.chunk_digests == b"".join(hashlib.sha256(chunk).digest() for chunk in CHUNKS)


@pytest.mark.parametrize(
    ("size", "chunks"), [(1, 1), (CHUNK_BYTES - 1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (2 * CHUNK_BYTES, 2)]
)
def test_the_last_chunk_may_be_shorter_but_not_empty(size, chunks):
    assert num_chunks(manifest_of(bytes(size))) == chunks


@pytest.mark.parametrize("digests", [b"", bytes(32), bytes(95), bytes(97), bytes(128)])
def test_a_manifest_that_contradicts_itself_is_refused(digests, path):
    manifest = dataclasses.replace(MANIFEST, chunk_digests=digests)
    with pytest.raises(PeerError) as error:
        check_manifest(manifest)
    assert_refused(error, RejectReason.MALFORMED)
    with pytest.raises(PeerError):
        ChunkFile(path, manifest)
    assert not path.exists()


def test_chunks_in_any_order_become_the_payload(path, tmp_path):
    collected = ChunkFile(path, MANIFEST)
    assert [collected.add(index, CHUNKS[index]) for index in (2, 0, 1)] == [True] * 3
    collected.finish(lambda _: tmp_path / "whole")
    collected.drop()
    assert (tmp_path / "whole").read_bytes() == PAYLOAD
    assert not path.exists()


def test_a_chunk_that_comes_twice_is_taken_once(path):
    collected = ChunkFile(path, MANIFEST)
    assert collected.add(1, CHUNKS[1])
    assert not collected.add(1, CHUNKS[1])
    assert collected.num_missing == 2
    collected.close()


def test_what_arrived_is_still_there_after_a_restart(path, tmp_path):
    before = ChunkFile(path, MANIFEST)
    before.add(0, CHUNKS[0])
    before.add(2, CHUNKS[2])
    before.close()
    after = ChunkFile(path, MANIFEST)
    assert after.missing() == (Range(start=1, stop=2),)
    after.add(1, CHUNKS[1])
    after.finish(lambda _: tmp_path / "whole")
    after.drop()
    assert (tmp_path / "whole").read_bytes() == PAYLOAD


def test_a_chunk_that_was_damaged_on_disk_is_asked_for_again(path):
    before = ChunkFile(path, MANIFEST)
    for index, chunk in enumerate(CHUNKS):
        before.add(index, chunk)
    before.close()
    damaged = bytearray(path.read_bytes())
    damaged[CHUNK_BYTES + 5] ^= 1
    path.write_bytes(damaged)
    after = ChunkFile(path, MANIFEST)
    assert after.missing() == (Range(start=1, stop=2),)
    after.close()


@pytest.mark.parametrize("wrong", [b"", CHUNKS[0][:-1], CHUNKS[0] + b"\x00", CHUNKS[1]])
def test_bytes_that_were_not_promised_are_refused_and_not_written(wrong, path):
    collected = ChunkFile(path, MANIFEST)
    with pytest.raises(PeerError) as error:
        collected.add(0, wrong)
    assert_refused(error, RejectReason.DIGEST_MISMATCH)
    assert collected.missing() == (Range(start=0, stop=3),)
    collected.close()
    assert path.stat().st_size == 0


def test_a_chunk_beyond_the_end_is_refused(path):
    collected = ChunkFile(path, MANIFEST)
    with pytest.raises(PeerError) as error:
        collected.add(3, b"")
    assert_refused(error, RejectReason.MALFORMED)
    collected.close()


def test_right_chunks_of_a_wrong_whole_are_refused_and_dropped(path, tmp_path):
    collected = ChunkFile(path, dataclasses.replace(MANIFEST, digest=bytes(32)))
    for index, chunk in enumerate(CHUNKS):
        collected.add(index, chunk)
    with pytest.raises(PeerError) as error:
        collected.finish(lambda _: tmp_path / "whole")
    assert_refused(error, RejectReason.DIGEST_MISMATCH)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_whole_is_verified_in_any_order_of_its_chunks_and_over_a_restart(path, tmp_path, order):
    before = ChunkFile(path, MANIFEST)
    before.add(order[0], CHUNKS[order[0]])
    before.close()
    after = ChunkFile(path, MANIFEST)
    for index in order[1:]:
        after.add(index, CHUNKS[index])
    after.finish(lambda _: tmp_path / "whole")
    after.drop()
    assert (tmp_path / "whole").read_bytes() == PAYLOAD


def test_a_wrong_whole_is_refused_also_when_its_chunks_came_out_of_order(path, tmp_path):
    collected = ChunkFile(path, dataclasses.replace(MANIFEST, digest=bytes(32)))
    for index in (2, 1, 0):
        collected.add(index, CHUNKS[index])
    with pytest.raises(PeerError) as error:
        collected.finish(lambda _: tmp_path / "whole")
    assert_refused(error, RejectReason.DIGEST_MISMATCH)


def test_a_sync_that_fails_is_told_and_one_without_news_touches_no_disk(path):
    collected = ChunkFile(path, MANIFEST)
    collected.add(0, CHUNKS[0])
    collected.sync()
    break_open_file(path)
    collected.sync()
    collected.close()
    again = ChunkFile(path, MANIFEST)  # it can't know whether the one before was synced
    break_open_file(path)
    with pytest.raises(OSError, match="Invalid argument"):
        again.sync()
    again.close()


def test_a_chunk_of_which_the_disk_took_a_part_only_is_still_missing(path):
    collected = ChunkFile(path, MANIFEST)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK_BYTES + 100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            collected.add(1, CHUNKS[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert collected.num_missing == 3
    assert collected.add(1, CHUNKS[1])
    collected.close()
    assert chunk_of(path, 1) == CHUNKS[1]


def test_a_shorter_payload_in_the_place_of_a_longer_one_ends_where_it_should(path, tmp_path):
    before = ChunkFile(path, MANIFEST)
    for index, content in enumerate(CHUNKS):
        before.add(index, content)
    before.close()
    shorter = CHUNKS[0] + b"another end"
    collected = ChunkFile(path, manifest_of(shorter))
    assert collected.missing() == (Range(start=1, stop=2),)
    collected.add(1, b"another end")
    collected.finish(lambda _: tmp_path / "whole")
    collected.drop()
    assert (tmp_path / "whole").read_bytes() == shorter


def test_an_incomplete_payload_never_gets_its_final_name(path, tmp_path):
    collected = ChunkFile(path, MANIFEST)
    collected.add(0, CHUNKS[0])
    with pytest.raises(PeerError) as error:
        collected.finish(lambda _: tmp_path / "whole")
    assert_refused(error, RejectReason.DIGEST_MISMATCH)
    assert not (tmp_path / "whole").exists()


def test_only_the_owner_can_read_what_is_collected(path):
    ChunkFile(path, MANIFEST).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_dropping_deletes_what_was_collected(path):
    collected = ChunkFile(path, MANIFEST)
    collected.add(0, CHUNKS[0])
    collected.drop()
    assert not path.exists()


def test_a_chunk_is_read_from_its_place_in_the_file(path):
    path.write_bytes(PAYLOAD)
    assert [chunk_of(path, index) for index in range(3)] == CHUNKS


def test_neighbours_share_a_range():
    assert ranges_of([0, 1, 2, 5, 7, 8]) == (
        Range(start=0, stop=3),
        Range(start=5, stop=6),
        Range(start=7, stop=9),
    )


def test_ranges_beyond_what_one_message_takes_wait_for_the_next():
    ranges = ranges_of(range(0, 2 * MAX_RANGES + 10, 2))
    assert len(ranges) == MAX_RANGES
    assert ranges[-1].stop == 2 * MAX_RANGES - 1


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.sets(st.integers(0, 200)))
def test_ranges_name_exactly_the_indices_they_were_made_of(indices):
    assert list(indices_of(ranges_of(sorted(indices)), LARGEST)) == sorted(indices)


def test_ranges_beyond_the_payload_are_cut():
    assert list(indices_of([Range(start=1, stop=MAX_CHUNKS)], MANIFEST)) == [1, 2]
    assert list(indices_of([Range(start=3, stop=MAX_CHUNKS)], MANIFEST)) == []


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.builds(Range, start=st.integers(0, 30), stop=st.integers(1, 30)), max_size=8))
def test_overlapping_ranges_name_every_index_once_and_in_order(ranges):
    indices = list(indices_of(ranges, LARGEST))
    assert all(earlier < later for earlier, later in pairwise(indices))


def test_the_most_ranges_that_overlap_ask_for_no_more_than_the_payload():
    everything = Range(start=0, stop=MAX_CHUNKS)
    assert sum(1 for _ in indices_of([everything] * MAX_RANGES, LARGEST)) == MAX_CHUNKS


def test_where_a_file_can_have_no_second_name_the_payload_is_copied(path, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    collected = ChunkFile(path, MANIFEST)
    for index, chunk in enumerate(CHUNKS):
        collected.add(index, chunk)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    collected.finish(lambda _: tmp_path / "whole")
    collected.drop()
    assert (tmp_path / "whole").read_bytes() == PAYLOAD
    assert [found.name for found in tmp_path.iterdir()] == ["whole"]
