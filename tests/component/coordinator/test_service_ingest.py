"""Messages are acknowledged, several at once, when their chunks are durable: what the broker forgets is on the disk."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.service import ACKNOWLEDGE_EVERY
from fedward.limits import CHUNK_BYTES
from fedward.messages import Offer
from fedward.mqtt import MqttSettings
from fedward.ports import Delivery
from tests.support.coordinator_bench import Bench, accepted, missing
from tests.support.disk import break_open_file
from tests.support.site import Site
from tests.support.updates import LARGE, offer_of, payload_of

Start = Callable[..., Bench]
CONTENT = payload_of(LARGE, seed=7)
BIG = offer_of(CONTENT, 7, layout_digest=LARGE.digest)
SOUTHERN = offer_of(CONTENT, 7, "south", layout_digest=LARGE.digest)

CONNECTED, STATUS = 1, 1
"""The event that comes before what the broker kept, and the retained message of a site that comes after it."""


class Killed(BaseException):
    """The process is gone."""


class StopAfter(threading.Event):
    """Is set once the loop has asked so many times: it takes one event in each turn."""

    def __init__(self, events: int) -> None:
        super().__init__()
        self._left = events

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


class KillAfter(StopAfter):
    """Ends the loop there as a kill does: without another step."""

    def is_set(self) -> bool:
        if super().is_set():
            raise Killed
        return False


def send(site: Site, offer: Offer, index: int) -> None:
    site.chunk(offer, index, CONTENT[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])


def granted(start: Start, *offers: tuple[Site, Offer]) -> Bench:
    """A coordinator that waits for all chunks of these."""
    bench = start(LARGE)
    for site, offer in offers:
        site.offer(offer)
    bench.settle()
    return bench


def handle_all(bench: Bench) -> None:
    while not bench.inbox.empty():
        bench.service.handle(bench.inbox.get_nowait())


def chunks_in(bench: Bench) -> int:
    """How many of those are in the inbox."""
    return sum(isinstance(event, Delivery) and "/c/" in event.topic for event in bench.inbox.queue)


def collecting(bench: Bench, site: str, offer: Offer) -> Path:
    return bench.config.state_folder / "incoming" / f"{site}.{offer.update_id.hex()}"


@pytest.mark.parametrize(
    ("chunks", "events", "left"),
    [
        (ACKNOWLEDGE_EVERY + 5, ACKNOWLEDGE_EVERY - 1, ACKNOWLEDGE_EVERY + 5),
        (ACKNOWLEDGE_EVERY + 5, ACKNOWLEDGE_EVERY, 5),
        (3, 3 + STATUS, 0),
    ],
)
def test_messages_are_acknowledged_when_there_are_enough_or_no_other_is_there(
    start: Start, north: Site, chunks: int, events: int, left: int
) -> None:
    bench = granted(start, (north, BIG))
    bench.link.close()
    for _ in range(chunks):
        send(north, BIG, 0)
    with pytest.raises(Killed):
        bench.service.run(bench.inbox, KillAfter(CONNECTED + events))
    bench.kill()
    assert chunks_in(start(LARGE)) == left


def test_what_was_handled_before_an_orderly_stop_does_not_come_again(start: Start, north: Site) -> None:
    bench = granted(start, (north, BIG))
    bench.link.close()
    for _ in range(9):
        send(north, BIG, 0)
    bench.service.run(bench.inbox, StopAfter(CONNECTED + 7))
    bench.kill()
    assert chunks_in(start(LARGE)) == 2


def test_while_messages_are_made_durable_the_broker_may_send_as_many_again() -> None:
    assert MqttSettings.receive_maximum >= 2 * ACKNOWLEDGE_EVERY


def test_a_chunk_that_could_not_be_made_durable_stays_the_brokers(start: Start, north: Site) -> None:
    bench = granted(start, (north, BIG))
    send(north, BIG, 0)
    handle_all(bench)
    break_open_file(collecting(bench, "north", BIG))
    with pytest.raises(OSError, match="Invalid argument"):
        bench.service.acknowledge()
    bench.kill()
    again = start(LARGE)
    assert chunks_in(again) == 1
    north.offer(BIG)
    again.settle()
    assert north.grants()[-1].missing == missing((1, 4))


def test_chunks_of_several_sites_are_acknowledged_when_all_their_files_are_durable(
    start: Start, north: Site, south: Site
) -> None:
    bench = granted(start, (north, BIG), (south, SOUTHERN))
    send(north, BIG, 0)
    send(south, SOUTHERN, 0)
    handle_all(bench)
    break_open_file(collecting(bench, "south", SOUTHERN))
    with pytest.raises(OSError, match="Invalid argument"):
        bench.service.acknowledge()
    bench.kill()
    assert chunks_in(start(LARGE)) == 2


def test_a_chunk_that_the_process_before_wrote_is_made_durable_before_it_is_acknowledged(
    start: Start, north: Site
) -> None:
    bench = granted(start, (north, BIG))
    send(north, BIG, 0)
    handle_all(bench)
    bench.kill()  # before it was synced
    again = start(LARGE)
    handle_all(again)
    break_open_file(collecting(again, "north", BIG))
    with pytest.raises(OSError, match="Invalid argument"):
        again.service.acknowledge()


def test_an_update_has_its_receipt_before_its_chunks_are_acknowledged(start: Start, north: Site) -> None:
    bench = granted(start, (north, BIG))
    for index in range(4):
        send(north, BIG, index)
    handle_all(bench)
    assert north.receipts() == [accepted(BIG)]
    bench.kill()
    again = start(LARGE)
    assert chunks_in(again) == 4
    again.settle()
    assert [row.update_id for row in again.ledger.accepted()] == [BIG.update_id]
