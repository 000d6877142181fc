"""Traces of updates, to a collector of OpenTelemetry: the one module that knows it. docs/traces.md says what is told.

A trace is named by the update's id, and so is its outermost span: stretches that are told before a restart of the
coordinator and after it are one trace. Sending is a thread's of the library: a collector that is slow or away costs the
spans that no queue holds, and the coordinator nothing.
"""

import threading

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

from coordinator.journeys import WHOLE, Stretch
from fedward import __version__

CLOSE_S = 2.0
"""For what is not sent yet when the coordinator is stopped."""

NANOSECONDS = 1_000_000_000


class Traces:
    """Where stretches go; `close` ends it."""

    def __init__(self, federation: str, processor: SpanProcessor) -> None:
        self._ids = _Ids()
        resource = Resource.create(
            {"service.name": "fedward-coordinator", "service.version": __version__, "fedward.federation": federation}
        )
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("fedward.coordinator")

    def tell(self, stretch: Stretch) -> None:
        """Hand it to the processor, as a span of its update's trace."""
        trace_id, whole_id = _ids_of(stretch.update_id)
        if stretch.name == WHOLE:
            self._ids.next_ids = (trace_id, whole_id)
            context = None
        else:
            whole = SpanContext(trace_id, whole_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
            context = trace.set_span_in_context(NonRecordingSpan(whole))
        facts = {f"fedward.{name}": value for name, value in stretch.facts.items()}
        span = self._tracer.start_span(
            stretch.name, context, attributes=facts, start_time=int(stretch.began_s * NANOSECONDS)
        )
        if stretch.facts.get("reason"):
            span.set_status(StatusCode.ERROR, str(stretch.facts["reason"]))
        span.end(int(stretch.ended_s * NANOSECONDS))

    def close(self) -> None:
        """Send what is left, for a moment at most."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class _Ids(RandomIdGenerator):
    """Random ids, but for the outermost span of an update. One thread at a time starts spans."""

    def __init__(self) -> None:
        self.next_ids: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        return self.next_ids[0] if self.next_ids else super().generate_trace_id()

    def generate_span_id(self) -> int:
        ids, self.next_ids = self.next_ids, None
        return ids[1] if ids else super().generate_span_id()


def to_collector(federation: str) -> Traces:
    """To the collector that the environment names."""
    return Traces(federation, BatchSpanProcessor(OTLPSpanExporter()))


def _ids_of(update_id: bytes) -> tuple[int, int]:
    """Of an update's trace and of its outermost span: neither is 0, which names nothing."""
    return int.from_bytes(update_id[:16], "big") or 1, int.from_bytes(update_id[16:24], "big") or 1
