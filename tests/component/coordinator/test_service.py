"""The coordinator's loop: announcements, and updates that fit into their offer."""

from collections.abc import Callable

import numpy as np
import pytest

from coordinator.engine.settings import EngineSettings
from fedward import topics
from fedward.errors import RejectReason
from fedward.layout import vector_digest
from fedward.messages import (
    FederationState,
)
from fedward.testing import ManualClock, MemoryBroker
from fedward.topics import Up
from tests.support.coordinator_bench import Bench, accepted, refusals, refused
from tests.support.site import Site
from tests.support.updates import FEDERATION, SMALL, inline, offer_of, payload_of, vector

Start = Callable[..., Bench]


def test_what_is_announced_waits_for_those_who_come_later(start: Start, broker: MemoryBroker) -> None:
    bench = start()
    bench.settle()
    late = Site(broker, "south")
    [announcement] = late.announcements()
    assert announcement.version == 0
    assert announcement.model_digest == vector_digest(vector(SMALL, seed=0, scale=1.0))
    assert announcement.parts == bench.versions.parts()
    assert (announcement.task, announcement.codec, announcement.state) == ("tabular", "f32", FederationState.RUNNING)


def test_every_announcement_has_a_greater_sequence_over_restarts_too(start: Start, north: Site) -> None:
    for _ in range(3):
        bench = start()
        bench.settle()
        bench.kill()
    said = north.announcements()
    assert [announcement.sequence for announcement in said] == sorted({one.sequence for one in said})
    assert len({announcement.boot_id for announcement in said}) == 3


def test_a_broker_that_forgot_everything_is_told_again(start: Start, north: Site, broker: MemoryBroker) -> None:
    bench = start()
    bench.settle()
    broker.stop()
    broker.start()
    bench.settle()
    assert len(north.announcements()) == 2


def test_a_small_update_is_stored_and_has_its_receipt(
    start: Start, north: Site, south: Site, clock: ManualClock
) -> None:
    bench = start()
    bench.settle()
    offer = inline(1)
    north.offer(offer)
    bench.settle()
    assert north.receipts() == [accepted(offer)]
    assert south.receipts() == []
    [row] = bench.ledger.buffered()
    assert (row.update_id, row.site, row.received_at_s) == (offer.update_id, "north", clock.now_s())
    assert row.norm == pytest.approx(float(np.linalg.norm(vector(SMALL, 1))), rel=1e-6)
    assert bench.blobs.path(offer.manifest.digest).exists()


def test_enough_updates_make_a_version_which_is_announced(start: Start, north: Site, south: Site) -> None:
    bench = start()
    bench.settle()
    north.offer(inline(1))
    bench.settle()
    assert bench.versions.current.version == 0
    south.offer(inline(2, "south"))
    bench.settle()
    assert [row.version for row in bench.ledger.updates()] == [1, 1]
    assert bench.ledger.buffered() == ()
    announcement = north.announcements()[-1]
    assert (announcement.version, announcement.model_digest) == (1, bench.ledger.version(1).model_digest)


def test_an_update_that_is_offered_again_has_the_same_receipt_and_counts_once(start: Start, north: Site) -> None:
    bench = start()
    for _ in range(3):
        north.offer(inline(1))
        bench.settle()
    assert north.receipts() == [accepted(inline(1))] * 3
    assert len(bench.ledger.updates()) == 1
    assert bench.service.page()["sites"]["north"]["num_accepted"] == 1


def test_a_message_that_the_broker_delivers_twice_counts_once(
    start: Start, north: Site, south: Site, broker: MemoryBroker
) -> None:
    bench = start()
    bench.settle()
    broker.duplicates = 1
    north.offer(inline(1))
    bench.settle()
    assert len(bench.ledger.buffered()) == 1


def test_a_refused_update_stays_refused(start: Start, north: Site) -> None:
    bench = start()
    offer = inline(1, base_version=1)
    for _ in range(2):
        north.offer(offer)
        bench.settle()
    assert north.receipts() == [refused(offer, RejectReason.UNKNOWN_BASE)] * 2
    assert len(bench.ledger.updates()) == 1


def test_a_stale_update_is_refused_with_a_receipt(start: Start, north: Site, south: Site) -> None:
    bench = start(engine=EngineSettings(buffer_size=1, max_staleness=1))
    bench.settle()
    for seed, base_version in ((1, 0), (2, 1)):
        south.offer(inline(seed, "south", base_version=base_version))
        bench.settle()
    at_the_limit, too_old = inline(3, base_version=1), inline(4, base_version=0)
    north.offer(too_old)
    north.offer(at_the_limit)
    bench.settle()
    assert north.receipts() == [refused(too_old, RejectReason.STALE), accepted(at_the_limit)]
    assert refusals(bench) == {"stale": 1}


def test_a_payload_with_a_nan_is_refused_and_not_kept(start: Start, north: Site) -> None:
    bench = start()
    spoiled = bytearray(payload_of(SMALL, 1))
    spoiled[0:4] = np.float32("nan").tobytes()
    offer = offer_of(bytes(spoiled), 1, payload=bytes(spoiled))
    north.offer(offer)
    bench.settle()
    assert north.receipts() == [refused(offer, RejectReason.NOT_FINITE)]
    assert not bench.blobs.path(offer.manifest.digest).exists()
    assert bench.ledger.buffered() == ()


def test_a_refused_offer_cannot_delete_what_another_update_needs(start: Start, north: Site, south: Site) -> None:
    bench = start()
    bench.settle()
    north.offer(inline(1))
    south.offer(inline(1, "south", base_version=9))
    bench.settle()
    assert south.receipts()[0].reason is RejectReason.UNKNOWN_BASE
    assert bench.blobs.path(inline(1).manifest.digest).exists()


def test_an_inline_payload_that_is_not_the_promised_one_is_answered(start: Start, north: Site) -> None:
    bench = start()
    offer = inline(1, payload=payload_of(SMALL, 2))
    north.offer(offer)
    bench.settle()
    assert north.receipts() == [refused(offer, RejectReason.DIGEST_MISMATCH)]
    assert list((bench.config.state_folder / "incoming").iterdir()) == []


def test_a_malformed_offer_is_answered_at_the_id_of_its_topic(start: Start, north: Site) -> None:
    bench = start()
    north.link.publish(topics.offer(FEDERATION, "north", inline(1).update_id), b"\xc1 no msgpack")
    bench.settle()
    assert north.receipts() == [refused(inline(1), RejectReason.MALFORMED)]
    assert refusals(bench) == {"malformed": 1}


def test_a_stranger_is_counted_and_not_answered(start: Start, broker: MemoryBroker) -> None:
    bench = start()
    stranger = Site(broker, "stranger")
    stranger.offer(inline(1, "stranger"))
    bench.settle()
    assert stranger.receipts() == []
    assert refusals(bench) == {"unknown_site": 2}  # its status, its offer
    assert "stranger" not in bench.service.page()["sites"]


def test_no_message_stops_the_loop(start: Start, north: Site, broker: MemoryBroker) -> None:
    bench = start()
    bench.settle()
    root = f"{topics.ROOT}/{FEDERATION}/up"
    rng = np.random.default_rng(1)
    odd_topics = ["", "north", "north/s00/offer/xyz", "north//u//c/", "no rth/s01/get", "north/s99/get/#/é"]
    built = [topics.up(FEDERATION, "north", kind) for kind in Up if kind not in (Up.CHUNK, Up.OFFER)]
    for topic in [f"{root}/{levels}" for levels in odd_topics] + built:
        for payload in (b"", b"\x80", b"\x85\xa1v\x01", rng.bytes(300)):
            broker.publish(topic, payload)
    north.offer(inline(1))
    bench.settle()
    assert north.receipts() == [accepted(inline(1))]
    assert sum(refusals(bench).values()) == 4 * (len(odd_topics) + len(built))
