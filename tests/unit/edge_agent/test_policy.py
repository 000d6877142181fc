"""What the hospital allows: an announcement passes only if every point of it is allowed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_agent.policy import (
    NOTHING,
    TELLABLE,
    Approving,
    PolicySettings,
    Refusal,
    WorkOrder,
    allowed_codecs,
    check_announcement,
    check_federation,
    check_update,
    kind_of_work,
    order_of,
)
from edge_agent.policy_file import load_policy
from fedward.messages import LocalOptimizer, Work
from tests.support.office import FEDERATION, TASK, offer_of

EXAMPLE = Path(__file__).parents[3] / "examples" / "policy.yaml"
DIGEST, OTHER = "1" * 64, "2" * 64


def refusal(office: Any, policy: PolicySettings, **changes: Any) -> Refusal | None:
    announcement = office.announcement(**changes)
    return check_announcement(announcement, order_of(announcement, {TASK: DIGEST}), policy).refusal


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"federations": [FEDERATION, "other"]},
        {"tasks": {TASK: "any"}},
        {"tasks": {TASK: [OTHER, DIGEST], "other": "any"}},
        {"codecs": ["f32"]},
    ],
)
def test_an_allowed_announcement_passes(office: Any, policy: dict[str, Any]) -> None:
    assert refusal(office, PolicySettings(**policy)) is None


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"federations": []}, Refusal.FEDERATION),
        ({"federations": ["other"]}, Refusal.FEDERATION),
        ({"tasks": {}}, Refusal.TASK),
        ({"tasks": {"other": "any"}}, Refusal.TASK),
        ({"tasks": {TASK: []}}, Refusal.TASK_DIGEST),
        ({"tasks": {TASK: [OTHER]}}, Refusal.TASK_DIGEST),
        ({"codecs": ["eden1"]}, Refusal.CODEC),
    ],
)
def test_one_point_that_is_not_allowed_is_enough_to_refuse(
    office: Any, policy: dict[str, Any], reason: Refusal
) -> None:
    assert refusal(office, PolicySettings(**policy)) is reason


def test_a_task_that_the_agent_is_not_configured_for_is_refused_even_if_the_policy_names_it(office: Any) -> None:
    assert refusal(office, PolicySettings(tasks={"other": "any"}), task="other") is Refusal.TASK


def test_where_the_file_can_not_be_read_nothing_passes_and_nothing_is_told(office: Any) -> None:
    assert refusal(office, NOTHING) is Refusal.FEDERATION
    assert not check_federation(FEDERATION, NOTHING).allowed
    assert NOTHING.telemetry == []


@pytest.mark.parametrize(
    ("codecs", "policy", "left"),
    [
        (None, None, ("eden4",)),  # of an older coordinator
        (("q8", "eden4", "eden2"), None, ("eden4", "q8", "eden2")),
        (("q8", "eden2"), ["eden2", "eden1"], ("eden2",)),
        (("of-tomorrow", "eden2"), None, ("eden4", "eden2")),
        (("uqz", "eden2"), None, ("eden4", "eden2")),  # the first of them only carries models
        (("q8",), ["eden1"], ()),
    ],
)
def test_updates_leave_in_codecs_that_the_federation_takes_and_the_policy_allows(
    office: Any, codecs: tuple[str, ...] | None, policy: list[str] | None, left: tuple[str, ...]
) -> None:
    announcement = office.announcement(codec="eden4", codecs=codecs)
    assert allowed_codecs(announcement, PolicySettings(codecs=policy)) == left


@pytest.mark.parametrize(
    ("policy", "reason"),
    [({"codecs": ["f32"], "min_examples": 8}, None), ({"codecs": ["q8"]}, Refusal.UPDATE),
     ({"min_examples": 9}, Refusal.UPDATE)],
)  # fmt: skip
def test_a_finished_update_leaves_only_if_it_could_still_be_made(
    policy: dict[str, Any], reason: Refusal | None
) -> None:
    assert check_update(offer_of(), PolicySettings(**policy)).refusal is reason


ORDER = WorkOrder("ward", "sepsis", DIGEST, "sgd, at most 1 epoch a round")


@given(st.sampled_from(["federation", "task", "task_digest", "work"]), st.text(min_size=1))
def test_another_part_of_an_order_is_another_request(field: str, value: str) -> None:
    other = replace(ORDER, **{field: value})
    assert (other.id == ORDER.id) == (other == ORDER)


def work(**changes: Any) -> Work:
    return Work(**{"local_epochs": 1, "batch_size": 4, "local_lr": 0.1, **changes})


@pytest.mark.parametrize(
    ("epochs", "kind"),
    [(1, "sgd, at most 1 epoch a round"), (2, "sgd, at most 10 epochs a round"), (10, "sgd, at most 10 epochs a round"),
     (11, "sgd, at most 100 epochs a round"), (100, "sgd, at most 100 epochs a round"),
     (10_000, "sgd, at most 10000 epochs a round")],
)  # fmt: skip
def test_ten_times_more_epochs_are_another_kind_of_work(epochs: int, kind: str) -> None:
    assert kind_of_work(work(local_epochs=epochs)) == kind


def test_another_optimizer_is_another_kind_of_work_and_a_learning_rate_is_not() -> None:
    assert kind_of_work(work(optimizer=LocalOptimizer.ADAM)) != kind_of_work(work())
    assert kind_of_work(work(local_lr=9.0, batch_size=1)) == kind_of_work(work())


def test_the_defaults_ask_a_person_and_allow_what_the_agent_is_configured_for() -> None:
    policy = PolicySettings()
    assert policy.approval is Approving.BY_HAND
    assert (policy.federations, policy.tasks, policy.hours, policy.min_examples) == (None, None, None, 1)
    assert tuple(policy.telemetry) == TELLABLE


def test_the_example_can_be_used_as_it_is() -> None:
    policy = load_policy(EXAMPLE)
    assert policy.approval is Approving.BY_HAND
    assert set(PolicySettings.model_fields) == policy.model_fields_set


@pytest.mark.parametrize(
    "policy",
    [
        {"federation": ["ward"]},
        {"federations": ["St. Anna"]},
        {"tasks": {TASK: "all"}},
        {"tasks": {TASK: ["abc"]}},
        {"hours": {"open": ["mon 08:00-17:00"]}},
        {"hours": {"time_zone": "UTC", "open": []}},
        {"hours": {"time_zone": "UTC", "open": ["8 to 5"]}},
        {"compute_share": 0},
        {"compute_share": 1.1},
        {"min_examples": 0},
        {"codecs": ["uqz"]},
        {"telemetry": ["boot_id"]},
        {"telemetry": ["records"]},
        {"approval": "no"},
    ],
)
def test_a_value_out_of_its_bounds_or_an_unknown_one_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PolicySettings.model_validate(policy)
