"""What a series of samples gains in an hour, how surely, and whether that is flat. Pure.

The series is cut into SEGMENTS parts of equal length, and of each the median counts: what comes and goes within a part
(a message, a version, a page of the allocator) is no growth. The slope is the median of the slopes between all pairs
of parts (Theil 1950, Sen 1968), so a single jump does not decide it. Its interval is Sen's: the slopes whose ranks
Kendall's tau allows, with no assumption about how large the noise is, only that it is independent from part to part.
Noise that drifts for longer than a part counts as growth: a longer run has longer parts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, pairwise

import numpy as np

HOUR_S = 3600.0

SEGMENTS = 12
"""More would have more pairs to tell a slope by, and medians of fewer samples, which are less independent."""

DEVIATIONS = 1.96
"""Of a normal distribution, for an interval that holds the true slope in 95 % of the runs."""


class Verdict(StrEnum):
    """Of a slope beside a bar."""

    FLAT = "flat"
    GROWS = "grows"
    UNDECIDED = "undecided"  # the bar is inside the interval: a longer run would tell


@dataclass(frozen=True)
class Slope:
    """What a series gains in an hour: the estimate, and the interval that holds the true value in 95 % of the runs."""

    per_hour: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """The estimate's distance from the farther end of the interval."""
        return max(self.high - self.per_hour, self.per_hour - self.low)

    def beside(self, bar: float) -> Verdict:
        """Flat when all of the interval is at or below the bar, growing when all of it is above."""
        if self.high <= bar:
            return Verdict.FLAT
        return Verdict.GROWS if self.low > bar else Verdict.UNDECIDED

    def least_told(self, bar: float) -> float:
        """About the smallest growth an hour that this run, with its noise, had called growing; infinite if none."""
        return bar + self.per_hour - self.low


def slope_of(times_s: Sequence[float], values: Sequence[float]) -> Slope:
    """Of samples in order of time. Fewer than two have no slope: 0, and an interval without ends."""
    at_s, level = _medians(times_s), _medians(values)
    num_segments = len(level)
    if num_segments < 2:
        return Slope(0.0, -math.inf, math.inf)
    pairs = combinations(range(num_segments), 2)
    slopes = sorted((level[later] - level[first]) / (at_s[later] - at_s[first]) * HOUR_S for first, later in pairs)
    low, high = _interval(slopes, num_segments)
    return Slope(float(np.median(slopes)), low, high)


def largest_step(values: Sequence[float]) -> float:
    """From one part to the next, up or down, in the unit of the values; 0 for fewer than two.

    Where it is nearly all that the series gains, the series is flat but for a jump.
    """
    level = _medians(values)
    steps = [later - before for before, later in pairwise(level)]
    return max(steps, key=abs, default=0.0)


def _medians(values: Sequence[float]) -> list[float]:
    parts = np.array_split(np.asarray(values), min(SEGMENTS, len(values)) or 1)
    return [float(np.median(part)) for part in parts if part.size]


def _interval(slopes: Sequence[float], num_segments: int) -> tuple[float, float]:
    """Between the slopes that are as far from the middle rank as chance brings it; too few pairs have no such ones."""
    n = num_segments
    spread = DEVIATIONS * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    rank = math.floor((len(slopes) - spread) / 2)
    return (slopes[rank - 1], slopes[-rank]) if rank >= 1 else (-math.inf, math.inf)
