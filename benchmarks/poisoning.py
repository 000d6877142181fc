"""What a hostile member does to a model: `python -m benchmarks.poisoning [--seeds N] [--json FILE]`.

The four hospitals of the heart-disease records train in simulated seconds (benchmarks.simulation), once among
themselves and once with a fifth member that has the records of the first one and sends poison instead of what it
learnt. Its updates go through the coordinator's own intake, as everybody's. Measured is the AUC of all held-out records
ranked together, the mean over the last ten versions; and over the seeds, how much of it each attack takes away from
the run without the fifth member.

    scaled       100 times its delta
    flipped      its delta with the other sign
    nan          its delta with a NaN in one weight
    random       normal values of its delta's norm
    inside       its delta with the other sign, as long as the norm clip lets through
    boastful     the same, and it says that it has a thousand million records
    labels       trained on its records with all labels exchanged

Each with the default defence, with every robust rule, and with no defence at all. The exit code is 1 when the setting
that the bar is about (BAR_SETTING) misses it.
"""

import argparse
import csv
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from benchmarks.pneumonia import Judge
from benchmarks.simulation import Conditions, Pair, Simulation, Site
from coordinator.clock import FederationClock, Moment
from coordinator.config import FederationConfig
from coordinator.engine.norms import norm_bound
from coordinator.engine.settings import EngineSettings
from coordinator.intake import Ended, Intake
from coordinator.precision import Precision
from coordinator.verify import Terms
from edge_agent.training.encode import encode
from edge_agent.training.failures import TrainingFailed
from edge_agent.training.task import load_task
from fedward.codec import Codec
from fedward.limits import MAX_EXAMPLES
from fedward.messages import FederationState, Offer, Work
from fedward.testing import ManualClock
from sandbox.datasets import SiteData, Split, split
from sandbox.federation import WORK

TASK = "heart-disease"
HOSTILE = "intruder"
ATTACKS = ("scaled", "flipped", "nan", "random", "inside", "boastful", "labels")
PAIR = Pair("f32", "uqz")
LAST_VERSIONS = 10
DESTROYED = 0.5
"""The AUC of a model from which nobody can train any more: that of a coin."""

BAR = 0.01
"""AUC that an attack may take away, in the mean over the seeds."""

SETTINGS: Mapping[str, Mapping[str, object]] = {
    "default": {},
    "default, K = all": {"buffer_size": 5},
    "trimmed mean": {"robust": "trimmed_mean", "buffer_size": 5},
    "median": {"robust": "median", "buffer_size": 5},
    "centered clipping": {"robust": "centered_clipping", "buffer_size": 5},
    "no defence": {"norm_clip": None, "outlier_norm": None, "weight_cap": None},
}
BAR_SETTING = "trimmed mean"


@dataclass(frozen=True)
class Job:
    """One run: a setting, an attack or none, and a seed."""

    data: Path
    setting: str
    attack: str | None
    seed: int
    versions: int


@dataclass(frozen=True)
class Outcome:
    """How good the model was in the end, and how often the intake refused what, mostly of the hostile member."""

    setting: str
    attack: str | None
    seed: int
    auc: float
    refused: Mapping[str, int]


class Siege(Simulation):
    """A simulation whose updates are verified, with one member that attacks."""

    def __init__(self, folder: Path, conditions: Conditions, attack: str | None) -> None:
        super().__init__(folder, conditions, PAIR)
        self._attack = attack
        self._time = ManualClock(0.0)
        clock = FederationClock(self._time, 0.0)
        self._intake = Intake(self._config(folder), self.versions.store, clock, self._terms)
        self._rng = np.random.default_rng([conditions.seed, 666])
        self.refused: dict[str, int] = {}

    def _config(self, folder: Path) -> FederationConfig:
        return FederationConfig.model_validate(
            {
                "federation": self._conditions.federation,
                "sites": [site.name for site in self._conditions.split],
                "task": self._conditions.task,
                "model": folder / "initial.safetensors",
                "work": asdict(self._conditions.work),
                "state_folder": folder,
                "broker": {"host": "localhost"},
                "engine": self._conditions.engine.model_dump(),
            }
        )

    def _terms(self, offer: Offer) -> Terms:
        return Terms(
            layout=self._layout,
            version=self.versions.current.version,
            max_staleness=self._conditions.engine.max_staleness,
            codecs=self._codecs.allowed,
            state=FederationState.RUNNING,
            base_digest=self._ledger.model_digest(offer.base_version),
            sealed=False,
        )

    def _encoded(self, site: Site, delta_P: Tensor, up: Codec, seed: bytes) -> bytes:
        hostile = site.name == HOSTILE
        sent = encode(self._poisoned(delta_P) if hostile else delta_P, self._layout, up.name, seed)
        if hostile and self._attack == "nan":
            return np.float32(np.nan).tobytes() + sent[4:]  # the first weight, in either codec that is exact here
        return sent

    def _poisoned(self, delta_P: Tensor) -> Tensor:
        length = float(delta_P.norm())
        match self._attack:
            case "scaled":
                return 100.0 * delta_P
            case "flipped":
                return -delta_P
            case "random":
                drawn = torch.from_numpy(self._rng.standard_normal(len(delta_P), np.float32))
                return drawn * (length / float(drawn.norm()))
            case "inside" | "boastful":
                bound = norm_bound(self._ledger.recent_norms(), EngineSettings())
                return delta_P * (-0.999 * bound / length if bound and length else -1.0)
        return delta_P

    def _take(self, site: Site, offer: Offer, payload: bytes, at: Moment) -> None:
        boasts = site.name == HOSTILE and self._attack == "boastful"
        claimed = MAX_EXAMPLES if boasts else offer.num_examples
        self._time.advance(at.own_s - self._time.monotonic_s())
        ended = self._intake.offer(site.name, replace(offer, num_examples=claimed, payload=payload))
        if not isinstance(ended, Ended) or ended.row is None:
            raise RuntimeError(f"an offer of {site.name} had no end")
        if ended.row.reason is None:
            self._accept(ended.row)
        else:
            self._members.hold(self._intake.quarantine.held)
            what = ended.row.reason if site.name == HOSTILE else f"{ended.row.reason} of {site.name}"
            self.refused[what] = self.refused.get(what, 0) + 1


def run_job(job: Job) -> Outcome:
    """In a process of its own, on one thread."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="fedward-poisoning-") as temporary:
        folder = Path(temporary)
        hospitals = split(TASK, 4, job.data, folder / "data")
        conditions = Conditions(
            task=TASK,
            split=hospitals if job.attack is None else _with_intruder(hospitals, job.attack, folder / HOSTILE),
            work=Work(**WORK[TASK]),  # type: ignore[arg-type] # values of a mapping
            engine=EngineSettings.model_validate(SETTINGS[job.setting]),
            seed=job.seed,
            precision=Precision(0),
        )
        judge = Judge(load_task(TASK, hospitals.pooled))
        siege = Siege(folder / "run", conditions, job.attack)
        try:
            curve = [judge.auc(vector_P) for vector_P in siege.run(job.versions)]
        except TrainingFailed:
            curve = [DESTROYED]
        return Outcome(job.setting, job.attack, job.seed, fmean(curve[-LAST_VERSIONS:]), siege.refused)


def _with_intruder(hospitals: Split, attack: str, folder: Path) -> Split:
    """A fifth member with the records of the first hospital; with exchanged labels where that is the attack."""
    first = hospitals[0]
    options = dict(first.options)
    if attack == "labels":
        folder.mkdir(parents=True)
        with Path(str(options["train"])).open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        label = header.index("target")
        for row in rows:
            row[label] = "0" if float(row[label]) > 0 else "1"
        options["train"] = str(folder / "train.csv")
        with Path(str(options["train"])).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    return Split((*hospitals, SiteData(HOSTILE, options, first.num_train, first.num_held_out)), hospitals.pooled)


def losses(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, str, float, float]]:
    """Setting, attack, and the AUC that it took away: the mean over the seeds, and the most."""
    without = {(one.setting, one.seed): one.auc for one in outcomes if one.attack is None}
    for setting in SETTINGS:
        for attack in ATTACKS:
            found = [one for one in outcomes if (one.setting, one.attack) == (setting, attack)]
            lost = [without[one.setting, one.seed] - one.auc for one in found]
            if lost:
                yield setting, attack, fmean(lost), max(lost)


def show(outcomes: Sequence[Outcome]) -> bool:
    """Print the table; whether the bar is held."""
    held = True
    for setting in SETTINGS:
        aucs = [one.auc for one in outcomes if (one.setting, one.attack) == (setting, None)]
        if aucs:
            print(f"{setting:<18} without the hostile member: AUC {fmean(aucs):.4f}")
    print(f"{'setting':<18} {'attack':<10} {'AUC lost, mean':>15} {'most':>8}  refused")
    for setting, attack, mean, most in losses(outcomes):
        refused = [one.refused for one in outcomes if (one.setting, one.attack) == (setting, attack)]
        reasons = ", ".join(sorted({reason for each in refused for reason in each})) or "-"
        print(f"{setting:<18} {attack:<10} {mean:>15.4f} {most:>8.4f}  {reasons}")
        held &= setting != BAR_SETTING or mean <= BAR
    return held


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("FEDWARD_DATA"), help="default: FEDWARD_DATA")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--versions", type=int, default=60)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=ATTACKS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the outcomes there")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("--data, or FEDWARD_DATA: the folder that holds heart-disease/")
    jobs = [
        Job(options.data, setting, attack, seed, options.versions)
        for setting in options.settings
        for attack in (None, *options.attacks)
        for seed in range(options.seeds)
    ]
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        outcomes = []
        for one in pool.map(run_job, jobs):
            outcomes.append(one)
            if options.json:  # after each: the whole takes a quarter of an hour
                options.json.write_text(json.dumps([asdict(each) for each in outcomes], indent=1) + "\n")
    return 0 if show(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
