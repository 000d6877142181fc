"""Hostile inputs for everything that reads what others send: `python -m benchmarks.fuzz [--inputs N] [--seed N]`.

Valid messages, topics, payloads, certificates, tokens and log lines are changed (benchmarks.fuzz_inputs) and read by
the functions that read them in production (benchmarks.fuzz_targets, benchmarks.fuzz_trust_targets). Each input has its
own generator, of the seed and the input's number, so a run of one seed makes the same changes everywhere; the keys, and
so the certificates that are changed, are new in each run.

A finding, each of which ends in exit code 1:
- an exception that the reader does not document;
- an input that takes longer than HANG_S (what takes longer than SLOW_S is counted);
- an input, of each SAMPLED-th one, for which more than INPUT_MIB are allocated at once;
- a process whose peak of memory grows by more than GROWTH_MIB after the first WARM_UP inputs.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from benchmarks.fuzz_targets import Target, codec_targets, delivery_targets, json_targets, message_targets
from benchmarks.fuzz_trust_targets import trust_targets, upload_target
from fedward.limits import MIB

HANG_S = 5.0
SLOW_S = 0.1
"""Counted only: a machine that others use too stops for as long."""

SAMPLED = 1000
INPUT_MIB = 32
GROWTH_MIB = 64
WARM_UP = 20_000
MAX_FINDINGS = 20
"""A run ends with so many: they are of the same kind by then."""


@dataclass
class Outcome:
    """What a run found."""

    seed: int
    inputs: int = 0
    seconds: float = 0.0
    by_target: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    num_slow: int = 0
    slowest_s: float = 0.0
    largest_input_mib: float = 0.0
    growth_mib: float = 0.0
    findings: list[str] = field(default_factory=list)


def all_targets(folder: Path) -> list[Target]:
    """`folder` is for their files."""
    return [
        *message_targets(),
        *delivery_targets(),
        *codec_targets(),
        *json_targets(folder / "egress"),
        *trust_targets(folder / "trust"),
        upload_target(folder / "uploads"),
    ]


def fuzz(targets: Sequence[Target], num_inputs: int, seed: int, deadline_s: float | None = None) -> Outcome:
    """Read `num_inputs` inputs, or as many as come before `deadline_s` (monotonic), or until MAX_FINDINGS."""
    outcome, begun_s = Outcome(seed), time.monotonic()
    shares = [target.share for target in targets]
    rng, warm_mib = Random(), _peak_mib()  # noqa: S311 - a run that can be repeated, no secret
    for number in range(num_inputs):
        rng.seed(seed << 40 | number)
        _read_one(rng.choices(targets, shares)[0], rng, number, outcome)
        if number == WARM_UP:
            warm_mib = _peak_mib()
        if len(outcome.findings) >= MAX_FINDINGS or (number % SAMPLED == 0 and _is_over(deadline_s)):
            break
    outcome.seconds = time.monotonic() - begun_s
    outcome.growth_mib = _peak_mib() - warm_mib if outcome.inputs > WARM_UP else 0.0
    if outcome.growth_mib > GROWTH_MIB:
        outcome.findings.append(f"memory: the peak grew by {outcome.growth_mib:.0f} MiB, the limit is {GROWTH_MIB}")
    return outcome


def _read_one(target: Target, rng: Random, number: int, outcome: Outcome) -> None:
    given = target.make(rng)
    is_sampled = number % SAMPLED == 0
    if is_sampled:
        tracemalloc.start()
    begun_s = time.perf_counter()
    try:
        target.use(*given)
    except target.refusals:
        outcome.refused[target.name] = outcome.refused.get(target.name, 0) + 1
    except Exception as error:  # noqa: BLE001 - whatever is not documented is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome.findings.append(
            f"{target.name}, input {number}: {type(error).__name__}: {error} "
            f"({where.filename}:{where.lineno}): {given!r:.2000}"
        )
    took_s = time.perf_counter() - begun_s
    if is_sampled:
        mib = tracemalloc.get_traced_memory()[1] / MIB
        tracemalloc.stop()
        outcome.largest_input_mib = max(outcome.largest_input_mib, mib)
        if mib > INPUT_MIB:
            outcome.findings.append(f"{target.name}, input {number}: {mib:.0f} MiB allocated, the limit is {INPUT_MIB}")
    outcome.inputs += 1
    outcome.by_target[target.name] = outcome.by_target.get(target.name, 0) + 1
    outcome.num_slow += took_s > SLOW_S
    outcome.slowest_s = max(outcome.slowest_s, took_s)
    if took_s > HANG_S:
        outcome.findings.append(f"{target.name}, input {number}: {took_s:.1f} s, the limit is {HANG_S} s")


def _is_over(deadline_s: float | None) -> bool:
    return deadline_s is not None and time.monotonic() >= deadline_s


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def main() -> int:
    """Run as the command line says; the exit code is 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--inputs", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="end after so many minutes, whatever is left")
    parser.add_argument("--json", type=Path, help="write the outcome to this file")
    arguments = parser.parse_args()
    deadline_s = time.monotonic() + 60 * arguments.minutes if arguments.minutes else None
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries grumble about some certificates and numbers
        outcome = fuzz(all_targets(Path(folder)), arguments.inputs, arguments.seed, deadline_s)
    for name, count in outcome.by_target.items():
        print(f"{name:24} {count:9} inputs, {outcome.refused.get(name, 0):9} refused")
    print(
        f"{outcome.inputs} inputs (seed {outcome.seed}) in {outcome.seconds:.0f} s, slowest {outcome.slowest_s:.2f} s, "
        f"{outcome.num_slow} above {SLOW_S} s; peak memory +{outcome.growth_mib:.0f} MiB after {WARM_UP} inputs, "
        f"largest sampled input {outcome.largest_input_mib:.1f} MiB; {len(outcome.findings)} findings"
    )
    for finding in outcome.findings:
        print(f"FOUND {finding}")
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(outcome), indent=1))
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
