"""The weight of each update of a buffer: data size x staleness x inverse arrival rate x step normalisation.

Weights come from manifests and arrival times alone, never from what a delta holds.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from coordinator.engine.rates import Arrival, SiteRate, current_gap_s, live, mean_rate
from coordinator.engine.settings import EngineSettings
from coordinator.engine.share import capped

__all__ = ["Arrival", "data_weight", "rate_weight", "staleness_weight", "step_weight", "weights"]


def data_weight(num_examples: int, mean: float, exponent: float) -> float:
    """Weight by size of the data: n^g / mean, where `mean` is that of n^g over the sites (1 to leave it out).

    g = 1 is FedAvg (McMahan et al., arXiv:1602.05629), g = 0 makes hospitals equal. Raises ValueError for n < 1.
    """
    if num_examples < 1:
        raise ValueError(f"num_examples must be >= 1, got {num_examples}")
    return float(num_examples**exponent) / mean


def staleness_weight(staleness: int, free: int, exponent: float) -> float:
    """Weight in (0, 1] of an update that is `staleness` versions old: (1 + max(0, staleness - free))^-exponent.

    The polynomial discount of FedAsync (Xie et al., arXiv:1903.03934) after `free` versions that cost nothing;
    exponent 1/2 and free 0 are FedBuff's 1 / sqrt(1 + staleness) (Nguyen et al., arXiv:2106.06639).
    Raises ValueError for a version from the future (< 0).
    """
    if staleness < 0:
        raise ValueError(f"staleness must be >= 0 versions, got {staleness}: the base version is from the future")
    return float((1 + max(0, staleness - free)) ** -exponent)


def rate_weight(gap_s: float | None, mean_rate_per_s: float | None, cap: float, exponent: float) -> float:
    """Inverse-rate correction: clip(mean rate x the site's gap, 1/cap, cap)^exponent; 1 while either is unknown.

    Own design. Site i arrives at rate l_i = 1 / gap_i, so with exponent 1 and no clipping its share of all
    weight is l_i r_i p_i / sum_j l_j r_j p_j = p_i / sum_j p_j: that of its data, whatever its speed; and since
    the mean over arrivals of r_i is 1, the step keeps its size.
    """
    if gap_s is None or mean_rate_per_s is None:
        return 1.0
    return float(min(max(mean_rate_per_s * gap_s, 1.0 / cap), cap) ** exponent)


def step_weight(num_steps: int, reference_steps: float, exponent: float) -> float:
    """Correction for unequal local work: (reference steps / steps)^exponent; 1 normalises as FedNova does.

    FedNova: Wang et al., arXiv:2007.07481. Raises ValueError for no steps.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be >= 1, got {num_steps}")
    return float((reference_steps / num_steps) ** exponent)


def weights(
    arrivals: Sequence[Arrival],
    version: int,
    rates: Mapping[str, SiteRate],
    settings: EngineSettings,
    size: int,
    now_s: float,
) -> tuple[float, ...]:
    """The weight of each arrival, in order, for a flush at `now_s` that makes a version out of `version`.

    `rates` holds every site ever heard, these arrivals observed; `size` is buffer.buffer_size. With
    `merge_site`, the m updates of one site have 1/m of their weight each. With normalisation "weight" the
    data weight is left undivided (the scale cancels), so that FedAvg's weights are exactly the n_i. Last comes the
    weight cap (share.py), because all that goes before it is what sites say of themselves.
    Raises ValueError for an update from a future version.
    """
    per_site = Counter(arrival.site for arrival in arrivals)
    mean_data = _mean_data(arrivals, rates, settings, now_s)
    mean_rate_per_s = mean_rate(rates, now_s)
    mean_steps = sum(arrival.num_steps for arrival in arrivals) / max(1, len(arrivals))
    free = _free_staleness(arrivals, rates, settings, size, now_s)
    claimed = tuple(
        data_weight(arrival.num_examples, mean_data, settings.data_exponent)
        * staleness_weight(version - arrival.base_version, free, settings.staleness_exponent)
        * rate_weight(_gap_s(arrival, rates, now_s), mean_rate_per_s, settings.rate_cap, settings.rate_exponent)
        * step_weight(arrival.num_steps, mean_steps, settings.step_exponent)
        / (per_site[arrival.site] if settings.merge_site else 1)
        for arrival in arrivals
    )
    if settings.weight_cap is None:
        return claimed
    most = settings.rate_cap if settings.normalisation == "count" else math.inf
    return capped(claimed, [arrival.site for arrival in arrivals], settings.weight_cap, most)


def _gap_s(arrival: Arrival, rates: Mapping[str, SiteRate], now_s: float) -> float | None:
    rate = rates.get(arrival.site)
    return None if rate is None else current_gap_s(rate, now_s)


def _mean_data(
    arrivals: Sequence[Arrival], rates: Mapping[str, SiteRate], settings: EngineSettings, now_s: float
) -> float:
    """Mean of n^g over the live sites and those of the buffer, each site once."""
    if settings.normalisation == "weight":
        return 1.0
    sizes = {site: rate.num_examples for site, rate in live(rates, now_s).items()}
    sizes |= {arrival.site: arrival.num_examples for arrival in arrivals}
    return math.fsum(float(n**settings.data_exponent) for n in sizes.values()) / max(1, len(sizes))


def _free_staleness(
    arrivals: Sequence[Arrival], rates: Mapping[str, SiteRate], settings: EngineSettings, size: int, now_s: float
) -> int:
    """Staleness that costs nothing. Auto: ceil(active / K), which sites of equal speed have without being late."""
    if settings.staleness_free is not None:
        return settings.staleness_free
    active = live(rates, now_s).keys() | {arrival.site for arrival in arrivals}
    return math.ceil(len(active) / size)
