"""A model that is sealed to the members, at a site's side: what it reads, and when it asks for the key."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.model_keys import KEY_AGAIN_S
from edge_agent.training.module import initial_model
from fedward import topics
from fedward.identity.folder import CoordinatorIdentity
from fedward.identity.model_key import ModelKey
from fedward.layout import vector_digest
from fedward.messages import Get, Initial, Offer, Status
from fedward.pack import pack
from fedward.testing import MemoryBroker
from fedward.topics import Down
from sandbox.identities import make_identities
from tests.support.hospital import Hospital
from tests.support.office import FEDERATION, SITE

NOW_S = 1_700_000_000.0


@pytest.fixture
def coordinator(tmp_path: Path) -> CoordinatorIdentity:
    make_identities(tmp_path / "identities", FEDERATION, [SITE], NOW_S)
    return CoordinatorIdentity.load(tmp_path / "identities" / "coordinator", FEDERATION, NOW_S)


@pytest.fixture
def hospital(new_hospital: Callable[..., Hospital], coordinator: CoordinatorIdentity, tmp_path: Path) -> Hospital:
    hospital = new_hospital(identity={"folder": tmp_path / "identities" / SITE})
    hospital.office.sign_to = coordinator.sign_to(FEDERATION)
    hospital.office.model_key = ModelKey.new()
    return hospital


def announce(hospital: Hospital, coordinator: CoordinatorIdentity, **changes: object) -> None:
    hospital.office.announce(sealing_key=coordinator.sealed_to, **changes)
    hospital.settle()


def newest_status(hospital: Hospital) -> Status:
    status: Status = hospital.office.messages(Status)[-1]
    return status


def give_key(hospital: Hospital) -> None:
    hospital.office.give_key(newest_status(hospital))
    hospital.settle()


def held(hospital: Hospital) -> object:
    return hospital.page["held"]


def test_a_site_that_was_given_the_key_reads_the_model_and_trains(
    hospital: Hospital, coordinator: CoordinatorIdentity
) -> None:
    hospital.settle()
    give_key(hospital)
    announce(hospital, coordinator)
    assert held(hospital) == 0
    [offer] = hospital.office.messages(Offer)
    assert offer.base_version == 0
    assert hospital.page["refused"]["cannot_open"] == 0


def test_a_site_without_the_key_asks_for_no_chunk_but_for_the_key(
    hospital: Hospital, coordinator: CoordinatorIdentity
) -> None:
    announce(hospital, coordinator)
    num_statuses = len(hospital.office.messages(Status))
    assert hospital.office.messages(Get) == []
    assert (held(hospital), hospital.page["phase"]) == (None, "fetching")
    hospital.wait(KEY_AGAIN_S)
    assert len(hospital.office.messages(Status)) == num_statuses + 1
    give_key(hospital)
    assert held(hospital) == 0


def test_a_new_process_has_no_key_and_a_key_for_the_one_before_says_nothing(
    hospital: Hospital, coordinator: CoordinatorIdentity
) -> None:
    hospital.settle()
    before = newest_status(hospital)
    give_key(hospital)
    announce(hospital, coordinator)
    hospital.office.next_version()
    hospital.restart()
    announce(hospital, coordinator)
    hospital.office.give_key(before)
    hospital.settle()
    assert held(hospital) == 0
    assert newest_status(hospital).receiving_key != before.receiving_key
    give_key(hospital)
    assert held(hospital) == 1
    assert sum(hospital.page["refused"].values()) == 0


def test_a_chunk_that_was_changed_on_its_way_is_refused_and_asked_for_again(
    hospital: Hospital, coordinator: CoordinatorIdentity
) -> None:
    hospital.settle()
    give_key(hospital)
    hospital.office.answers_gets = False
    announce(hospital, coordinator)
    [get] = hospital.office.messages(Get)
    hospital.office.send_chunk(get.digest, 0, flip=1)
    hospital.settle()
    assert (held(hospital), hospital.page["refused"]["cannot_open"]) == (None, 1)
    hospital.office.answers_gets = True
    hospital.wait(120.0)
    assert held(hospital) == 0


def test_a_chunk_that_is_not_sealed_is_refused(hospital: Hospital, coordinator: CoordinatorIdentity) -> None:
    hospital.settle()
    give_key(hospital)
    hospital.office.answers_gets = False
    announce(hospital, coordinator)
    [get] = hospital.office.messages(Get)
    key, hospital.office.model_key = hospital.office.model_key, None
    hospital.office.send_chunk(get.digest, 0)
    hospital.settle()
    assert (held(hospital), hospital.page["refused"]["cannot_open"]) == (None, 1)
    hospital.office.model_key = key
    hospital.office.send_chunk(get.digest, 0)
    hospital.settle()
    assert held(hospital) == 0


def test_a_download_goes_on_when_the_key_is_replaced_in_the_middle_of_it(
    hospital: Hospital, coordinator: CoordinatorIdentity
) -> None:
    hospital.settle()
    give_key(hospital)
    hospital.office.answers_gets = False
    announce(hospital, coordinator)
    [get] = hospital.office.messages(Get)
    hospital.office.model_key = ModelKey.new()
    announce(hospital, coordinator)
    hospital.office.send_chunk(get.digest, 0)
    hospital.settle()
    assert (held(hospital), hospital.page["refused"]["cannot_open"]) == (None, 1)
    hospital.office.answers_gets = True
    give_key(hospital)
    assert held(hospital) == 0


def test_a_chunk_of_the_key_before_that_was_on_its_way_counts(
    hospital: Hospital, coordinator: CoordinatorIdentity
) -> None:
    hospital.settle()
    give_key(hospital)
    hospital.office.answers_gets = False
    announce(hospital, coordinator)
    [get] = hospital.office.messages(Get)
    old, hospital.office.model_key = hospital.office.model_key, ModelKey.new()
    give_key(hospital)
    announce(hospital, coordinator)
    hospital.office.model_key = old
    hospital.office.send_chunk(get.digest, 0)
    hospital.settle()
    assert held(hospital) == 0


def test_a_key_that_the_coordinator_has_not_signed_for_this_site_is_no_key(
    hospital: Hospital, coordinator: CoordinatorIdentity, broker: MemoryBroker
) -> None:
    hospital.settle()
    status, key = newest_status(hospital), hospital.office.model_key
    assert status.receiving_key is not None
    assert key is not None
    message = key.sealed_to(status.receiving_key, status.boot_id, FEDERATION, SITE)
    for sign in (None, coordinator.sign_to(FEDERATION)("south")):
        broker.publish(topics.down(FEDERATION, SITE, Down.KEY), pack(message, sign))
    announce(hospital, coordinator)
    assert hospital.page["refused"]["bad_signature"] == 2
    assert hospital.office.messages(Get) == []


def test_version_0_is_made_from_its_announced_seed_without_a_key(
    hospital: Hospital, coordinator: CoordinatorIdentity
) -> None:
    _, vector_P = initial_model(hospital.task, seed=7)
    hospital.office.start_over(vector_P)
    announce(hospital, coordinator, initial=Initial(seed=7, model_digest=vector_digest(vector_P)))
    assert held(hospital) == 0
    hospital.office.next_version()
    announce(hospital, coordinator)
    assert (held(hospital), hospital.office.messages(Get)) == (0, [])
    give_key(hospital)
    assert held(hospital) == 1


def test_a_site_that_signs_nothing_names_no_key_to_receive_with(new_hospital: Callable[..., Hospital]) -> None:
    unsigned = new_hospital()
    unsigned.settle()
    assert newest_status(unsigned).receiving_key is None
