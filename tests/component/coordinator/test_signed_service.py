"""A broker that is not trusted, at the coordinator's side: each test is an attack, and what it comes to."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.allowance import BURST_S
from coordinator.intake import REFUSED_S
from fedward import topics
from fedward.chunks import manifest_of
from fedward.errors import RejectReason
from fedward.identity.folder import CoordinatorIdentity, SiteIdentity
from fedward.identity.signing import COORDINATOR, signer
from fedward.limits import CHUNK_BYTES, MAX_VERSION
from fedward.messages import Evaluation, Grant, Offer, Outcome, Phase, Ratio, Status, Telemetry
from fedward.pack import pack, unpack
from fedward.testing import ManualClock, MemoryBroker
from fedward.topics import Down, Up
from sandbox.identities import make_identities
from tests.support.coordinator_bench import Bench, accepted, refusals, refused
from tests.support.signatures import SignedSite, coordinator_identity, seal_update, sealed_update
from tests.support.updates import FEDERATION, LARGE, SMALL, inline, offer_of, payload_of

Start = Callable[..., Bench]


@pytest.fixture
def identity(tmp_path: Path, clock: ManualClock) -> CoordinatorIdentity:
    return coordinator_identity(tmp_path / "identities", clock, "north", "south")


@pytest.fixture
def sites(
    tmp_path: Path, broker: MemoryBroker, clock: ManualClock, identity: CoordinatorIdentity
) -> tuple[SignedSite, SignedSite]:
    def site(name: str) -> SignedSite:
        folder = identity.register.parents[1] / name
        return SignedSite(broker, name, SiteIdentity.load(folder, FEDERATION, name, clock.now_s()))

    return site("north"), site("south")


@pytest.fixture
def bench(start: Start, identity: CoordinatorIdentity) -> Bench:
    bench = start(identity=identity)
    bench.settle()
    return bench


def test_signed_and_sealed_updates_make_a_version_that_replays(
    bench: Bench, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    offers = [site.upload(1, identity.sealed_to) for site in sites]
    bench.settle()
    assert [site.receipts() for site in sites] == [[accepted(offer)] for offer in offers]
    assert bench.versions.current.version == 1
    [row, _] = bench.ledger.accepted()
    assert row.digest == manifest_of(payload_of(SMALL, 1)).digest
    assert not bench.blobs.path(offers[0].manifest.digest).exists()


def test_an_update_that_is_not_signed_changes_nothing_and_is_not_answered(
    bench: Bench, sites: tuple[SignedSite, SignedSite]
) -> None:
    north, _ = sites
    offer = inline(1)
    north.publish_offer(offer.update_id, pack(offer))
    bench.settle()
    assert (refusals(bench), north.receipts()) == ({"bad_signature": 1}, [])
    assert bench.ledger.update(offer.update_id) is None


def test_an_update_signed_by_another_site_is_not_taken_for_this_sites(
    bench: Bench, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    north, south = sites
    offer, payload = sealed_update(1, identity.sealed_to)
    north.publish_offer(offer.update_id, south.packed(replace(offer, payload=payload)))
    bench.settle()
    assert (refusals(bench), north.receipts()) == ({"bad_signature": 1}, [])


def test_an_update_moved_to_another_federation_is_not_signed_there(
    bench: Bench, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    north, _ = sites
    offer, payload = sealed_update(1, identity.sealed_to)
    sign = signer(north.identity.key, "another", "north", COORDINATOR, lambda: 99)
    north.publish_offer(offer.update_id, pack(replace(offer, payload=payload), sign))
    bench.settle()
    assert (refusals(bench), north.receipts()) == ({"bad_signature": 1}, [])


def test_a_genuine_offer_put_on_the_topic_of_another_update_ends_neither(
    bench: Bench, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    north, _ = sites
    kept, payload = sealed_update(1, identity.sealed_to)
    other, _ = sealed_update(2, identity.sealed_to)
    packed = north.packed(replace(other, payload=None))
    north.publish_offer(kept.update_id, packed)
    bench.settle()
    assert (refusals(bench), north.receipts()) == ({"malformed": 1}, [])
    north.offer(replace(kept, payload=payload))
    bench.settle()
    assert north.receipts() == [accepted(kept)]


def test_a_genuine_offer_put_on_a_topic_of_another_federation_ends_nothing(
    bench: Bench, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity, broker: MemoryBroker
) -> None:
    north, _ = sites
    offer, payload = sealed_update(1, identity.sealed_to)
    packed = north.packed(replace(offer, payload=payload))
    bench.link.subscribe(topics.up_all("another"))  # what a broker may deliver whatever was subscribed to
    north.link.publish(topics.offer("another", "north", offer.update_id), packed)
    bench.settle()
    assert (refusals(bench), north.receipts()) == ({"wrong_federation": 1}, [])
    north.publish_offer(offer.update_id, packed)
    bench.settle()
    assert north.receipts() == [accepted(offer)]


def test_a_site_that_has_one_offer_refused_after_the_other_fills_no_ledger(
    bench: Bench, sites: tuple[SignedSite, SignedSite]
) -> None:
    north, _ = sites
    for seed in range(60):
        north.offer(inline(seed))  # none is sealed
    bench.settle()
    outcomes = [receipt.outcome for receipt in north.receipts()]
    assert outcomes.count(Outcome.REFUSED) == REFUSED_S * BURST_S
    assert outcomes.count(Outcome.LATER) == 60 - REFUSED_S * BURST_S
    assert bench.service.page()["sites"]["north"]["num_refused"] == REFUSED_S * BURST_S


@pytest.mark.parametrize("at", [10, 60, -1])
def test_a_signed_update_with_one_byte_changed_ends_nothing(
    bench: Bench, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity, at: int
) -> None:
    north, _ = sites
    offer, payload = sealed_update(1, identity.sealed_to)
    packed = bytearray(north.packed(replace(offer, payload=payload)))
    packed[at] ^= 1
    north.publish_offer(offer.update_id, bytes(packed))
    bench.settle()
    assert north.receipts() == []
    assert sum(refusals(bench).values()) == 1
    assert bench.ledger.update(offer.update_id) is None


def test_a_replayed_update_counts_once_over_restarts_too(
    start: Start, bench: Bench, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    north, _ = sites
    offer, payload = sealed_update(1, identity.sealed_to)
    packed = north.packed(replace(offer, payload=payload))
    north.publish_offer(offer.update_id, packed)
    bench.settle()
    north.publish_offer(offer.update_id, packed)
    bench.settle()
    bench.kill()
    after = start(identity=identity)
    north.publish_offer(offer.update_id, packed)
    after.settle()
    assert refusals(after) == {"replayed": 1}
    assert len(after.ledger.accepted()) == 1
    assert north.receipts() == [accepted(offer)]


def test_an_update_that_is_offered_again_under_a_new_number_has_its_receipt_again(
    bench: Bench, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    north, _ = sites
    offer = north.upload(1, identity.sealed_to)
    bench.settle()
    north.offer(offer)
    bench.settle()
    assert north.receipts() == [accepted(offer)] * 2


def test_a_replayed_offer_is_neither_granted_again_nor_ends_what_it_began(
    start: Start, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    bench = start(LARGE, identity=identity)
    bench.settle()
    north, _ = sites
    offer, _ = _large(1, "north", identity.sealed_to)
    other, payload = _large(2, "north", identity.sealed_to)
    packed = north.packed(offer)
    for told in (packed, north.packed(other), packed):  # given up for another one, which the replay would end
        north.publish_offer(unpack(told, Offer).update_id, told)
    bench.settle()
    assert refusals(bench) == {"replayed": 1}
    assert [grant.update_id for grant in _grants(north)] == [offer.update_id, other.update_id]
    for index in range(-(-len(payload) // CHUNK_BYTES)):
        north.chunk(other, index, payload[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
    bench.settle()
    assert north.receipts() == [accepted(other)]


def test_a_thief_who_used_up_the_numbers_of_a_key_shuts_nobody_out_who_is_enrolled_anew(
    start: Start, bench: Bench, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity, tmp_path: Path
) -> None:
    north, _ = sites
    for site in sites:
        site.number = MAX_VERSION - 1
        site.offer(inline(1, site=site.name))
    bench.settle()
    north.number = MAX_VERSION - 1
    old = north.packed(inline(1))
    shutil.rmtree(tmp_path / "identities" / "north")
    (identity.register / "north.crt").unlink()
    make_identities(tmp_path / "identities", FEDERATION, ["north"], bench.clock.now_s())
    north.identity = SiteIdentity.load(tmp_path / "identities" / "north", FEDERATION, "north", bench.clock.now_s())
    north.number = 0
    first = north.packed(inline(1))
    for packed in (first, first, old):
        north.publish_offer(inline(1).update_id, packed)
    bench.settle()
    assert refusals(bench) == {"cannot_open": 2, "replayed": 1, "bad_signature": 1}, "the thief's, and south's"
    bench.kill()
    used = start(identity=identity).ledger.counters()
    assert (used["north", "offer"], used["south", "offer"]) == (1, MAX_VERSION)


def test_a_replayed_measurement_or_telemetry_changes_nothing(
    bench: Bench, sites: tuple[SignedSite, SignedSite]
) -> None:
    north, _ = sites
    old = north.packed(
        Evaluation(
            federation=FEDERATION, version=0, num_examples=1, metrics={"loss": Ratio(numerator=9, denominator=1)}
        )
    )
    north.say(
        Up.EVALUATION,
        Evaluation(
            federation=FEDERATION, version=0, num_examples=1, metrics={"loss": Ratio(numerator=1, denominator=1)}
        ),
    )
    north.link.publish(topics.up(FEDERATION, "north", Up.EVALUATION), old)
    bench.settle()
    assert refusals(bench) == {"replayed": 1}
    assert [row.numerator for row in bench.ledger.evaluations()] == [1]


def test_the_last_will_of_the_same_process_counts_and_a_status_of_an_older_one_does_not(
    bench: Bench, sites: tuple[SignedSite, SignedSite]
) -> None:
    north, _ = sites
    sign = signer(north.identity.key, FEDERATION, "north", COORDINATOR, lambda: 50)
    topic = topics.up(FEDERATION, "north", Up.STATUS)
    for online in (True, False):
        north.link.publish(topic, pack(Status(boot_id=b"boot-two", online=online), sign))
        bench.settle()
        assert bench.service.page()["sites"]["north"]["online"] is online
    older = signer(north.identity.key, FEDERATION, "north", COORDINATOR, lambda: 49)
    north.link.publish(topic, pack(Status(boot_id=b"boot-one", online=True), older))
    bench.settle()
    assert bench.service.page()["sites"]["north"]["online"] is False
    assert refusals(bench) == {"replayed": 1}


def test_an_update_that_is_not_sealed_is_refused_and_its_site_is_told(
    bench: Bench, sites: tuple[SignedSite, SignedSite]
) -> None:
    north, _ = sites
    offer = inline(1)
    north.offer(offer)
    bench.settle()
    assert north.receipts() == [refused(offer, RejectReason.CANNOT_OPEN)]


def test_a_payload_sealed_for_another_update_is_refused_and_nothing_of_it_stays(
    bench: Bench, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    north, _ = sites
    theirs, payload = sealed_update(2, identity.sealed_to)
    offer = offer_of(payload, 1, payload=payload, seal=theirs.seal)
    north.offer(offer)
    bench.settle()
    assert north.receipts() == [refused(offer, RejectReason.CANNOT_OPEN)]
    assert not bench.blobs.path(offer.manifest.digest).exists()


def test_a_chunk_exchanged_between_two_updates_is_refused_and_asked_for_again(
    start: Start, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    bench = start(LARGE, identity=identity)
    bench.settle()
    north, south = sites
    ours, theirs = (_large(seed, site, identity.sealed_to) for seed, site in ((1, "north"), (2, "south")))
    north.offer(ours[0])
    south.offer(theirs[0])
    bench.settle()
    for index in range(len(ours[1]) // CHUNK_BYTES + 1):
        source = theirs if index == 1 else ours
        north.chunk(ours[0], index, source[1][index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
    bench.settle()
    assert refusals(bench) == {"digest_mismatch": 1}
    assert north.receipts() == []
    north.offer(ours[0])
    bench.settle()
    [_, again] = _grants(north)
    assert [(part.start, part.stop) for part in again.missing] == [(1, 2)]
    north.chunk(ours[0], 1, ours[1][CHUNK_BYTES : 2 * CHUNK_BYTES])
    bench.settle()
    assert north.receipts() == [accepted(ours[0])]


def test_chunks_that_are_as_promised_but_sealed_for_another_update_end_it(
    start: Start, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    bench = start(LARGE, identity=identity)
    bench.settle()
    north, _ = sites
    theirs, payload = _large(2, "north", identity.sealed_to)
    offer = offer_of(payload, 1, layout_digest=LARGE.digest, seal=theirs.seal)
    north.offer(offer)
    bench.settle()
    north.chunk(offer, 0, payload[:CHUNK_BYTES])
    bench.settle()
    assert north.receipts() == [refused(offer, RejectReason.CANNOT_OPEN)]
    assert list((bench.config.state_folder / "incoming").iterdir()) == []


def test_sealed_chunks_are_found_again_by_the_process_after_a_crash(
    start: Start, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    bench = start(LARGE, identity=identity)
    bench.settle()
    north, _ = sites
    offer, payload = _large(1, "north", identity.sealed_to)
    north.offer(offer)
    bench.settle()
    north.chunk(offer, 2, payload[2 * CHUNK_BYTES : 3 * CHUNK_BYTES])
    bench.settle()
    bench.kill()
    after = start(LARGE, identity=identity)
    after.settle()
    north.offer(offer)
    after.settle()
    assert [(part.start, part.stop) for part in _grants(north)[-1].missing] == [(0, 2), (3, 4)]


def test_a_downgraded_protocol_version_ends_nothing(
    bench: Bench, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    north, _ = sites
    offer, payload = sealed_update(1, identity.sealed_to)
    packed = north.packed(replace(offer, payload=payload)).replace(b"\xa1v\x01", b"\xa1v\x00", 1)
    north.publish_offer(offer.update_id, packed)
    bench.settle()
    assert [receipt.outcome for receipt in north.receipts()] == [Outcome.LATER]
    assert bench.ledger.update(offer.update_id) is None


def test_a_site_whose_certificate_has_ended_is_not_believed_until_it_is_renewed(
    bench: Bench,
    sites: tuple[SignedSite, SignedSite],
    identity: CoordinatorIdentity,
    clock: ManualClock,
) -> None:
    north, _ = sites
    clock.advance(31 * 86_400)
    north.upload(1, identity.sealed_to)
    bench.settle()
    assert (set(refusals(bench)), north.receipts()) == ({"unknown_site"}, [])


def test_a_site_that_is_taken_out_of_the_register_is_not_believed_from_then_on(
    bench: Bench, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    north, _ = sites
    (identity.register / "north.crt").unlink()
    north.upload(1, identity.sealed_to)
    bench.settle()
    assert (set(refusals(bench)), north.receipts()) == ({"unknown_site"}, [])


def test_what_is_in_the_register_without_the_authoritys_word_is_not_believed(
    bench: Bench,
    sites: tuple[SignedSite, SignedSite],
    identity: CoordinatorIdentity,
    tmp_path: Path,
    clock: ManualClock,
) -> None:
    rogue = coordinator_identity(tmp_path / "rogue", clock, "north")
    (identity.register / "north.crt").write_bytes((rogue.register / "north.crt").read_bytes())
    north, _ = sites
    north.upload(1, identity.sealed_to)
    bench.settle()
    assert (set(refusals(bench)), north.receipts()) == ({"unknown_site"}, [])


def test_the_used_numbers_are_on_disk_before_the_broker_forgets_a_message(
    start: Start, sites: tuple[SignedSite, SignedSite], identity: CoordinatorIdentity
) -> None:
    bench = start(identity=identity)
    bench.settle()
    north, _ = sites
    telemetry = Telemetry(
        boot_id=b"boot-one",
        phase=Phase.IDLE,
        version=None,
        step=0,
        num_steps=0,
        num_updates=0,
        num_refused=0,
        num_fetched=0,
        bytes_sent=0,
        bytes_received=0,
    )
    north.say(Up.TELEMETRY, telemetry)
    bench.settle()
    bench.kill()
    assert start(identity=identity).ledger.counters()["north", "telemetry"] == north.number


def _large(seed: int, site: str, key: bytes) -> tuple[Offer, bytes]:
    return seal_update(offer_of(b"-", seed, site, layout_digest=LARGE.digest), payload_of(LARGE, seed), key)


def _grants(site: SignedSite) -> list[Grant]:
    topic = topics.down(FEDERATION, site.name, Down.GRANT)
    return [unpack(delivery.payload, Grant) for delivery in site.deliveries() if delivery.topic == topic]
