"""What the policy keeps, what it deletes, and that everything that is kept is still proved and complete."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from coordinator.card import model_card
from coordinator.engine.rates import live
from coordinator.engine.settings import PRESETS, EngineSettings
from coordinator.engine.weigh import weights
from coordinator.making import arrival_of
from coordinator.members import Members
from coordinator.needed import STATE_EVERY
from coordinator.quarantine import Quarantine
from coordinator.replay import pruned_since, replay, snapshot_of_ledger
from coordinator.retention import LARGEST_CUT
from coordinator.verdicts import IN_A_ROW
from coordinator.versions import LONGEST_CHAIN
from fedward.errors import ConfigError, RejectReason
from fedward.layout import vector_digest
from tests.support.coordinator_bench import at
from tests.support.updates import SITES, offer_of
from tests.support.version_line import KEEP_ALL, SHORT, TINY, VersionLine

OLDEST_BASE = 2


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Callable[..., VersionLine]]:
    """Begins, or goes on with, a line of versions in a folder of this name."""
    opened: list[VersionLine] = []

    def begin(name: str = "line", **settings: object) -> VersionLine:
        opened.append(VersionLine(tmp_path / name, **settings))  # type: ignore[arg-type]
        return opened[-1]

    yield begin
    for one in opened:
        one.close()


def assert_whole(kept: VersionLine) -> None:
    """Blobs are exactly those that are needed, the chain holds, and everything from the floor on comes out again."""
    assert kept.blobs.digests() == set(kept.ledger.blobs())
    kept.ledger.check_chain()
    floor = kept.ledger.floor
    assert [done.version for done in replay(kept.store, floor)] == list(range(floor, kept.newest + 1))


def test_disk_stays_within_the_policys_bound_while_versions_are_made(
    line: Callable[..., VersionLine], tmp_path: Path
) -> None:
    kept = line()
    above_floor = SHORT.versions + STATE_EVERY  # which rises in steps
    parts = 2 * (above_floor + OLDEST_BASE + LONGEST_CHAIN)  # a delta each, and perhaps a snapshot
    states = above_floor // STATE_EVERY + 2
    payloads = len(SITES) * above_floor + len(SITES)
    largest_bytes = 4 * TINY.size
    for _ in range(60):
        kept.make(5)
        sizes = [path.stat().st_size for path in (tmp_path / "line" / "blobs").iterdir()]
        assert len(sizes) <= parts + states + payloads
        assert sum(sizes) <= (parts + states + payloads) * largest_bytes
        assert len(kept.ledger.versions()) <= SHORT.records + SHORT.records // 10 + STATE_EVERY
        if kept.newest == 100:
            ledger_bytes = (tmp_path / "line" / "ledger.sqlite").stat().st_size
    assert kept.newest == 300
    assert (tmp_path / "line" / "ledger.sqlite").stat().st_size <= 1.25 * ledger_bytes
    assert_whole(kept)
    # Each cut adds what it deletes, and the totals of earlier cuts that it deletes, to the totals.
    of_all = sum(sums.num_accepted for sums in kept.ledger.totals().values())
    assert of_all + len(kept.ledger.accepted()) == 600


def test_the_floor_is_the_newest_version_with_a_state_that_is_old_enough(line: Callable[..., VersionLine]) -> None:
    kept = line()
    floors = []
    for _ in range(34):
        kept.make(1)
        floors.append(kept.ledger.floor)
    assert floors == [0] * 21 + [10] * 10 + [20] * 3


def test_pruning_changes_no_version(line: Callable[..., VersionLine]) -> None:
    kept, whole = line(), line("whole", retention=KEEP_ALL)
    kept.make(60)
    whole.make(60)
    assert kept.ledger.versions() == whole.ledger.versions()[kept.ledger.oldest_version() :]
    assert whole.ledger.floor == 0
    assert kept.ledger.oldest_version() > 0
    np.testing.assert_array_equal(kept.versions.vector(50), whole.versions.vector(50))


@pytest.mark.parametrize("model_codec", ["q8", "f32"])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_with_every_method_the_versions_from_the_floor_on_come_out_as_recorded(
    line: Callable[..., VersionLine], preset: str, model_codec: str
) -> None:
    kept = line(model_codec=model_codec, preset=preset)
    kept.make(57)
    assert kept.ledger.floor == 40
    assert_whole(kept)


def test_the_last_update_of_a_site_that_left_long_ago_is_kept_for_the_cache(line: Callable[..., VersionLine]) -> None:
    kept = line(preset="ca2fl")
    kept.make(3)
    last = kept.ledger.accepted()[-1]
    kept.make(80, sites=["north"])
    again = line(preset="ca2fl")
    again.make(20, sites=["north"])
    assert (last.site, last.version) == ("south", 3)
    assert again.ledger.latest_of_sites(10**9)["south"] == last
    assert_whole(again)


def test_an_older_version_is_refused_with_the_oldest_that_is_there(line: Callable[..., VersionLine]) -> None:
    kept = line()
    kept.make(60)
    for version in (0, 5, 39):
        with pytest.raises(ConfigError, match=f"version {version}: the oldest version that is still there is 40"):
            kept.versions.vector(version)
        with pytest.raises(ConfigError, match=f"--from {version}: the oldest version that is still there is 40"):
            next(replay(kept.store, version))
    for version in range(40, 61):
        assert vector_digest(kept.versions.vector(version)) == kept.ledger.version(version).model_digest
    with pytest.raises(ConfigError, match="--from 61: never made; the newest version is 60"):
        next(replay(kept.store, 61))


def test_every_version_above_the_floor_can_be_begun_from(line: Callable[..., VersionLine]) -> None:
    kept = line()
    kept.make(35)
    for version in range(kept.ledger.floor, kept.newest + 1):
        assert [done.version for done in replay(kept.store, version)] == list(range(version, 36))


def test_a_smaller_policy_is_applied_at_the_next_start(line: Callable[..., VersionLine]) -> None:
    line(retention=KEEP_ALL).make(60)
    assert_whole(line(retention=KEEP_ALL))
    kept = line()
    for _ in range(3):
        kept.retention.cut()
    assert (kept.ledger.floor, kept.ledger.oldest_version()) == (40, 31)
    assert_whole(kept)


def test_old_rows_go_a_few_versions_at_a_time_and_none_before_the_start_is_over(
    line: Callable[..., VersionLine],
) -> None:
    line(retention=KEEP_ALL).make(95)
    kept = line()
    oldest = [kept.ledger.oldest_version()]
    for _ in range(4):
        kept.retention.cut()
        oldest.append(kept.ledger.oldest_version())
    assert oldest == [0, LARGEST_CUT, 2 * LARGEST_CUT, 66, 66]
    assert_whole(kept)


def test_each_version_deletes_its_share_of_what_is_left_over(line: Callable[..., VersionLine]) -> None:
    line(retention=KEEP_ALL).make(95)
    kept = line()
    oldest = []
    for _ in range(3):
        kept.make(1)
        oldest.append(kept.ledger.oldest_version())
    assert oldest == [LARGEST_CUT, 2 * LARGEST_CUT, 69]


def test_of_a_site_that_goes_on_no_old_row_stays(line: Callable[..., VersionLine]) -> None:
    kept = line()
    kept.make(80)
    oldest = kept.ledger.oldest_version()
    assert oldest > SHORT.records
    assert min(row.version for row in kept.ledger.accepted() if row.version is not None) == oldest
    assert min(row.version for row in kept.ledger.evaluations()) >= oldest - 1  # measured when the next one was made


def test_a_larger_policy_brings_nothing_back(line: Callable[..., VersionLine]) -> None:
    line().make(60)
    again = line(retention=KEEP_ALL)
    again.make(20)
    assert again.ledger.floor == 40
    assert_whole(again)


def test_what_nothing_needs_is_swept_at_the_start_and_when_the_floor_rises(
    line: Callable[..., VersionLine],
) -> None:
    first = line()
    first.make(1)
    orphan = first.blobs.put(b"of a crash")
    again = line()
    assert not again.blobs.path(orphan).exists()
    again.blobs.put(b"of a crash")
    again.make(60)
    assert_whole(again)


def test_figures_of_sites_are_those_of_all_updates_ever(line: Callable[..., VersionLine]) -> None:
    kept, whole = line(), line("whole", retention=KEEP_ALL)
    for one in (kept, whole):
        one.make(20)
        one.make(100, sites=["north"])
    assert len(kept.ledger.accepted()) < len(whole.ledger.accepted()) / 2
    recalled, expected = Members(SITES, kept.ledger), Members(SITES, whole.ledger)
    assert recalled.sites == expected.sites
    assert (expected.sites["south"].num_accepted, expected.sites["north"].num_refused) == (20, 17)
    assert model_card(kept.ledger, 115, b"f").splitlines()[7] == "- updates folded in: 135"
    assert site_lines(kept) == site_lines(whole)
    assert recalled.rates == expected.rates
    assert live(recalled.rates, now_s=float(2 * kept.newest)).keys() == {"north"}


def test_weights_are_those_of_a_process_that_was_never_restarted_over_many_cuts(
    line: Callable[..., VersionLine],
) -> None:
    kept = line()
    never_restarted = Members(SITES, kept.ledger)
    seen = 0
    for sites in (SITES, ["north"], ["north"], SITES, ["south"], ["north"]):
        for _ in range(20):
            kept.make(1, sites=sites)
            for row in kept.ledger.updates():
                if row.number > seen:
                    never_restarted.on_update(row)
                    seen = row.number
        now_s = float(2 * kept.newest)
        recalled = Members(SITES, kept.ledger)
        assert recalled.rates == never_restarted.rates
        arrivals = [arrival_of(row) for row in kept.ledger.accepted()[-3:]]
        settings, version = EngineSettings(), kept.newest + 1
        assert weights(arrivals, version, recalled.rates, settings, 2, now_s) == weights(
            arrivals, version, never_restarted.rates, settings, 2, now_s
        )
    assert kept.ledger.oldest_version() > 3 * SHORT.records - SHORT.records // 10
    kept.ledger.check_chain()


def site_lines(one: VersionLine) -> list[str]:
    """The card's tables of sites and evaluations."""
    return [line for line in model_card(one.ledger, one.newest, b"f").splitlines() if line.startswith("| ")]


def test_a_replay_that_was_overtaken_by_the_floor_says_so(line: Callable[..., VersionLine]) -> None:
    kept = line()
    kept.make(25)
    with snapshot_of_ledger(kept.ledger) as copy:
        assert pruned_since(kept.ledger, copy) is None
        kept.make(10)
        assert "older than version 20 meanwhile: begin again" in str(pruned_since(kept.ledger, copy))


def test_a_site_stays_in_quarantine_when_its_outliers_are_old(line: Callable[..., VersionLine]) -> None:
    first = line()
    first.make(4)
    for seed in range(IN_A_ROW):
        outlier = offer_of(b"-", 900 + seed, "south", first.newest)
        first.ledger.add_update(outlier, "south", at(50.0), 99.0, RejectReason.OUTLIER)
    assert Quarantine(first.ledger, SITES).held == {"south"}
    oldest = first.ledger.oldest_version()
    first.make(70, ["north"])
    assert first.ledger.oldest_version() > oldest + 4
    assert Quarantine(line().ledger, SITES).held == {"south"}
    assert_whole(first)
