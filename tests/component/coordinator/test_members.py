"""What is known of the admitted sites."""

import pytest

from coordinator.ledger import Ledger
from coordinator.members import Members
from coordinator.state import SiteState, active_sites
from fedward.errors import RejectReason
from fedward.messages import Evaluation, Phase, Ratio, Status, Telemetry
from tests.support.coordinator_bench import at
from tests.support.updates import FEDERATION, SITES, offer_of

ONLINE = Status(boot_id=b"boot-one", online=True)
GONE = Status(boot_id=b"boot-one", online=False)
TELEMETRY = Telemetry(
    boot_id=b"boot-one", phase=Phase.TRAINING, version=3, step=7, num_steps=10, num_updates=1, num_refused=0,
    num_fetched=2, bytes_sent=100, bytes_received=200, step_s=0.5, train_loss=0.25,
)  # fmt: skip


@pytest.fixture
def members(ledger: Ledger) -> Members:
    return Members(SITES, ledger)


def add(ledger: Ledger, seed: int, site: str, at_s: float, reason: RejectReason | None = None) -> None:
    ledger.add_update(offer_of(f"payload {seed}".encode(), seed, site), site, at(at_s), 1.0, reason)


def evaluation(version: int, **counts: float) -> Evaluation:
    metrics = {name: Ratio(numerator=value, denominator=10.0) for name, value in counts.items()}
    return Evaluation(federation=FEDERATION, version=version, num_examples=10, metrics=metrics)


def test_a_site_is_offline_until_it_says_otherwise(members: Members) -> None:
    assert members.page()["north"]["phase"] == "offline"
    members.on_status("north", ONLINE)
    assert members.page()["north"]["phase"] == Phase.IDLE
    members.on_telemetry("north", TELEMETRY, 0.0)
    assert members.page()["north"]["phase"] == Phase.TRAINING


def test_a_goodbye_is_told_from_a_death(members: Members) -> None:
    members.on_status("north", ONLINE)
    members.on_status("north", Status(boot_id=b"boot-one", online=False, leaving=True))
    members.on_status("south", ONLINE)
    members.on_status("south", GONE)
    assert [members.page()[site]["phase"] for site in SITES] == ["leaving", "offline"]


def test_a_notice_about_an_older_process_is_not_believed(members: Members) -> None:
    members.on_status("north", Status(boot_id=b"boot-two", online=True))
    members.on_status("north", GONE)
    assert members.page()["north"]["online"]


def test_a_death_notice_is_believed_where_nothing_else_is_known(members: Members) -> None:
    members.on_status("north", GONE)
    assert members.active(barrier=True) == {"south"}


def test_the_ledger_is_recalled(ledger: Ledger) -> None:
    live = Members(SITES, ledger)
    for seed, (site, at_s, reason) in enumerate(
        [("north", 100.0, None), ("south", 110.0, RejectReason.NOT_FINITE), ("north", 130.0, RejectReason.STALE)]
    ):
        add(ledger, seed, site, at_s, reason)
        live.on_update(ledger.updates()[-1])
    ledger.add_evaluation(evaluation(1, auc=9.0), "north", 140.0)
    live.on_evaluation("north", evaluation(1, auc=9.0))
    recalled = Members(SITES, ledger)
    assert recalled.page() == live.page()
    assert recalled.rates == live.rates
    assert recalled.page()["north"]["num_accepted"] == recalled.page()["north"]["num_refused"] == 1


def test_a_stale_update_tells_the_pace_and_a_broken_one_does_not(members: Members, ledger: Ledger) -> None:
    add(ledger, 1, "north", 100.0, RejectReason.STALE)
    add(ledger, 2, "south", 100.0, RejectReason.NOT_FINITE)
    for row in ledger.updates():
        members.on_update(row)
    assert set(members.rates) == {"north"}


def test_a_site_that_is_admitted_no_more_is_remembered_by_its_pace_only(ledger: Ledger) -> None:
    add(ledger, 1, "west", 100.0)
    members = Members(SITES, ledger)
    assert set(members.rates) == {"west"}
    assert "west" not in members
    assert members.active(barrier=False) == set()


def test_metrics_add_up_over_the_sites(members: Members) -> None:
    members.on_evaluation("north", evaluation(1, auc=9.0, loss=2.0))
    members.on_evaluation("south", evaluation(2, auc=6.0))
    assert members.metrics() == {"auc": 15.0 / 20.0, "loss": 0.2}
    members.on_evaluation("south", evaluation(3, auc=7.0))
    assert members.metrics()["auc"] == 16.0 / 20.0


def test_a_metric_without_a_denominator_is_left_out(members: Members) -> None:
    empty = {"auc": Ratio(numerator=0.0, denominator=0.0)}
    members.on_evaluation("north", Evaluation(federation=FEDERATION, version=1, num_examples=1, metrics=empty))
    assert members.metrics() == {}


@pytest.mark.parametrize(
    ("barrier", "heard", "expected"),
    [
        (False, [], {"online"}),
        (False, ["silent", "offline"], {"online", "silent"}),
        (True, [], {"online", "silent"}),
    ],
)
def test_a_version_waits_for_those_who_may_come(barrier: bool, heard: list[str], expected: set[str]) -> None:
    sites = {"online": SiteState(status=ONLINE), "offline": SiteState(status=GONE), "silent": SiteState()}
    assert active_sites(sites, heard, barrier) == expected


def test_the_page_of_a_site_says_what_its_telemetry_says(members: Members) -> None:
    members.heard("north", now_s=5.0)
    members.on_status("north", ONLINE)
    members.on_telemetry("north", TELEMETRY, 0.0)
    page = members.page()["north"]
    for field in (
        "version",
        "step",
        "num_steps",
        "step_s",
        "train_loss",
        "bytes_sent",
        "bytes_received",
        "num_fetched",
    ):
        assert page[field] == getattr(TELEMETRY, field)
    assert page["heard_at_s"] == 5.0
