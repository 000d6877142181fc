"""What the coordinator sends, and when chunks leave."""

from queue import Queue

import pytest

from coordinator.blobs import BlobFolder
from coordinator.publish import Publisher
from fedward.chunks import manifest_of, num_chunks
from fedward.limits import CHUNK_BYTES
from fedward.messages import Get, Part, PartKind, Range
from fedward.testing import MemoryBroker, MemoryLink
from tests.support.site import Site
from tests.support.updates import FEDERATION

CONTENT = b"".join(bytes([number]) * CHUNK_BYTES for number in range(5)) + b"end"
PART = Part(kind=PartKind.SNAPSHOT, version=0, codec="f32", manifest=manifest_of(CONTENT))
GATHER_S = 0.5
ONLINE = {"north", "south"}


@pytest.fixture
def link(broker: MemoryBroker) -> MemoryLink:
    link = MemoryLink(broker, "coordinator", Queue(), window=2)
    link.open()
    return link


@pytest.fixture
def publisher(link: MemoryLink, blobs: BlobFolder) -> Publisher:
    blobs.put(CONTENT)
    return Publisher(link, FEDERATION, blobs, GATHER_S)


def get(*ranges: tuple[int, int]) -> Get:
    missing = tuple(Range(start=start, stop=stop) for start, stop in ranges)
    return Get(federation=FEDERATION, digest=PART.manifest.digest, missing=missing)


def indices(site: Site) -> list[int]:
    return [int(topic.rsplit("/", 1)[1]) for topic in site.chunk_topics()]


def test_chunks_carry_the_bytes_of_the_part(publisher: Publisher, north: Site) -> None:
    publisher.ask("north", get((4, 6)), PART, 0.0, ONLINE)
    publisher.send_chunks(GATHER_S)
    payloads = [delivery.payload for delivery in north.deliveries() if "/m/" in delivery.topic]
    assert payloads == [bytes([4]) * CHUNK_BYTES, b"end"]


def test_chunks_of_a_part_that_was_deleted_meanwhile_are_skipped(
    publisher: Publisher, blobs: BlobFolder, north: Site
) -> None:
    publisher.ask("north", get((0, 2)), PART, 0.0, ONLINE)
    blobs.drop(PART.manifest.digest)
    publisher.send_chunks(GATHER_S)
    assert indices(north) == []
    assert publisher.next_at_s() is None


def test_nothing_leaves_before_the_requests_are_gathered(publisher: Publisher, north: Site) -> None:
    publisher.ask("north", get((0, 1)), PART, 10.0, ONLINE)
    assert publisher.next_at_s() == 10.0 + GATHER_S
    publisher.send_chunks(10.0 + 0.99 * GATHER_S)
    assert indices(north) == []
    publisher.send_chunks(10.0 + GATHER_S)
    assert indices(north) == [0]
    assert publisher.next_at_s() is None


def test_indices_beyond_the_end_are_not_sent(publisher: Publisher, north: Site) -> None:
    publisher.ask("north", get((5, 8192), (0, 1), (5, 6)), PART, 0.0, ONLINE)
    publisher.send_chunks(GATHER_S)
    assert indices(north) == [num_chunks(PART.manifest) - 1]


def test_chunks_leave_in_the_order_of_their_requests_as_far_as_there_is_room(
    publisher: Publisher, north: Site, broker: MemoryBroker
) -> None:
    broker.pause()
    publisher.ask("north", get((3, 6)), PART, 0.0, ONLINE)
    publisher.ask("north", get((0, 1)), PART, 0.1, ONLINE)
    publisher.send_chunks(GATHER_S)
    assert publisher.next_at_s() is None, "the window is full: the link's Room event tells when to go on"
    broker.resume()
    assert indices(north) == [3, 4]
    assert publisher.next_at_s() == GATHER_S
    publisher.send_chunks(GATHER_S)
    assert indices(north) == [3, 4, 5, 0]


def test_the_same_site_asking_twice_is_one_site(publisher: Publisher, north: Site, south: Site) -> None:
    for _ in range(2):
        publisher.ask("north", get((0, 1)), PART, 0.0, ONLINE)
    publisher.send_chunks(GATHER_S)
    assert (indices(north), indices(south)) == ([0], [])


def test_a_lost_link_forgets_what_was_asked(publisher: Publisher, north: Site) -> None:
    publisher.ask("north", get((0, 1)), PART, 0.0, ONLINE)
    publisher.forget_asked()
    publisher.send_chunks(GATHER_S)
    assert indices(north) == []
    publisher.ask("north", get((1, 2)), PART, 5.0, ONLINE)
    assert publisher.next_at_s() == 5.0 + GATHER_S


def test_chunks_leave_at_once_when_nobody_is_left_who_could_ask(publisher: Publisher, north: Site, south: Site) -> None:
    publisher.ask("north", get((0, 1)), PART, 1.0, ONLINE)
    publisher.send_chunks(1.0)
    assert indices(north) == []
    publisher.ask("south", get((0, 1)), PART, 1.1, ONLINE)
    assert publisher.next_at_s() == 1.1
    publisher.send_chunks(1.1)
    assert (indices(north), indices(south)) == ([0], [0])
    assert publisher.next_at_s() is None


def test_while_nobody_is_known_to_be_online_requests_are_gathered_for_the_whole_time(
    publisher: Publisher, north: Site
) -> None:
    for site in ("north", "south"):
        publisher.ask(site, get((0, 1)), PART, 1.0, ())
        publisher.send_chunks(1.0)
    assert north.chunk_topics() == []
    publisher.send_chunks(1.0 + GATHER_S)
    assert north.chunk_topics() == [f"fl/v1/{FEDERATION}/pub/m/{PART.manifest.digest.hex()}/c/0"]


def test_a_site_that_asks_for_everything_takes_every_second_turn_of_two(
    publisher: Publisher, blobs: BlobFolder, broker: MemoryBroker, north: Site, south: Site
) -> None:
    blobs.put(b"another")
    another = Part(kind=PartKind.DELTA, version=1, codec="q8", manifest=manifest_of(b"another"))
    wanted = Get(federation=FEDERATION, digest=another.manifest.digest, missing=(Range(start=0, stop=1),))
    broker.pause()  # so the window stays full with two
    publisher.ask("north", get((0, 6)), PART, 0.0, {"north"})
    publisher.ask("south", wanted, another, 0.0, {"south"})
    publisher.send_chunks(0.0)
    broker.resume()
    assert (indices(north), indices(south)) == ([0], [0])
    publisher.ask("north", get((0, 6)), PART, 0.0, {"north"})
    for _ in range(3):
        publisher.send_chunks(0.0)
    assert indices(north) == [0, 1, 2, 3, 4, 5, 0]
    assert publisher.next_at_s() is None


def test_each_part_is_gathered_on_its_own(publisher: Publisher, blobs: BlobFolder, north: Site) -> None:
    blobs.put(b"another")
    another = Part(kind=PartKind.DELTA, version=1, codec="q8", manifest=manifest_of(b"another"))
    wanted = Get(federation=FEDERATION, digest=another.manifest.digest, missing=(Range(start=0, stop=1),))
    for site in ONLINE:
        publisher.ask(site, get((0, 1)), PART, 0.0, ONLINE)
    publisher.ask("north", wanted, another, 0.1, ONLINE)
    publisher.send_chunks(0.1)
    assert north.chunk_topics() == [f"fl/v1/{FEDERATION}/pub/m/{PART.manifest.digest.hex()}/c/0"]
    assert publisher.next_at_s() == pytest.approx(0.1 + GATHER_S)
