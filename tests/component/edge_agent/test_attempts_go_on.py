"""A training that failed or was left alone in the middle: its steps are not lost, unless they are of no use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from edge_agent.attempts import MOST_ATTEMPTS, TRY_AGAIN_S, Attempts, AttemptsFile
from fedward.messages import Offer, Phase, Work
from fedward.testing import MemoryBroker
from tests.support.hospital import Hospital
from tests.support.office import site_config

NUM_STEPS = 10
KILLED_AFTER = 6
"""Steps that are in the checkpoint when the process is killed in the next one."""

WORK = Work(local_epochs=NUM_STEPS, batch_size=8, local_lr=0.1)
EPOCH = 1000


class Steps:
    """What stands before each step: the disk as it is then, and a harm that the next steps may meet."""

    def __init__(self, hospital: Any) -> None:
        self._hospital = hospital
        self.disks: list[dict[Path, bytes]] = []
        self.harm: Callable[[], object] = lambda: None
        hospital.task.held_out = []
        hospital.task.before_loss = self._look

    @property
    def checkpoint(self) -> Path:
        return Path(self._hospital.config.state_folder / "training" / "checkpoint.safetensors")

    @property
    def attempts(self) -> Attempts:
        return AttemptsFile(self._hospital.config.state_folder / "attempts.json").now

    def _look(self) -> None:
        folder = Path(self._hospital.config.state_folder)
        self.disks.append({path: path.read_bytes() for path in folder.rglob("*") if path.is_file()})
        self.harm()

    def kill_in_the_last(self) -> None:
        """The process is gone, and the disk is as it was when the last step began."""
        hospital = self._hospital
        hospital.kill()
        for path in Path(hospital.config.state_folder).rglob("*"):
            if path.is_file() and path not in self.disks[-1]:
                path.unlink()
        for path, content in self.disks[-1].items():
            path.write_bytes(content)

    def num_begun(self) -> int:
        """Steps since this was asked last."""
        begun = len(self.disks)
        self.disks.clear()
        return begun


@pytest.fixture
def saving(new_hospital: Any) -> Any:
    """A hospital that saves every step."""
    return new_hospital(checkpoint_s=0.0)


@pytest.fixture
def steps(saving: Any) -> Steps:
    return Steps(saving)


def fail() -> None:
    raise ValueError


def fail_after(steps: Steps, num_done: int) -> None:
    """The next training fails in the step after these, counted from now."""
    steps.num_begun()
    steps.harm = lambda: fail() if len(steps.disks) > num_done else None


def left_alone_in_the_middle(hospital: Any, steps: Steps) -> None:
    """Killed in the same step until it is left alone."""
    hospital.office.announce(work=WORK)
    for num_done in (KILLED_AFTER, *[0] * MOST_ATTEMPTS):
        fail_after(steps, num_done)
        hospital.settle()
        steps.kill_in_the_last()
        hospital.start()
    hospital.settle()
    assert hospital.page["phase"] == Phase.FAILED
    assert steps.attempts.begun == MOST_ATTEMPTS
    steps.harm = lambda: None
    steps.num_begun()


def an_hour_later(hospital: Any) -> None:
    hospital.settle()  # sees when it was left alone
    hospital.wait(TRY_AGAIN_S)


def whole_update(folder: Path) -> Offer:
    """What a hospital like this one makes of it in one go."""
    hospital = Hospital(site_config(folder), MemoryBroker())
    hospital.task.held_out = []
    hospital.office.announce(work=WORK)
    hospital.settle()
    (offer,) = hospital.office.messages(Offer)
    return cast(Offer, offer)


def test_what_was_left_alone_in_the_middle_goes_on_from_its_checkpoint_an_hour_later(
    saving: Any, steps: Steps, tmp_path: Path
) -> None:
    left_alone_in_the_middle(saving, steps)
    an_hour_later(saving)
    assert steps.num_begun() == NUM_STEPS - KILLED_AFTER
    (offer,) = saving.office.messages(Offer)
    whole = whole_update(tmp_path / "whole")
    assert (offer.update_id, offer.num_steps, offer.payload) == (whole.update_id, NUM_STEPS, whole.payload)
    assert not steps.checkpoint.exists()


def test_a_retry_that_gets_further_before_it_is_killed_has_made_progress(saving: Any, steps: Steps) -> None:
    left_alone_in_the_middle(saving, steps)
    fail_after(steps, 2)
    an_hour_later(saving)
    steps.kill_in_the_last()
    steps.harm = lambda: None
    steps.num_begun()
    saving.start()
    saving.settle()
    assert steps.num_begun() == NUM_STEPS - KILLED_AFTER - 2
    assert len(saving.office.messages(Offer)) == 1


def test_a_retry_whose_checkpoint_is_gone_makes_progress_from_the_first_step(saving: Any, steps: Steps) -> None:
    left_alone_in_the_middle(saving, steps)
    steps.checkpoint.unlink()
    fail_after(steps, KILLED_AFTER - 2)
    an_hour_later(saving)
    steps.kill_in_the_last()
    steps.harm = lambda: None
    steps.num_begun()
    saving.start()
    saving.settle()
    assert steps.num_begun() == NUM_STEPS - KILLED_AFTER + 2


def test_the_steps_before_an_exception_are_kept_for_the_retry(saving: Any, steps: Steps) -> None:
    fail_after(steps, KILLED_AFTER)
    saving.office.announce(work=WORK)
    saving.settle()
    assert saving.page["failures"]["exception"] == 1
    steps.harm = lambda: None
    steps.num_begun()
    an_hour_later(saving)
    assert steps.num_begun() == NUM_STEPS - KILLED_AFTER


def test_the_steps_before_a_loss_that_is_not_finite_are_worth_nothing(saving: Any, steps: Steps) -> None:
    saving.office.announce(work=Work(local_epochs=200, batch_size=8, local_lr=1e6))
    saving.settle()
    assert saving.page["failures"]["not_finite"] == 1
    assert len(steps.disks) > 1
    assert not steps.checkpoint.exists()


def test_a_retry_for_other_work_begins_anew(saving: Any, steps: Steps) -> None:
    left_alone_in_the_middle(saving, steps)
    saving.office.announce(work=Work(local_epochs=NUM_STEPS, batch_size=8, local_lr=0.2))
    saving.settle()
    assert steps.num_begun() == NUM_STEPS


def test_a_retry_from_another_model_of_the_same_number_begins_anew(saving: Any, steps: Steps) -> None:
    """Its update would have the same id: only the model tells the two apart."""
    left_alone_in_the_middle(saving, steps)
    saving.office.start_over(0.25)
    saving.office.sequence = EPOCH
    saving.office.announce(work=WORK, epoch=EPOCH)
    saving.settle()
    assert steps.num_begun() == NUM_STEPS
