"""Uploads: offered until the receipt comes, and only what the coordinator lacks is sent."""

import queue
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import SiteConfig
from edge_agent.outbox import Outbox
from edge_agent.publish import LONGEST_OFFER_S, OFFER_AGAIN_S, Publisher
from edge_agent.uplink import Uplink
from fedward import topics
from fedward.chunks import num_chunks
from fedward.limits import CHUNK_BYTES
from fedward.messages import Grant, Offer, Outcome, Range, Receipt
from fedward.testing import MemoryBroker, MemoryLink

LARGE = bytes(4 * CHUNK_BYTES + 1)
WINDOW = 2


class Upload:
    """A publisher with updates in its outbox, and what it sent."""

    def __init__(self, broker: MemoryBroker, folder: Path, office: Any, offers: dict[bytes, Offer]) -> None:
        self.outbox = Outbox(folder)
        for payload, offer in offers.items():
            self.outbox.save(offer, [payload])
        self.link = MemoryLink(broker, "st-anna", queue.Queue(), window=WINDOW)
        self.link.open()
        self.uplink = Uplink(None)
        config = SiteConfig.model_validate(
            {
                "site": "st-anna",
                "federation": "ward",
                "tasks": {"tiny": {}},
                "state_folder": folder,
                "broker": {"host": "127.0.0.1"},
            }
        )
        self.publisher = Publisher(self.link, config, self.outbox, random.Random(1), self.uplink)
        self.offers = list(offers.values())
        self._office = office

    def sent(self) -> list[str]:
        """Since the last look: "offer", or the index of a chunk."""
        self._office.listen()
        addresses = [topics.parse(topic) for topic, _ in self._office.heard]
        self._office.heard.clear()
        return ["offer" if address.index is None else str(address.index) for address in addresses]

    def grant(self, *ranges: tuple[int, int], update_id: bytes | None = None) -> None:
        missing = tuple(Range(start=start, stop=stop) for start, stop in ranges)
        self.publisher.on_grant(Grant(update_id=update_id or self.offers[0].update_id, missing=missing))

    def receipt(self, outcome: Outcome, offer: Offer | None = None) -> Outcome | None:
        offer = offer or self.offers[0]
        counted: list[Receipt] = []
        self.publisher.on_receipt(Receipt(update_id=offer.update_id, outcome=outcome), 0.0, counted.append)
        return counted[0].outcome if counted else None


@pytest.fixture
def large(broker: MemoryBroker, tmp_path: Path, office: Any, new_offer: Any) -> Upload:
    return Upload(broker, tmp_path, office, {LARGE: new_offer(payload=LARGE)})


@pytest.fixture
def two(broker: MemoryBroker, tmp_path: Path, office: Any, new_offer: Any) -> Upload:
    offers = {b"first": new_offer(payload=b"first"), b"second": new_offer(payload=b"second", sequence=1)}
    return Upload(broker, tmp_path, office, offers)


def test_an_empty_outbox_sends_nothing(broker: MemoryBroker, tmp_path: Path, office: Any) -> None:
    upload = Upload(broker, tmp_path, office, {})
    upload.publisher.step(0.0)
    assert upload.sent() == []


def test_only_the_granted_chunks_are_sent(large: Upload) -> None:
    large.publisher.step(0.0)
    large.grant((1, 3), (4, 9))
    large.publisher.step(0.1)
    assert large.sent() == ["offer", "1", "2", "4"]
    assert num_chunks(large.offers[0].manifest) == 5


def test_nothing_of_the_payload_moves_without_a_grant(large: Upload) -> None:
    large.publisher.step(0.0)
    large.grant((0, 5), update_id=bytes(32))  # of another update
    large.publisher.step(0.1)
    assert large.sent() == ["offer"]


def test_no_more_chunks_are_in_flight_than_the_window_takes(large: Upload, broker: MemoryBroker) -> None:
    large.publisher.step(0.0)
    large.grant((0, 5))
    broker.pause()
    large.publisher.step(0.1)
    assert large.link.room() == 0
    broker.resume()
    assert large.sent() == ["offer", "0", "1"]
    large.publisher.step(0.2)
    assert large.sent() == ["2", "3", "4"]


def test_the_rate_of_the_link_is_that_of_what_was_acknowledged(large: Upload, broker: MemoryBroker) -> None:
    large.publisher.step(0.0)
    large.grant((0, 5))
    broker.pause()
    large.publisher.step(1.0)
    assert large.uplink.bytes_s is None
    broker.resume()
    large.publisher.step(3.0)
    assert large.uplink.bytes_s == WINDOW * CHUNK_BYTES / 2.0


def test_an_offer_without_an_answer_is_repeated_ever_later_and_with_jitter(two: Upload) -> None:
    times_s = []
    for tenths in range(20_000):
        two.publisher.step(tenths / 10)
        times_s += [tenths / 10 for _ in two.sent()]
    waits_s = [after - before for before, after in pairwise(times_s)]
    patience_s = [min(OFFER_AGAIN_S * 2**n, LONGEST_OFFER_S) for n in range(len(waits_s))]
    ratios = [wait_s / least_s for wait_s, least_s in zip(waits_s, patience_s, strict=True)]
    assert len(waits_s) > 8
    assert all(0.99 <= ratio <= 1.55 for ratio in ratios)
    assert max(ratios) - min(ratios) > 0.05


def test_a_new_link_or_coordinator_is_offered_to_at_once_with_fresh_patience(two: Upload) -> None:
    for now_s in (0.0, 10.0, 20.0):
        two.publisher.step(now_s)
    two.publisher.offer_now()
    two.publisher.step(21.0)
    two.publisher.step(21.0 + 1.5 * OFFER_AGAIN_S)
    assert two.sent() == ["offer"] * 5


def test_a_second_grant_of_two_offers_brings_no_chunk_back_that_was_sent(large: Upload, broker: MemoryBroker) -> None:
    large.publisher.step(0.0)
    large.publisher.offer_now()
    large.publisher.step(0.1)
    broker.pause()
    large.grant((0, 5))
    large.publisher.step(0.2)
    large.grant((0, 4))  # given before chunks 0 and 1 arrived
    broker.resume()
    large.publisher.step(0.3)
    large.grant((0, 5))
    large.publisher.step(0.4)
    assert large.sent() == ["offer", "offer", "0", "1", "2", "3"]
    large.publisher.step(0.4 + 1.5 * OFFER_AGAIN_S)
    large.grant((4, 5))
    large.publisher.step(10.0)
    assert large.sent() == ["offer", "4"]


def test_what_was_granted_over_an_old_link_is_not_sent_over_a_new_one(large: Upload) -> None:
    large.publisher.step(0.0)
    large.grant((0, 5))
    large.publisher.offer_now()
    large.publisher.step(0.1)
    assert large.sent() == ["offer", "offer"]


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.REFUSED])
def test_a_receipt_ends_the_update_and_the_next_one_goes(two: Upload, outcome: Outcome) -> None:
    assert two.receipt(outcome) is outcome
    assert two.receipt(outcome) is None  # it came twice
    assert two.publisher.entry is not None
    assert two.publisher.entry.offer == two.offers[1]
    two.publisher.step(0.0)
    assert two.sent() == ["offer"]


def test_an_update_is_counted_while_it_is_still_in_the_outbox(two: Upload) -> None:
    waiting: list[int] = []
    receipt = Receipt(update_id=two.offers[0].update_id, outcome=Outcome.ACCEPTED)
    two.publisher.on_receipt(receipt, 0.0, lambda _: waiting.append(len(two.outbox.entries())))
    assert waiting == [2]
    assert len(two.outbox.entries()) == 1


def test_later_keeps_the_update_and_waits(large: Upload) -> None:
    large.publisher.step(0.0)
    large.grant((0, 5))
    assert large.receipt(Outcome.LATER) is Outcome.LATER
    large.publisher.step(OFFER_AGAIN_S / 2)
    assert large.sent() == ["offer"]
    large.publisher.step(3 * OFFER_AGAIN_S)
    assert large.sent() == ["offer"]
    assert len(large.outbox.entries()) == 1


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_receipt_of_another_update_changes_nothing(large: Upload, new_offer: Any, outcome: Outcome) -> None:
    large.publisher.step(0.0)
    large.grant((0, 1))
    assert large.receipt(outcome, new_offer(payload=b"foreign")) is None
    large.publisher.step(0.1)
    assert large.sent() == ["offer", "0"]
    assert len(large.outbox.entries()) == 1


def test_nothing_is_counted_as_offered_while_the_link_is_down(large: Upload, broker: MemoryBroker) -> None:
    broker.stop()
    large.publisher.step(0.0)
    broker.start()
    large.publisher.step(0.0)
    assert large.sent() == ["offer"]
