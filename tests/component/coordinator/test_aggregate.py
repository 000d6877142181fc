"""When the buffer becomes a version."""

import numpy as np
import pytest

from coordinator.aggregate import Aggregator
from coordinator.blobs import BlobFolder
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.making import Settings
from coordinator.members import Members
from coordinator.tables import StoredUpdate
from coordinator.versions import Versions
from fedward.messages import Status
from tests.support.coordinator_bench import at
from tests.support.updates import SITES, SMALL, offer_of, payload_of, vector

ENGINE = EngineSettings(buffer_size=2, flush_after_s=60.0, staleness_free=0)


class Room:
    """An aggregator and what it works on."""

    def __init__(self, ledger: Ledger, blobs: BlobFolder) -> None:
        self.ledger, self.blobs = ledger, blobs
        self.members = Members(SITES, ledger)
        for site in SITES:
            self.members.on_status(site, Status(boot_id=b"boot-one", online=True))
        self.versions = Versions(ledger, blobs, SMALL, Settings(ENGINE, "f32"))
        self.versions.begin(vector(SMALL, 0), now_s=0.0)
        self.aggregator = Aggregator(ledger, self.versions, self.members, ENGINE)

    def accept(self, seed: int, site: str, at_s: float, base_version: int = 0) -> StoredUpdate:
        payload = payload_of(SMALL, seed)
        self.blobs.put(payload)
        row = self.ledger.add_update(offer_of(payload, seed, site, base_version), site, at(at_s), 1.0, None)
        self.members.on_update(row)
        self.aggregator.add(row)
        return row


@pytest.fixture
def room(ledger: Ledger, blobs: BlobFolder) -> Room:
    return Room(ledger, blobs)


def test_an_empty_buffer_is_never_due(room: Room) -> None:
    assert room.aggregator.due_s(1e9) is None
    assert not room.aggregator.make_if_ready(at(1e9))


def test_k_updates_make_a_version_and_empty_the_buffer(room: Room) -> None:
    room.accept(1, "north", 10.0)
    assert not room.aggregator.make_if_ready(at(10.0))
    room.accept(2, "south", 11.0)
    assert (len(room.aggregator), room.aggregator.size) == (2, 2)
    assert room.aggregator.make_if_ready(at(11.0))
    assert (len(room.aggregator), room.versions.current.version) == (0, 1)
    assert not room.aggregator.make_if_ready(at(12.0))


def test_the_deadline_counts_from_the_first_update(room: Room) -> None:
    room.accept(1, "north", 10.0)
    assert room.aggregator.due_s(10.0) == 70.0
    assert not room.aggregator.make_if_ready(at(69.9))
    assert room.aggregator.make_if_ready(at(70.0))
    assert room.ledger.version(1).created_at_s == 70.0


def test_the_buffer_is_found_again_in_the_ledger(room: Room) -> None:
    room.accept(1, "north", 10.0)
    again = Aggregator(room.ledger, room.versions, room.members, ENGINE)
    assert (len(again), again.due_s(10.0)) == (1, 70.0)


def test_the_recorded_weights_are_those_that_the_model_was_made_with(room: Room) -> None:
    for seed, site in ((1, "north"), (2, "south")):
        room.accept(seed, site, 10.0)
    room.aggregator.make_if_ready(at(10.0))
    fresh, stale = room.accept(3, "north", 20.0, base_version=1), room.accept(4, "south", 20.0)
    room.aggregator.make_if_ready(at(20.0))
    weights = {row.number: row.weight for row in room.ledger.updates_of(2)}
    assert weights == {fresh.number: pytest.approx(1.0), stale.number: pytest.approx(2**-0.5)}
    page = room.members.page()
    assert [(page[site]["staleness"], page[site]["weight"]) for site in SITES] == [
        (0, weights[fresh.number]),
        (1, weights[stale.number]),
    ]
    moved_P = (room.versions.vector(2) - room.versions.vector(1))[: SMALL.num_weights]
    expected_P = (vector(SMALL, 3) + vector(SMALL, 4) * 2**-0.5) / 2
    np.testing.assert_allclose(moved_P, expected_P[: SMALL.num_weights], atol=1e-6)
