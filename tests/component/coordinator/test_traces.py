"""The way of an update as a trace: from its offer to the version that it went into."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from coordinator.journeys import MOST, Journeys, Stretch
from coordinator.run import traces_of
from coordinator.traces import Traces, to_collector
from fedward.errors import ConfigError
from fedward.limits import CHUNK_BYTES
from fedward.messages import Offer, Outcome, Receipt
from fedward.testing import ManualClock
from tests.support.collector import HOST, collecting
from tests.support.coordinator_bench import Bench, config_of
from tests.support.site import Site
from tests.support.updates import FEDERATION, LARGE, SMALL, offer_of, payload_of, update_id

TOLD = {"site", "answer", "reason", "base_version", "codec", "size_bytes", "version", "staleness"}
"""All that a trace says: no count of records, no norm, no key, no path."""


ENDS_S = 30.0


class Spans(InMemorySpanExporter):
    """What was told, by name."""

    def of(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.get_finished_spans() if span.name == name]

    def facts(self, name: str) -> list[dict[str, object]]:
        return [
            {key.removeprefix("fedward."): value for key, value in (span.attributes or {}).items()}
            for span in self.of(name)
        ]


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def tell(spans: Spans) -> Iterator[Callable[[Stretch], None]]:
    traces = Traces(FEDERATION, SimpleSpanProcessor(spans))
    yield traces.tell
    traces.close()


def offer(site: Site, seed: int, base_version: int = 0) -> None:
    payload = payload_of(SMALL, seed)
    site.offer(offer_of(payload, seed, site.name, base_version, payload=payload))


def send(site: Site, offer: Offer, payload: bytes) -> None:
    for index, begin in enumerate(range(0, len(payload), CHUNK_BYTES)):
        site.chunk(offer, index, payload[begin : begin + CHUNK_BYTES])


def seconds(span: ReadableSpan) -> tuple[float, float]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time / 1e9, span.end_time / 1e9


def test_an_update_is_followed_from_its_offer_to_the_version_that_it_went_into(
    start: Callable[..., Bench], clock: ManualClock, north: Site, south: Site, spans: Spans, tell: Callable[..., None]
) -> None:
    bench = start(layout=LARGE, tell=tell)
    bench.settle()
    payload = payload_of(LARGE, 1)
    large = offer_of(payload, 1, layout_digest=LARGE.digest)
    offered_s = clock.now_s()
    north.offer(large)
    bench.settle()
    clock.advance(3.0)
    send(north, large, payload)
    bench.settle()
    clock.advance(5.0)
    other = offer_of(payload, 2, "south", layout_digest=LARGE.digest)
    south.offer(other)
    bench.settle()
    send(south, other, payload)
    bench.settle()
    mine = [span for span in spans.get_finished_spans() if span.context.trace_id == trace_of(large.update_id)]
    assert [span.name for span in mine] == ["offer", "chunks", "store", "wait", "fold", "update"]
    assert [seconds(span) for span in mine][1] == pytest.approx((offered_s, offered_s + 3.0))
    assert seconds(mine[-1]) == pytest.approx((offered_s, offered_s + 8.0))
    assert spans.facts("update")[0] == {
        "site": "north",
        "version": 1,
        "staleness": 0,
        "base_version": 0,
        "codec": "f32",
        "size_bytes": len(payload),
    }


def trace_of(update: bytes) -> int:
    return int.from_bytes(update[:16], "big")


def test_all_stretches_of_an_update_are_below_the_whole(
    start: Callable[..., Bench], north: Site, south: Site, spans: Spans, tell: Callable[..., None]
) -> None:
    bench = start(tell=tell)
    bench.settle()
    offer(north, 1)
    offer(south, 2)
    bench.settle()
    wholes = {span.context.trace_id: span for span in spans.of("update")}
    assert set(wholes) == {trace_of(update_id(1)), trace_of(update_id(2, "south"))}
    for span in spans.get_finished_spans():
        if span.name == "update":
            assert span.parent is None
        else:
            assert span.parent is not None
            assert span.parent.span_id == wholes[span.context.trace_id].context.span_id


def test_a_way_goes_on_over_a_restart_in_the_same_trace(
    start: Callable[..., Bench], north: Site, south: Site, spans: Spans, tell: Callable[..., None]
) -> None:
    first = start(tell=tell)
    first.settle()
    offer(north, 1)
    first.settle()
    first.kill()
    second = start(tell=tell)
    second.settle()
    offer(south, 2)
    second.settle()
    mine = [span.name for span in spans.get_finished_spans() if span.context.trace_id == trace_of(update_id(1))]
    assert mine == ["store", "wait", "fold", "update"]


def test_a_refused_update_ends_its_way_with_the_reason(
    start: Callable[..., Bench], north: Site, spans: Spans, tell: Callable[..., None]
) -> None:
    bench = start(tell=tell)
    bench.settle()
    offer(north, 1, base_version=7)
    bench.settle()
    (whole,) = spans.of("update")
    assert (whole.status.is_ok, whole.status.description) == (False, "unknown_base")
    assert spans.facts("update")[0]["answer"] == "refused"


def test_a_trace_says_nothing_but_what_is_listed(
    start: Callable[..., Bench], north: Site, south: Site, spans: Spans, tell: Callable[..., None]
) -> None:
    bench = start(tell=tell)
    bench.settle()
    offer(north, 1)
    offer(south, 2)
    offer(north, 3, base_version=9)
    bench.settle()
    told = {key for span in spans.get_finished_spans() for key in span.attributes or {}}
    assert told == {f"fedward.{name}" for name in TOLD}
    assert not [span for span in spans.get_finished_spans() if span.events]


def test_ways_that_never_end_are_forgotten() -> None:
    told: list[Stretch] = []
    journeys = Journeys(told.append)
    for number in range(MOST + 5):
        later = Receipt(update_id=number.to_bytes(32, "big"), outcome=Outcome.LATER)
        journeys.answered("north", later, None, 0.0, 1.0)
    assert journeys.num_known == MOST


# To a collector.


@pytest.mark.network
def test_a_collector_gets_the_spans_of_an_update_over_otlp(
    start: Callable[..., Bench], north: Site, south: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        traces = to_collector(FEDERATION)
        bench = start(tell=traces.tell)
        bench.settle()
        offer(north, 1)
        offer(south, 2)
        bench.settle()
        traces.close()
        got = [collector.spans.get(timeout=10) for _ in range(8)]
    assert sorted({span.name for span in got}) == ["fold", "store", "update", "wait"]
    assert {span.trace_id for span in got} == {update_id(1)[:16], update_id(2, "south")[:16]}
    (resource,) = {tuple(sorted(resource.items())) for resource in collector.resources}
    assert dict(resource)["service.name"] == "fedward-coordinator"
    assert dict(resource)["fedward.federation"] == FEDERATION


@pytest.mark.network
def test_a_collector_that_is_away_costs_nothing_but_the_spans(
    start: Callable[..., Bench], north: Site, south: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{HOST}:1")
    before = set(threading.enumerate())
    traces = to_collector(FEDERATION)
    bench = start(tell=traces.tell)
    bench.settle()
    offer(north, 1)
    offer(south, 2)
    bench.settle()
    assert bench.versions.current.version == 1
    traces.close()
    for thread in set(threading.enumerate()) - before:  # what it says when it gives up is no other test's
        thread.join(ENDS_S)


def test_without_a_collector_nothing_is_told_and_the_library_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "coordinator.traces", None)
    with ExitStack() as held:
        assert traces_of(config_of(tmp_path), {}, held) is None


def test_a_collector_without_the_packages_for_it_is_the_operators_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "coordinator.traces", None)
    with ExitStack() as held, pytest.raises(ConfigError, match=r"fedward\[traces\]"):
        traces_of(config_of(tmp_path), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, held)
