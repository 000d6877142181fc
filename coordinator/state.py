"""What the coordinator knows of its federation right now, as plain values for people: API, metrics, status."""

import re
import statistics
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedward.messages import Phase, Ratio, Status, Telemetry

LOSS = "loss"
"""The metric of which less is better."""

SOFTWARE = re.compile(r"fedward [0-9][0-9A-Za-z.+]{0,30}")
DEVICES = ("cpu", "cuda")
OTHER = "other"


@dataclass
class SiteState:
    """One admitted site, as seen from here."""

    enrolled: bool = True  # false: in the configuration, and not (any more) in the register
    status: Status | None = None
    telemetry: Telemetry | None = None
    heard_at_s: float | None = None
    clock_skew_s: float | None = None  # its clock minus ours, when its last telemetry came
    num_accepted: int = 0
    num_refused: int = 0
    base_version: int | None = None  # of its last accepted update
    codec: str | None = None  # of its last accepted update
    staleness: int | None = None  # of its last folded update, in versions
    weight: float | None = None  # of its last folded update
    norm: float | None = None  # of its last update that was looked at and accepted
    evaluated_version: int | None = None
    quarantined: bool = False
    metrics: dict[str, Ratio] = field(default_factory=dict)  # its latest evaluation

    @property
    def online(self) -> bool:
        return self.enrolled and self.status is not None and self.status.online

    @property
    def phase(self) -> str:
        """`offline`, `leaving`, or what the agent says it does."""
        if not self.enrolled:
            return "offline"
        if not self.online:
            return "leaving" if self.status and self.status.leaving else "offline"
        return self.telemetry.phase if self.telemetry else Phase.IDLE

    def page(self) -> dict[str, Any]:
        telemetry = self.telemetry
        return {
            "phase": self.phase,
            "online": self.online,
            "heard_at_s": self.heard_at_s,
            "clock_skew_s": self.clock_skew_s,
            "software": known_software(self.status.software if self.status else ""),
            "device": known_device(telemetry.device if telemetry else None),
            "num_gpus": telemetry.num_gpus if telemetry else None,
            "version": telemetry.version if telemetry else None,
            "step": telemetry.step if telemetry else None,
            "num_steps": telemetry.num_steps if telemetry else None,
            "step_s": telemetry.step_s if telemetry else None,
            "uplink_bytes_s": telemetry.uplink_bytes_s if telemetry else None,
            "train_loss": telemetry.train_loss if telemetry else None,
            "bytes_sent": (telemetry.bytes_sent if telemetry else None) or 0,  # 0, too, where a site does not tell
            "bytes_received": (telemetry.bytes_received if telemetry else None) or 0,
            "num_fetched": (telemetry.num_fetched if telemetry else None) or 0,
            "num_accepted": self.num_accepted,
            "num_refused": self.num_refused,
            "base_version": self.base_version,
            "codec": self.codec,
            "staleness": self.staleness,
            "weight": self.weight,
            "norm": self.norm,
            "quarantined": self.quarantined,
            "evaluated_version": self.evaluated_version,
            "metrics": {name: asdict(ratio) for name, ratio in self.metrics.items()},
        }


def known_software(told: str) -> str:
    """The release that an agent says it is; `other` for what no agent of ours says: it goes into a metric's label."""
    return told if not told or SOFTWARE.fullmatch(told) else OTHER


def known_device(told: str | None) -> str:
    """What an agent says it trains on, empty where its hospital doesn't tell."""
    return (told or "") if told in (None, *DEVICES) else OTHER


def active_sites(sites: Mapping[str, SiteState], heard: Collection[str], barrier: bool) -> set[str]:
    """The sites that a version may wait for: online, or silent so far since our start but `heard` before it.

    Behind a barrier also those that never came: a synchronous round begins with all of its members. Who is not enrolled
    is none; nor is who is in quarantine: its updates do not come.
    """
    return {
        name
        for name, site in sites.items()
        if site.enrolled
        and not site.quarantined
        and (site.online or (site.status is None and (barrier or name in heard)))
    }


def federation_metrics(sites: Mapping[str, SiteState]) -> dict[str, float]:
    """Each metric over all sites: sum of numerators over sum of denominators, of each site's latest evaluation."""
    totals: dict[str, tuple[float, float]] = {}
    for site in sites.values():
        for name, ratio in site.metrics.items():
            above, below = totals.get(name, (0.0, 0.0))
            totals[name] = (above + ratio.numerator, below + ratio.denominator)
    return {name: above / below for name, (above, below) in sorted(totals.items()) if below > 0}


def worst_metrics(sites: Mapping[str, SiteState]) -> dict[str, float]:
    """Each metric at the site where it is worst: the lowest, and the highest of losses."""
    return {name: max(told) if name == LOSS else min(told) for name, told in _told(sites).items()}


def middle_metrics(sites: Mapping[str, SiteState]) -> dict[str, float]:
    """Each metric's median over the sites: of three or more, one that lies does not move it beyond what others tell."""
    return {name: statistics.median(told) for name, told in _told(sites).items()}


def _told(sites: Mapping[str, SiteState]) -> dict[str, list[float]]:
    """What each site measured last, by metric."""
    told: dict[str, list[float]] = {}
    for site in sites.values():
        for name, ratio in site.metrics.items():
            if ratio.denominator > 0:
                told.setdefault(name, []).append(ratio.numerator / ratio.denominator)
    return dict(sorted(told.items()))
