"""A model that is sealed to the members, at the coordinator's side: who can read what it publishes, and when."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.config import AuthoritySettings
from coordinator.enrolment.membership import Membership
from fedward import topics
from fedward.chunks import manifest_of
from fedward.errors import PeerError
from fedward.identity.certificates import load_certificate
from fedward.identity.folder import CoordinatorIdentity, SiteIdentity
from fedward.identity.model_key import KeyReceiver, ModelKey
from fedward.identity.signing import COORDINATOR, EVERYBODY, checker
from fedward.messages import Announcement, Get, Part, Range, SealedKey, Status
from fedward.pack import pack, unpack
from fedward.settings import IdentitySettings
from fedward.testing import ManualClock, MemoryBroker
from fedward.topics import Down, Up
from tests.support.coordinator_bench import Bench, config_of, refusals
from tests.support.signatures import SignedSite, coordinator_identity
from tests.support.updates import FEDERATION

SECOND_S = 1.0


class Town:
    """A coordinator whose model is sealed, its two sites, and its operator."""

    def __init__(self, folder: Path, broker: MemoryBroker, clock: ManualClock) -> None:
        self.identities = folder / "identities"
        self.folder, self.broker, self.clock = folder, broker, clock
        self.identity = coordinator_identity(self.identities, clock, "north", "south")
        self.membership = Membership(
            self.identities / "coordinator", FEDERATION, AuthoritySettings(folder=self.identities / "authority")
        )
        self.north, self.south = self.site("north"), self.site("south")
        self.bench = self.begin()

    def begin(self, sites: tuple[str, ...] = ("north", "south")) -> Bench:
        """A process of the coordinator."""
        folder = self.identities / "coordinator"
        config = config_of(
            self.folder, identity=IdentitySettings(folder=folder), sealed_model=True, sites=list(sites), gather_s=0.1
        )
        identity = CoordinatorIdentity.load(folder, FEDERATION, self.clock.now_s())
        return Bench(config, self.broker, self.clock, identity=identity)

    def restart(self, sites: tuple[str, ...] = ("north", "south")) -> None:
        self.bench.kill()
        self.bench = self.begin(sites)
        self.settle()

    def site(self, name: str) -> "KeyedSite":
        identity = SiteIdentity.load(self.identities / name, FEDERATION, name, self.clock.now_s())
        return KeyedSite(self.broker, name, identity)

    def settle(self) -> None:
        """Let time pass, so that the desk looks and chunks leave."""
        self.clock.advance(SECOND_S)
        self.bench.settle()
        self.clock.advance(SECOND_S)
        self.bench.settle()

    def revoke(self, site: str) -> None:
        self.membership.revoke(site, "a test", self.clock.now_s())
        self.settle()

    def next_version(self) -> None:
        """Of an update of each member."""
        for seed, site in enumerate((self.north, self.south)):
            site.upload(seed, self.identity.sealed_to)
        self.settle()

    @property
    def part(self) -> Part:
        """The newest part."""
        return self.bench.versions.parts()[-1]

    def content(self) -> bytes:
        return self.bench.blobs.path(self.part.manifest.digest).read_bytes()


class KeyedSite(SignedSite):
    """A scripted site that receives model keys, in one process after another."""

    boots = 0

    def arrive(self) -> None:
        """A new process of the site says that it is here."""
        KeyedSite.boots += 1
        self.boot_id = KeyedSite.boots.to_bytes(8, "big")
        self.receiver = KeyReceiver(FEDERATION, self.name)
        self.say(Up.STATUS, Status(boot_id=self.boot_id, online=True, receiving_key=self.receiver.public))

    def leave(self) -> None:
        self.say(Up.STATUS, Status(boot_id=self.boot_id, online=False, leaving=True))

    def given(self) -> list[ModelKey]:
        """That were given to this very process."""
        check = checker(self.identity.coordinator.public_key, FEDERATION, COORDINATOR, self.name)
        topic = topics.down(FEDERATION, self.name, Down.KEY)
        found = [
            unpack(delivery.payload, SealedKey, check) for delivery in self.deliveries() if delivery.topic == topic
        ]
        return [self.receiver.open(message) for message in found if message.boot_id == self.boot_id]

    def announced(self) -> Announcement:
        check = checker(self.identity.coordinator.public_key, FEDERATION, COORDINATOR, EVERYBODY)
        topic = topics.announce(FEDERATION)
        return [unpack(each.payload, Announcement, check) for each in self.deliveries() if each.topic == topic][-1]

    def get(self, part: Part) -> None:
        missing = (Range(start=0, stop=1),)
        self.say(Up.GET, Get(federation=FEDERATION, digest=part.manifest.digest, missing=missing))

    def chunks(self) -> list[tuple[str, bytes]]:
        return [(delivery.topic, delivery.payload) for delivery in self.deliveries() if "/m/" in delivery.topic]


@pytest.fixture
def town(tmp_path: Path, broker: MemoryBroker, clock: ManualClock) -> Iterator[Town]:
    town = Town(tmp_path, broker, clock)
    town.bench.settle()
    yield town
    town.bench.kill()


def opens(key: ModelKey, part: Part, sealed: bytes) -> bool:
    try:
        return manifest_of(key.open(part.manifest.digest, 0, sealed)) == part.manifest
    except PeerError:
        return False


def test_each_member_is_given_the_announced_key(town: Town) -> None:
    for site in (town.north, town.south):
        site.arrive()
    town.settle()
    assert town.north.given()[-1] == town.south.given()[-1]
    assert town.north.announced().model_key_id == town.north.given()[-1].key_id
    assert town.bench.service.page()["model_key_id"] == town.north.given()[-1].key_id.hex()


def test_a_chunk_is_sealed_once_and_sent_once_for_all_who_asked(town: Town) -> None:
    for site in (town.north, town.south):
        site.arrive()
    town.settle()
    town.next_version()
    for site in (town.north, town.south):
        site.get(town.part)
    town.settle()
    [chunk] = town.north.chunks()
    assert town.south.chunks() == [chunk]
    topic, payload = chunk
    assert topic == topics.part_chunk(FEDERATION, town.part.manifest.digest, 0)
    assert payload != town.content()
    assert town.content()[:64] not in payload
    assert opens(town.north.given()[-1], town.part, payload)


def test_a_chunk_for_one_site_alone_is_sealed_too(town: Town) -> None:
    town.north.arrive()
    town.settle()
    town.north.get(town.part)
    town.settle()
    [(topic, payload)] = town.north.chunks()
    assert topic == topics.down_chunk(FEDERATION, "north", town.part.manifest.digest, 0)
    assert opens(town.north.given()[-1], town.part, payload)


def test_who_was_revoked_cannot_read_what_is_made_afterwards(town: Town) -> None:
    for site in (town.north, town.south):
        site.arrive()
    town.settle()
    town.next_version()
    old = town.north.given()[-1]
    town.revoke("north")
    new = town.south.given()[-1]
    assert new != old
    assert town.south.announced().model_key_id == new.key_id
    assert town.north.given()[-1] == old
    town.north.arrive()
    town.south.get(town.part)
    town.settle()
    assert town.north.given() == []
    [(_, payload)] = town.south.chunks()
    assert opens(new, town.part, payload)
    assert not opens(old, town.part, payload)


@pytest.mark.parametrize("how", ["revoked", "taken from the list"])
def test_who_left_while_the_coordinator_was_away_has_no_key_that_is_used_again(town: Town, how: str) -> None:
    for site in (town.north, town.south):
        site.arrive()
    town.settle()
    old = town.north.given()[-1]
    town.bench.kill()
    if how == "revoked":
        town.membership.revoke("north", "a test", town.clock.now_s())
        town.restart()
    else:
        town.restart(("south",))
    assert town.south.announced().model_key_id not in (None, old.key_id)
    assert town.south.given()[-1].key_id == town.south.announced().model_key_id
    assert town.north.given()[-1] == old


def test_a_member_that_has_ended_its_certificate_is_none(town: Town) -> None:
    town.north.arrive()
    town.settle()
    old = town.north.given()[-1]
    ends_s = load_certificate(town.identities / "north" / "north.crt").not_after_s
    town.clock.advance(ends_s - town.clock.now_s() + 1)
    town.settle()
    assert town.south.announced().model_key_id not in (None, old.key_id)


def test_a_new_process_of_the_coordinator_gives_its_own_key_to_all_who_are_there(town: Town) -> None:
    for site in (town.north, town.south):
        site.arrive()
    town.settle()
    old = town.north.given()[-1]
    town.restart()
    new = town.north.given()[-1]
    assert new != old
    assert town.south.given()[-1] == new
    assert town.north.announced().model_key_id == new.key_id


def test_who_lost_the_key_says_again_that_it_is_there_and_gets_it(town: Town) -> None:
    town.north.arrive()
    town.settle()
    first = town.north.given()[-1]
    town.north.arrive()
    town.settle()
    assert town.north.given() == [first]


def test_a_site_that_was_away_when_the_key_was_replaced_gets_the_new_one_when_it_comes(town: Town) -> None:
    for site in (town.north, town.south):
        site.arrive()
    town.settle()
    old = town.south.given()[-1]
    town.south.leave()
    town.settle()
    town.revoke("north")
    assert town.south.given()[-1] == old
    town.south.arrive()
    town.settle()
    assert town.south.given()[-1].key_id == town.south.announced().model_key_id != old.key_id


@pytest.mark.parametrize("attack", ["unsigned", "signed by another site"])
def test_a_receiving_key_that_the_site_has_not_signed_is_given_nothing(town: Town, attack: str) -> None:
    receiver = KeyReceiver(FEDERATION, "north")
    status = Status(boot_id=b"strange!", online=True, receiving_key=receiver.public)
    packed = pack(status) if attack == "unsigned" else town.south.packed(status)
    town.broker.publish(topics.up(FEDERATION, "north", Up.STATUS), packed, retain=True)
    town.settle()
    assert refusals(town.bench) == {"bad_signature": 1}
    assert not [delivery for delivery in town.north.deliveries() if delivery.topic.endswith("/key")]


def test_a_receiving_key_that_is_none_is_refused(town: Town) -> None:
    town.north.say(Up.STATUS, Status(boot_id=b"boot-two", online=True, receiving_key=bytes(32)))
    town.settle()
    assert refusals(town.bench) == {"malformed": 1}


def test_a_damaged_blob_is_not_sealed_and_sent(town: Town) -> None:
    """Its bytes would have the nonce of the right ones."""
    town.north.arrive()
    path = town.bench.blobs.path(town.part.manifest.digest)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    town.north.get(town.part)
    town.settle()
    assert town.north.chunks() == []


def test_an_open_model_has_no_key(start: Callable[..., Bench]) -> None:
    bench = start()
    bench.settle()
    assert bench.service.page()["model_key_id"] is None


def test_no_key_is_on_the_disk_of_the_coordinator(town: Town) -> None:
    town.north.arrive()
    town.next_version()
    secret = town.north.given()[-1].secret
    files = [path for path in town.folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if any(form in path.read_bytes() for form in (secret, secret.hex().encode()))]
