"""A version that this site can't train from: tried a few times over restarts, then left alone, and said so."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.attempts import MOST_ATTEMPTS, TRY_AGAIN_S
from edge_agent.metrics import exposition
from fedward.messages import Offer, Phase, Telemetry, Work


def fail() -> None:
    raise ValueError


@pytest.fixture
def failing(hospital: Any) -> Any:
    """Every training raises; the version is announced, and tried once."""
    hospital.task.held_out = []
    hospital.task.before_loss = fail
    hospital.office.announce()
    hospital.settle()
    return hospital


def attempts_file(hospital: Any) -> Path:
    return Path(hospital.config.state_folder / "attempts.json")


def restart_until_left_alone(hospital: Any) -> None:
    for _ in range(MOST_ATTEMPTS + 2):
        hospital.restart()
        hospital.settle()


def num_offers(hospital: Any) -> int:
    return len(hospital.office.messages(Offer))


def test_a_version_that_always_fails_is_tried_as_often_as_allowed_whatever_the_restarts(failing: Any) -> None:
    assert failing.task.num_trainings == 1
    restart_until_left_alone(failing)
    assert failing.task.num_trainings == MOST_ATTEMPTS


def test_a_version_that_is_left_alone_is_told_by_phase_metric_and_log(
    failing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    restart_until_left_alone(failing)
    caplog.clear()
    caplog.set_level(logging.INFO)
    failing.restart()
    failing.settle()
    failing.wait(60)
    assert failing.page["phase"] == Phase.FAILED
    assert failing.office.messages(Telemetry)[-1].phase is Phase.FAILED
    assert f"fed_agent_train_attempts {float(MOST_ATTEMPTS)}" in exposition(failing.page)
    (line,) = [record for record in caplog.records if record.msg == "left_alone"]
    assert "runbook" in vars(line)["advice"]


def heal_by_the_next_version(hospital: Any) -> None:
    hospital.office.next_version()
    hospital.office.announce()


def heal_by_other_work(hospital: Any) -> None:
    hospital.office.announce(work=Work(local_epochs=1, batch_size=2, local_lr=0.1))


def heal_by_a_new_release(hospital: Any) -> None:
    hospital.kill()
    hospital.release = "tiny 2"
    hospital.start()


def heal_by_another_configuration(hospital: Any) -> None:
    hospital.kill()
    hospital.config = hospital.config.model_copy(update={"threads": 2})
    hospital.start()


def heal_by_hand(hospital: Any) -> None:
    hospital.kill()
    attempts_file(hospital).unlink()
    hospital.start()


def heal_by_waiting(hospital: Any) -> None:
    hospital.clock.advance(TRY_AGAIN_S)


def test_what_goes_on_failing_is_tried_once_an_hour(failing: Any) -> None:
    restart_until_left_alone(failing)
    for hours in range(1, 4):
        failing.wait(TRY_AGAIN_S - 1)
        assert failing.task.num_trainings == MOST_ATTEMPTS + hours - 1
        failing.wait(1)
        assert failing.task.num_trainings == MOST_ATTEMPTS + hours
        failing.restart()
        failing.settle()
        assert failing.task.num_trainings == MOST_ATTEMPTS + hours


@pytest.mark.parametrize(
    "heal",
    [
        heal_by_waiting,
        heal_by_the_next_version,
        heal_by_other_work,
        heal_by_a_new_release,
        heal_by_another_configuration,
        heal_by_hand,
    ],
)
def test_what_may_end_otherwise_is_tried_again(failing: Any, heal: Callable[[Any], None]) -> None:
    restart_until_left_alone(failing)
    failing.task.before_loss = lambda: None
    failing.restart()
    failing.settle()
    assert num_offers(failing) == 0
    heal(failing)
    failing.settle()
    assert num_offers(failing) == 1
    assert failing.page["attempts"] == 0


def test_the_death_of_a_process_in_training_is_counted_and_told(hospital: Any) -> None:
    left_behind: list[bytes] = []
    hospital.task.held_out = []
    hospital.task.before_loss = lambda: left_behind.append(attempts_file(hospital).read_bytes())
    hospital.office.announce()
    hospital.settle()
    assert not attempts_file(hospital).exists(), "training has ended"
    hospital.kill()
    attempts_file(hospital).write_bytes(left_behind[0])  # as a kill in the first step leaves it
    hospital.start()
    assert hospital.page["failures"]["crashed"] == 1
    assert hospital.page["attempts"] == 1


def test_what_was_left_alone_in_the_middle_does_not_come_back_in_place_of_the_next_version(new_hospital: Any) -> None:
    """Otherwise a kill before the first checkpoint of the next version would resume the training that kills."""
    hospital = new_hospital(checkpoint_s=0.0)
    checkpoint = hospital.config.state_folder / "training" / "checkpoint.safetensors"
    saved: list[bytes] = []
    hospital.task.held_out = []
    hospital.task.before_loss = lambda: saved.append(checkpoint.read_bytes() if checkpoint.exists() else b"")
    hospital.office.announce()
    begin_and_kill(hospital)
    attempts = json.loads(attempts_file(hospital).read_text())
    attempts_file(hospital).write_text(json.dumps({**attempts, "begun": MOST_ATTEMPTS, "step": 1}))
    checkpoint.write_bytes(saved[1])
    hospital.start()
    hospital.settle()
    assert (hospital.page["phase"], num_offers(hospital)) == (Phase.FAILED, 0)
    saved.clear()
    heal_by_the_next_version(hospital)
    hospital.settle()
    assert saved[0] == b""
    assert hospital.office.messages(Offer)[-1].base_version == 1


def begin_and_kill(hospital: Any) -> None:
    """Train the announced version to its end, and die before the loop hears of it."""
    while hospital.page["phase"] != Phase.TRAINING:
        hospital.office.listen()
        hospital.take_event()
    hospital.kill()


def test_a_process_that_left_in_order_has_made_no_attempt(hospital: Any) -> None:
    hospital.task.held_out = []
    hospital.office.announce()
    while hospital.page["phase"] != Phase.TRAINING:
        hospital.office.listen()
        hospital.take_event()
    assert attempts_file(hospital).exists()
    hospital.run_until_told()
    hospital.start()
    assert (hospital.page["attempts"], hospital.page["failures"]["crashed"]) == (0, 0)
