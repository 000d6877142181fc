"""A model that is sealed to the members, with real processes: who hears everything reads nothing of it."""

import secrets
import signal
import time
from collections.abc import Callable, Collection
from typing import Any

import pytest

from coordinator.blobs import BlobFolder
from coordinator.ledger import Ledger
from fedward import topics
from fedward.errors import PeerError
from fedward.identity.folder import SiteIdentity
from fedward.identity.model_key import KeyReceiver, ModelKey
from fedward.identity.signing import COORDINATOR, checker, signer
from fedward.limits import CHUNK_BYTES
from fedward.messages import SealedKey, Status
from fedward.pack import pack, unpack
from fedward.topics import Down, Up
from sandbox.federation import FEDERATION, Federation
from tests.integration.conftest import READY_S
from tests.support.spy import Spy

pytestmark = [pytest.mark.slow, pytest.mark.network]

TELLING_BYTES = 64
"""So many bytes of a chunk in a message are no coincidence."""

Start = Callable[..., Federation]
Heard = list[tuple[str, bytes]]
SealedChunk = tuple[bytes, int, bytes]
"""Part, index and payload."""


def wait_for_versions(running: Federation, more: int, without: Collection[str] = ()) -> dict[str, Any]:
    """Until so many more versions are there, and every site but these has measured one of them."""
    before = running.wait_for(lambda state: state["connected"], READY_S, "the coordinator")["version"]
    return running.wait_for(
        lambda state: (
            state["version"] >= before + more
            and all(
                (page["evaluated_version"] or 0) > before
                for site, page in state["sites"].items()
                if site not in without
            )
        ),
        READY_S,
        f"{more} more versions",
    )


def part_digests(running: Federation, from_version: int = 0) -> set[bytes]:
    """Of all parts that lead to a version from that one on."""
    ledger = Ledger.in_folder(running.state_folder(COORDINATOR))
    try:
        return {part.manifest.digest for part in ledger.parts(from_version, ledger.versions()[-1].version)}
    finally:
        ledger.close()


def chunks(heard: Heard, digests: set[bytes]) -> list[SealedChunk]:
    """Those of these parts."""
    addressed = [(topics.parse(topic), payload) for topic, payload in heard if "/m/" in topic]
    return [
        (address.owner, address.index, payload)
        for address, payload in addressed
        if address.owner in digests and address.index is not None
    ]


def opens(key: ModelKey, chunk: SealedChunk) -> bool:
    try:
        key.open(*chunk)
    except PeerError:
        return False
    return True


class Insider:
    """Who has the keys of a site, whose agent is gone, and says at the broker that it is there."""

    def __init__(self, running: Federation, site: str, spy: Spy) -> None:
        folder = running.plan.folder / "identities" / site
        self.identity = SiteIdentity.load(folder, FEDERATION, site, time.time())
        self.site, self.spy, self.boot_id = site, spy, secrets.token_bytes(8)
        self.receiver = KeyReceiver(FEDERATION, site)
        self.heard: Heard = []

    def arrive(self) -> None:
        status = Status(boot_id=self.boot_id, online=True, receiving_key=self.receiver.public)
        sign = signer(self.identity.key, FEDERATION, self.site, COORDINATOR, lambda: int(time.time() * 1e6))
        self.spy.link.publish(topics.up(FEDERATION, self.site, Up.STATUS), pack(status, sign), retain=True)

    def hear(self) -> list[ModelKey]:
        """Take in what the spy has heard; the model keys for this process among it."""
        heard, topic = self.spy.take(), topics.down(FEDERATION, self.site, Down.KEY)
        self.heard += heard
        check = checker(self.identity.coordinator.public_key, FEDERATION, COORDINATOR, self.site)
        given = [unpack(payload, SealedKey, check) for where, payload in heard if where == topic]
        return [self.receiver.open(message) for message in given if message.boot_id == self.boot_id]

    def key(self, running: Federation) -> ModelKey:
        """The model key, once it came."""
        self.arrive()
        found: list[ModelKey] = []

        def came(_state: dict[str, Any]) -> bool:
            found.extend(self.hear())
            return bool(found)

        running.wait_for(came, READY_S, "a model key")
        return found[-1]


def test_who_hears_everything_sees_no_byte_of_the_model_and_all_hospitals_train(federation: Start) -> None:
    running = federation(num_sites=3, sealed_model=True, model_codec="f32")
    with Spy(running.broker.port, "#") as spy:
        state = wait_for_versions(running, 3)
        assert all(site["num_accepted"] > 0 for site in state["sites"].values())
        running.kill(running.sites[0])
        member = Insider(running, running.sites[0], spy)
        key = member.key(running)
    digests = part_digests(running)
    sealed = chunks(member.heard, digests)
    assert len(sealed) >= 2
    assert all(opens(key, chunk) for chunk in sealed)
    blobs = BlobFolder(running.state_folder(COORDINATOR) / "blobs")
    content = [blobs.path(digest).read_bytes() for digest in digests]
    pieces = {each[at : at + TELLING_BYTES] for each in content for at in range(0, len(each), CHUNK_BYTES)}
    assert not [topic for topic, payload in member.heard if any(piece in payload for piece in pieces)]
    assert not [topic for topic, payload in member.heard if key.secret in payload]
    logs = running.plan.folder / "logs"
    assert not [log.name for log in logs.iterdir() if key.secret.hex() in log.read_text()]


def test_who_was_revoked_reads_nothing_that_is_made_afterwards_though_it_hears_everything(federation: Start) -> None:
    running = federation(num_sites=3, sealed_model=True)
    site = running.sites[0]
    wait_for_versions(running, 1)
    with Spy(running.broker.port, "#") as spy:
        running.kill(site)
        former = Insider(running, site, spy)
        old = former.key(running)
        wait_for_versions(running, 2, without=[site])
        former.hear()
        assert any(opens(old, chunk) for chunk in chunks(former.heard, part_digests(running)))
        running.fedward("coordinator", "revoke", site, "--config", str(running.config_path(COORDINATOR)))
        replaced = running.wait_for(lambda state: state["model_key_id"] != old.key_id.hex(), READY_S, "another key")
        former.arrive()
        wait_for_versions(running, 3, without=[site])
        assert former.hear() == []
    later = chunks(former.heard, part_digests(running, replaced["version"] + 1))
    assert later
    assert not [chunk for chunk in later if opens(old, chunk)]


def test_agents_and_coordinators_that_are_killed_around_the_giving_of_keys_go_on(federation: Start) -> None:
    running = federation(num_sites=3, sealed_model=True)
    keys = [wait_for_versions(running, 1)["model_key_id"]]
    for side in ("before", "after"):
        running.kill(COORDINATOR)
        running.start(COORDINATOR, ("sandbox.die", "model key given", side))
        assert running.children.pop(COORDINATOR).process.wait(READY_S) == -signal.SIGKILL
        running.start(COORDINATOR)
        keys.append(wait_for_versions(running, 1)["model_key_id"])
    running.kill(running.sites[0])
    running.start(running.sites[0])
    keys.append(wait_for_versions(running, 2)["model_key_id"])
    assert len(set(keys)) == 3
    assert keys[-1] == keys[-2]
