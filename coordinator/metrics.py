"""The coordinator's Prometheus metrics, computed from its state when asked. docs/metrics.md lists them.

Agents can't be scraped through a hospital's firewall, so what their telemetry says is exported here, by site.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.provision import BrokerAccess
from fedward.messages import Phase

SITE_PHASES = [phase.value for phase in Phase] + ["offline", "leaving"]

GAUGES = {
    "version": ("fed_model_version", "Current version; not rising: see the buffer."),
    "version_created_at_s": (
        "fed_model_version_timestamp_seconds",
        "When the current version was made; old: see which sites deliver.",
    ),
    "buffer": ("fed_buffer_updates", "Accepted updates since the last version."),
    "buffer_size": ("fed_buffer_size", "Updates that make a version."),
    "disk_free_bytes": (
        "fed_disk_free_bytes",
        "Free space below the state folder; low: offers will be answered `busy`.",
    ),
    "blobs_bytes": ("fed_blobs_bytes", "Disk used by payloads; large: see retention.versions."),
    "ledger_bytes": ("fed_ledger_bytes", "Disk used by the ledger; large: see retention.records."),
    "floor": ("fed_floor_version", "Oldest version that can be replayed and exported."),
    "row_changed": (
        "fed_row_changed",
        "1 when old rows are not deleted because one is not as it was written; run `replay`, see the runbook.",
    ),
    "certificate_expires_s": (
        "fed_certificate_expires_timestamp_seconds",
        "When the first certificate ends, the coordinator's own or a site's; near: see the log for whose.",
    ),
    "leads": (
        "fed_coordinator_leads",
        "1 for the coordinator that works, 0 for one that stands by; none with 1: see the ledger's database.",
    ),
    "connected": ("fed_broker_connected", "1 while connected to the broker; 0: check the broker."),
}

COUNTERS = {
    "bytes_sent": ("fed_sent_bytes", "Payload bytes sent to the broker."),
    "bytes_received": ("fed_received_bytes", "Payload bytes from the broker."),
    "chunks_received": ("fed_chunks_received", "Chunks of updates that came in."),
    "chunks_redundant": (
        "fed_chunks_redundant",
        "Of these, chunks that brought nothing; a rising share: links that break.",
    ),
}

SITE_GAUGES = {
    "version": ("fed_site_model_version", "Version that the site holds; far below fed_model_version: check its link."),
    "step": ("fed_site_train_step", "Step of the training in progress; not moving for long: look at the site's GPU."),
    "step_s": ("fed_site_step_seconds", "Median time of a training step at the site."),
    "train_loss": ("fed_site_train_loss", "Mean training loss of the site's last update; rising: compare its data."),
    "uplink_bytes_s": (
        "fed_site_uplink_bytes_per_second",
        "Rate at which the site's link carries updates up, by the agent's measure.",
    ),
    "staleness": ("fed_site_staleness_versions", "Staleness of the site's last folded update; high: a slow site."),
    "weight": ("fed_site_weight", "Weight of the site's last folded update; near 0: it hardly counts."),
    "quarantined": (
        "fed_site_quarantined",
        "1 while the site is in quarantine; look at its norms with `status`, then `release` or `refuse` it.",
    ),
    "heard_at_s": ("fed_site_heard_timestamp_seconds", "When the site was last heard; old: call the hospital."),
}

SITE_COUNTERS = {
    "num_accepted": ("fed_site_updates_accepted", "Updates of the site that were accepted; flat: see its phase."),
    "num_refused": ("fed_site_updates_refused", "Updates of the site that were refused; rising: see the reasons."),
    "bytes_sent": ("fed_site_sent_bytes", "Payload bytes that the agent says it sent."),
    "bytes_received": ("fed_site_received_bytes", "Payload bytes that the agent says it received."),
}


class StateCollector(Collector):
    """Turns `Service.page()` into metric families."""

    def __init__(self, page: Mapping[str, Any]) -> None:
        self._page = page

    def collect(self) -> Iterator[Metric]:
        yield from self._federation()
        yield from self._sites()

    def _federation(self) -> Iterator[Metric]:
        page = self._page
        for key, (name, text) in GAUGES.items():
            if page[key] is not None:
                yield GaugeMetricFamily(name, text, float(page[key]))
        for key, (name, text) in COUNTERS.items():
            yield CounterMetricFamily(name, text, page[key])
        refused = CounterMetricFamily(
            "fed_messages_refused",
            "Refused messages; docs/protocol.md has each reason.",
            labels=["reason"],
        )
        for reason, count in page["refused"].items():
            refused.add_metric([reason], count)
        yield refused
        access = GaugeMetricFamily(
            "fed_broker_access",
            "1 for how far the broker holds the federation's access rights; failed: the log says why.",
            labels=["state"],
        )
        for state in BrokerAccess:
            access.add_metric([state.value], int(page["broker_access"] == state.value))
        yield access
        metric = GaugeMetricFamily(
            "fed_evaluation_ratio",
            "Metric over all sites' held-out records, of each site's latest evaluation; falling: compare versions.",
            labels=["metric"],
        )
        for name, value in page["metrics"].items():
            metric.add_metric([name], value)
        yield metric

    def _sites(self) -> Iterator[Metric]:
        sites: Mapping[str, Mapping[str, Any]] = self._page["sites"]
        phases = GaugeMetricFamily(
            "fed_site_phase", "1 for what the site is doing; offline: call the hospital.", labels=["site", "phase"]
        )
        for name, site in sites.items():
            for phase in SITE_PHASES:
                phases.add_metric([name, phase], int(site["phase"] == phase))
        yield phases
        codecs = GaugeMetricFamily(
            "fed_site_codec",
            "1 for the codec of the site's last accepted update; fewer bits: a slow link.",
            labels=["site", "codec"],
        )
        for name, site in sites.items():
            if site["codec"]:
                codecs.add_metric([name, site["codec"]], 1)
        yield codecs
        for field, (metric, text) in SITE_GAUGES.items():
            gauge = GaugeMetricFamily(metric, text, labels=["site"])
            for name, site in sites.items():
                if site[field] is not None:
                    gauge.add_metric([name], site[field])
            yield gauge
        for field, (metric, text) in SITE_COUNTERS.items():
            counter = CounterMetricFamily(metric, text, labels=["site"])
            for name, site in sites.items():
                counter.add_metric([name], site[field])
            yield counter


class StandbyCollector(Collector):
    """All there is to say of a coordinator that stands by."""

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(*GAUGES["leads"], 0.0)


def exposition(page: Mapping[str, Any]) -> str:
    """The state as Prometheus text."""
    return _exposition(StateCollector(page))


def exposition_of_standby(_page: Mapping[str, Any]) -> str:
    """The same of one that stands by."""
    return _exposition(StandbyCollector())


def _exposition(collector: Collector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()
