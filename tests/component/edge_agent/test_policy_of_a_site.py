"""A hospital that refuses, pauses or restricts: what the coordinator sees of it, and that it goes on when it may."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.approvals import ApprovalsFile, Decision, pending
from edge_agent.permission import LOOK_S
from edge_agent.policy import TELLABLE
from fedward.messages import Evaluation, Get, Offer, Phase, Status, Telemetry, Work
from fedward.pack import unpack
from tests.support.hospital import Hospital
from tests.support.office import FEDERATION, SITE, TASK

BY_HAND = {"approval": "by hand"}
TEN_STEPS = Work(local_epochs=5, batch_size=4, local_lr=0.1)
NOON_IS_CLOSED = {"hours": {"time_zone": "UTC", "open": ["tue 22:00-23:00"]}}
"""The bench's clock begins on a Tuesday at 22:13:20 UTC."""


def change_policy(hospital: Hospital, text: str | None = None, **policy: Any) -> None:
    """Write the hospital's file again, and let the agent look."""
    path = hospital.config.policy_file
    assert path is not None
    path.write_text(yaml.safe_dump({"approval": "automatic", **policy}) if text is None else text)
    hospital.wait(LOOK_S)


def approvals(hospital: Hospital) -> ApprovalsFile:
    return ApprovalsFile(hospital.config.state_folder / "approvals.json")


def heard_since(hospital: Hospital, number: int) -> list[tuple[str, bytes]]:
    hospital.office.listen()
    return hospital.office.heard[number:]


def nothing_but_the_phase(messages: list[tuple[str, bytes]]) -> bool:
    """Presence, and telemetry that says no more than that this site refuses; not a byte of why."""
    for topic, payload in messages:
        kind = topic.split("/")[6]
        if kind == "status":
            unpack(payload, Status)
        elif kind == "telemetry":
            telemetry = unpack(payload, Telemetry)
            if telemetry != Telemetry(boot_id=telemetry.boot_id, phase=Phase.REFUSED_BY_POLICY):
                return False
        else:
            return False
    return all(topic.split("/")[2:5:2] == [FEDERATION, SITE] for topic, _ in messages)


def announced(hospital: Hospital, **changes: Any) -> None:
    hospital.office.announce(**changes)
    hospital.settle()


@pytest.mark.parametrize(
    ("policy", "refusal"),
    [
        ({"federations": []}, "federation"),
        ({"federations": ["other"]}, "federation"),
        ({"tasks": {}}, "task"),
        ({"tasks": {TASK: ["1" * 64]}}, "task_digest"),
        ({"codecs": ["eden1"]}, "codec"),
        (BY_HAND, "pending"),
    ],
)
def test_of_a_refusal_the_coordinator_sees_a_phase_and_nothing_more(
    new_hospital: Callable[..., Hospital], caplog: pytest.LogCaptureFixture, policy: dict[str, Any], refusal: str
) -> None:
    hospital = new_hospital(policy=policy)
    announced(hospital)
    before = len(hospital.office.heard)
    for _ in range(3):
        hospital.office.next_version()
        announced(hospital)
        hospital.wait(60)
    messages = heard_since(hospital, before)
    assert len(messages) >= 3
    assert nothing_but_the_phase(messages)
    assert (
        hospital.office.messages(Get) == hospital.office.messages(Evaluation) == hospital.office.messages(Offer) == []
    )
    assert hospital.page["refused_by_policy"] == refusal
    told = [record for record in caplog.records if record.msg == "refused_by_policy"]
    assert [record.__dict__["refusal"] for record in told] == [refusal], "once, in the hospital's own log"
    assert hospital.task.num_trainings == 0


def test_a_task_that_the_agent_is_not_configured_for_is_refused_by_the_same_phase(hospital: Hospital) -> None:
    announced(hospital, task="other")
    hospital.wait(60)
    assert hospital.page["refused"]["task_not_allowed"] == 1
    assert hospital.office.messages(Telemetry)[-1] == Telemetry(
        boot_id=hospital.office.messages(Status)[-1].boot_id, phase=Phase.REFUSED_BY_POLICY
    )


def test_what_a_person_approves_begins_within_seconds_and_outlives_restarts(
    new_hospital: Callable[..., Hospital],
) -> None:
    hospital = new_hospital(policy=BY_HAND)
    announced(hospital)
    (request,) = pending(approvals(hospital).load())
    hospital.restart()
    hospital.settle()
    assert pending(approvals(hospital).load()) == [request], "asked once"
    approvals(hospital).decide(request, Decision.APPROVED, 1.0)
    hospital.wait(LOOK_S)
    hospital.office.receipt(hospital.office.messages(Offer)[-1])
    hospital.restart()
    hospital.office.next_version()
    announced(hospital)
    assert hospital.office.messages(Offer)[-1].base_version == 1


def test_what_a_person_denies_ends_at_once_whatever_was_approved_before(hospital: Hospital) -> None:
    announced(hospital)
    (request,) = approvals(hospital).load()
    approvals(hospital).decide(request, Decision.DENIED, 1.0)
    hospital.wait(LOOK_S)
    before = len(hospital.office.heard)
    hospital.office.next_version()
    announced(hospital)
    hospital.wait(300)
    assert nothing_but_the_phase(heard_since(hospital, before))
    assert hospital.page["refused_by_policy"] == "denied"


def test_a_changed_task_asks_again_and_so_does_another_kind_of_work(new_hospital: Callable[..., Hospital]) -> None:
    hospital = new_hospital(policy=BY_HAND)
    announced(hospital)
    approvals(hospital).decide(None, Decision.APPROVED, 1.0)
    hospital.wait(LOOK_S)
    assert hospital.page["phase"] == "publishing"
    hospital.source_digest = "1" * 64
    hospital.restart()
    hospital.settle()
    assert (hospital.page["phase"], hospital.page["refused_by_policy"]) == ("refused_by_policy", "pending")
    approvals(hospital).decide(None, Decision.APPROVED, 1.0)
    announced(hospital, work=Work(local_epochs=500, batch_size=4, local_lr=0.1))
    assert hospital.page["refused_by_policy"] == "pending"
    assert len(approvals(hospital).load()) == 3


def test_damaged_approvals_allow_nothing_until_they_are_restored(hospital: Hospital) -> None:
    announced(hospital)
    whole = approvals(hospital).path.read_bytes()
    approvals(hospital).path.write_bytes(whole[:-5])
    hospital.wait(LOOK_S)
    assert hospital.page["refused_by_policy"] == "unreadable"
    approvals(hospital).path.write_bytes(whole)
    hospital.wait(LOOK_S)
    assert hospital.page["refused_by_policy"] is None


@pytest.mark.parametrize("text", ["compute_share: [", "compute_share: 7", "federations: [ward]\nunheard_of: 1", ""])
def test_a_broken_file_allows_nothing_until_it_is_corrected(hospital: Hospital, text: str) -> None:
    announced(hospital)
    assert hospital.page["phase"] == Phase.PUBLISHING
    change_policy(hospital, text)
    before = len(hospital.office.heard)
    hospital.link.drop()  # what is said at a new connection must not say more either
    hospital.office.next_version()
    announced(hospital)
    hospital.wait(300)
    assert nothing_but_the_phase(heard_since(hospital, before))
    assert hospital.page["refused_by_policy"] == "unreadable"
    change_policy(hospital)
    assert hospital.office.messages(Telemetry)[-1].phase is Phase.PUBLISHING
    hospital.office.receipt(hospital.office.messages(Offer)[-1])
    hospital.settle()
    assert hospital.office.messages(Offer)[-1].base_version == 1


def test_a_file_that_is_broken_at_the_start_is_no_crash(new_hospital: Callable[..., Hospital], tmp_path: Path) -> None:
    hospital = new_hospital(policy_file=tmp_path / "nowhere.yaml")
    announced(hospital)
    hospital.wait(60)
    assert nothing_but_the_phase(heard_since(hospital, 0)[1:])
    assert hospital.page["refused_by_policy"] == "unreadable"


def during_step(hospital: Hospital, number: int, act: Callable[[], object]) -> None:
    """Do something while the first training computes this step, and give the agent's loop a turn."""
    losses = itertools.count(0)  # the one before the first step is that of the measurement

    def before_loss() -> None:
        if next(losses) == number:
            act()
            hospital.agent.step()  # the loop's thread waits for this one

    hospital.task.before_loss = before_loss


def test_training_ends_with_the_hours_and_goes_on_in_the_next_ones_to_the_same_update(
    new_hospital: Callable[..., Hospital], tmp_path: Path
) -> None:
    hospital = new_hospital(policy={**NOON_IS_CLOSED, "telemetry": ["step"]})
    during_step(hospital, 4, lambda: hospital.clock.advance(3600))
    announced(hospital, work=TEN_STEPS)
    hospital.wait(60)
    assert (hospital.page["phase"], hospital.page["refused_by_policy"]) == ("refused_by_policy", "hours")
    assert hospital.office.messages(Telemetry)[-1].phase is Phase.REFUSED_BY_POLICY
    assert hospital.office.messages(Offer) == []
    hospital.restart()
    announced(hospital, work=TEN_STEPS)
    assert hospital.office.messages(Offer) == []
    hospital.wait(7 * 86_400 - 3600)
    (offer,) = {offer.update_id: offer for offer in hospital.office.messages(Offer)}.values()
    whole = new_hospital(state_folder=tmp_path / "uninterrupted")
    whole.office.heard.clear()
    announced(whole, work=TEN_STEPS)
    assert whole.office.messages(Offer)[-1].manifest == offer.manifest
    assert (hospital.task.num_trainings, offer.num_steps) == (2, 10)


def test_outside_the_hours_versions_come_and_finished_updates_go(new_hospital: Callable[..., Hospital]) -> None:
    hospital = new_hospital(policy=NOON_IS_CLOSED)
    announced(hospital)
    hospital.clock.advance(3600)
    hospital.office.next_version()
    announced(hospital)
    hospital.office.receipt(hospital.office.messages(Offer)[-1])
    hospital.settle()
    assert (hospital.page["held"], hospital.page["num_accepted"]) == (1, 1)
    assert [evaluation.version for evaluation in hospital.office.messages(Evaluation)] == [0]
    assert hospital.task.num_trainings == 1


def test_a_policy_that_refuses_in_the_middle_of_training_ends_it_within_a_step(hospital: Hospital) -> None:
    def refuse() -> None:
        assert hospital.config.policy_file is not None
        hospital.config.policy_file.write_text("federations: []")
        hospital.clock.advance(LOOK_S)

    during_step(hospital, 4, refuse)
    announced(hospital, work=TEN_STEPS)
    assert hospital.page["refused_by_policy"] == "federation"
    checkpoint = hospital.compute.unfinished(1.0, 1)
    assert checkpoint is not None
    assert checkpoint.num_done == 4
    change_policy(hospital)
    assert hospital.office.messages(Offer)[-1].num_steps == 10
    assert hospital.task.num_trainings == 2


def test_another_share_holds_from_the_next_step_on(hospital: Hospital) -> None:
    def lower() -> None:
        assert hospital.config.policy_file is not None
        hospital.config.policy_file.write_text("{approval: automatic, compute_share: 0.99}")
        hospital.clock.advance(LOOK_S)

    during_step(hospital, 4, lower)
    announced(hospital, work=TEN_STEPS)
    assert (hospital.office.messages(Offer)[-1].num_steps, hospital.task.num_trainings) == (10, 2)


@pytest.mark.parametrize("policy", [{"codecs": ["eden1"]}, {"min_examples": 9}])
def test_a_finished_update_that_could_not_be_made_any_more_stays(hospital: Hospital, policy: dict[str, Any]) -> None:
    announced(hospital, codecs=("eden1",))
    before = len(hospital.office.messages(Offer))
    change_policy(hospital, **policy)
    hospital.wait(600)
    assert len(hospital.office.messages(Offer)) == before
    assert (hospital.page["phase"], hospital.page["refused_by_policy"]) == ("refused_by_policy", "update")
    change_policy(hospital)
    hospital.wait(1)
    assert len(hospital.office.messages(Offer)) == before + 1
    assert hospital.page["refused_by_policy"] is None


def test_an_update_that_was_held_back_and_is_gone_refuses_nothing_any_more(hospital: Hospital) -> None:
    announced(hospital, codecs=("eden1",))
    offer = hospital.office.messages(Offer)[-1]
    change_policy(hospital, codecs=["eden1"])
    assert hospital.page["refused_by_policy"] == "update"
    hospital.office.receipt(offer)
    hospital.wait(LOOK_S)
    assert (hospital.page["phase"], hospital.page["refused_by_policy"]) == (Phase.IDLE, None)


def test_nothing_is_measured_or_told_that_the_policy_does_not_name(new_hospital: Callable[..., Hospital]) -> None:
    hospital = new_hospital(policy={"telemetry": ["version", "bytes_sent"]})
    announced(hospital)
    hospital.wait(60)
    assert hospital.office.messages(Evaluation) == []
    unnamed = set(TELLABLE) - {"version", "bytes_sent", "evaluation"}
    for telemetry in hospital.office.messages(Telemetry):
        assert not {name for name in unnamed if getattr(telemetry, name) is not None}
    assert hospital.office.messages(Telemetry)[-1].version == 0


def test_fewer_records_than_before_may_be_enough_at_once(new_hospital: Callable[..., Hospital]) -> None:
    hospital = new_hospital(policy={"min_examples": 9})
    announced(hospital)
    assert hospital.page["phase"] == Phase.FAILED
    change_policy(hospital, min_examples=8)
    assert hospital.page["phase"] == Phase.PUBLISHING


def test_the_verdict_is_on_disk_for_status(hospital: Hospital) -> None:
    announced(hospital)
    change_policy(hospital, federations=[])
    verdict = json.loads((hospital.config.state_folder / "permission.json").read_text())
    assert verdict["refusal"] == "federation"
    assert f"federation {FEDERATION} is not among" in verdict["detail"]
