"""What the coordinator asks updates to come in, and what it takes."""

from collections.abc import Callable

import pytest

from coordinator.config import FinishSettings
from coordinator.metrics import exposition
from fedward.codec import CODECS, codec
from fedward.errors import RejectReason
from fedward.identity.names import update_seed
from fedward.messages import Announcement, Offer, Phase, Telemetry
from fedward.topics import Up
from tests.support.coordinator_bench import Bench, accepted, refused
from tests.support.site import Site
from tests.support.updates import SMALL, offer_of, update_id, vector

Start = Callable[..., Bench]

TELEMETRY = Telemetry(
    boot_id=b"boot-one",
    phase=Phase.IDLE,
    version=0,
    step=0,
    num_steps=0,
    num_updates=1,
    num_refused=0,
    num_fetched=1,
    bytes_sent=0,
    bytes_received=0,
    uplink_bytes_s=125_000.0,
)
COARSE = [name for name, known in CODECS.items() if known.deterministic and known.bits < codec("q8").bits]


def offered(name: str, seed: int, site: str = "north", base_version: int = 0) -> Offer:
    """A small update in this codec, its payload inside."""
    own = update_seed(codec(name), base_version, update_id(seed, site, base_version))
    content = codec(name).encode(vector(SMALL, seed), SMALL, own)
    return offer_of(content, seed, site, base_version, codec=name, payload=content)


def announced(bench: Bench, north: Site, south: Site, num_versions: int) -> list[Announcement]:
    """The announcements of so many versions more, each made of an update of both sites in the codec asked for."""
    bench.settle()
    for version in range(num_versions):
        asked = north.announcements()[-1].codec
        north.offer(offered(asked, version, "north", version))
        south.offer(offered(asked, version, "south", version))
        bench.settle()
    return list({announcement.version: announcement for announcement in north.announcements()}.values())


def test_every_codec_that_is_allowed_is_taken_and_any_other_is_refused(start: Start, north: Site, south: Site) -> None:
    bench = start(codec="eden4", codecs=["eden2"])
    bench.settle()
    other, usual, smaller = offered("q8", 1), offered("eden4", 2), offered("eden2", 3, "south")
    for site, offer in ((north, other), (north, usual), (south, smaller)):
        site.offer(offer)
        bench.settle()
    assert north.receipts() == [refused(other, RejectReason.UNKNOWN_CODEC), accepted(usual)]
    assert south.receipts() == [accepted(smaller)]
    assert [row.codec for row in bench.ledger.accepted()] == ["eden4", "eden2"]
    assert bench.versions.current.version == 1, "updates of two codecs make one version"


def test_the_first_versions_and_the_last_ones_ask_for_one_step_more_precision(
    start: Start, north: Site, south: Site
) -> None:
    bench = start(codec="eden2", precise_versions=1, finish=FinishSettings(version=4))
    said = announced(bench, north, south, num_versions=4)
    assert [announcement.codec for announcement in said][:4] == ["eden4", "eden2", "eden2", "eden4"]
    assert {announcement.codecs for announcement in said} == {("q8", "eden4", "eden2", "eden1")}


def test_an_update_that_was_made_before_the_announcement_asked_for_more_precision_counts(
    start: Start, north: Site
) -> None:
    bench = start(codec="eden4", precise_versions=1, engine={"preset": "fedasync"})
    bench.settle()
    offer = offered("eden1", 1)
    north.offer(offer)
    bench.settle()
    assert north.announcements()[0].codec == "q8"
    assert north.receipts() == [accepted(offer)]


def test_the_codec_and_the_rate_of_a_site_are_on_the_page_and_in_the_metrics(
    start: Start, north: Site, south: Site
) -> None:
    bench = start(codec="eden4")
    bench.settle()
    north.offer(offered("eden2", 1))
    north.say(Up.TELEMETRY, TELEMETRY)
    bench.settle()
    page = bench.service.page()
    assert {name: site["codec"] for name, site in page["sites"].items()} == {"north": "eden2", "south": None}
    shown = exposition(page)
    assert 'fed_site_codec{codec="eden2",site="north"} 1.0' in shown
    assert 'fed_site_uplink_bytes_per_second{site="north"} 125000.0' in shown
    assert 'site="south"} 1.0' not in [line for line in shown.splitlines() if line.startswith("fed_site_codec")]


@pytest.mark.parametrize("coarse", COARSE)
def test_the_last_deltas_travel_precisely_and_say_so_the_first_as_all_others(
    start: Start, north: Site, south: Site, coarse: str
) -> None:
    bench = start(codec="q8", model_codec=coarse, precise_versions=1, finish=FinishSettings(version=4))
    announced(bench, north, south, num_versions=4)
    recorded = [row.settings["model_codec"] for row in bench.ledger.versions()[1:]]
    travelled = [bench.ledger.parts(version, version)[0].codec for version in range(1, 5)]
    assert recorded == travelled == [coarse, coarse, coarse, "q8"]
