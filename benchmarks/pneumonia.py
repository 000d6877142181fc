"""Time until a federation has learnt: `python -m benchmarks.pneumonia [--json FILE] [--runs N] [--preset NAME] ...`.

Four sites of very unequal size and class balance train a small convolutional network on PneumoniaMNIST, one thread
each: a whole Fedward federation of real processes, and in the same run a FedAvg without any framework over two worker
processes (reference_fedavg.py), from the same initial weights, with the same work on the same records.

Both clocks start when all participants are up, have the data at hand and hold the initial model, and nothing is
trained yet. They stop when the version exists whose AUC reaches a target for the first time. The AUC is that of all
official test images ranked together; it is computed from the kept versions when the run is over, so it costs the run
nothing. Only the ratio of the two times means something, and only on an otherwise idle machine: where others compute
too, the kernel shares the cores out by process, and Fedward has more of them than the reference.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.nn.utils import vector_to_parameters

from benchmarks.reference_fedavg import Site, Workers
from coordinator.blobs import BlobFolder
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.making import Settings
from coordinator.tables import ALL, StoredUpdate
from coordinator.versions import Versions
from edge_agent.training.capability import measure
from edge_agent.training.evaluate import evaluate
from edge_agent.training.module import initial_model, layout_of, read_vector
from edge_agent.training.task import Task, load_task
from fedward.layout import Layout, Vector
from fedward.messages import FederationState, Part, Work
from fedward.modelfile import save_model
from sandbox.federation import WORK, Federation, Plan

TASK = "pneumonia"
TARGETS = (0.93, 0.94)
BAR = 1.5
"""Fedward's time to the last target over the reference's, at most."""

NUM_SITES = 4
NUM_WORKERS = 2
READY_S = 120.0
POLL_S = 0.5
CONFIDENT = 0.01
"""How far the sites' own AUC has to be above the last target before a run is ended: it is another AUC (of pairs
within a site), so it only says when to stop."""

HEADINGS = "run system       AUC  seconds  version  updates   MB up  MB down  ratio"


@dataclass(frozen=True, kw_only=True)
class Point:
    """A version (or a round's result): when it existed, how good it is, and what it took until then.

    Bytes are those of models and updates, over all sites.
    """

    version: int
    after_s: float
    auc: float
    num_updates: int
    up_bytes: int
    down_bytes: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """Both curves of one run, in order of version."""

    fedward: tuple[Point, ...]
    reference: tuple[Point, ...]


# --- pure: what the curves say


def first_reaching(curve: Iterable[Point], target: float) -> Point | None:
    """The first version whose AUC is at least the target: no interpolation, no smoothing. None: never reached."""
    return next((point for point in curve if point.auc >= target), None)


def ratio(run: Run, target: float) -> float | None:
    """Fedward's time to the target over the reference's; None when one of them never reached it."""
    ours, theirs = first_reaching(run.fedward, target), first_reaching(run.reference, target)
    return ours.after_s / theirs.after_s if ours and theirs else None


def median_ratio(ratios: Iterable[float | None]) -> float | None:
    """The median, where a missing ratio counts as endless; None when the median itself is."""
    median = statistics.median(math.inf if value is None else value for value in ratios)
    return median if math.isfinite(median) else None


def received_until(updates: Iterable[StoredUpdate], until_s: float) -> tuple[int, int]:
    """Number and bytes of the updates that the coordinator had stored at this time, folded or still in the buffer."""
    sizes = [update.size_bytes for update in updates if update.received_at_s <= until_s]
    return len(sizes), sum(sizes)


def downloaded_before(parts: Iterable[Part], version: int, num_sites: int) -> int:
    """Bytes of all sites' downloads before `version` existed: every site fetched every version up to there.

    An upper bound: a site may skip a version where snapshots are published. Of a version with a delta and a
    snapshot, the sites take the smaller.
    """
    smallest: dict[int, int] = {}
    for part in parts:
        if part.version < version:
            smallest[part.version] = min(part.manifest.size_bytes, smallest.get(part.version, part.manifest.size_bytes))
    return num_sites * sum(smallest.values())


# --- Fedward


def federate(federation: Federation, judge: "Judge", seconds: float) -> tuple[Point, ...]:
    """Run a federation for at most `seconds`, and measure all of its versions but the initial one."""
    ledger = Ledger.in_folder(federation.state_folder("coordinator"))
    ledger.wish(ALL, FederationState.PAUSED, time.time())
    with federation:
        federation.wait_for(all_hold_version_0, READY_S, "all sites hold version 0")
        began_s = time.time()
        ledger.wish(ALL, FederationState.RUNNING, time.time())
        while time.time() < began_s + seconds:
            federation.check_processes()
            state = federation.state()
            if state and state["metrics"].get("auc", 0.0) >= TARGETS[-1] + CONFIDENT:
                break
            time.sleep(POLL_S)
    curve = curve_of(ledger, federation, judge, began_s)
    ledger.close()
    return curve


def all_hold_version_0(state: Mapping[str, Any]) -> bool:
    """Every site is online, has fetched the initial model and measured it."""
    return all(site["online"] and site["evaluated_version"] == 0 for site in state["sites"].values())


def curve_of(ledger: Ledger, federation: Federation, judge: "Judge", began_s: float) -> tuple[Point, ...]:
    """Every version after the initial one, rebuilt from ledger and blobs as the sites held it."""
    plan = federation.plan
    settings = Settings(EngineSettings.model_validate(plan.engine), plan.model_codec)
    blobs = BlobFolder(federation.state_folder("coordinator") / "blobs")
    versions = Versions(ledger, blobs, judge.layout, settings)
    stored, updates = ledger.versions()[1:], ledger.accepted()
    parts = ledger.parts(0, len(stored))
    points = []
    for row in stored:
        num_updates, up_bytes = received_until(updates, row.created_at_s)
        points.append(
            Point(
                version=row.version,
                after_s=row.created_at_s - began_s,
                auc=judge.auc(versions.vector(row.version)),
                num_updates=num_updates,
                up_bytes=up_bytes,
                down_bytes=downloaded_before(parts, row.version, plan.num_sites),
            )
        )
    return tuple(points)


# --- the reference


def average(federation: Federation, judge: "Judge", seed: int, num_rounds: int) -> tuple[Point, ...]:
    """Run the framework-free FedAvg on the same sites for some rounds, and measure each round's result."""
    sites = [Site(site.name, site.options, site.num_train) for site in federation.split]
    work = Work(**WORK[TASK])  # type: ignore[arg-type] # values of a mapping
    results: list[tuple[float, Vector]] = []
    with Workers(TASK, federation.model_path, sites, work, NUM_WORKERS, seed) as workers:
        began_s = time.monotonic()
        for _ in range(num_rounds):
            weights_P = workers.round()
            results.append((time.monotonic() - began_s, weights_P))
    one_way = len(sites) * results[0][1].nbytes
    return tuple(
        Point(
            version=number,
            after_s=after_s,
            auc=judge.auc(judge.vector_of(weights_P)),
            num_updates=number * len(sites),
            up_bytes=number * one_way,
            down_bytes=number * one_way,
        )
        for number, (after_s, weights_P) in enumerate(results, start=1)
    )


class Judge:
    """Measures versions on all test images together."""

    def __init__(self, task: Task) -> None:
        """`task` has all test images as its held-out records."""
        self._task = task
        self._model = task.model()
        self._capability = measure("cpu")
        self.layout: Layout = layout_of(self._model)

    def auc(self, vector_P: Vector) -> float:
        """The AUC of (P,) float32 in the layout's order."""
        _, metrics = evaluate(self._task, self.layout, vector_P, self._capability)
        return metrics["auc"].numerator / metrics["auc"].denominator

    def vector_of(self, parameters_P: Vector) -> Vector:
        """(P,) float32 in the order of the model's parameters -> in the layout's."""
        vector_to_parameters(torch.from_numpy(parameters_P), self._model.parameters())
        return read_vector(self._model, self.layout)


# --- the command


def run_once(options: argparse.Namespace, folder: Path, number: int) -> Run:
    """One pair, from initial weights of its own; which of the two goes first alternates."""
    engine = {"preset": options.preset, **options.engine}
    federation = Federation(Plan(folder=folder, task=TASK, data=options.data, engine=engine, codec=options.codec))
    judge = Judge(load_task(TASK, federation.split.pooled))
    save_model(federation.model_path, *initial_model(load_task(TASK, {}), number), metadata={})
    if number % 2:
        fedward = federate(federation, judge, options.seconds)
        return Run(fedward=fedward, reference=average(federation, judge, number, options.rounds))
    reference = average(federation, judge, number, options.rounds)
    return Run(fedward=federate(federation, judge, options.seconds), reference=reference)


def show(runs: Sequence[Run]) -> None:
    """Print the table, the curves and the verdict."""
    print(HEADINGS)
    for number, run in enumerate(runs):
        for target in TARGETS:
            print(f"{number:<4}{'reference':<11}{target:>5}{_cells(first_reaching(run.reference, target))}")
            ours = _cells(first_reaching(run.fedward, target))
            print(f"{number:<4}{'Fedward':<11}{target:>5}{ours}{_number(ratio(run, target)):>7}")
    for number, run in enumerate(runs):
        for name, curve in (("reference", run.reference), ("Fedward", run.fedward)):
            print(f"AUC by version, run {number}, {name}: {' '.join(f'{point.auc:.4f}' for point in curve)}")
    for target in TARGETS:
        median = median_ratio(ratio(run, target) for run in runs)
        print(f"time to {target}, Fedward / reference, median of {len(runs)}: {_number(median)}")
    print(f"bar: {BAR} at {TARGETS[-1]}: {'met' if meets_bar(runs) else 'MISSED'}")


def meets_bar(runs: Sequence[Run]) -> bool:
    """Whether Fedward's time to the last target is within the bar, in the median."""
    median = median_ratio(ratio(run, TARGETS[-1]) for run in runs)
    return median is not None and median <= BAR


def _cells(point: Point | None) -> str:
    if point is None:
        return f"{'never':>9}{'-':>9}{'-':>9}{'-':>8}{'-':>9}"
    return (
        f"{point.after_s:>9.1f}{point.version:>9}{point.num_updates:>9}"
        f"{point.up_bytes / 1e6:>8.1f}{point.down_bytes / 1e6:>9.1f}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def document(options: argparse.Namespace, runs: Sequence[Run]) -> dict[str, Any]:
    """What --json writes: settings, all points, and the ratios (null where a target was never reached)."""
    return {
        "preset": options.preset,
        "engine": options.engine,
        "codec": options.codec,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "bar": BAR,
        "median_ratio": {str(target): median_ratio(ratio(run, target) for run in runs) for target in TARGETS},
        "runs": [asdict(run) for run in runs],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pneumonia", description="Time to an AUC, next to a FedAvg without a framework."
    )
    data = os.environ.get("FEDWARD_DATA")
    parser.add_argument("--data", type=Path, default=data and Path(data), help="folder with pneumoniamnist.npz")
    parser.add_argument("--runs", type=int, default=3, help="pairs of runs (default: %(default)s)")
    parser.add_argument("--preset", default="default", help="preset of the engine (default: %(default)s)")
    parser.add_argument("--engine", type=yaml.safe_load, default={}, help="its settings, as YAML: '{buffer_size: 4}'")
    parser.add_argument("--codec", default="eden4", help="codec of the updates (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=90, help="a Fedward run at most (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=12, help="rounds of the reference (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    if options.runs < 1 or options.rounds < 1:
        parser.error("needs at least one run and one round")
    torch.set_num_threads(1)
    runs = []
    with tempfile.TemporaryDirectory(prefix="fedward-pneumonia-") as folder:
        for number in range(options.runs):
            runs.append(run_once(options, Path(folder) / str(number), number))
            print(f"run {number} done", flush=True)
    show(runs)
    if options.json:
        options.json.write_text(json.dumps(document(options, runs), indent=2) + "\n")


if __name__ == "__main__":
    main()
