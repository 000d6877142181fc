"""What it costs to fold an update into the sum, and its norm: `python -m benchmarks.fold [--json FILE]`.

Everything stands beside float32 `a += b` of the same length, measured in turn with it in the same run: the ratio is
what counts. For each codec, for updates from one base version, which share their seed where the codec says so:

    first      ms of a version of one update: it pays for what is done once a version, such as the rotation back
    further    ms that each further update adds: a share of (a version of 16) - (a version of 8)
    of 8       ms an update in a version of 8, all counted
    norm       ms of the norm of one update, as the coordinator takes it before it stores the payload

One thread; the time is that of its processor, so other processes disturb it only through the caches.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.codecs import RESNET18, resnet_like
from fedward.codec import CODECS, Codec, norm, seed_of
from fedward.layout import Layout

FEW, MANY = 8, 16
SEED = seed_of("benchmarks.fold")
BAR = 4.0
"""Times float32 `a += b`, for one further eden4 update."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Milliseconds of one codec, each a median."""

    name: str
    add: float  # float32 a += b of the same length
    first: float
    further: float
    of_8: float
    norm: float

    def ratios(self) -> Mapping[str, float]:
        """Each beside `add`."""
        return {name: value / self.add for name, value in asdict(self).items() if name not in ("name", "add")}


def median_ms(runs: Mapping[str, Callable[[], object]], repeats: int) -> Mapping[str, float]:
    """Median milliseconds of each, taken in turn, after one turn that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            begin = time.thread_time()
            run()
            if turn:
                taken[name].append(1000 * (time.thread_time() - begin))
    return {name: statistics.median(times) for name, times in taken.items()}


def measure(codec: Codec, layout: Layout, repeats: int) -> Cost:
    """The row of one codec."""
    rng = np.random.default_rng(1)
    payloads = [
        memoryview(codec.encode(rng.standard_normal(layout.size, np.float32), layout, SEED)) for _ in range(MANY)
    ]
    weights = [0.5 + 0.1 * number for number in range(MANY)]
    sum_P, other_P = np.ones((2, layout.size), np.float32)

    def fold(count: int) -> None:
        together = count if codec.shared_seed else 1
        for block in layout.blocks:
            for first in range(0, count, together):
                group = slice(first, first + together)
                folded_B = codec.sum_block(payloads[group], weights[group], layout, block, SEED)
                sum_P[block.start : block.stop] += folded_B

    def add() -> None:
        np.add(sum_P, other_P, out=sum_P)

    times = median_ms(
        {
            "add": add,
            "one": lambda: fold(1),
            "few": lambda: fold(FEW),
            "many": lambda: fold(MANY),
            "norm": lambda: norm(payloads[0], codec, layout, SEED),
        },
        repeats,
    )
    return Cost(
        name=codec.name,
        add=times["add"],
        first=times["one"],
        further=(times["many"] - times["few"]) / (MANY - FEW),
        of_8=times["few"] / FEW,
        norm=times["norm"],
    )


def meets_bar(cost: Cost) -> bool:
    """Whether a further update of this codec costs at most BAR times a float32 addition."""
    return cost.further <= BAR * cost.add


def table(costs: Sequence[Cost]) -> list[str]:
    """Milliseconds, and in brackets times `a += b`."""
    columns = list(costs[0].ratios())
    lines = [f"{'codec':<8}{'a += b':>10}" + "".join(f"{name:>18}" for name in columns)]
    for cost in costs:
        ratios = cost.ratios()
        cells = "".join(f"{asdict(cost)[name]:>10.1f} ({ratios[name]:>4.1f}x)" for name in columns)
        lines.append(f"{cost.name:<8}{cost.add:>10.2f}{cells}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit code 1 where eden4 misses the bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fold", description="Cost of folding an update.")
    parser.add_argument("--parameters", type=int, default=RESNET18, help="size of the model (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs, 3 or more (default: %(default)s)")
    parser.add_argument("--codec", action="append", choices=list(CODECS), help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    if options.repeats < 3 or options.parameters < 1:
        parser.error("needs --repeats of at least 3 and --parameters of at least 1")
    layout = resnet_like(options.parameters)
    with threadpool_limits(1):
        costs = [measure(CODECS[name], layout, options.repeats) for name in options.codec or CODECS]
    print(f"{layout.size:,} parameters, {len(layout.blocks)} blocks, one thread; ms (times float32 a += b)")
    print("\n".join(table(costs)))
    judged = [cost for cost in costs if cost.name == "eden4"]
    for cost in judged:
        verdict = "met" if meets_bar(cost) else "missed"
        print(f"one further eden4 update: {cost.ratios()['further']:.2f} times a += b, at most {BAR:.1f}: {verdict}")
    if options.json:
        rows = [asdict(cost) | {"ratios": cost.ratios()} for cost in costs]
        document = {"parameters": layout.size, "numpy": np.__version__, "bar": BAR, "codecs": rows}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(meets_bar(cost) for cost in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
