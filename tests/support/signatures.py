"""Sites with identities, and a coordinator that knows them: what the tests of signatures and seals use."""

from dataclasses import replace
from pathlib import Path

from fedward import topics
from fedward.chunks import manifest_of
from fedward.identity.folder import CoordinatorIdentity, SiteIdentity
from fedward.identity.sealing import new_seal, sealed_chunks
from fedward.identity.signing import COORDINATOR, checker, signer
from fedward.messages import Offer, Receipt
from fedward.pack import pack, unpack
from fedward.testing import ManualClock, MemoryBroker
from fedward.topics import Down, Up
from sandbox.identities import make_identities
from tests.support.site import Site
from tests.support.updates import FEDERATION, SMALL, offer_of, payload_of


def coordinator_identity(folder: Path, clock: ManualClock, *sites: str) -> CoordinatorIdentity:
    """With a register of these sites; each site's own folder is beside it."""
    make_identities(folder, FEDERATION, sites, clock.now_s())
    return CoordinatorIdentity.load(folder / "coordinator", FEDERATION, clock.now_s())


def sealed_update(seed: int, key: bytes, site: str = "north", base_version: int = 0) -> tuple[Offer, bytes]:
    """An offer and its sealed payload, which does not ride inside."""
    return seal_update(offer_of(b"-", seed, site, base_version), payload_of(SMALL, seed), key)


def seal_update(offer: Offer, payload: bytes, key: bytes) -> tuple[Offer, bytes]:
    """The offer of the payload when it is sealed, and the sealed payload."""
    seal = new_seal(key, offer.update_id, len(payload))
    sealed = b"".join(map(bytes, sealed_chunks(seal, payload)))
    return replace(offer, manifest=manifest_of(sealed), seal=seal.public), sealed


class SignedSite(Site):
    """A scripted site that signs what it says, and counts only receipts that the coordinator has signed for it."""

    def __init__(self, broker: MemoryBroker, name: str, identity: SiteIdentity) -> None:
        self.identity = identity
        self.number = 0
        super().__init__(broker, name)

    def packed(self, message: object) -> bytes:
        """As the site sends it, under its next number."""
        self.number += 1
        return pack(message, signer(self.identity.key, FEDERATION, self.name, COORDINATOR, lambda: self.number))

    def say(self, kind: Up, message: object) -> None:
        self.link.publish(topics.up(FEDERATION, self.name, kind), self.packed(message), retain=kind is Up.STATUS)

    def offer(self, offer: Offer) -> None:
        self.publish_offer(offer.update_id, self.packed(offer))

    def publish_offer(self, update_id: bytes, packed: bytes) -> None:
        """What a site, or somebody else, puts on its offers' topic."""
        self.link.publish(topics.offer(FEDERATION, self.name, update_id), packed)

    def upload(self, seed: int, key: bytes) -> Offer:
        """A whole sealed update, inside its offer."""
        offer, payload = sealed_update(seed, key, self.name)
        inside = replace(offer, payload=payload)
        self.offer(inside)
        return inside

    def receipts(self) -> list[Receipt]:
        topic = topics.down(FEDERATION, self.name, Down.RECEIPT)
        check = checker(self.identity.coordinator.public_key, FEDERATION, COORDINATOR, self.name)
        return [unpack(delivery.payload, Receipt, check) for delivery in self.deliveries() if delivery.topic == topic]
