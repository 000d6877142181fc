"""The rules of what the agent does next: each with its counterexample, and what may never be."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.states import Situation, can_still_count, phase, wants_evaluation, wants_fetch, wants_training
from fedward.messages import FederationState, Phase

READY = Situation(
    announced=3,
    refused=False,
    hours_open=True,
    evaluates=True,
    state=FederationState.RUNNING,
    paused_here=False,
    held=3,
    evaluated=3,
    trained_from=2,
    failed_at=None,
    repeat_base=False,
    computing=False,
    assembling=False,
    training=False,
    outbox=False,
    full=False,
)

versions = st.none() | st.integers(0, 3)
situations = st.builds(
    Situation,
    announced=versions,
    refused=st.booleans(),
    hours_open=st.booleans(),
    evaluates=st.booleans(),
    state=st.none() | st.sampled_from(FederationState),
    paused_here=st.booleans(),
    held=versions,
    evaluated=versions,
    trained_from=versions,
    failed_at=versions,
    repeat_base=st.booleans(),
    computing=st.booleans(),
    assembling=st.booleans(),
    training=st.booleans(),
    outbox=st.booleans(),
    full=st.booleans(),
)


@pytest.mark.parametrize("changes", [{}, {"trained_from": None}, {"failed_at": 2}, {"evaluated": None}])
def test_a_site_that_holds_the_announced_version_trains(changes: dict[str, object]) -> None:
    assert wants_training(replace(READY, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"announced": None, "state": None},
        {"announced": 4},
        {"held": None},
        {"state": FederationState.PAUSED},
        {"state": FederationState.FINISHED},
        {"paused_here": True},
        {"hours_open": False},
        {"outbox": True},
        {"full": True},
        {"failed_at": 3},
        {"trained_from": 3},
        {"computing": True},
    ],
)
def test_one_reason_is_enough_not_to_train(changes: dict[str, object]) -> None:
    assert not wants_training(replace(READY, **changes))  # type: ignore[arg-type]


def test_a_version_is_trained_again_only_where_the_federation_asks_for_it() -> None:
    trained = replace(READY, trained_from=3)
    assert wants_training(replace(trained, repeat_base=True))
    assert not wants_training(replace(trained, repeat_base=True, failed_at=3))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"held": None}, True),
        ({"announced": 4}, True),
        ({"announced": 2}, True),  # the coordinator went back
        ({"announced": 4, "state": FederationState.FINISHED}, True),
        ({"announced": 4, "outbox": True, "paused_here": True}, True),
        ({}, False),
        ({"announced": 4, "computing": True}, False),
        ({"announced": 4, "full": True}, False),
        ({"announced": None, "held": None}, False),
    ],
)
def test_the_announced_version_is_fetched_unless_a_job_runs(changes: dict[str, object], wanted: bool) -> None:
    assert wants_fetch(replace(READY, **changes)) is wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"evaluated": None}, True),
        ({"evaluated": 2, "state": FederationState.FINISHED, "paused_here": True, "outbox": True}, True),
        ({}, False),
        ({"evaluated": 2, "computing": True}, False),
        ({"evaluated": 2, "hours_open": False}, False),
        ({"evaluated": 2, "evaluates": False}, False),
        ({"evaluated": 2, "announced": 4}, False),
        ({"evaluated": 2, "held": None}, False),
    ],
)
def test_each_held_version_is_measured_once(changes: dict[str, object], wanted: bool) -> None:
    assert wants_evaluation(replace(READY, **changes)) is wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, Phase.IDLE),
        ({"failed_at": 3}, Phase.FAILED),
        ({"announced": 4, "full": True}, Phase.FULL),
        ({"full": True, "outbox": True}, Phase.PUBLISHING),
        ({"failed_at": 2}, Phase.IDLE),
        ({"failed_at": 3, "paused_here": True}, Phase.PAUSED),
        ({"state": FederationState.PAUSED}, Phase.PAUSED),
        ({"announced": 4, "paused_here": True}, Phase.FETCHING),
        ({"announced": 4, "computing": True, "assembling": True}, Phase.FETCHING),
        ({"announced": 4, "computing": True}, Phase.IDLE),
        ({"announced": 4, "outbox": True}, Phase.PUBLISHING),
        ({"computing": True, "training": True, "outbox": True}, Phase.TRAINING),
        ({"announced": None, "state": None, "held": None}, Phase.IDLE),
        ({"refused": True, "training": True, "outbox": True, "full": True}, Phase.REFUSED_BY_POLICY),
        ({"hours_open": False}, Phase.REFUSED_BY_POLICY),
        ({"hours_open": False, "outbox": True}, Phase.PUBLISHING),
        ({"hours_open": False, "state": FederationState.FINISHED}, Phase.IDLE),
    ],
)
def test_people_are_told_the_first_phase_that_holds(changes: dict[str, object], told: Phase) -> None:
    assert phase(replace(READY, **changes)) is told  # type: ignore[arg-type]


@given(situations)
def test_the_rules_never_contradict_each_other(now: Situation) -> None:
    assert not (wants_fetch(now) and (wants_training(now) or wants_evaluation(now)))
    assert isinstance(phase(now), Phase)


@given(situations)
def test_training_never_starts_against_a_wish_or_over_an_unsent_update(now: Situation) -> None:
    if wants_training(now):
        assert now.state is FederationState.RUNNING
        assert not any((now.paused_here, now.outbox, now.computing))
        assert now.held is not None
        assert now.held == now.announced != now.failed_at
        assert now.repeat_base or now.trained_from != now.held


@pytest.mark.parametrize(
    ("base", "announced", "state", "counts"),
    [
        (3, 3, FederationState.RUNNING, True),
        (3, 5, FederationState.RUNNING, True),
        (3, 6, FederationState.RUNNING, False),
        (4, 3, FederationState.RUNNING, False),
        (3, 3, FederationState.PAUSED, True),
        (3, 3, FederationState.FINISHED, False),
    ],
)
def test_an_unfinished_update_counts_within_the_staleness_until_the_federation_ends(
    base: int, announced: int, state: FederationState, counts: bool
) -> None:
    assert can_still_count(base, announced, max_staleness=2, state=state) is counts
