"""The typical norm: how long updates are at present, by which one that is far longer is clipped or called an outlier.

A norm is the L2 norm of a delta as it was encoded, recorded with each accepted update before any clipping. The typical
norm is the median over the sites of each site's own median, of its newest PER_SITE accepted norms among the newest
RECENT ones: every site counts alike, however often it delivers, so it takes half of the sites to move it where they
like. It follows the training, in which deltas shrink.

Steps are not divided out. A delta grows with the steps it took, but their number is the site's own word, and who could
stretch its bound by it would. A hospital that takes ten times the steps of the others is clipped: its direction counts
in full, its length like theirs.
"""

from collections import defaultdict
from collections.abc import Iterable
from statistics import median_low

from coordinator.engine.settings import EngineSettings

RECENT = 500
"""Accepted updates that are looked at, newest first: few enough to read for every version."""

PER_SITE = 10
"""Of them, the newest of each site that count."""

LEAST_SITES = 3
"""Sites whose norms must be known: of two that differ, nothing says which one is wrong."""


def typical_norm(recent: Iterable[tuple[str, float]]) -> float | None:
    """Of (site, norm) of accepted updates, newest first; None while fewer than LEAST_SITES sites moved anything.

    An update of norm 0 says nothing of how far others should go. Medians are the lower of two, so of four sites a
    hostile one can't raise it above what an honest one sends.
    """
    by_site: dict[str, list[float]] = defaultdict(list)
    for site, norm in recent:
        if norm > 0.0 and len(by_site[site]) < PER_SITE:
            by_site[site].append(norm)
    own = [median_low(norms) for norms in by_site.values() if norms]
    return median_low(own) if len(own) >= LEAST_SITES else None


def norm_bound(recent: Iterable[tuple[str, float]], settings: EngineSettings) -> float | None:
    """The norm to which a version clips its updates; None where nothing is clipped."""
    typical = typical_norm(recent) if settings.norm_clip is not None else None
    return None if settings.norm_clip is None or typical is None else settings.norm_clip * typical


def clip_scale(norm: float | None, bound: float | None) -> float:
    """min(1, bound / norm): what a delta of this norm is multiplied with, so that it is no longer than the bound."""
    return 1.0 if norm is None or bound is None or norm <= bound else bound / norm


def is_outlier(norm: float, recent: Iterable[tuple[str, float]], settings: EngineSettings) -> bool:
    """Whether an update is so long that it is refused, given those that were accepted before."""
    if settings.outlier_norm is None:
        return False
    typical = typical_norm(recent)
    return typical is not None and norm > settings.outlier_norm * typical


def waits_for_norms(num_delivered: int, num_active: int, settings: EngineSettings) -> bool:
    """Whether a version waits until LEAST_SITES sites have delivered, because so many are here and updates are clipped.

    Without it the very first version could be made of two updates, one of them a hundred times too long.
    """
    return settings.norm_clip is not None and num_delivered < LEAST_SITES <= num_active
