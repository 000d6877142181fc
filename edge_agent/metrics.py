"""The agent's Prometheus metrics, for the hospital's own monitoring; computed from its state when asked."""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_agent.policy import Refusal
from fedward.codec import CODECS
from fedward.messages import Phase

GAUGES = {
    "announced": ("fed_agent_announced_version", "Newest version that the coordinator announced and policy allows."),
    "held": ("fed_agent_model_version", "Version on this site's disk; below the announced one: check the link."),
    "step": ("fed_agent_train_step", "Step of the training in progress; not moving: look at the GPU."),
    "num_steps": ("fed_agent_train_steps", "Steps that the training in progress will take at most."),
    "step_s": ("fed_agent_step_seconds", "Median time of a training step; rising: another job uses the device."),
    "train_loss": ("fed_agent_train_loss", "Mean training loss of the last update."),
    "attempts": (
        "fed_agent_train_attempts",
        "Attempts at one training in vain; 3: the version is left alone.",
    ),
    "uplink_bytes_s": (
        "fed_agent_uplink_bytes_per_second",
        "Rate at which the link carries updates up, over the uploads so far; low: updates of fewer bits leave.",
    ),
    "outbox": ("fed_agent_outbox_updates", "Finished updates without a receipt; above 0 for long: check the link."),
    "num_gpus": ("fed_agent_gpus", "GPUs that it trains on; 0 where there should be one: `fedward agent doctor`."),
    "disk_free_bytes": ("fed_agent_disk_free_bytes", "Free space below the state folder; low: the agent will stop."),
    "certificate_expires_s": (
        "fed_agent_certificate_expires_timestamp_seconds",
        "When this site's certificate ends; less than a quarter of its life away: not renewed, see the log.",
    ),
    "connected": ("fed_agent_broker_connected", "1 while connected to the broker; 0: check firewall and proxy."),
}

COUNTERS = {
    "num_accepted": ("fed_agent_updates_accepted", "Updates that the coordinator accepted."),
    "num_refused": ("fed_agent_updates_refused", "Updates that it refused; rising: see the log for the reason."),
    "num_fetched": ("fed_agent_versions_fetched", "Versions downloaded since the start."),
    "bytes_sent": ("fed_agent_sent_bytes", "Payload bytes that left this site since the start."),
    "bytes_received": ("fed_agent_received_bytes", "Payload bytes that came in since the start."),
}


class StateCollector(Collector):
    """Turns `Agent.page()` into metric families."""

    def __init__(self, page: Mapping[str, Any]) -> None:
        self._page = page

    def collect(self) -> Iterator[Metric]:
        for field, (name, text) in GAUGES.items():
            if self._page[field] is not None:
                yield GaugeMetricFamily(name, text, self._page[field])
        for field, (name, text) in COUNTERS.items():
            yield CounterMetricFamily(name, text, self._page[field])
        phases = GaugeMetricFamily("fed_agent_phase", "1 for what the agent is doing.", labels=["phase"])
        for phase in Phase:
            phases.add_metric([phase.value], int(self._page["phase"] == phase))
        yield phases
        refusals = GaugeMetricFamily(
            "fed_agent_refused_by_policy",
            "1 for what this hospital's policy refuses now; `fedward agent status` says more.",
            labels=["refusal"],
        )
        for refusal in Refusal:
            refusals.add_metric([refusal.value], int(self._page["refused_by_policy"] == refusal))
        yield refusals
        codecs = GaugeMetricFamily(
            "fed_agent_codec", "1 for the codec of the last training; fewer bits: a slow link.", labels=["codec"]
        )
        for name, codec in CODECS.items():
            if codec.carries_updates:
                codecs.add_metric([name], int(self._page["codec"] == name))
        yield codecs
        info = GaugeMetricFamily(
            "fed_agent_info",
            "1 for the release and what it trains on; another device than there should be: `fedward agent doctor`.",
            labels=["software", "device"],
        )
        info.add_metric([self._page["software"], self._page["device"]], 1)
        yield info
        yield from self._counters()

    def _counters(self) -> Iterator[Metric]:
        """Those with a label: of each its name, the page's field, what it says, and the label."""
        for name, field, text, label in (
            (
                "fed_agent_egress_messages",
                "num_left",
                "Messages that left, by what they carry; unlike before: read `fedward agent egress`.",
                "kind",
            ),
            (
                "fed_agent_egress_bytes",
                "bytes_left",
                "Payload bytes that left, by what they carry; unlike before: read `fedward agent egress`.",
                "kind",
            ),
            (
                "fed_agent_messages_refused",
                "refused",
                "Messages of the other side that were refused, by reason.",
                "reason",
            ),
            (
                "fed_agent_failures",
                "failures",
                "Training, evaluation or making version 0 that failed, by kind; see the log.",
                "reason",
            ),
        ):
            counter = CounterMetricFamily(name, text, labels=[label])
            for one, count in self._page[field].items():
                counter.add_metric([one], count)
            yield counter


def exposition(page: Mapping[str, Any]) -> str:
    """The state as Prometheus text."""
    registry = CollectorRegistry()
    registry.register(StateCollector(page))
    return generate_latest(registry).decode()
