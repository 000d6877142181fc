"""What the curves of benchmarks.accuracy say: accuracy and bytes of each pair of codecs, beside float32's. Pure."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.accuracy_run import Point, Run
from benchmarks.simulation import FLOAT32, Pair

TARGET = 0.94
LAST_VERSIONS = 5
"""The AUC of a run is the mean over its last versions: one version alone is mostly noise of the curve."""

ACCURACY_BARS = {"eden4": 0.003, "eden2": 0.003, "eden1": 0.006}
"""Codec of the updates -> how far the mean AUC may be from float32's."""

BYTES_BARS = {"eden4": 8.0, "eden2": 12.0}
"""Codec of the updates -> float32's bytes to the target over this pair's, at least."""


@dataclass(frozen=True)
class Difference:
    """A mean over seeds and its standard error: NaN for a single seed."""

    mean: float
    standard_error: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One pair of codecs over all seeds. Bytes are those until the first version of at least TARGET."""

    up: str
    down: str
    bits_up: float
    bits_down: float
    auc: Difference
    difference: Difference  # paired: this pair's AUC minus float32's under the same seed
    reached: tuple[int | None, ...]  # by seed, the first version of at least TARGET
    num_counted: int  # of the seeds those whose saving is known: float32 reached TARGET
    saving: float | None  # float32's bytes over this pair's, median of the seeds that count
    saving_by_version: float  # the same with both counted up to the version in which float32 reached it, or the last
    saving_alike: float  # the same where float32 is spared the sites' first models, too
    shares: dict[str, float]  # of those bytes: up, down after joining, joining, messages

    @property
    def accuracy_met(self) -> bool | None:
        """None where there is no bar."""
        bar = ACCURACY_BARS.get(self.up)
        return None if bar is None else abs(self.difference.mean) <= bar

    @property
    def num_reached(self) -> int:
        """Seeds under which the pair reached TARGET."""
        return sum(version is not None for version in self.reached)

    @property
    def bytes_met(self) -> bool | None:
        """None where there is no bar."""
        bar = BYTES_BARS.get(self.up)
        return None if bar is None else self.saving is not None and self.saving >= bar


def misses_a_bar(found: Iterable[Row]) -> bool:
    """Whether accuracy or bytes of any pair miss their bar."""
    return any(met is False for row in found for met in (row.accuracy_met, row.bytes_met))


def final_auc(run: Run) -> float:
    """Mean over the last LAST_VERSIONS versions."""
    return statistics.fmean(point.auc for point in run.curve[-LAST_VERSIONS:])


def first_reaching(run: Run, target: float) -> Point | None:
    """The first version whose AUC is at least the target; None where there is none."""
    return next((point for point in run.curve if point.auc >= target), None)


def mean_of(values: Sequence[float]) -> Difference:
    """Of at least one value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Difference(statistics.fmean(values), error)


def saving(run: Run, reference: Run, target: float) -> float | None:
    """Bytes of the reference until it reaches the target over the run's; 0 where the run never does.

    None where the reference never does: nothing can be said then.
    """
    theirs, ours = first_reaching(reference, target), first_reaching(run, target)
    if theirs is None:
        return None
    return theirs.total / ours.total if ours else 0.0


def saving_by_version(run: Run, reference: Run, target: float, *, joining: bool) -> float:
    """As `saving`, both up to one version, so without the curves' noise: that in which the reference reaches the
    target, or the last one. Each site's first model counts where `joining` says so."""
    theirs = first_reaching(reference, target) or reference.curve[-1]
    ours = run.curve[theirs.version - 1]
    if joining:
        return theirs.total / ours.total
    return (theirs.total - theirs.joining) / (ours.total - ours.joining)


def rows(runs: Iterable[Run]) -> list[Row]:
    """One for each pair, most bits first, over the seeds that were run with it and with float32."""
    by_pair: dict[Pair, dict[int, Run]] = {}
    for run in runs:
        by_pair.setdefault(Pair(run.up, run.down), {})[run.seed] = run
    reference = by_pair.get(FLOAT32, {})
    found = [_row(paired, reference) for given in by_pair.values() if (paired := _shared(given, reference))]
    return sorted(found, key=lambda row: (-row.bits_up, -row.bits_down))


def _shared(given: dict[int, Run], reference: dict[int, Run]) -> list[Run]:
    return [run for seed, run in sorted(given.items()) if seed in reference]


def _row(runs: Sequence[Run], reference: dict[int, Run]) -> Row:
    pairs = [(run, reference[run.seed]) for run in runs]
    reached = [first_reaching(run, TARGET) for run in runs]
    savings = [saving(run, theirs, TARGET) for run, theirs in pairs]
    return Row(
        up=runs[0].up,
        down=runs[0].down,
        bits_up=statistics.fmean(run.bits_up for run in runs),
        bits_down=statistics.fmean(run.bits_down for run in runs),
        auc=mean_of([final_auc(run) for run in runs]),
        difference=mean_of([final_auc(run) - final_auc(theirs) for run, theirs in pairs]),
        reached=tuple(point.version if point else None for point in reached),
        num_counted=sum(known is not None for known in savings),
        saving=_median(savings),
        saving_by_version=statistics.median(saving_by_version(*pair, TARGET, joining=True) for pair in pairs),
        saving_alike=statistics.median(saving_by_version(*pair, TARGET, joining=False) for pair in pairs),
        shares=_shares([point or run.curve[-1] for point, run in zip(reached, runs, strict=True)]),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _shares(points: Sequence[Point]) -> dict[str, float]:
    total = sum(point.total for point in points)
    return {
        "up": sum(point.up for point in points) / total,
        "down": sum(point.down - point.joining for point in points) / total,
        "joining": sum(point.joining for point in points) / total,
        "messages": sum(point.messages for point in points) / total,
    }
