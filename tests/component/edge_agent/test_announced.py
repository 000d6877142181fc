"""The newest announcement, over restarts of agent and broker: what is older than what was heard is never acted on."""

from collections.abc import Callable
from typing import Any

import pytest

from fedward.messages import Announcement, FederationState, Get, Offer, Phase


def newest_after_one_before(hospital: Any, **changes: Any) -> tuple[Announcement, Announcement]:
    """An announcement that nobody takes in, and a newer one that the site trains from and has receipted."""
    old = hospital.office.announcement(**changes)
    hospital.office.next_version()
    new = hospital.office.announcement()
    hospital.office.announce(new)
    hospital.settle()
    hospital.office.receipt(hospital.office.messages(Offer)[-1])
    hospital.settle()
    return old, new


def nothing(_hospital: Any) -> None:
    pass


def restart(hospital: Any) -> None:
    hospital.restart()


@pytest.mark.parametrize("between", [nothing, restart])
def test_an_old_announcement_of_a_broker_that_went_back_is_ignored(
    hospital: Any, between: Callable[[Any], None]
) -> None:
    old, _ = newest_after_one_before(hospital)
    heard = len(hospital.office.heard)
    hospital.office.announce(old)  # retained in place of the newer one
    between(hospital)
    hospital.settle()
    assert hospital.page["held"] in (None, 1)
    assert hospital.task.num_trainings == 1
    assert not [topic for topic, _ in hospital.office.heard[heard:] if topic.endswith("/get")]


def test_a_process_that_heard_only_an_old_announcement_waits_for_a_newer_one(hospital: Any) -> None:
    old, _ = newest_after_one_before(hospital)
    hospital.office.announce(old)
    hospital.restart()
    hospital.settle()
    assert hospital.page["announced"] is None
    hospital.office.announce()
    hospital.settle()
    assert hospital.page["announced"] == 1


def test_the_newest_announcement_is_taken_again_by_a_new_process(hospital: Any) -> None:
    _, new = newest_after_one_before(hospital)
    hospital.office.announce(new)
    hospital.restart()
    hospital.settle()
    assert hospital.page["announced"] == 1
    assert hospital.page["held"] == 1


def test_an_end_that_was_heard_once_is_not_undone_by_an_older_announcement(hospital: Any) -> None:
    running = hospital.office.announcement()
    hospital.office.announce(state=FederationState.FINISHED)
    hospital.settle()
    hospital.office.announce(running)
    hospital.restart()
    hospital.settle()
    assert hospital.task.num_trainings == 0
    assert len(hospital.office.messages(Get)) == 1


@pytest.mark.parametrize("between", [nothing, restart])
def test_a_pause_that_the_restored_coordinator_does_not_know_of_ends_with_it(
    hospital: Any, between: Callable[[Any], None]
) -> None:
    hospital.office.announce()
    hospital.settle()
    hospital.office.pause_site(paused=True)  # retained, and never taken back
    hospital.settle()
    assert hospital.page["phase"] == Phase.PUBLISHING
    hospital.office.receipt(hospital.office.messages(Offer)[-1])
    hospital.settle()
    assert hospital.page["phase"] == Phase.PAUSED
    hospital.office.sequence += 100
    hospital.office.next_version()
    hospital.office.announce(epoch=hospital.office.sequence, boot_id=b"restored")
    between(hospital)
    hospital.settle()
    assert hospital.page["phase"] == Phase.PUBLISHING
    hospital.office.receipt(hospital.office.messages(Offer)[-1])
    hospital.settle()
    hospital.office.pause_site(paused=True)
    hospital.settle()
    assert hospital.page["phase"] == Phase.PAUSED


@pytest.mark.parametrize("between", [nothing, restart])
def test_a_wish_that_the_operator_took_back_does_not_come_again(hospital: Any, between: Callable[[Any], None]) -> None:
    hospital.office.announce()
    hospital.settle()
    before = hospital.office.sequence
    hospital.office.pause_site(paused=True)
    hospital.settle()
    hospital.office.pause_site(paused=False)
    hospital.settle()
    hospital.office.sequence = before
    hospital.office.pause_site(paused=True)  # the first one again, retained in place of the second
    between(hospital)
    hospital.office.receipt(hospital.office.messages(Offer)[-1])
    hospital.settle()
    assert hospital.page["phase"] != Phase.PAUSED
