"""A running coordinator that keeps little: its sites, its operator's commands and its backups."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from coordinator.backup import back_up, restore
from coordinator.config import RetentionSettings
from coordinator.engine.settings import EngineSettings
from coordinator.making import Store
from coordinator.replay import replay
from fedward.cli import EXIT_CONFIG, EXIT_INTEGRITY, main
from fedward.errors import RejectReason
from fedward.layout import vector_digest
from fedward.messages import Evaluation, Offer, PartKind, Ratio
from fedward.recipe import apply_part, cheapest_recipe
from fedward.testing import ManualClock
from fedward.topics import Up
from tests.support.coordinator_bench import Bench, refused
from tests.support.site import Site
from tests.support.updates import FEDERATION, SMALL, inline

SETTINGS = {
    "engine": EngineSettings(buffer_size=1, max_staleness=2),
    "retention": RetentionSettings(versions=3, records=6),
    "model_codec": "f32z",  # a snapshot each: no older part is kept for one that leads to the floor
}
MADE, FLOOR, OLDEST = 27, 20, 20
Start = Callable[..., Bench]


def deliver(bench: Bench, site: Site) -> Offer:
    """A version of one update."""
    base = bench.versions.current
    offer = replace(inline(1 + base.version, site.name, base.version), base_digest=base.model_digest)
    site.offer(offer)
    bench.settle()
    assert bench.versions.current.version == base.version + 1
    return offer


@pytest.fixture
def offers(start: Start, north: Site) -> list[Offer]:
    """Those of the versions that `running` has made."""
    return []


@pytest.fixture
def running(start: Start, north: Site, offers: list[Offer]) -> Bench:
    bench = start(**SETTINGS)
    bench.settle()
    offers += [deliver(bench, north) for _ in range(MADE)]
    assert (bench.ledger.floor, bench.ledger.oldest_version()) == (FLOOR, OLDEST)
    return bench


def test_a_site_that_is_far_behind_gets_the_snapshot_and_its_stale_update_is_refused(
    running: Bench, south: Site
) -> None:
    running.settle()
    late = inline(500, "south", base_version=4)
    south.offer(late)
    running.settle()
    assert south.receipts() == [refused(late, RejectReason.STALE)]
    announced = south.announcements()[-1]
    recipe = cheapest_recipe(announced.parts, announced.version, 4)
    assert recipe[0].kind is PartKind.SNAPSHOT
    held_P = None
    for part in recipe:
        held_P = apply_part(held_P, part, running.blobs.view(part.manifest.digest), SMALL)
    assert held_P is not None
    assert vector_digest(held_P) == announced.model_digest


def test_an_update_whose_row_was_deleted_is_stale_when_it_is_offered_again(
    running: Bench, north: Site, offers: list[Offer]
) -> None:
    pruned = next(offer for offer in offers if running.ledger.update(offer.update_id) is None)
    north.offer(pruned)
    running.settle()
    assert north.receipts()[-1] == refused(pruned, RejectReason.STALE)
    assert running.ledger.buffered() == ()
    assert running.versions.current.version == MADE


def test_an_update_from_below_the_floor_is_stale_however_much_staleness_is_allowed_later(
    running: Bench, start: Start, north: Site, offers: list[Offer]
) -> None:
    running.kill()
    lenient = EngineSettings.model_validate({"preset": "fedasync", "max_staleness": 50})
    again = start(engine=lenient, retention=RetentionSettings(versions=60, records=60))
    north.offer(offers[5])
    again.settle()
    assert north.receipts()[-1] == refused(offers[5], RejectReason.STALE)
    deliver(again, north)


def test_a_coordinator_that_starts_again_has_what_it_had(running: Bench, start: Start, north: Site) -> None:
    site = running.service.page()["sites"]["north"]
    running.kill()
    again = start(**SETTINGS)
    assert again.service.page()["sites"]["north"]["num_accepted"] == site["num_accepted"] == MADE
    assert again.service.page()["floor"] == FLOOR
    again.settle()
    deliver(again, north)
    again.ledger.check_chain()


def test_a_changed_old_row_is_told_once_and_kept_and_the_coordinator_goes_on(
    running: Bench, start: Start, north: Site, caplog: pytest.LogCaptureFixture
) -> None:
    running.kill()
    with closing(sqlite3.connect(running.config.state_folder / "ledger.sqlite")) as ledger:
        assert ledger.execute("UPDATE updates SET num_steps = 5 WHERE version = ?", (OLDEST + 1,)).rowcount == 1
        ledger.commit()
    again = start(**SETTINGS)
    again.settle()
    for _ in range(15):
        deliver(again, north)
    assert again.ledger.oldest_version() == OLDEST
    assert again.service.page()["row_changed"]
    told = [record for record in caplog.records if record.getMessage() == "rows_not_deleted"]
    assert len(told) == 1
    assert "changed since chain entry" in vars(told[0])["detail"]


def test_every_announced_part_is_there(start: Start, north: Site) -> None:
    bench = start(**SETTINGS)
    bench.settle()
    for _ in range(MADE):
        deliver(bench, north)
        listed = [part.manifest.digest for part in north.announcements()[-1].parts]
        assert set(listed) <= bench.blobs.digests()


def test_a_repeated_measurement_with_other_figures_changes_nothing(running: Bench, north: Site) -> None:
    for numerator in (9.0, 1.0):
        metrics = {"auc": Ratio(numerator=numerator, denominator=10.0)}
        north.say(Up.EVALUATION, Evaluation(federation=FEDERATION, version=MADE, num_examples=10, metrics=metrics))
        running.settle()
    assert running.service.page()["metrics"] == {"auc": 0.9}
    running.ledger.check_chain()


def test_a_pruned_ledger_is_backed_up_and_restored(
    running: Bench, start: Start, north: Site, tmp_path: Path, clock: ManualClock
) -> None:
    back_up(running.ledger, running.config.state_folder, tmp_path / "backup", clock.now_s())
    saved = {path.name for path in (tmp_path / "backup" / "blobs").iterdir()}
    assert saved == {digest.hex() for digest in running.ledger.blobs()}
    deliver(running, north)
    running.kill()
    restore(tmp_path / "backup", tmp_path / "state", FEDERATION, clock.now_s(), force=True)
    again = start(**SETTINGS)
    assert (again.versions.current.version, again.ledger.floor) == (MADE, FLOOR)
    done = replay(Store(again.ledger, again.blobs, SMALL), FLOOR)
    assert [one.version for one in done] == list(range(FLOOR, MADE + 1))


@pytest.fixture
def after_a_long_run(running: Bench, folder: Path) -> Path:
    """A configuration file beside the state folder of a coordinator that has stopped."""
    running.kill()
    path = folder / "federation.yaml"
    retention = {"versions": 3, "records": 6}
    settings = yaml.safe_load(path.read_text()) | {"engine": {"max_staleness": 2}, "retention": retention}
    path.write_text(yaml.safe_dump(settings))
    return folder


def fedward(folder: Path, verb: str, *arguments: object) -> int:
    return main(["coordinator", verb, "--config", str(folder / "federation.yaml"), *map(str, arguments)])


def test_replay_begins_at_the_floor_and_says_so(after_a_long_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedward(after_a_long_run, "replay") == 0
    text = capsys.readouterr().out
    assert "8 versions made again of 8 updates" in text
    assert f"begun with the stored state of version {FLOOR}, the oldest that is kept (retention.versions)" in text
    assert "were deleted with their rows, which were old (retention.records)" in text


@pytest.mark.parametrize("arguments", [["replay", "--from", 19], ["export", "--version", 19, "--out", "m.safetensors"]])
def test_a_version_below_the_floor_is_the_operators_to_look_for_in_a_backup(
    after_a_long_run: Path, capsys: pytest.CaptureFixture[str], arguments: list[object]
) -> None:
    assert fedward(after_a_long_run, str(arguments[0]), *arguments[1:]) == EXIT_CONFIG
    text = capsys.readouterr().err
    assert "19: the oldest version that is still there is 20; what older ones were made of was deleted" in text
    assert "retention.versions" in text


def test_status_counts_all_updates_ever(after_a_long_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedward(after_a_long_run, "status") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["north", str(MADE), str(MADE - 1), "100", "-"] in rows


def test_the_head_of_a_card_from_before_the_cut_is_told_from_a_forged_one(
    after_a_long_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedward(after_a_long_run, "replay", "--head", f"5:{'ab' * 32}") == EXIT_INTEGRITY
    assert "lies before entry" in capsys.readouterr().err
    assert fedward(after_a_long_run, "replay", "--head", f"99:{'ab' * 32}") == EXIT_INTEGRITY
    assert "never had the head" in capsys.readouterr().err
