"""docs/metrics.md out of the code: `python -m monitoring.catalogue` writes it anew, and a test sees where it is old."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

from coordinator.durations import Meter
from coordinator.metrics import (
    BROKER_COUNTERS,
    BROKER_GAUGES,
    COUNTERS,
    GAUGES,
    SITE_COUNTERS,
    SITE_GAUGES,
    StateCollector,
)
from edge_agent import metrics as agent
from fedward.topics import CARRIED

CATALOGUE = Path(__file__).parents[1] / "docs" / "metrics.md"

HEAD = """\
# Metrics

Both programs serve `/metrics`. An agent's are for the hospital; the coordinator exports what agents tell, by site,
because nobody can scrape through a hospital's firewall. `python -m monitoring.catalogue` makes this page of the code.

A coordinator that stands by serves `fed_coordinator_leads` alone. The broker's figures are there with a mosquitto whose
rights the coordinator keeps (`broker.authorisation: dynamic-security`), `process_*` of Prometheus' library on Linux.
A federation of 500 sites has at most 20,000 series: `tests/component/coordinator/test_coordinator_metrics.py`.
"""


def coordinator_page(sites: Iterable[str] = ("site",), value: float = 1) -> dict[str, Any]:
    """A page of the coordinator with every figure there is, all of them `value`."""
    figures = dict.fromkeys([*SITE_GAUGES, *SITE_COUNTERS], value)
    site = figures | {"phase": "idle", "codec": "eden4", "software": "fedward 1", "device": "cpu"}
    metrics = {name: {"numerator": value, "denominator": 1.0} for name in ("accuracy", "auc", "loss")}
    names = list(sites)
    return {
        **dict.fromkeys([*GAUGES, *COUNTERS], value),
        **Meter().page(),
        "software": "fedward 1",
        "state": "running",
        "broker_access": "unused",
        "broker": dict.fromkeys([*BROKER_GAUGES, *BROKER_COUNTERS], value),
        "refused": {"stale": 0},
        "num_came": {"update": 0},
        "bytes_came": {name: dict.fromkeys(CARRIED, value) for name in names},
        "metrics": dict.fromkeys(metrics, value),
        "worst_metrics": dict.fromkeys(metrics, value),
        "certificates": dict.fromkeys(names, value),
        "sites": {name: {**site, "metrics": metrics} for name in names},
    }


def agent_page() -> dict[str, Any]:
    """A page of an agent with every figure there is."""
    return {
        **dict.fromkeys([*agent.GAUGES, *agent.COUNTERS], 1),
        "phase": "idle",
        "codec": "eden4",
        "software": "fedward 1",
        "device": "cpu",
        "num_left": {"update": 0},
        "bytes_left": {"update": 0},
        "refused": {"stale": 0},
        "refused_by_policy": None,
        "failures": {"exception": 0},
    }


def catalogue() -> str:
    """The whole page."""
    both = {"Coordinator": StateCollector(coordinator_page()), "Edge agent": agent.StateCollector(agent_page())}
    tables = (table(title, collector.collect()) for title, collector in both.items())
    return "\n".join([HEAD, *tables])


def table(title: str, families: Iterable[Metric]) -> str:
    """One side's metrics, in the order in which it tells them."""
    lines = [f"## {title}", "", "| name | type | labels | meaning, and what to do |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *(_row(family) for family in families), ""])


def _row(family: Metric) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
    return f"| `{name}` | {family.type} | {', '.join(labels)} | {family.documentation} |"


if __name__ == "__main__":
    CATALOGUE.write_text(catalogue())
