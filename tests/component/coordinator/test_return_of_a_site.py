"""A site that was away for long: its update is refused or counts less by rule, and the newest version is in reach."""

from collections.abc import Callable

import pytest

from coordinator.engine.settings import EngineSettings
from coordinator.versions import LONGEST_CHAIN
from fedward.errors import RejectReason
from fedward.messages import PartKind
from fedward.recipe import cheapest_recipe
from tests.support.coordinator_bench import Bench, accepted, missing, refused
from tests.support.site import Site
from tests.support.updates import SMALL, inline, offer_of, payload_of

Start = Callable[..., Bench]
WEEKS = 12  # versions


def versions_without_north(bench: Bench, south: Site, count: int) -> None:
    """Each of one update of the other site."""
    bench.settle()
    for version in range(count):
        south.offer(inline(100 + version, "south", base_version=version))
        bench.settle()
    newest = bench.ledger.newest_version()
    assert newest is not None
    assert newest.version == count


@pytest.mark.parametrize("versions", [1, LONGEST_CHAIN + WEEKS])
def test_whoever_comes_back_finds_a_way_to_the_newest_version_without_what_it_held(
    start: Start, north: Site, south: Site, versions: int
) -> None:
    bench = start(engine=EngineSettings(buffer_size=1))
    versions_without_north(bench, south, versions)
    announcement = north.announcements()[-1]
    recipe = cheapest_recipe(announcement.parts, announcement.version, held=None)
    assert announcement.version == versions
    assert recipe[0].kind is PartKind.SNAPSHOT


def test_an_update_that_is_too_stale_is_refused_before_a_byte_of_it_moves(
    start: Start, north: Site, south: Site
) -> None:
    bench = start(engine=EngineSettings(buffer_size=1, max_staleness=WEEKS - 1))
    versions_without_north(bench, south, WEEKS)
    content = payload_of(SMALL, 1)
    old = offer_of(content, 1)
    north.offer(old)
    bench.settle()
    assert north.receipts() == [refused(old, RejectReason.STALE)]
    assert north.grants() == []


def test_an_update_that_is_as_stale_as_allowed_counts_and_weighs_less(start: Start, north: Site, south: Site) -> None:
    bench = start(engine=EngineSettings(preset="fedbuff", buffer_size=1, max_staleness=WEEKS))
    versions_without_north(bench, south, WEEKS)
    old = inline(1)
    north.offer(old)
    bench.settle()
    assert north.receipts() == [accepted(old)]
    weights = {row.base_version: row.weight for row in bench.ledger.updates()[-2:]}
    assert weights == {WEEKS - 1: pytest.approx(1.0), 0: pytest.approx((1 + WEEKS) ** -0.5)}


def test_a_small_update_that_is_offered_without_its_payload_is_asked_for_it(start: Start, north: Site) -> None:
    """As sites do that had no answer for a while."""
    bench = start()
    bench.settle()
    content = payload_of(SMALL, 1)
    offer = offer_of(content, 1)
    north.offer(offer)
    bench.settle()
    assert [grant.missing for grant in north.grants()] == [missing((0, 1))]
    north.chunk(offer, 0, content)
    bench.settle()
    assert north.receipts() == [accepted(offer)]
