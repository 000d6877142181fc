"""A hostile or broken member at the coordinator's wire: what it may send, what counts of it, and who decides."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from coordinator.config import LimitSettings
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.making import Store
from coordinator.replay import check_ledger, replay
from coordinator.tables import Verdict
from fedward import topics
from fedward.cli import EXIT_CONFIG, main
from fedward.errors import IntegrityError, RejectReason
from fedward.messages import Offer, Outcome, Receipt
from fedward.testing import ManualClock, MemoryBroker
from fedward.topics import Up
from tests.support.coordinator_bench import Bench, accepted, refusals, refused, write_config
from tests.support.site import Site
from tests.support.updates import FEDERATION, SMALL, offer_of, payload_of, vector

Start = Callable[..., Bench]
FOUR = ["north", "south", "west", "hostile"]
ENGINE = EngineSettings(buffer_size=4, flush_after_s=600.0)


def update(site: str, base_version: int, scale: float = 0.01) -> Offer:
    """Each of another seed, and about as long as the others unless the scale is not the usual one."""
    seed = 1 + 4 * base_version + FOUR.index(site)
    payload = payload_of(SMALL, seed, scale=scale)
    return offer_of(payload, seed, site, base_version, payload=payload)


@pytest.fixture
def sites(broker: MemoryBroker) -> dict[str, Site]:
    return {name: Site(broker, name) for name in FOUR}


def go_round(bench: Bench, sites: dict[str, Site], names: list[str], scale: float = 0.01) -> dict[str, Offer]:
    """These sites train from the newest version and offer what they have; the hostile one's scale is another."""
    base = bench.versions.current.version
    offers = {name: update(name, base, scale if name == "hostile" else 0.01) for name in names}
    for name, offer in offers.items():
        sites[name].offer(offer)
        bench.settle()
    return offers


def test_an_update_a_hundred_times_too_long_is_clipped_in_the_first_version_already(
    start: Start, sites: dict[str, Site]
) -> None:
    bench = start(sites=FOUR, engine=ENGINE, model_codec="f32")
    bench.settle()
    go_round(bench, sites, ["hostile", "north", "south", "west"], scale=1.0)
    [typical] = {round(row.norm or 0.0, 2) for row in bench.ledger.updates() if row.site != "hostile"}
    moved_P = bench.versions.vector(1) - vector(SMALL, 0, scale=1.0)
    assert bench.ledger.version(1).settings["norm_bound"] == pytest.approx(2 * typical, rel=0.05)
    assert np.linalg.norm(moved_P) < typical


def test_the_first_version_waits_for_a_third_site_although_two_fill_the_buffer(
    start: Start, sites: dict[str, Site]
) -> None:
    bench = start(sites=FOUR, engine=EngineSettings(buffer_size=2))
    bench.settle()
    go_round(bench, sites, ["hostile", "north"])
    assert bench.versions.current.version == 0
    go_round(bench, sites, ["south"])
    assert bench.versions.current.version == 1


def test_a_first_version_waits_an_hour_for_a_third_site_and_not_for_ever(
    start: Start, sites: dict[str, Site], clock: ManualClock
) -> None:
    bench = start(sites=FOUR, engine=EngineSettings(buffer_size=2))
    bench.settle()
    go_round(bench, sites, ["north", "south"])
    clock.advance(3599.0)
    bench.settle()
    assert bench.versions.current.version == 0
    clock.advance(1.0)
    bench.settle()
    assert bench.versions.current.version == 1


def test_three_outliers_in_a_row_put_a_site_in_quarantine_and_a_person_lets_it_out(
    start: Start, sites: dict[str, Site]
) -> None:
    bench = start(sites=FOUR, engine=ENGINE)
    bench.settle()
    go_round(bench, sites, FOUR)
    expected: list[Receipt] = [accepted(update("hostile", 0))]
    for base in (1, 2, 3):
        offer = go_round(bench, sites, FOUR, scale=10.0)["hostile"]
        bench.clock.advance(600.0)  # the buffer has room for four
        bench.settle()
        expected.append(refused(offer, RejectReason.OUTLIER))
        assert bench.versions.current.version == base + 1
    assert bench.service.page()["sites"]["hostile"]["quarantined"]
    harmless = go_round(bench, sites, FOUR)["hostile"]
    expected.append(refused(harmless, RejectReason.QUARANTINED))
    assert bench.versions.current.version == 5  # nobody waits for a site whose updates do not come
    bench.ledger.give_verdict("hostile", Verdict.RELEASED, 1.0)
    bench.clock.advance(1.0)
    bench.settle()
    assert not bench.service.page()["sites"]["hostile"]["quarantined"]
    expected.append(accepted(go_round(bench, sites, FOUR)["hostile"]))
    assert sites["hostile"].receipts() == expected
    assert refusals(bench) == {"outlier": 3, "quarantined": 1}


def test_an_accepted_update_between_outliers_keeps_a_site_out_of_quarantine(
    start: Start, sites: dict[str, Site]
) -> None:
    bench = start(sites=FOUR, engine=ENGINE)
    bench.settle()
    go_round(bench, sites, FOUR)
    for scale in (10.0, 10.0, 0.01, 10.0, 10.0):
        go_round(bench, sites, FOUR, scale)
        bench.clock.advance(600.0)
        bench.settle()
    assert refusals(bench) == {"outlier": 4}
    assert not bench.service.page()["sites"]["hostile"]["quarantined"]


def in_quarantine(bench: Bench, sites: dict[str, Site]) -> None:
    """Bring the hostile site there."""
    bench.settle()
    go_round(bench, sites, FOUR)
    for _ in range(3):
        go_round(bench, sites, FOUR, scale=10.0)
        bench.clock.advance(600.0)
        bench.settle()


def test_quarantine_and_what_it_refused_outlive_the_process(start: Start, sites: dict[str, Site]) -> None:
    bench = start(sites=FOUR, engine=ENGINE)
    in_quarantine(bench, sites)
    before = go_round(bench, sites, ["hostile"])["hostile"]
    bench.kill()
    again = start(sites=FOUR, engine=ENGINE)
    again.settle()
    assert again.service.page()["sites"]["hostile"]["quarantined"]
    sites["hostile"].offer(before)
    again.settle()
    assert sites["hostile"].receipts()[-2:] == [refused(before, RejectReason.QUARANTINED)] * 2
    assert [row.norm is None for row in again.ledger.updates() if row.reason == "quarantined"] == [False]


def test_a_site_that_was_refused_stays_out_until_it_is_released(start: Start, sites: dict[str, Site]) -> None:
    bench = start(sites=FOUR, engine=ENGINE)
    bench.settle()
    bench.ledger.give_verdict("north", Verdict.REFUSED, 1.0)
    bench.clock.advance(1.0)
    bench.settle()
    assert go_round(bench, sites, FOUR)["north"].update_id in {
        row.update_id for row in bench.ledger.updates() if row.reason == "quarantined"
    }
    assert bench.versions.current.version == 1


def test_clipped_versions_and_verdicts_come_out_of_the_ledger_as_they_are_recorded(
    start: Start, sites: dict[str, Site]
) -> None:
    bench = start(sites=FOUR, engine=ENGINE)
    bench.settle()
    for scale in (0.01, 0.1, 0.05):
        go_round(bench, sites, FOUR, scale)
    bench.ledger.give_verdict("hostile", Verdict.REFUSED, 1.0)
    check_ledger(bench.ledger, None)
    done = list(replay(Store(bench.ledger, bench.blobs, SMALL), 0))
    assert [one.num_updates for one in done] == [0, 4, 4, 4]


@pytest.mark.parametrize("rule", ["trimmed_mean", "median", "centered_clipping"])
def test_a_robust_version_comes_out_of_the_ledger_as_it_is_recorded(
    start: Start, sites: dict[str, Site], rule: str
) -> None:
    engine = EngineSettings(buffer_size=4, flush_after_s=600.0, robust=rule)
    bench = start(sites=FOUR, engine=engine)
    bench.settle()
    for scale in (0.01, 0.1):
        go_round(bench, sites, FOUR, scale)
    assert [one.num_updates for one in replay(Store(bench.ledger, bench.blobs, SMALL), 0)] == [0, 4, 4]


def test_a_verdict_that_was_changed_afterwards_is_found(start: Start, sites: dict[str, Site]) -> None:
    bench = start(sites=FOUR, engine=ENGINE)
    bench.settle()
    bench.ledger.give_verdict("hostile", Verdict.REFUSED, 1.0)
    with closing(sqlite3.connect(bench.config.state_folder / "ledger.sqlite")) as connection:
        connection.execute("UPDATE verdicts SET verdict = 'released'")
        connection.commit()
    with pytest.raises(IntegrityError, match="verdict 1: changed"):
        check_ledger(bench.ledger, None)


def test_a_site_that_floods_is_not_answered_and_the_others_are(
    start: Start, sites: dict[str, Site], clock: ManualClock
) -> None:
    bench = start(sites=FOUR, engine=ENGINE, limits=LimitSettings(messages_s=1.0))
    bench.settle()
    clock.advance(10.0)
    for _ in range(50):
        sites["hostile"].offer(update("hostile", 0))
    sites["north"].offer(update("north", 0))
    bench.settle()
    assert len(sites["hostile"].receipts()) == 10
    assert refusals(bench) == {"busy": 40}
    assert sites["north"].receipts() == [accepted(update("north", 0))]
    clock.advance(1.0)
    sites["hostile"].offer(update("hostile", 0))
    bench.settle()
    assert len(sites["hostile"].receipts()) == 11


@pytest.mark.parametrize("rest", ["nonsense", "u/short/c/0", "x" * 600])
def test_a_site_that_floods_topics_that_mean_nothing_is_not_looked_at_either(
    start: Start, sites: dict[str, Site], caplog: pytest.LogCaptureFixture, rest: str
) -> None:
    bench = start(sites=FOUR, engine=ENGINE, limits=LimitSettings(messages_s=1.0))
    bench.settle()
    already = len(caplog.records)
    below = topics.up(FEDERATION, "hostile", Up.GET).rpartition("/")[0]
    for _ in range(50):
        sites["hostile"].link.publish(f"{below}/{rest}", b"")
    sites["north"].offer(update("north", 0))
    bench.settle()
    assert refusals(bench) == {"malformed": 9, "busy": 41}, "its status was the tenth message"
    assert len(caplog.records) - already < 15
    assert sites["north"].receipts() == [accepted(update("north", 0))]


def test_a_site_whose_updates_wait_is_told_to_come_later(start: Start, sites: dict[str, Site]) -> None:
    size_bytes = update("hostile", 0).manifest.size_bytes
    limits = LimitSettings(storage_bytes=2 * size_bytes)
    bench = start(sites=FOUR, engine=EngineSettings(buffer_size=4, repeat_base=True), limits=limits)
    bench.settle()
    offers = [offer_of(content := payload_of(SMALL, n), n, "hostile", payload=content) for n in (11, 12, 13)]
    for offer in offers:
        sites["hostile"].offer(offer)
    bench.settle()
    assert [receipt.outcome for receipt in sites["hostile"].receipts()] == [
        Outcome.ACCEPTED,
        Outcome.ACCEPTED,
        Outcome.LATER,
    ]
    for name in ("north", "south", "west"):
        sites[name].offer(update(name, 0))
    bench.settle()
    sites["hostile"].offer(offers[2])
    bench.settle()
    assert sites["hostile"].receipts()[-1] == accepted(offers[2])


def test_the_operator_sees_who_is_in_quarantine_and_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start: Start, sites: dict[str, Site]
) -> None:
    write_config(tmp_path)
    config = tmp_path / "federation.yaml"
    config.write_text(config.read_text().replace("- south", "- south\n- west\n- hostile"))
    bench = start(sites=FOUR, engine=ENGINE)
    in_quarantine(bench, sites)
    bench.kill()
    assert main(["coordinator", "status", "--config", str(config)]) == 0
    assert "quarantine hostile: norms " in capsys.readouterr().out
    assert main(["coordinator", "release", "hostile", "--config", str(config)]) == 0
    assert main(["coordinator", "status", "--config", str(config)]) == 0
    assert "quarantine" not in capsys.readouterr().out
    assert main(["coordinator", "refuse", "nobody", "--config", str(config)]) == EXIT_CONFIG
    ledger = Ledger.in_folder(tmp_path / "state")
    assert {site: one.verdict for site, one in ledger.verdicts().items()} == {"hostile": Verdict.RELEASED}
    ledger.close()
