"""One run of benchmarks.accuracy as figures: how good each version was, and what had travelled by then."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.simulation import Conditions, Pair, Simulation
from fedward.layout import Vector
from fedward.recipe import cheapest_recipe, size_of

Judge = Callable[[Vector], float]
"""(P,) float32 -> the AUC on the pooled held-out records."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A version: how good it is, and what had travelled when it was made."""

    version: int
    auc: float
    up: int
    down: int
    joining: int
    messages: int

    @property
    def total(self) -> int:
        """Bytes, all counted."""
        return self.up + self.down + self.messages


@dataclass(frozen=True, kw_only=True)
class Run:
    """The curve of one pair of codecs under one seed, and the mean bits a parameter of an update and of a delta."""

    up: str
    down: str
    seed: int
    num_parameters: int
    bits_up: float
    bits_down: float
    curve: tuple[Point, ...]


def simulate(folder: Path, conditions: Conditions, pair: Pair, num_versions: int, judge: Judge) -> Run:
    """A whole run, each version measured."""
    simulation = Simulation(folder, conditions, pair)
    traffic, curve, sizes = simulation.traffic, [], []
    for version, vector_P in enumerate(simulation.run(num_versions), start=1):
        delta = cheapest_recipe(simulation.versions.parts(), version, version - 1)
        sizes.append(size_of(delta))
        curve.append(
            Point(
                version=version,
                auc=judge(vector_P),
                up=traffic.up,
                down=traffic.down,
                joining=traffic.joining,
                messages=traffic.messages,
            )
        )
    size = conditions.initial[0].size
    return Run(
        up=pair.up,
        down=pair.down,
        seed=conditions.seed,
        num_parameters=size,
        bits_up=8 * traffic.up / (traffic.num_updates * size),
        bits_down=8 * sum(sizes) / (len(sizes) * size),
        curve=tuple(curve),
    )
