"""A real federation whose coordinator tells a collector the way of each update."""

from collections.abc import Callable

import pytest

from sandbox.federation import Federation
from tests.integration.conftest import READY_S
from tests.support.collector import collecting

pytestmark = [pytest.mark.slow, pytest.mark.network]


def test_every_update_of_a_version_arrives_at_the_collector_with_its_version(
    federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        running = federation(finish={"version": 3})
        running.wait_for(lambda state: state["state"] == "finished", READY_S, "the end")
        running.stop()
        ledger = running.ledger()
        folded = {row.update_id[:16]: row.version for row in ledger.accepted() if row.version is not None}
        ledger.close()
        told = {}
        while set(told) != set(folded):
            span = collector.spans.get(timeout=READY_S)
            if span.name == "update":
                told.update(
                    (span.trace_id, pair.value.int_value) for pair in span.attributes if pair.key == "fedward.version"
                )
    assert told == folded
