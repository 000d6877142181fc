"""The weight cap: how much of a version one site can be, whatever it claims of its data and its pace."""

import math
from collections import defaultdict
from collections.abc import Sequence

UNEVEN = 1.5
"""Where a cap would make all sites of a small buffer equal, one may still have so many times its even share."""


def capped(weights: Sequence[float], sites: Sequence[str], cap: float, most: float) -> tuple[float, ...]:
    """The weights with no site above its greatest share of their sum: `cap`, or UNEVEN / number of sites if more.

    What is cut off goes to the other sites in proportion, as far as they have room, and so the version keeps its
    weight; but it is at most one a site then, because the sum was the claim of who is cut. No site is above `most`
    either, which bounds versions of one site or two. Weights that claim less come back as they are.
    """
    by_site: dict[str, float] = defaultdict(float)
    for site, weight in zip(sites, weights, strict=True):
        by_site[site] += weight
    total, share = sum(by_site.values()), max(cap, UNEVEN / max(1, len(by_site)))
    if max(by_site.values(), default=0.0) > share * total:
        level = _level(sorted(by_site.values()), share * total, total)
        shrunk = min(1.0, len(by_site) / total)
        limited = {site: min(share * total, level * own) * shrunk for site, own in by_site.items()}
    else:
        limited = dict(by_site)
    factors = {site: min(limited[site], most) / own if own else 1.0 for site, own in by_site.items()}
    return tuple(weight * factors[site] for site, weight in zip(sites, weights, strict=True))


def _level(ascending: Sequence[float], ceiling: float, total: float) -> float:
    """The factor t for which the sum of min(ceiling, t x weight) is `total`, found from the largest weight down."""
    for num_cut in range(len(ascending)):
        largest = ascending[-1 - num_cut]
        rest = math.fsum(ascending[: len(ascending) - num_cut])
        level = (total - num_cut * ceiling) / rest if rest > 0.0 else 1.0
        if level * largest <= ceiling * (1.0 + 1e-12):  # equal up to rounding: there is no room for a further cut
            return level
    return 1.0
