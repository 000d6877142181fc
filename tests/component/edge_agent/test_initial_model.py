"""A site makes version 0 itself where it is told how, and believes what came out by its digest alone."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from edge_agent.jobs import InitialJob
from edge_agent.training.failures import FailureKind
from edge_agent.training.module import initial_model
from fedward.errors import RejectReason
from fedward.layout import vector_digest
from fedward.messages import FederationState, Get, Initial, Offer, Phase
from fedward.testing import MemoryBroker
from tests.support.hospital import Hospital
from tests.support.office import site_config

SEED = 3


@pytest.fixture
def told(hospital: Any) -> Any:
    """The hospital, and version 0 at the office as this seed makes it."""
    _, vector_P = initial_model(hospital.task, SEED)
    hospital.office.start_over(vector_P)
    hospital.made = Initial(seed=SEED, model_digest=vector_digest(vector_P))
    return hospital


def announce(hospital: Any, **changes: Any) -> None:
    hospital.office.announce(**{"initial": hospital.made, "state": FederationState.PAUSED, **changes})
    hospital.settle()


def gets(hospital: Any) -> list[Get]:
    return list(hospital.office.messages(Get))


def digests_of_parts(hospital: Any) -> list[bytes]:
    return [part.manifest.digest for part in hospital.office.parts]


def test_version_0_is_made_and_trained_from_without_asking_for_a_chunk(told: Any) -> None:
    announce(told, state=FederationState.RUNNING)
    assert told.office.messages(Offer)[-1].base_digest == told.made.model_digest
    assert gets(told) == []
    assert (told.page["held"], told.page["num_fetched"]) == (0, 0)


def test_a_later_version_is_made_of_version_0_and_the_deltas(told: Any) -> None:
    told.office.next_version()
    announce(told)
    assert told.page["held"] == 1
    assert [get.digest for get in gets(told)] == digests_of_parts(told)[1:], "the delta and not the snapshot"
    assert told.page["num_fetched"] == 1


def test_it_is_made_on_the_compute_thread_and_the_site_is_said_to_fetch(told: Any) -> None:
    told.office.announce(initial=told.made)
    while not isinstance(told.compute.job, InitialJob):
        told.take_event()
    assert (told.page["phase"], told.page["held"]) == (Phase.FETCHING, None)


def test_a_site_that_holds_a_version_makes_none(told: Any) -> None:
    told.task.held_out = []
    announce(told, initial=None)
    told.task.model = unable
    told.office.next_version()
    announce(told)
    assert told.page["held"] == 1
    assert told.page["failures"][FailureKind.EXCEPTION] == 0


def test_it_is_not_made_for_an_announcement_that_the_policy_refuses(told: Any) -> None:
    announce(told, task="another")
    assert told.page["held"] is None
    assert told.compute.job is None
    assert told.page["refused"][RejectReason.TASK_NOT_ALLOWED] == 1


def test_where_another_model_comes_out_the_snapshot_is_downloaded(told: Any, caplog: pytest.LogCaptureFixture) -> None:
    announce(told, initial=Initial(seed=SEED + 1, model_digest=told.made.model_digest))
    assert [get.digest for get in gets(told)] == digests_of_parts(told)
    assert (told.page["held"], told.page["num_fetched"]) == (0, 1)
    assert "initial_model_differs" in caplog.messages


def unable() -> nn.Module:
    raise ValueError("a path of the hospital")


def test_where_the_task_raises_the_snapshot_is_downloaded_and_the_failure_counted(told: Any) -> None:
    told.task.model = unable
    announce(told)
    assert [get.digest for get in gets(told)] == digests_of_parts(told)
    assert told.page["held"] == 0
    assert told.page["failures"][FailureKind.EXCEPTION] == 2, "the model, and the evaluation, which needs it too"


def test_a_process_that_could_not_make_it_does_not_try_again_and_the_next_one_does(told: Any) -> None:
    told.task.held_out = []
    told.office.answers_gets = False
    told.task.model = unable
    announce(told)
    announce(told)
    assert told.page["failures"][FailureKind.EXCEPTION] == 1
    told.office.answers_gets = True
    told.wait(60)
    assert told.page["held"] == 0
    told.kill()
    shutil.rmtree(told.config.state_folder / "model")
    del told.task.model
    num_gets = len(gets(told))
    told.start()
    told.settle()
    assert told.page["held"] == 0
    assert len(gets(told)) == num_gets


def test_killed_when_it_was_saved_and_not_yet_taken_it_is_held_by_the_next_process(told: Any) -> None:
    told.office.announce(initial=told.made, state=FederationState.PAUSED)
    while not isinstance(told.compute.job, InitialJob):
        told.take_event()
    told.kill()
    told.task.held_out = []
    told.start()
    told.task.model = unable
    told.settle()
    assert told.page["held"] == 0
    assert told.page["failures"][FailureKind.EXCEPTION] == 0
    assert gets(told) == []


def test_a_newer_announcement_while_it_is_made_is_reached_from_it(told: Any) -> None:
    told.office.announce(initial=told.made, state=FederationState.PAUSED)
    while not isinstance(told.compute.job, InitialJob):
        told.take_event()
    told.office.next_version()
    announce(told)
    assert told.page["held"] == 1
    assert [get.digest for get in gets(told)] == digests_of_parts(told)[1:]


def test_deltas_that_lead_elsewhere_from_it_are_replaced_by_the_snapshot_and_it_is_not_made_again(told: Any) -> None:
    """A coordinator that names a version 0 which is not that of its deltas."""
    told.office.start_over(7.0)
    told.office.next_version()
    announce(told)
    assert told.page["refused"][RejectReason.DIGEST_MISMATCH] == 1
    assert told.page["held"] == 1
    assert {get.digest for get in gets(told)} == set(digests_of_parts(told))


def test_in_a_new_epoch_another_version_0_of_the_same_number_is_fetched(told: Any) -> None:
    announce(told)
    told.office.start_over(7.0)
    announce(told, initial=None, epoch=9)
    assert told.page["held"] == 0
    assert [get.digest for get in gets(told)] == digests_of_parts(told)


def test_a_training_brings_the_same_bytes_whether_version_0_was_made_or_downloaded(told: Any, tmp_path: Path) -> None:
    other = Hospital(site_config(tmp_path / "other"), MemoryBroker())
    other.office.start_over(told.office.vector_P)
    other.office.announce()
    announce(told, state=FederationState.RUNNING)
    other.settle()
    assert (len(gets(told)), len(gets(other))) == (0, 1)
    made, downloaded = (site.office.messages(Offer)[-1] for site in (told, other))
    assert (made.update_id, made.payload) == (downloaded.update_id, downloaded.payload)
