"""The figures of a federation that ended: from its ledger, its last state, and every version measured again."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coordinator.blobs import BlobFolder
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.making import Settings
from coordinator.tables import StoredEvaluation, StoredUpdate
from coordinator.versions import Versions
from edge_agent.training.capability import measure
from edge_agent.training.evaluate import evaluate
from edge_agent.training.task import load_task
from fedward.modelfile import load_model
from sandbox.federation import Federation
from sandbox.traffic import Traffic, total_traffic, traffic


@dataclass(frozen=True)
class Contribution:
    """An update that was folded into a version, `at_s` seconds after the start."""

    site: str
    version: int
    staleness: int
    weight: float
    at_s: float


@dataclass(frozen=True)
class VersionFigures:
    """A version made `at_s` seconds after the start: its metrics on the pooled held-out records, exact, and as the
    sites measured it, each on its own."""

    version: int
    at_s: float
    metrics: Mapping[str, float]
    sites_metrics: Mapping[str, float]


@dataclass(frozen=True)
class SiteFigures:
    """One hospital's part. Staleness in versions, over its folded updates; None without any."""

    name: str
    num_train: int
    num_held_out: int
    slowness: float
    updates: int
    refused: int
    mean_staleness: float | None
    mean_weight: float | None
    traffic: Traffic


@dataclass(frozen=True)
class Run:
    """How it went: the coordinator's last page, when the demo started (seconds since 1970), and why it ended."""

    state: Mapping[str, Any]
    started_at_s: float
    ended_by: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Every figure of the summary."""

    task: str
    settings: Mapping[str, Any]
    ended_by: str
    wall_s: float
    num_parameters: int
    final_metrics: Mapping[str, float]
    versions: Sequence[VersionFigures]
    contributions: Sequence[Contribution]
    sites: Sequence[SiteFigures]
    refused: Mapping[str, int]  # messages, by reason
    traffic: Traffic
    saved_bytes: int
    saved_ratio: float
    files: Mapping[str, str]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def build_report(federation: Federation, run: Run, files: Mapping[str, Path]) -> Report:
    """Measure every version and put all figures together. `files` are told on, by what they are."""
    ledger = federation.ledger()
    try:
        versions = measured_versions(federation, ledger, run.started_at_s)
        folded = [update for update in ledger.accepted() if update.version is not None]
    finally:
        ledger.close()
    made_at_s = {figures.version: figures.at_s for figures in versions}
    moved = total_traffic(run.state)
    return Report(
        task=federation.plan.task,
        settings=settings(federation),
        ended_by=run.ended_by,
        wall_s=time.time() - run.started_at_s,
        num_parameters=run.state["num_parameters"],
        final_metrics=versions[-1].metrics,
        versions=versions,
        contributions=[contribution(update, made_at_s) for update in folded],
        sites=site_figures(federation, run.state, folded),
        refused={name: count for name, count in run.state["refused"].items() if count},
        traffic=moved,
        saved_bytes=moved.saved_bytes,
        saved_ratio=moved.saved_ratio,
        files={name: str(path) for name, path in files.items()},
    )


def settings(federation: Federation) -> dict[str, Any]:
    """What was asked for."""
    plan = federation.plan
    return {
        "engine": dict(plan.engine),
        "codec": plan.codec,
        "model_codec": plan.model_codec,
        "work": dict(federation.work),
        "slow": dict(plan.slow),
        "seed": plan.seed,
    }


def measured_versions(federation: Federation, ledger: Ledger, started_at_s: float) -> list[VersionFigures]:
    """Every version, rebuilt from the ledger and measured on the held-out records of all sites together."""
    plan = federation.plan
    layout, _ = load_model(federation.model_path)
    blobs = BlobFolder(federation.state_folder("coordinator") / "blobs")
    versions = Versions(ledger, blobs, layout, Settings(EngineSettings.model_validate(plan.engine), plan.model_codec))
    task, capability = load_task(plan.task, federation.split.pooled), measure("cpu")
    by_sites = sites_metrics(ledger.evaluations())
    measured = []
    for row in ledger.versions():
        _, ratios = evaluate(task, layout, versions.vector(row.version), capability)
        metrics = {name: ratio.numerator / ratio.denominator for name, ratio in ratios.items()}
        at_s = row.created_at_s - started_at_s
        measured.append(VersionFigures(row.version, at_s, metrics, by_sites.get(row.version, {})))
    return measured


def sites_metrics(evaluations: Sequence[StoredEvaluation]) -> dict[int, dict[str, float]]:
    """Of each version, each metric over the sites that measured it: sum of numerators over sum of denominators."""
    sums: dict[int, dict[str, tuple[float, float]]] = {}
    for row in evaluations:
        of_version = sums.setdefault(row.version, {})
        above, below = of_version.get(row.metric, (0.0, 0.0))
        of_version[row.metric] = (above + row.numerator, below + row.denominator)
    return {
        version: {name: above / below for name, (above, below) in metrics.items() if below > 0}
        for version, metrics in sums.items()
    }


def contribution(update: StoredUpdate, made_at_s: Mapping[int, float]) -> Contribution:
    """Of an update that is in a version. Staleness counts to the version that it was folded into."""
    if update.version is None or update.weight is None:
        raise ValueError(f"update {update.number} is in no version")
    staleness = update.version - 1 - update.base_version
    return Contribution(update.site, update.version, staleness, update.weight, made_at_s[update.version])


def site_figures(federation: Federation, state: Mapping[str, Any], folded: Sequence[StoredUpdate]) -> list[SiteFigures]:
    """One row a hospital."""
    rows = []
    for site in federation.split:
        page = state["sites"][site.name]
        own = [update for update in folded if update.site == site.name]
        rows.append(
            SiteFigures(
                name=site.name,
                num_train=site.num_train,
                num_held_out=site.num_held_out,
                slowness=federation.plan.slow.get(site.name, 1.0),
                updates=page["num_accepted"],
                refused=page["num_refused"],
                mean_staleness=mean([(update.version or 0) - 1 - update.base_version for update in own]),
                mean_weight=mean([update.weight or 0.0 for update in own]),
                traffic=traffic(page, state["num_parameters"]),
            )
        )
    return rows


def mean(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return sum(values) / len(values) if values else None
