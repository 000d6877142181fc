"""The buffer: the accepted updates since the last version. How many make a version, and what divides their sum."""

import math
from collections.abc import Sequence

from coordinator.engine.rates import Arrival
from coordinator.engine.settings import ROBUST_SITES, EngineSettings


def buffer_size(settings: EngineSettings, num_active: int) -> int:
    """K, at least 1: how many updates make a version while `num_active` sites take part.

    The setting, or min(10, max(2, ceil(0.3 n))), and with a robust rule ROBUST_SITES at least. Where a site may train
    once from a version, never more than there are active sites: further updates could not come before the next
    version. A barrier waits for all.
    """
    active = max(1, num_active)
    if settings.barrier:
        return active
    least = 2 if settings.robust == "none" else ROBUST_SITES
    size = settings.buffer_size or min(10, max(least, math.ceil(0.3 * active)))
    return size if settings.repeat_base else min(size, active)


def count(arrivals: Sequence[Arrival], settings: EngineSettings) -> int:
    """How many updates the buffer counts: with `merge_site`, distinct sites."""
    return len({arrival.site for arrival in arrivals}) if settings.merge_site else len(arrivals)


def divisor(weights: Sequence[float], arrivals: Sequence[Arrival], settings: EngineSettings) -> float:
    """What divides the weighted sum of updates: their count, or the sum of their weights.

    Raises ValueError where that is zero or not finite: such a buffer can't make a version.
    """
    total = float(count(arrivals, settings)) if settings.normalisation == "count" else math.fsum(weights)
    if not (total > 0.0 and math.isfinite(total)):
        raise ValueError(f"{len(arrivals)} updates with normalisation {settings.normalisation!r} sum up to {total}")
    return total
