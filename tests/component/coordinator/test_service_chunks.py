"""Large updates on the way up, the model on the way down."""

from collections.abc import Callable
from pathlib import Path

from coordinator.engine.settings import EngineSettings
from fedward import topics
from fedward.chunks import manifest_of
from fedward.errors import RejectReason
from fedward.limits import CHUNK_BYTES
from fedward.messages import Get, Grant, Outcome
from fedward.testing import ManualClock, MemoryBroker
from fedward.topics import Up
from tests.support.coordinator_bench import Bench, accepted, missing, refusals, refused
from tests.support.disk import fill, small_disk
from tests.support.site import Site
from tests.support.updates import FEDERATION, LARGE, offer_of, payload_of

Start = Callable[..., Bench]
CHUNKS = payload_of(LARGE, seed=7)
BIG = offer_of(CHUNKS, 7, layout_digest=LARGE.digest)


def chunk(index: int) -> bytes:
    return CHUNKS[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


def test_a_large_update_is_granted_collected_and_receipted(start: Start, north: Site) -> None:
    bench = start(LARGE)
    north.offer(BIG)
    bench.settle()
    assert north.grants() == [Grant(update_id=BIG.update_id, missing=missing((0, 4)))]
    for index in (2, 0, 3, 0):
        north.chunk(BIG, index, chunk(index))
    bench.settle()
    assert north.receipts() == []
    north.chunk(BIG, 1, chunk(1))
    bench.settle()
    assert north.receipts() == [accepted(BIG)]
    assert bench.blobs.path(BIG.manifest.digest).read_bytes() == CHUNKS


def test_after_a_crash_only_the_chunks_that_lack_are_granted(start: Start, north: Site) -> None:
    bench = start(LARGE)
    north.offer(BIG)
    for index in (0, 2):
        north.chunk(BIG, index, chunk(index))
    bench.settle()
    bench.kill()
    again = start(LARGE)
    north.offer(BIG)
    again.settle()
    assert north.grants()[-1].missing == missing((1, 2), (3, 4))
    for index in (1, 3):
        north.chunk(BIG, index, chunk(index))
    again.settle()
    assert north.receipts() == [accepted(BIG)]


def test_chunks_that_were_under_way_during_the_crash_count_before_the_offer_is_repeated(
    start: Start, north: Site
) -> None:
    bench = start(LARGE)
    north.offer(BIG)
    north.chunk(BIG, 0, chunk(0))
    bench.settle()
    bench.kill()
    for index in (1, 2, 3):
        north.chunk(BIG, index, chunk(index))
    again = start(LARGE)
    again.settle()
    assert north.receipts() == [accepted(BIG)]
    assert again.service.page()["chunks_redundant"] == 0


def test_a_payload_stored_by_a_process_that_died_before_the_ledger_does_not_travel_again(
    start: Start, north: Site
) -> None:
    bench = start(LARGE)
    north.offer(BIG)
    bench.settle()
    bench.kill()
    (payload,) = (path for path in (bench.config.state_folder / "incoming").iterdir() if path.suffix != ".offer")
    payload.write_bytes(CHUNKS)
    bench.blobs.put(CHUNKS)
    again = start(LARGE)
    north.offer(BIG)
    again.settle()
    assert len(north.grants()) == 1  # of the process before
    assert north.receipts() == [accepted(BIG)]


def test_files_that_outlive_the_end_of_their_upload_count_it_no_second_time(start: Start, north: Site) -> None:
    bench = start(LARGE)
    north.offer(BIG)
    bench.settle()
    (file,) = (bench.config.state_folder / "incoming").glob("*.offer")
    kept = file.read_bytes()
    for index in range(4):
        north.chunk(BIG, index, chunk(index))
    bench.settle()
    bench.kill()
    file.write_bytes(kept)
    again = start(LARGE)
    north.chunk(BIG, 3, chunk(3))
    again.settle()
    assert north.receipts() == [accepted(BIG)]
    north.offer(BIG)
    again.settle()
    assert north.receipts() == [accepted(BIG), accepted(BIG)]
    assert len(again.ledger.accepted()) == 1
    assert (again.versions.current.version, again.service.page()["buffer"]) == (1, 0)
    assert not file.exists()


def test_a_disk_that_fills_during_an_upload_costs_its_chunks_and_nothing_else(
    start: Start, north: Site, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "state"):
        bench = start(LARGE)
        north.offer(BIG)
        north.chunk(BIG, 0, chunk(0))
        bench.settle()
        filler = fill(tmp_path / "state")
        north.chunk(BIG, 1, chunk(1))
        north.offer(BIG)
        bench.settle()
        assert refusals(bench) == {"busy": 2}
        assert north.receipts()[-1].outcome is Outcome.LATER
        filler.unlink()
        north.offer(BIG)
        bench.settle()
        assert north.grants()[-1].missing == missing((1, 4))
        for index in (1, 2, 3):
            north.chunk(BIG, index, chunk(index))
        bench.settle()
        assert north.receipts()[-1] == accepted(BIG)
        bench.kill()


def test_a_wrong_chunk_is_refused_and_granted_again(start: Start, north: Site) -> None:
    bench = start(LARGE)
    north.offer(BIG)
    north.chunk(BIG, 0, chunk(1))
    north.chunk(BIG, 1, chunk(1))
    bench.settle()
    assert refusals(bench) == {"digest_mismatch": 1}
    north.offer(BIG)
    bench.settle()
    assert north.grants()[-1].missing == missing((0, 1), (2, 4))


def test_chunks_that_fit_but_are_not_the_promised_whole_are_refused(start: Start, north: Site) -> None:
    manifest = manifest_of(CHUNKS)
    lying = offer_of(CHUNKS, 7, layout_digest=LARGE.digest, manifest=type(manifest)(
        size_bytes=manifest.size_bytes, digest=b"x" * 32, chunk_digests=manifest.chunk_digests
    ))  # fmt: skip
    bench = start(LARGE)
    north.offer(lying)
    for index in range(4):
        north.chunk(lying, index, chunk(index))
    bench.settle()
    assert north.receipts() == [refused(lying, RejectReason.DIGEST_MISMATCH)]


def test_a_chunk_after_the_receipt_is_counted_and_changes_nothing(start: Start, north: Site) -> None:
    bench = start(LARGE)
    north.offer(BIG)
    for index in (0, 1, 2, 3, 3):
        north.chunk(BIG, index, chunk(index))
    bench.settle()
    assert refusals(bench) == {"not_offered": 1}
    assert north.receipts() == [accepted(BIG)]


def test_an_update_refused_while_its_chunks_were_on_the_way_does_not_count(
    start: Start, north: Site, south: Site
) -> None:
    bench = start(LARGE, engine=EngineSettings(buffer_size=1, max_staleness=0))
    bench.settle()
    north.offer(BIG)
    south_payload = payload_of(LARGE, 1)
    other = offer_of(south_payload, 1, "south", layout_digest=LARGE.digest)
    south.offer(other)
    for index in range(4):
        south.chunk(other, index, south_payload[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
    bench.settle()
    assert bench.versions.current.version == 1
    north.offer(BIG)
    for index in range(4):
        north.chunk(BIG, index, chunk(index))
    bench.settle()
    assert north.receipts() == [refused(BIG, RejectReason.STALE)]
    assert (bench.ledger.buffered(), bench.service.page()["buffer"]) == ((), 0)
    assert bench.versions.current.version == 1
    assert list((bench.config.state_folder / "incoming").iterdir()) == []


def test_another_update_of_a_site_takes_the_place_of_a_half_uploaded_one(start: Start, north: Site) -> None:
    bench = start(LARGE)
    north.offer(BIG)
    north.chunk(BIG, 0, chunk(0))
    newer = offer_of(CHUNKS, 8, layout_digest=LARGE.digest)
    north.offer(newer)
    bench.settle()
    stems = {path.stem for path in (bench.config.state_folder / "incoming").glob("north.*.offer")}
    assert stems == {f"north.{newer.update_id.hex()}"}
    assert north.grants()[-1] == Grant(update_id=newer.update_id, missing=missing((0, 4)))


def get(bench: Bench, *ranges: tuple[int, int]) -> Get:
    digest = bench.versions.parts()[0].manifest.digest
    return Get(federation=FEDERATION, digest=digest, missing=missing(*ranges))


def test_a_chunk_that_one_site_lacks_goes_to_it_alone(
    start: Start, north: Site, south: Site, clock: ManualClock
) -> None:
    bench = start(LARGE)
    north.say(Up.GET, get(bench, (1, 3)))
    bench.settle()
    assert north.chunk_topics() == []
    clock.advance(bench.config.gather_s)
    bench.settle()
    digest = get(bench).digest
    assert north.chunk_topics() == [topics.down_chunk(FEDERATION, "north", digest, index) for index in (1, 2)]
    assert south.chunk_topics() == []


def test_a_chunk_that_two_sites_ask_for_is_published_once_as_soon_as_all_who_are_online_have_asked(
    start: Start, north: Site, south: Site, clock: ManualClock
) -> None:
    bench = start(LARGE)
    north.say(Up.GET, get(bench, (0, 4)))
    bench.settle()
    clock.advance(0.9 * bench.config.gather_s)
    sent_before = bench.link.bytes_sent
    south.say(Up.GET, get(bench, (0, 2)))
    bench.settle()
    digest = get(bench).digest
    shared = [topics.part_chunk(FEDERATION, digest, index) for index in (0, 1)]
    alone = [topics.down_chunk(FEDERATION, "north", digest, index) for index in (2, 3)]
    assert sorted(north.chunk_topics()) == sorted(shared + alone)
    assert south.chunk_topics() == shared
    assert bench.link.bytes_sent - sent_before == bench.versions.parts()[0].manifest.size_bytes


def work_off(bench: Bench) -> None:
    """Handle what is there, as `run` does, without any time passing."""
    while not bench.inbox.empty():
        bench.service.handle(bench.inbox.get_nowait())
        bench.service.tick()


def assert_published_once_for_all(bench: Bench, clock: ManualClock, *sites: Site) -> None:
    assert [site.chunk_topics() for site in sites] == [[] for _ in sites]
    clock.advance(bench.config.gather_s)
    bench.service.tick()
    digest = get(bench).digest
    shared = [topics.part_chunk(FEDERATION, digest, index) for index in range(4)]
    assert [site.chunk_topics() for site in sites] == [shared for _ in sites]


def test_requests_that_wait_for_the_next_process_before_it_knows_any_site_are_gathered_in_full(
    start: Start, north: Site, south: Site, clock: ManualClock
) -> None:
    before = start(LARGE)
    before.settle()
    request = get(before, (0, 4))
    before.kill()
    for site in (north, south):
        site.say(Up.GET, request)
    again = start(LARGE)
    work_off(again)
    assert_published_once_for_all(again, clock, north, south)


def test_requests_are_gathered_in_full_while_sites_are_still_coming_online_one_after_another(
    start: Start, broker: MemoryBroker, clock: ManualClock
) -> None:
    bench = start(LARGE)
    sites = []
    for name in ("north", "south"):
        sites.append(Site(broker, name))
        sites[-1].say(Up.GET, get(bench, (0, 4)))
        work_off(bench)
    assert_published_once_for_all(bench, clock, *sites)


def test_requests_from_before_a_lost_link_are_forgotten(
    start: Start, north: Site, south: Site, clock: ManualClock
) -> None:
    bench = start(LARGE)
    north.say(Up.GET, get(bench, (0, 4)))
    bench.settle()
    bench.link.drop()
    clock.advance(bench.config.gather_s)
    bench.settle()
    assert north.chunk_topics() == []


def test_a_part_that_is_not_announced_is_refused(start: Start, north: Site) -> None:
    bench = start()
    north.say(Up.GET, Get(federation=FEDERATION, digest=b"?" * 32, missing=missing((0, 1))))
    bench.settle()
    assert refusals(bench) == {"unknown_base": 1}
