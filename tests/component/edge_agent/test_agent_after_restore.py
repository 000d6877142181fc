"""An agent whose coordinator was restored from a backup: it goes back, trains again, and says what it trained from."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.jobs import EvaluateJob
from edge_agent.progress import Progress, ProgressFile
from fedward.layout import vector_digest
from fedward.messages import Evaluation, FederationState, Offer

EPOCH = 1000


def deliver(hospital: Any, **announced: Any) -> Offer:
    """A version is announced, trained from, and receipted."""
    hospital.office.announce(**announced)
    hospital.settle()
    offer: Offer = list(hospital.office.messages(Offer))[-1]
    hospital.office.receipt(offer)
    hospital.settle()
    return offer


def num_offers(hospital: Any) -> int:
    return len({offer.update_id for offer in hospital.office.messages(Offer)})


def test_an_offer_names_the_model_that_it_was_trained_from(hospital: Any) -> None:
    offer = deliver(hospital)
    assert offer.base_digest == vector_digest(hospital.office.vector_P)


def test_what_was_receipted_before_a_restore_is_trained_again_under_another_id(hospital: Any) -> None:
    before = deliver(hospital)
    hospital.office.sequence = EPOCH
    after = deliver(hospital, epoch=EPOCH)
    assert (after.base_version, after.base_digest) == (before.base_version, before.base_digest)
    assert after.update_id != before.update_id


def test_within_an_epoch_a_version_is_trained_once(hospital: Any) -> None:
    for boot in range(3):
        hospital.office.boot_id = bytes([boot]) * 8
        deliver(hospital, epoch=EPOCH)
    assert hospital.task.num_trainings == 1


def test_an_agent_goes_back_to_an_older_version_that_a_restored_coordinator_announces(hospital: Any) -> None:
    deliver(hospital)
    first_P = hospital.office.vector_P
    parts = list(hospital.office.parts)
    hospital.office.next_version()
    assert deliver(hospital).base_version == 1
    hospital.office.version, hospital.office.vector_P, hospital.office.parts = 0, first_P, parts
    hospital.office.sequence = EPOCH
    assert deliver(hospital, epoch=EPOCH).base_version == 0


def test_a_late_copy_of_an_announcement_from_before_the_restore_changes_nothing(hospital: Any) -> None:
    late = hospital.office.announcement(version=7)
    hospital.office.sequence = EPOCH
    deliver(hospital, epoch=EPOCH)
    hospital.office.announce(late)
    hospital.settle()
    assert hospital.page["announced"] == 0


def told(hospital: Any) -> list[tuple[int, bytes | None]]:
    """Which models this site told a measurement of."""
    return [(measured.version, measured.model_digest) for measured in hospital.office.messages(Evaluation)]


def test_an_evaluation_that_is_sent_before_the_restored_coordinator_is_heard_names_its_model(hospital: Any) -> None:
    deliver(hospital)
    before = vector_digest(hospital.office.vector_P)
    hospital.office.start_over(0.25)
    hospital.link.drop()
    hospital.settle()
    assert told(hospital) == [(0, before), (0, before)]
    hospital.office.sequence = EPOCH
    deliver(hospital, epoch=EPOCH)
    assert told(hospital)[2:] == [(0, vector_digest(hospital.office.vector_P))]


def test_a_model_that_takes_its_number_from_one_that_is_being_measured_is_measured_too(hospital: Any) -> None:
    old, may_go_on = vector_digest(hospital.office.vector_P), threading.Event()
    hospital.task.before_loss = lambda: may_go_on.wait(10)
    hospital.office.announce(state=FederationState.PAUSED)
    while not isinstance(hospital.compute.job, EvaluateJob):
        hospital.office.listen()
        hospital.take_event()
    hospital.office.start_over(0.25)
    hospital.office.sequence = EPOCH
    hospital.office.announce(epoch=EPOCH, state=FederationState.PAUSED)
    hospital.take_events()
    may_go_on.set()
    hospital.settle()
    assert told(hospital) == [(0, old), (0, vector_digest(hospital.office.vector_P))]


def test_a_model_that_takes_the_number_of_one_that_could_not_be_measured_is_measured(hospital: Any) -> None:
    hospital.task.measured = {"no metric": (1.0, 2.0)}
    hospital.office.announce(state=FederationState.PAUSED)
    hospital.settle()
    assert hospital.page["failures"]["exception"] == 1
    hospital.task.measured = None
    hospital.office.start_over(0.25)
    hospital.office.announce(state=FederationState.PAUSED)
    hospital.settle()
    assert told(hospital) == [(0, vector_digest(hospital.office.vector_P))]


def test_another_model_of_the_same_number_is_measured_and_trained_from(hospital: Any) -> None:
    deliver(hospital)
    hospital.office.start_over(0.25)
    hospital.office.sequence = EPOCH
    after = deliver(hospital, epoch=EPOCH)
    assert after.base_digest == vector_digest(np.full(hospital.office.layout.size, 0.25, np.float32))
    assert [measured.version for measured in hospital.office.messages(Evaluation)][-2:] == [0, 0]


@pytest.mark.parametrize(("epoch", "trained_from"), [(0, 4), (EPOCH, 4), (EPOCH + 1, None)])
def test_only_a_greater_epoch_makes_progress_forget(epoch: int, trained_from: int | None) -> None:
    saved = Progress(sequence=9, trained_from=4, num_accepted=7, base_digest="ab", epoch=EPOCH)
    after = saved.in_epoch(epoch)
    assert after.trained_from == trained_from
    assert (after.sequence, after.num_accepted, after.epoch) == (9, 7, max(epoch, EPOCH))


def test_a_version_was_trained_from_only_if_its_bits_were(tmp_path: Path) -> None:
    saved = Progress(trained_from=4, base_digest=b"bits".hex())
    assert saved.trained(4, b"bits")
    assert not saved.trained(4, b"other bits")
    assert not saved.trained(5, b"bits")
    assert Progress(trained_from=4).trained(4, b"of an older release, which saved no digest")
    ProgressFile(tmp_path / "progress.json").save(saved)
    assert ProgressFile(tmp_path / "progress.json").load([]) == saved
