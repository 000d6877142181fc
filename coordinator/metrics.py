"""The coordinator's Prometheus metrics, computed from its state when asked. docs/metrics.md is made of them.

Agents can't be scraped through a hospital's firewall, so what their telemetry says is exported here, by site. A name
of this module is a promise to who has rules and dashboards; a label never holds what somebody outside has made up.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import PROCESS_COLLECTOR, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from coordinator.durations import BOUNDS_S
from coordinator.provision import BrokerAccess
from fedward.limits import MAX_INBOX_BYTES, MIB
from fedward.messages import FederationState, Phase

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
    "num_parameters": (
        "fed_model_parameters",
        "Parameters of the model: an update as float32 has four bytes for each.",
    ),
    "step_norm": (
        "fed_version_step_norm",
        "L2 norm of what the last version added to the model; growing over versions: it diverges.",
    ),
    "sites_admitted": ("fed_sites_admitted", "Sites that are listened to."),
    "sites_online": ("fed_sites_online", "Sites that are connected; fewer than needed: call the hospitals."),
    "sites_needed": (
        "fed_sites_needed",
        "Updates that make a version when all admitted sites are there; fewer online: versions of fewer, or none.",
    ),
    "floor": ("fed_floor_version", "Oldest version that can be replayed and exported."),
    "row_changed": (
        "fed_row_changed",
        "1 when old rows are not deleted because one is not as it was written; run `replay`, see the runbook.",
    ),
    "replayed_at_s": (
        "fed_replay_timestamp_seconds",
        "When `fedward coordinator replay` last ended; long ago: see why it does not run.",
    ),
    "replay_matches": (
        "fed_replay_matches",
        "1 when it made every version as recorded, 0 when not; 0: see the runbook, Prove where a model comes from.",
    ),
    "certificate_expires_s": (
        "fed_certificate_expires_timestamp_seconds",
        "When the first certificate ends, the coordinator's own or a site's; near: see the log for whose.",
    ),
    "own_certificate_expires_s": (
        "fed_coordinator_certificate_expires_timestamp_seconds",
        "When the coordinator's own certificate ends; near: renew it with `fedward coordinator identity --renew`.",
    ),
    "leads": (
        "fed_coordinator_leads",
        "1 for the coordinator that works, 0 for one that stands by; none with 1: see the ledger's database.",
    ),
    "num_waiting": ("fed_inbox_messages", "Messages that came in and are not done with; growing: it can't keep up."),
    "bytes_waiting": (
        "fed_inbox_bytes",
        f"Payload bytes of these; at {MAX_INBOX_BYTES // MIB} MiB it reads no more for a while.",
    ),
    "connected": ("fed_broker_connected", "1 while connected to the broker; 0: check the broker."),
}

COUNTERS = {
    "bytes_sent": ("fed_sent_bytes", "Payload bytes sent to the broker."),
    "bytes_received": ("fed_received_bytes", "Payload bytes from the broker."),
    "chunks_received": ("fed_chunks_received", "Chunks of updates that came in."),
    "busy_s": ("fed_busy_seconds", "Time in which the loop did not wait; a rate near 1: it can't keep up."),
    "chunks_redundant": (
        "fed_chunks_redundant",
        "Of these, chunks that brought nothing; a rising share: links that break.",
    ),
}

BROKER_GAUGES = {
    "clients": ("fed_broker_clients", "Clients that are connected to the broker; falling: see its log."),
    "stored_messages": (
        "fed_broker_stored_messages",
        "Messages that the broker holds, retained ones too; growing: somebody who subscribes does not take them.",
    ),
    "uptime_s": ("fed_broker_uptime_seconds", "Time since the broker's start; small again and again: it is restarted."),
}
"""Of mosquitto with dynamic security; the same for BROKER_COUNTERS."""

BROKER_COUNTERS = {
    "dropped_messages": (
        "fed_broker_dropped_messages",
        "Messages that the broker dropped as its queues were full; rising: raise its limits. Nothing is lost.",
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
    "norm": (
        "fed_site_update_norm",
        "L2 norm of the site's last accepted update; far above the others': compare its data.",
    ),
    "num_gpus": ("fed_site_gpus", "GPUs that the site trains on; fewer than before: its driver, or its container."),
    "clock_skew_s": (
        "fed_site_clock_skew_seconds",
        "The site's clock minus the coordinator's; beyond a minute: time synchronisation of either.",
    ),
    "certificate_expires_s": (
        "fed_site_certificate_expires_timestamp_seconds",
        "When the site's certificate ends; near: its agent has not renewed it, see its log.",
    ),
    "quarantined": (
        "fed_site_quarantined",
        "1 while the site is in quarantine; look at its norms with `status`, then `release` or `refuse` it.",
    ),
    "heard_at_s": ("fed_site_heard_timestamp_seconds", "When the site was last heard; old: call the hospital."),
}

SITE_COUNTERS = {
    "num_accepted": ("fed_site_updates_accepted", "Updates of the site that were accepted; flat: see its phase."),
    "num_refused": ("fed_site_updates_refused", "Updates of the site that were refused; rising: see the reasons."),
    "num_fetched": ("fed_site_versions_fetched", "Versions that the agent says it downloaded; flat: see its phase."),
    "bytes_sent": ("fed_site_sent_bytes", "Payload bytes that the agent says it sent."),
    "bytes_received": ("fed_site_received_bytes", "Payload bytes that the agent says it received."),
}


class StateCollector(Collector):
    """Turns `Service.page()` into metric families."""

    def __init__(self, page: Mapping[str, Any]) -> None:
        self._page = page

    def collect(self) -> Iterator[Metric]:
        yield from self._federation()
        yield from self._time()
        yield from self._broker()
        yield from self._sites()

    def _federation(self) -> Iterator[Metric]:
        page = self._page
        for key, (name, text) in GAUGES.items():
            if page[key] is not None:
                yield GaugeMetricFamily(name, text, float(page[key]))
        for key, (name, text) in COUNTERS.items():
            yield CounterMetricFamily(name, text, page[key])
        yield _gauge("fed_coordinator_info", "1 for the coordinator's release.", {"software": page["software"]})
        yield _one_of("fed_federation_state", "1 for what the operator wants.", "state", FederationState, page["state"])
        yield _counter(
            "fed_messages_refused", "Refused messages; docs/protocol.md has each reason.", "reason", page["refused"]
        )
        came = "Messages of all sites that came in, by what they carry; unlike before: see their egress logs."
        yield _counter("fed_egress_messages", came, "kind", page["num_came"])
        yield _one_of(
            "fed_broker_access",
            "1 for how far the broker holds the federation's access rights; failed: the log says why.",
            "state",
            BrokerAccess,
            page["broker_access"],
        )
        yield _gauges(
            "fed_evaluation_ratio",
            "Metric over all sites' held-out records, of each site's latest evaluation; falling: compare versions.",
            "metric",
            page["metrics"],
        )
        yield _gauges(
            "fed_evaluation_worst_ratio",
            "Metric at the site where it is worst; falling while the others rise: the model leaves that site behind.",
            "metric",
            page["worst_metrics"],
        )

    def _time(self) -> Iterator[Metric]:
        message = HistogramMetricFamily(
            "fed_message_seconds", "Time to handle a message; long: the disk, or the ledger's server.", labels=["kind"]
        )
        for kind, durations in self._page["message_s"].items():
            message.add_metric([kind], _buckets(durations), durations["sum_s"])
        yield message
        durations = self._page["version_s"]
        version = HistogramMetricFamily(
            "fed_version_seconds", "Time to make and store a version; long: the disk, or too few cores."
        )
        version.add_metric([], _buckets(durations), durations["sum_s"])
        yield version

    def _broker(self) -> Iterator[Metric]:
        figures = self._page["broker"]
        for key, (name, text) in BROKER_GAUGES.items():
            if key in figures:
                yield GaugeMetricFamily(name, text, figures[key])
        for key, (name, text) in BROKER_COUNTERS.items():
            if key in figures:
                yield CounterMetricFamily(name, text, figures[key])

    def _sites(self) -> Iterator[Metric]:
        sites: Mapping[str, Mapping[str, Any]] = self._page["sites"]
        yield from _words_of_sites(sites)
        ends = self._page["certificates"]
        for field, (metric, text) in SITE_GAUGES.items():
            gauge = GaugeMetricFamily(metric, text, labels=["site"])
            for name, site in sites.items():
                value = ends.get(name) if field == "certificate_expires_s" else site[field]
                if value is not None:
                    gauge.add_metric([name], value)
            yield gauge
        for field, (metric, text) in SITE_COUNTERS.items():
            counter = CounterMetricFamily(metric, text, labels=["site"])
            for name, site in sites.items():
                counter.add_metric([name], site[field])
            yield counter
        came = CounterMetricFamily(
            "fed_site_egress_bytes",
            "Payload bytes that came from the site, by what they carry; unlike others': see its egress log.",
            labels=["site", "kind"],
        )
        for name, sizes in self._page["bytes_came"].items():
            for kind, size in sizes.items():
                came.add_metric([name, kind], size)
        yield came


def _words_of_sites(sites: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    """What is said of sites in labels."""
    phases = GaugeMetricFamily(
        "fed_site_phase", "1 for what the site is doing; offline: call the hospital.", labels=["site", "phase"]
    )
    codecs = GaugeMetricFamily(
        "fed_site_codec",
        "1 for the codec of the site's last accepted update; fewer bits: a slow link.",
        labels=["site", "codec"],
    )
    infos = GaugeMetricFamily(
        "fed_site_info",
        "1 for the release of the site's agent and what it trains on, as far as its hospital tells; old: upgrade it.",
        labels=["site", "software", "device"],
    )
    metrics = GaugeMetricFamily(
        "fed_site_evaluation_ratio",
        "Metric on the site's held-out records, at its latest evaluation; far below the others': compare its data.",
        labels=["site", "metric"],
    )
    for name, site in sites.items():
        for phase in SITE_PHASES:
            phases.add_metric([name, phase], int(site["phase"] == phase))
        if site["codec"]:
            codecs.add_metric([name, site["codec"]], 1)
        infos.add_metric([name, site["software"], site["device"]], 1)
        for metric, ratio in site["metrics"].items():
            if ratio["denominator"] > 0:
                metrics.add_metric([name, metric], ratio["numerator"] / ratio["denominator"])
    yield from (phases, codecs, infos, metrics)


def _gauge(name: str, text: str, labels: Mapping[str, str]) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=list(labels))
    gauge.add_metric(list(labels.values()), 1)
    return gauge


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=[label])
    for value_of, value in values.items():
        gauge.add_metric([value_of], value)
    return gauge


def _one_of(name: str, text: str, label: str, all_states: Iterable[str], state: str) -> Metric:
    """1 for the state that holds, 0 for each other."""
    return _gauges(name, text, label, {str(one): int(state == one) for one in all_states})


def _counter(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    counter = CounterMetricFamily(name, text, labels=[label])
    for count_of, count in counts.items():
        counter.add_metric([count_of], count)
    return counter


def _buckets(durations: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Prometheus' are cumulative."""
    ends = [*map(floatToGoString, BOUNDS_S), "+Inf"]
    return list(zip(ends, map(float, accumulate(durations["counts"])), strict=True))


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
    registry.register(PROCESS_COLLECTOR)
    return generate_latest(registry).decode()
