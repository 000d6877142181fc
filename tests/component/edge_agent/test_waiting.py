"""A coordinator that is away for days: the agent keeps its update, waits quietly, and is back within seconds."""

import logging
from typing import Any

import pytest

from edge_agent.publish import OFFER_AGAIN_S
from fedward.limits import KIB
from fedward.messages import FederationState, Get, Offer, Outcome, Telemetry

DAY_S = 86_400.0
STEP_S = 60.0


@pytest.fixture
def waiting(hospital: Any) -> Any:
    """A finished update, offered to nobody."""
    hospital.office.announce()
    hospital.settle()
    return hospital


def pass_time(hospital: Any, seconds: float, step_s: float = STEP_S) -> None:
    for _ in range(int(seconds / step_s)):
        hospital.clock.advance(step_s)
        hospital.agent.step()


def offers(hospital: Any) -> list[Offer]:
    return list(hospital.office.messages(Offer))


def test_three_days_without_a_coordinator_cost_an_offer_every_few_minutes_and_no_log_line(
    waiting: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sent_before = waiting.link.bytes_sent
    pass_time(waiting, 3 * DAY_S)
    hours = 72
    assert 8 * hours < len(offers(waiting)) < 12 * hours
    assert len(waiting.office.messages(Telemetry)) <= 3 * DAY_S / STEP_S + 2
    assert (waiting.link.bytes_sent - sent_before) / hours < 32 * KIB
    assert caplog.records == []
    assert waiting.page["outbox"] == 1


def test_a_small_update_does_not_ride_along_with_offers_that_nobody_answers(waiting: Any) -> None:
    pass_time(waiting, DAY_S)
    carried = [offer.payload is not None for offer in offers(waiting)]
    assert carried[:3] == [True] * 3
    assert not any(carried[3:])


def away_and_back(hospital: Any, **announced: Any) -> int:
    """How many offers there were before the coordinator announced again, after a day."""
    pass_time(hospital, DAY_S)
    before = len(offers(hospital))
    hospital.office.announce(**announced)
    return before


def test_a_new_process_of_the_coordinator_is_offered_to_at_once_with_the_payload(waiting: Any) -> None:
    waiting.office.boot_id = b"restored"
    before = away_and_back(waiting)
    waiting.settle()
    (offer,) = offers(waiting)[before:]
    assert offer.payload is not None


def test_a_coordinator_that_was_only_cut_off_is_offered_to_within_seconds(waiting: Any) -> None:
    before = away_and_back(waiting)
    waiting.settle()
    pass_time(waiting, OFFER_AGAIN_S, step_s=1.0)
    assert len(offers(waiting)) == before + 1


def test_announcements_that_follow_each_other_do_not_make_offers_come_more_often(waiting: Any) -> None:
    """A busy coordinator, which takes its time to answer, would be asked once more a version."""
    before = len(offers(waiting))
    for _ in range(20):
        waiting.office.announce()
        waiting.wait(0.1)
    assert len(offers(waiting)) <= before + 1


def test_without_a_broker_nothing_is_done_and_a_new_connection_offers_at_once(waiting: Any, broker: Any) -> None:
    broker.stop()
    waiting.take_events()
    sent_before = waiting.link.bytes_sent
    pass_time(waiting, DAY_S)
    assert waiting.link.bytes_sent == sent_before
    broker.start()
    waiting.take_events()
    assert len(offers(waiting)) == 2


def test_a_download_that_nobody_answers_is_asked_for_again_at_once_by_a_new_coordinator(hospital: Any) -> None:
    hospital.office.answers_gets = False
    hospital.office.announce()
    hospital.settle()
    pass_time(hospital, DAY_S)
    asked = len(hospital.office.messages(Get))
    assert asked <= DAY_S / 60 + 8
    hospital.office.boot_id = b"restored"
    hospital.office.announce()
    hospital.settle()
    assert len(hospital.office.messages(Get)) == asked + 1
    hospital.run_until_told()  # the download is closed


def test_a_site_that_returns_after_weeks_drops_its_refused_update_and_goes_on_from_the_snapshot(waiting: Any) -> None:
    old = offers(waiting)[-1]
    waiting.link.close()
    for _ in range(30):
        waiting.office.next_version()
    waiting.office.parts.clear()
    waiting.office.add_snapshot()
    waiting.office.announce(max_staleness=10)
    waiting.restart()
    waiting.settle()
    assert waiting.page["held"] == 30, "the snapshot is fetched while the old update waits for its receipt"
    assert offers(waiting)[-1].update_id == old.update_id
    waiting.office.receipt(old, Outcome.REFUSED)
    waiting.settle()
    assert offers(waiting)[-1].base_version == 30
    assert waiting.page["num_refused"] == 1
    waiting.office.receipt(offers(waiting)[-1])
    waiting.settle()
    assert list((waiting.config.state_folder / "outbox").iterdir()) == []


def test_an_unsent_update_survives_the_end_of_the_federation_until_its_receipt(waiting: Any) -> None:
    pass_time(waiting, DAY_S)
    waiting.office.announce(state=FederationState.FINISHED)
    waiting.settle()
    assert waiting.page["outbox"] == 1
    waiting.office.receipt(offers(waiting)[-1], Outcome.REFUSED)
    waiting.settle()
    assert waiting.page["outbox"] == 0
