"""What codecs cost a model and save a link: `python -m benchmarks.accuracy [--seeds N] [--json FILE] [--chart FILE]`.

Four sites of unequal size, class balance and pace train the small network on PneumoniaMNIST (benchmarks.simulation):
under each seed once with float32 both ways and once with each pair of codecs, all else equal. Measured is the AUC of
all official test images ranked together: the mean over the last five versions of a run, and its difference to float32
under the same seed. Counted are the bytes both ways until the first version of AUC 0.94, the packed offers and
announcements included.

Compared is what a federation does with the plain way. The plain way is float32 both ways, where each site also
downloads its first model. In a federation each site makes version 0 itself, from the announced seed. So a part of what
is saved is that first model, and none of it the codecs' doing; therefore the same is also counted with float32 spared
its first models, too ("alike"). And as the version that reaches the target is a matter of luck where the curve is
noisy, that and the first are also counted up to one version, the one with which float32 reached it.

The exit code is 1 when a bar is missed.

Each run takes one thread; as many run at once as there are --processes. With --json the runs that the file holds
already are not made again, so a measurement that was cut off goes on.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.accuracy_chart import write_chart
from benchmarks.accuracy_figures import (
    ACCURACY_BARS,
    BYTES_BARS,
    LAST_VERSIONS,
    TARGET,
    Row,
    misses_a_bar,
    rows,
)
from benchmarks.accuracy_run import Point, Run, simulate
from benchmarks.pneumonia import Judge
from benchmarks.simulation import FLOAT32, Conditions, Pair
from coordinator.config import FederationConfig
from coordinator.engine.settings import EngineSettings
from coordinator.precision import Precision
from edge_agent.training.task import load_task
from fedward.messages import Work
from sandbox.datasets import split
from sandbox.federation import WORK

TASK = "pneumonia"
NUM_SITES = 4
UP = ("eden4", "eden2", "eden1")
ENGINE: Mapping[str, object] = {"preset": "default", "buffer_size": NUM_SITES}
"""A version of an update of every site: with fewer, the AUC rises and falls by 0.02 with whose updates it is made of,
and no difference between codecs can be told from that."""


@dataclass(frozen=True)
class Measurement:
    """What all runs of a measurement have in common; `precise` first versions ask for a finer codec up."""

    engine: Mapping[str, object]
    versions: int
    precise: int
    max_steps: int | None


@dataclass(frozen=True)
class Job:
    """One run."""

    data: Path
    how: Measurement
    pair: Pair
    seed: int


def pairs(down: str) -> tuple[Pair, ...]:
    """Float32, the EDEN codecs above one codec of the model, and q8 both ways."""
    return (FLOAT32, *(Pair(up, down) for up in UP), Pair("q8", "q8"))


def run_job(job: Job) -> Run:
    """In a process of its own, on one thread."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fedward-accuracy-") as temporary:
        folder = Path(temporary)
        sites = split(TASK, NUM_SITES, job.data, folder / "data")
        conditions = Conditions(
            task=TASK,
            split=sites,
            work=Work(**WORK[TASK], max_steps=job.how.max_steps),  # type: ignore[arg-type] # values of a mapping
            engine=EngineSettings.model_validate(job.how.engine),
            seed=job.seed,
            precision=Precision(job.how.precise),
        )
        judge = Judge(load_task(TASK, sites.pooled))
        return simulate(folder / "run", conditions, job.pair, job.how.versions, judge.auc)


def run_all(jobs: Sequence[Job], num_processes: int) -> Iterator[Run]:
    """The runs as they end."""
    with ProcessPoolExecutor(num_processes, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run_job, job) for job in jobs]):
            yield done.result()


def known_runs(path: Path | None, how: Measurement) -> list[Run]:
    """The runs of a file that --json wrote of the same measurement; none without a file."""
    if path is None or not path.exists():
        return []
    document = json.loads(path.read_text())
    if document["measurement"] != asdict(how):
        raise SystemExit(f"{path} holds another measurement: name another file, or delete it")
    return [Run(**{**run, "curve": tuple(Point(**point) for point in run["curve"])}) for run in document["runs"]]


def document(how: Measurement, runs: Sequence[Run]) -> dict[str, Any]:
    """What --json writes: settings, a row for each pair, and all curves."""
    return {
        "measurement": asdict(how),
        "target": TARGET,
        "last_versions": LAST_VERSIONS,
        "accuracy_bars": ACCURACY_BARS,
        "bytes_bars": BYTES_BARS,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "rows": [asdict(row) for row in rows(runs)],
        "runs": [asdict(run) for run in runs],
    }


def show(found: Sequence[Row]) -> None:
    """Print the tables and the verdicts."""
    print(f"AUC: mean of the last {LAST_VERSIONS} versions; difference to float32 under the same seed, mean +- s.e.")
    print(f"{'up':<7}{'down':<6}{'bits up':>8}{'down':>7}{'AUC':>9}{'difference':>21}{'bar':>8}  verdict")
    for row in found:
        difference = f"{row.difference.mean:+.4f} +- {row.difference.standard_error:.4f}"
        bar, verdict = _number(ACCURACY_BARS.get(row.up), 3), _verdict(row.accuracy_met)
        print(
            f"{row.up:<7}{row.down:<6}{row.bits_up:>8.2f}{row.bits_down:>7.2f}{row.auc.mean:>9.4f}"
            f"{difference:>21}{bar:>8}  {verdict}"
        )
    print(f"\nfloat32's bytes both ways over the pair's, to AUC {TARGET}: median of the seeds that count,")
    print(
        "which are those under which float32 reached it. In float32 each site downloads its first model, elsewhere it"
    )
    print(
        "makes version 0 itself. By version: both up to that of float32; alike: and float32 without first models, too"
    )
    columns = f"{'times':>7}{'by version':>12}{'alike':>8}{'bar':>5}  {'verdict':<8}"
    print(f"{'up':<7}{'down':<6}{columns} seeds; shares; versions")
    for row in found:
        shares = " ".join(f"{name} {share:.0%}" for name, share in row.shares.items())
        seeds = f"{row.num_reached} of {len(row.reached)} reached it, {row.num_counted} count"
        told = f"{_verdict(row.bytes_met):<8} {seeds}; {shares}; {' '.join(map(str, row.reached))}"
        print(
            f"{row.up:<7}{row.down:<6}{_number(row.saving, 2):>7}{row.saving_by_version:>12.2f}"
            f"{row.saving_alike:>8.2f}{_number(BYTES_BARS.get(row.up), 0):>5}  {told}"
        )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _verdict(met: bool | None) -> str:
    return "" if met is None else "met" if met else "MISSED"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description="AUC and bytes of each pair of codecs, beside float32."
    )
    data = os.environ.get("FEDWARD_DATA")
    down, precise = (FederationConfig.model_fields[name].default for name in ("model_codec", "precise_versions"))
    parser.add_argument("--data", type=Path, default=data and Path(data), help="folder with pneumoniamnist.npz")
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s; 0 shows what the file holds")
    parser.add_argument("--versions", type=int, default=8, help="of a run (default: %(default)s)")
    parser.add_argument("--engine", type=yaml.safe_load, default=ENGINE, help="as YAML (default: %(default)s)")
    parser.add_argument("--down", default=down, help="codec of the model under eden (default: %(default)s)")
    parser.add_argument("--precise", type=int, default=precise, help="first versions that ask for a finer codec up")
    parser.add_argument("--max-steps", type=int, help="of a training: 2 count bytes in a minute, and learn nothing")
    parser.add_argument("--processes", type=int, default=2, help="runs at once (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write every figure there, and go on from what is there")
    parser.add_argument("--chart", type=Path, help="draw bits against accuracy there, as SVG")
    options = parser.parse_args(arguments)
    if options.versions < LAST_VERSIONS:
        parser.error(f"needs at least {LAST_VERSIONS} versions")
    how = Measurement(options.engine, options.versions, options.precise, options.max_steps)
    runs = known_runs(options.json, how)
    known = {(run.seed, run.up, run.down) for run in runs}
    jobs = [
        Job(options.data, how, pair, seed)
        for barred in (True, False)  # what has a bar first, should the measurement be cut off
        for seed in range(options.seeds)
        for pair in pairs(options.down)
        if (pair == FLOAT32 or pair.up in ACCURACY_BARS) == barred and (seed, pair.up, pair.down) not in known
    ]
    for run in run_all(jobs, options.processes):
        runs.append(run)
        print(f"seed {run.seed}, {run.up} up, {run.down} down: done", file=sys.stderr, flush=True)
        if options.json:
            options.json.write_text(json.dumps(document(how, runs), indent=1) + "\n")
    found = rows(runs)
    show(found)
    if options.chart:
        write_chart(found, options.chart)
    return 1 if misses_a_bar(found) else 0


if __name__ == "__main__":
    sys.exit(main())
