"""The agent's loop, end to end over the in-memory link, with kills between any two steps."""

import errno
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from edge_agent.jobs import AssembleJob
from fedward import topics
from fedward.errors import RejectReason
from fedward.messages import (
    Evaluation,
    FederationState,
    Get,
    Offer,
    Outcome,
    Phase,
    Receipt,
    Status,
    Telemetry,
)
from fedward.pack import SIZE_LIMITS
from fedward.topics import Down, Up


def outbox_files(hospital: Any) -> list[Path]:
    return sorted((hospital.config.state_folder / "outbox").iterdir())


def offers(hospital: Any) -> list[Offer]:
    return list(hospital.office.messages(Offer))


def trained_and_offered(hospital: Any) -> Offer:
    hospital.office.announce()
    hospital.settle()
    return offers(hospital)[-1]


def test_a_round_goes_from_announcement_to_receipt_in_order(hospital: Any) -> None:
    offer = trained_and_offered(hospital)
    levels = [topic.split("/")[6] for topic, _ in hospital.office.heard]
    assert levels.index("get") < levels.index("evaluation") < levels.index("offer")
    assert (offer.base_version, offer.sequence, offer.num_examples, offer.num_steps) == (0, 0, 8, 2)
    assert hospital.page["phase"] == Phase.PUBLISHING
    hospital.office.receipt(offer)
    hospital.settle()
    assert hospital.page["num_accepted"] == 1
    assert hospital.page["phase"] == Phase.IDLE
    assert outbox_files(hospital) == []


def test_a_version_is_assembled_on_the_compute_thread_and_the_loop_goes_on(hospital: Any) -> None:
    hospital.office.announce()
    while not isinstance(hospital.compute.job, AssembleJob):
        hospital.office.listen()
        hospital.take_event()
    assert hospital.page["held"] is None
    assert hospital.page["phase"] == Phase.FETCHING
    hospital.office.next_version()
    hospital.office.announce()
    hospital.settle()
    assert hospital.page["held"] == 1
    assert hospital.page["num_fetched"] == 2, "what was begun is held, and the newer version is made of it"


def test_each_version_is_trained_once(hospital: Any) -> None:
    for _ in range(3):
        hospital.office.receipt(trained_and_offered(hospital))
        hospital.settle()
        hospital.office.next_version()
    assert [offer.base_version for offer in offers(hospital)] == [0, 1, 2]
    assert len({offer.update_id for offer in offers(hospital)}) == 3


def test_repeat_base_trains_again_from_the_same_version_under_a_new_id(hospital: Any) -> None:
    hospital.office.announce(repeat_base=True)
    hospital.settle()
    hospital.office.receipt(offers(hospital)[-1])
    hospital.settle()
    first, second = offers(hospital)
    assert first.base_version == second.base_version
    assert first.update_id != second.update_id


def test_an_update_that_finds_the_disk_full_is_kept_and_saved_when_there_is_room(
    hospital: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    hospital.office.announce()
    while hospital.page["phase"] != Phase.TRAINING:
        hospital.office.listen()
        hospital.take_event()
    hospital.wait_for_compute()
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        hospital.agent.handle(hospital.inbox.get_nowait())
        assert (hospital.page["phase"], hospital.agent.unready) == (Phase.FULL, "no room on the disk")
    hospital.settle()
    assert hospital.page["phase"] == Phase.PUBLISHING
    assert offers(hospital)[-1].base_version == 0
    assert hospital.task.num_trainings == 1


def test_killed_after_saving_it_offers_the_same_update_without_training_again(hospital: Any) -> None:
    before = trained_and_offered(hospital)
    trainings = hospital.task.num_trainings
    hospital.restart()
    hospital.settle()
    assert offers(hospital)[-1] == before
    assert hospital.task.num_trainings == trainings


def test_killed_before_saving_it_trains_the_same_bytes_again_under_the_same_id(hospital: Any) -> None:
    before = trained_and_offered(hospital)
    hospital.kill()
    for path in outbox_files(hospital):
        path.unlink()
    (hospital.config.state_folder / "progress.json").unlink()
    hospital.start()
    hospital.settle()
    again = offers(hospital)[-1]
    assert (again.update_id, again.payload) == (before.update_id, before.payload)
    assert hospital.task.num_trainings == 2


def test_killed_between_outbox_and_progress_it_never_makes_the_id_twice(hospital: Any) -> None:
    first = trained_and_offered(hospital)
    hospital.kill()
    (hospital.config.state_folder / "progress.json").unlink()
    hospital.start()
    hospital.settle()
    hospital.office.receipt(first)
    hospital.settle()
    (hospital.config.state_folder / "outbox").rmdir()  # it is empty, and progress.json has caught up
    hospital.restart()
    hospital.office.announce(repeat_base=True)
    hospital.settle()
    assert offers(hospital)[-1].update_id != first.update_id
    assert hospital.task.num_trainings == 2


def test_killed_between_delete_and_count_it_does_not_train_the_version_again(hospital: Any) -> None:
    trained_and_offered(hospital)
    hospital.kill()
    progress = hospital.config.state_folder / "progress.json"
    progress.unlink()
    hospital.start()  # corrected by the outbox, and saved as corrected
    hospital.kill()
    for path in outbox_files(hospital):
        path.unlink()  # the receipt came, and the process died before it counted
    hospital.start()
    hospital.settle()
    assert hospital.task.num_trainings == 1


def test_training_that_ends_while_the_agent_leaves_is_saved(hospital: Any) -> None:
    may_train = threading.Event()
    hospital.task.held_out = []  # no evaluation, which would wait too
    hospital.task.before_loss = lambda: may_train.wait(10)
    hospital.office.announce()
    while hospital.page["phase"] != Phase.TRAINING:
        hospital.office.listen()
        hospital.take_event()
    may_train.set()
    hospital.wait_for_compute()
    assert outbox_files(hospital) == []
    hospital.run_until_told()
    assert len(outbox_files(hospital)) == 2


def checkpoint_of(hospital: Any) -> Path:
    return Path(hospital.config.state_folder / "training" / "checkpoint.safetensors")


def killed_in_step_two(hospital: Any) -> Offer:
    """The disk as a kill in the second step leaves it; the offer is what became of the same update without the kill."""
    steps: list[bytes | None] = []
    hospital.task.held_out = []

    def look() -> None:
        steps.append(checkpoint_of(hospital).read_bytes() if checkpoint_of(hospital).exists() else None)

    hospital.task.before_loss = look
    offer = trained_and_offered(hospital)
    hospital.kill()
    assert steps[0] is None
    assert steps[1] is not None
    checkpoint_of(hospital).write_bytes(steps[1])
    for path in outbox_files(hospital):
        path.unlink()
    (hospital.config.state_folder / "progress.json").unlink()
    hospital.num_steps_before = len(steps)
    hospital.task.before_loss = lambda: steps.append(None)
    hospital.steps = steps
    return offer


def steps_since_the_kill(hospital: Any) -> int:
    return len(hospital.steps) - int(hospital.num_steps_before)


@pytest.fixture
def saving(new_hospital: Any) -> Any:
    """A hospital that saves every step."""
    return new_hospital(checkpoint_s=0.0)


def test_killed_in_training_it_goes_on_from_the_checkpoint_to_the_same_update(saving: Any) -> None:
    whole = killed_in_step_two(saving)
    saving.start()
    saving.settle()
    resumed = offers(saving)[-1]
    assert (resumed.update_id, resumed.payload, resumed.num_steps) == (whole.update_id, whole.payload, whole.num_steps)
    assert steps_since_the_kill(saving) == 1
    assert not checkpoint_of(saving).exists()


def test_an_unfinished_update_is_finished_from_its_own_base_though_a_newer_version_is_out(saving: Any) -> None:
    whole = killed_in_step_two(saving)
    saving.office.next_version()
    saving.office.announce()
    saving.start()
    saving.settle()
    resumed = offers(saving)[-1]
    assert (resumed.base_version, resumed.payload) == (0, whole.payload)
    saving.office.receipt(resumed)
    saving.settle()
    assert [offer.base_version for offer in offers(saving)][-2:] == [0, 1]


def too_old(hospital: Any) -> dict[str, Any]:
    hospital.office.next_version()
    return {"max_staleness": 0}


def of_a_finished_federation(hospital: Any) -> dict[str, Any]:
    return {"state": FederationState.FINISHED}


def from_another_version_of_the_same_number(hospital: Any) -> dict[str, Any]:
    hospital.office.start_over(7.0)
    return {}


@pytest.mark.parametrize("change", [too_old, of_a_finished_federation, from_another_version_of_the_same_number])
def test_an_unfinished_update_that_can_no_longer_count_is_dropped(saving: Any, change: Any) -> None:
    whole = killed_in_step_two(saving)
    saving.office.announce(**change(saving))
    saving.start()
    saving.settle()
    assert not checkpoint_of(saving).exists()
    assert steps_since_the_kill(saving) in {0, 2}  # none, or all of a new update: never the rest of the old one
    assert whole.payload not in [offer.payload for offer in offers(saving)[1:]]


def test_killed_between_outbox_and_deleting_the_checkpoint_it_never_trains_that_update_again(saving: Any) -> None:
    killed_in_step_two(saving)
    left_behind = checkpoint_of(saving).read_bytes()
    saving.start()
    saving.settle()
    saving.kill()
    checkpoint_of(saving).write_bytes(left_behind)
    before = len(saving.steps)
    saving.start()
    saving.settle()
    assert len(saving.steps) == before
    assert not checkpoint_of(saving).exists()
    saving.office.receipt(offers(saving)[-1])
    saving.settle()
    saving.kill()
    checkpoint_of(saving).write_bytes(left_behind)
    saving.start()
    saving.settle()
    assert len(saving.steps) == before
    assert saving.page["num_accepted"] == 1


def test_an_agent_that_leaves_saves_its_training_and_the_next_process_goes_on(hospital: Any) -> None:
    in_step, may_go_on = threading.Event(), threading.Event()
    hospital.task.held_out = []
    hospital.task.before_loss = lambda: in_step.set() or may_go_on.wait(10)
    hospital.office.announce()
    while hospital.page["phase"] != Phase.TRAINING:
        hospital.office.listen()
        hospital.take_event()
    assert in_step.wait(10)
    threading.Timer(0.05, may_go_on.set).start()  # the step ends while the agent leaves
    hospital.run_until_told()
    assert hospital.office.messages(Status)[-1].leaving
    assert outbox_files(hospital) == []
    assert checkpoint_of(hospital).exists()
    before = len(steps := list[None]())
    hospital.task.before_loss = lambda: steps.append(None)
    hospital.start()
    hospital.settle()
    assert len(steps) - before == 1
    assert len(offers(hospital)) == 1


def test_a_repeated_or_older_announcement_changes_nothing(hospital: Any) -> None:
    old = hospital.office.announcement()
    hospital.office.next_version()
    new = hospital.office.announcement()
    hospital.office.announce(new)
    hospital.settle()
    before = len(hospital.office.heard)
    for announcement in (new, old):
        hospital.office.announce(announcement)
        hospital.settle()
    assert hospital.page["announced"] == 1
    assert len(hospital.office.heard) == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "other"}, RejectReason.TASK_NOT_ALLOWED),
        ({"layout_digest": bytes(32)}, RejectReason.LAYOUT_MISMATCH),
        ({"federation": "another"}, RejectReason.WRONG_FEDERATION),
        ({"codec": "zip"}, RejectReason.UNKNOWN_CODEC),
    ],
)
def test_what_is_not_allowed_is_counted_and_nothing_is_fetched(
    hospital: Any, changes: dict[str, Any], reason: RejectReason
) -> None:
    hospital.office.announce(**changes)
    hospital.settle()
    assert hospital.page["refused"][reason] == 1
    assert hospital.office.messages(Get) == []


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x80", b"x" * 2_000_000])
def test_bytes_that_are_no_message_are_counted_and_the_agent_goes_on(
    hospital: Any, broker: Any, payload: bytes
) -> None:
    for kind in (Down.GRANT, Down.RECEIPT, Down.CONTROL):
        broker.publish(topics.down("ward", "st-anna", kind), payload)
    broker.publish(topics.announce("ward"), payload)
    broker.publish("fl/v1/ward/dn/st-anna/what", payload)
    hospital.settle()
    assert sum(hospital.page["refused"].values()) == 5
    assert trained_and_offered(hospital)


def test_a_paused_site_measures_and_does_not_train_until_it_is_let_go(hospital: Any) -> None:
    hospital.office.pause_site(paused=True)
    hospital.office.announce()
    hospital.settle()
    assert hospital.office.messages(Evaluation)
    assert offers(hospital) == []
    assert hospital.page["phase"] == Phase.PAUSED
    hospital.office.pause_site(paused=False)
    hospital.settle()
    assert len(offers(hospital)) == 1


def test_an_older_control_is_ignored(hospital: Any) -> None:
    hospital.office.pause_site(paused=True)
    hospital.office.sequence -= 1
    hospital.office.pause_site(paused=False)
    hospital.office.announce()
    hospital.settle()
    assert hospital.page["phase"] == Phase.PAUSED


@pytest.mark.parametrize("state", [FederationState.PAUSED, FederationState.FINISHED])
def test_a_federation_that_does_not_run_is_measured_and_not_trained(hospital: Any, state: FederationState) -> None:
    hospital.office.announce(state=state)
    hospital.settle()
    assert [measured.version for measured in hospital.office.messages(Evaluation)] == [0]
    assert hospital.task.num_trainings == 0


def test_with_fewer_records_than_the_policy_asks_for_nothing_of_the_training_leaves(new_hospital: Any) -> None:
    hospital = new_hospital(policy={"min_examples": 9})
    hospital.office.announce()
    hospital.settle()
    hospital.wait(60)
    assert offers(hospital) == []
    assert hospital.office.messages(Telemetry)[-1].train_loss is None
    assert hospital.page["phase"] == Phase.FAILED
    assert hospital.task.num_trainings == 1


def test_a_failing_task_is_counted_and_its_words_stay_inside(hospital: Any, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("patient Weber, 1951")

    caplog.set_level(logging.DEBUG)
    hospital.task.held_out = hospital.task.records
    hospital.office.announce(state=FederationState.PAUSED)
    hospital.settle()
    hospital.task.before_loss = fail
    hospital.office.announce()
    hospital.settle()
    hospital.wait(60)
    assert hospital.page["failures"]["exception"] == 1  # tried once
    assert hospital.page["phase"] == Phase.FAILED
    assert not any("Weber" in str(vars(record)) for record in caplog.records)
    assert not any(b"Weber" in payload for _, payload in hospital.office.heard)
    hospital.task.before_loss = lambda: None
    hospital.office.next_version()
    hospital.office.announce()
    hospital.settle()
    assert [offer.base_version for offer in offers(hospital)] == [1]


def test_metrics_that_no_message_can_hold_are_a_failure_of_the_task_and_training_goes_on(hospital: Any) -> None:
    hospital.task.measured = {"patient Weber": (1.0, 2.0)}
    assert trained_and_offered(hospital)
    assert hospital.page["failures"]["exception"] == 1
    assert hospital.office.messages(Evaluation) == []
    assert not any(b"Weber" in payload for _, payload in hospital.office.heard)


def test_a_site_without_held_out_records_trains_and_tells_no_metrics(hospital: Any) -> None:
    hospital.task.held_out = []
    assert trained_and_offered(hospital)
    assert hospital.office.messages(Evaluation) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_death_of_the_compute_thread_ends_the_agent(hospital: Any) -> None:
    hospital.task.num_inputs = 3  # another model than at the start, which no failure of a task covers
    hospital.office.announce()
    with pytest.raises(RuntimeError, match="compute thread has died"):  # noqa: PT012 - whichever step sees it first
        hospital.settle()
        hospital.agent.step()


def test_a_new_coordinator_process_gets_the_offer_and_the_evaluation_again(hospital: Any) -> None:
    before = trained_and_offered(hospital)
    hospital.office.boot_id = b"12345678"
    hospital.office.announce()
    hospital.settle()
    assert offers(hospital) == [before, before]
    assert len(hospital.office.messages(Evaluation)) == 2


def test_a_new_connection_says_everything_again(hospital: Any) -> None:
    before = trained_and_offered(hospital)
    hospital.link.drop()
    hospital.settle()
    assert offers(hospital) == [before, before]
    assert [status.online for status in hospital.office.messages(Status)] == [
        True,
        True,
        True,
    ]  # links and a coordinator


def test_a_held_version_that_only_shares_its_number_is_fetched_anew(hospital: Any) -> None:
    hospital.office.announce(state=FederationState.PAUSED)
    hospital.settle()
    hospital.office.start_over(7.0)
    for restart in (lambda: None, hospital.restart):
        restart()
        hospital.office.announce(state=FederationState.PAUSED)
        hospital.settle()
    assert hospital.page["held"] == 0
    assert len(hospital.office.messages(Get)) == 2
    assert hospital.office.messages(Evaluation)[-1].metrics["loss"].numerator > 40


def test_deltas_on_a_wrong_base_are_replaced_by_the_snapshot_without_a_new_announcement(hospital: Any) -> None:
    hospital.office.announce(state=FederationState.PAUSED)
    hospital.settle()
    hospital.office.start_over(7.0)  # the held version 0 is not this federation's
    hospital.office.next_version()
    hospital.office.announce(state=FederationState.PAUSED)
    hospital.settle()
    assert hospital.page["refused"][RejectReason.DIGEST_MISMATCH] == 1
    assert hospital.page["held"] == 1


def test_an_announcement_that_leads_nowhere_is_refused_once_and_the_next_one_heals(hospital: Any) -> None:
    hospital.office.announce(model_digest=bytes(32))
    hospital.settle()
    hospital.wait(60)
    assert hospital.page["refused"][RejectReason.DIGEST_MISMATCH] == 1
    assert trained_and_offered(hospital)


def test_leaving_says_so(hospital: Any) -> None:
    hospital.settle()
    hospital.run_until_told()
    last = hospital.office.messages(Status)[-1]
    assert (last.online, last.leaving) == (False, True)


def test_a_kill_leaves_the_will(hospital: Any) -> None:
    hospital.settle()
    hospital.kill()
    last = hospital.office.messages(Status)[-1]
    assert (last.online, last.leaving) == (False, False)


def test_nothing_that_leaves_is_larger_than_its_kind_may_be(hospital: Any) -> None:
    hospital.office.receipt(trained_and_offered(hospital), Outcome.REFUSED)
    hospital.wait(60)
    limits: dict[Up | Down, int] = {
        Up.OFFER: SIZE_LIMITS[Offer],
        Up.GET: SIZE_LIMITS[Get],
        Up.EVALUATION: SIZE_LIMITS[Evaluation],
        Up.STATUS: SIZE_LIMITS[Status],
        Up.TELEMETRY: SIZE_LIMITS[Telemetry],
    }
    kinds = {topics.parse(topic).kind for topic, _ in hospital.office.heard}
    assert kinds == set(limits)
    assert all(len(payload) <= limits[topics.parse(topic).kind] for topic, payload in hospital.office.heard)


def test_a_refused_update_is_counted_and_dropped(hospital: Any) -> None:
    hospital.office.receipt(trained_and_offered(hospital), Outcome.REFUSED)
    hospital.settle()
    assert (hospital.page["num_refused"], hospital.page["num_accepted"]) == (1, 0)
    assert outbox_files(hospital) == []


def test_a_receipt_of_an_unknown_update_counts_nothing(hospital: Any) -> None:
    trained_and_offered(hospital)
    hospital.office.tell(Down.RECEIPT, Receipt(update_id=bytes(32), outcome=Outcome.ACCEPTED))
    hospital.settle()
    assert hospital.page["num_accepted"] == 0
    assert len(outbox_files(hospital)) == 2
