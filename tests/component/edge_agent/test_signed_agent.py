"""A broker that is not trusted, at a site's side: each test is an attack, and what it comes to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedward import topics
from fedward.identity.certificates import load_certificate
from fedward.identity.folder import CoordinatorIdentity
from fedward.identity.keys import load_signing_key
from fedward.identity.signing import COORDINATOR, EVERYBODY, checker, signer
from fedward.limits import CHUNK_BYTES, MAX_MESSAGE_BYTES
from fedward.messages import Control, Evaluation, Get, Offer, Outcome, Receipt, Status, Telemetry
from fedward.pack import Sign, pack, unpack
from fedward.testing import ManualClock, MemoryBroker
from fedward.topics import Down
from sandbox.identities import make_identities
from tests.support.hospital import Hospital
from tests.support.office import FEDERATION, SITE

KINDS: dict[str, type] = {
    "offer": Offer,
    "get": Get,
    "evaluation": Evaluation,
    "status": Status,
    "telemetry": Telemetry,
}
NOW_S = 1_700_000_000.0


@pytest.fixture
def identities(tmp_path: Path) -> Path:
    make_identities(tmp_path / "identities", FEDERATION, [SITE, "south"], NOW_S)
    return tmp_path / "identities"


@pytest.fixture
def coordinator(identities: Path) -> CoordinatorIdentity:
    return CoordinatorIdentity.load(identities / "coordinator", FEDERATION, NOW_S)


@pytest.fixture
def hospital(new_hospital: Callable[..., Hospital], identities: Path, coordinator: CoordinatorIdentity) -> Hospital:
    hospital = new_hospital(identity={"folder": identities / SITE})
    hospital.office.sign_to = coordinator.sign_to(FEDERATION)
    return hospital


def announce(hospital: Hospital, coordinator: CoordinatorIdentity, **changes: object) -> None:
    hospital.office.announce(sealing_key=coordinator.sealed_to, **changes)
    hospital.settle()


def test_every_message_of_the_site_is_signed_and_no_number_comes_twice(
    hospital: Hospital, coordinator: CoordinatorIdentity
) -> None:
    announce(hospital, coordinator)
    key = load_certificate(coordinator.register / f"{SITE}.crt").public_key
    hospital.office.listen()
    heard = [(topic.split("/")[6], payload) for topic, payload in hospital.office.heard]
    assert set(KINDS) == {kind for kind, _ in heard}
    for kind, payload in heard:
        unpack(payload, KINDS[kind], checker(key, FEDERATION, SITE, COORDINATOR))
    used = numbers(hospital)
    assert len(set(used)) == len(used) - sum(kind == "status" for kind, _ in heard) + 1


def test_the_update_is_sealed_to_the_coordinator_for_this_very_update(
    hospital: Hospital, coordinator: CoordinatorIdentity
) -> None:
    announce(hospital, coordinator)
    [offer] = hospital.office.messages(Offer)
    assert offer.payload is not None
    opened = coordinator.seal_of(offer).open(0, offer.payload)
    assert len(opened) == 4 * hospital.office.layout.size
    [saved] = (hospital.config.state_folder / "outbox").glob("*.payload")
    assert saved.read_bytes() == offer.payload


@pytest.mark.parametrize("attack", ["unsigned", "signed by a site", "signed for a site", "changed"])
def test_a_forged_announcement_is_counted_and_not_followed(
    hospital: Hospital, coordinator: CoordinatorIdentity, identities: Path, broker: MemoryBroker, attack: str
) -> None:
    announcement = hospital.office.announcement(sealing_key=coordinator.sealed_to)
    sign_to = coordinator.sign_to(FEDERATION)
    packed = {
        "unsigned": lambda: pack(announcement),
        "signed by a site": lambda: pack(announcement, by_another_site(identities)),
        "signed for a site": lambda: pack(announcement, sign_to(SITE)),
        "changed": lambda: pack(announcement, sign_to("")).replace(b"\xa7version\x00", b"\xa7version\x01"),
    }[attack]()
    broker.publish(topics.announce(FEDERATION), packed, retain=True)
    hospital.settle()
    assert hospital.page["announced"] is None
    assert hospital.page["refused"]["bad_signature"] == 1
    assert hospital.office.messages(Get) == []
    announce(hospital, coordinator)
    assert hospital.page["announced"] == 0


def by_another_site(identities: Path) -> Sign:
    south = load_signing_key(identities / "south" / "south.key")
    return signer(south, FEDERATION, COORDINATOR, EVERYBODY, lambda: 0)


def test_an_announcement_without_a_key_to_seal_with_is_not_followed(hospital: Hospital) -> None:
    hospital.office.announce()
    hospital.settle()
    assert (hospital.page["announced"], hospital.page["refused"]["malformed"]) == (None, 1)


def test_a_replayed_announcement_does_not_lead_back(
    hospital: Hospital, coordinator: CoordinatorIdentity, broker: MemoryBroker
) -> None:
    old = hospital.office.packed(hospital.office.announcement(sealing_key=coordinator.sealed_to), "")
    hospital.office.next_version()
    announce(hospital, coordinator)
    assert hospital.page["held"] == 1
    broker.publish(topics.announce(FEDERATION), old, retain=True)
    hospital.settle()
    assert (hospital.page["announced"], hospital.page["held"]) == (1, 1)


@pytest.mark.parametrize("attack", ["unsigned", "of another site"])
def test_a_forged_receipt_deletes_no_work(
    hospital: Hospital, coordinator: CoordinatorIdentity, broker: MemoryBroker, attack: str
) -> None:
    announce(hospital, coordinator)
    [offer] = hospital.office.messages(Offer)
    forged = Receipt(update_id=offer.update_id, outcome=Outcome.REFUSED)
    sign = None if attack == "unsigned" else coordinator.sign_to(FEDERATION)("south")
    broker.publish(topics.down(FEDERATION, SITE, Down.RECEIPT), pack(forged, sign))
    hospital.settle()
    assert hospital.page["phase"] == "publishing"
    assert hospital.page["refused"]["bad_signature"] == 1
    hospital.office.receipt(offer)
    hospital.settle()
    assert hospital.page["num_accepted"] == 1


GARBAGE = {
    "nothing": b"",
    "no msgpack": b"\xc1" * 100,
    "depth": b"\x91" * 100_000 + b"\xc0",
    "a map of 4 thousand million": b"\xdf\xff\xff\xff\xff",
    "as large as a message may be": bytes(MAX_MESSAGE_BYTES),
    "an extension": b"\xc9\x00\x00\x00\x04\x00abcd",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_what_a_hostile_broker_retains_on_every_topic_is_counted_and_delays_nothing(
    hospital: Hospital, coordinator: CoordinatorIdentity, broker: MemoryBroker, garbage: bytes
) -> None:
    heard = [topics.announce(FEDERATION), topics.down_chunk(FEDERATION, SITE, bytes(32), 0)]
    heard += [topics.down(FEDERATION, SITE, kind) for kind in Down if kind not in (Down.ANNOUNCE, Down.CHUNK)]
    heard += [f"fl/v1/{FEDERATION}/dn/{SITE}/nonsense", topics.down(FEDERATION, "south", Down.RECEIPT)]
    hospital.link.subscribe(topics.down_to_all(FEDERATION))  # what a broker may deliver whatever was subscribed to
    for topic in heard:
        broker.publish(topic, garbage, retain=True)
    hospital.settle()
    refused = {reason: count for reason, count in hospital.page["refused"].items() if count}
    ignored = len(garbage) <= CHUNK_BYTES  # a chunk that nobody asked for
    assert set(refused) <= {"malformed", "too_large", "bad_signature"}
    assert sum(refused.values()) == len(heard) - ignored
    hospital.kill()
    hospital.start()
    announce(hospital, coordinator)
    [offer] = hospital.office.messages(Offer)
    hospital.office.receipt(offer)
    hospital.settle()
    assert hospital.page["num_accepted"] == 1


def test_what_is_signed_for_another_site_says_nothing_here(
    hospital: Hospital, coordinator: CoordinatorIdentity, broker: MemoryBroker
) -> None:
    announce(hospital, coordinator)
    packed = pack(Control(sequence=10**9, paused=True), coordinator.sign_to(FEDERATION)("south"))
    hospital.link.subscribe(
        topics.down_all(FEDERATION, "south")
    )  # what a broker may deliver whatever was subscribed to
    broker.publish(topics.down(FEDERATION, "south", Down.CONTROL), packed)
    hospital.settle()
    assert hospital.page["refused"]["malformed"] == 1
    assert hospital.page["phase"] != "paused"


def test_the_numbers_go_on_over_restarts_and_a_clock_that_went_back(
    hospital: Hospital, coordinator: CoordinatorIdentity
) -> None:
    announce(hospital, coordinator)
    first = numbers(hospital)
    hospital.kill()
    hospital.clock = ManualClock(NOW_S - 86_400.0)
    hospital.start()
    hospital.settle()
    will, *second = numbers(hospital)[len(first) :]
    assert will == first[0], "the last will has the number of its process's statuses"
    assert min(second) > max(first)


def numbers(hospital: Hospital) -> list[int]:
    """Of all messages that the site sent, in their order."""
    found: list[int] = []
    hospital.office.listen()
    for topic, payload in hospital.office.heard:
        unpack(payload, KINDS[topic.split("/")[6]], lambda envelope: found.append(envelope.counter))
    return found
