"""How often each site delivers, and how long it trains: what the weights and the deadline are made of."""

from collections.abc import Mapping
from dataclasses import dataclass

SMOOTHING = 0.2
"""Share of the newest gap in the moving average: about the last ten updates of a site count."""

DEAD_AFTER_GAPS = 10
"""A site that is silent for this many of its gaps no longer counts among the live ones."""

MIN_GAP_S = 1e-3
"""Shortest gap that is believed: keeps rates finite."""


@dataclass(frozen=True)
class Arrival:
    """An accepted update, as far as weighing needs to know it: no more than its public manifest and its time."""

    site: str
    base_version: int
    num_examples: int
    num_steps: int
    work_s: float
    received_at_s: float


@dataclass(frozen=True)
class SiteRate:
    """What is known of a site's pace.

    `gap_s` is the moving average of the time between its updates, None until the second one; `last_s` when the
    last one came; `num_examples` and `work_s` (seconds of training) are those of the last one.
    """

    gap_s: float | None
    last_s: float
    num_examples: int
    work_s: float


def observe(rate: SiteRate | None, arrival: Arrival) -> SiteRate:
    """The site's rate after one more arrival of it.

    A gap is at least the training time that the update reports: a site trains one update at a time, so what
    comes faster is the backlog of an outage and says nothing about its pace.
    """
    return SiteRate(_next_gap_s(rate, arrival), arrival.received_at_s, arrival.num_examples, arrival.work_s)


def _next_gap_s(rate: SiteRate | None, arrival: Arrival) -> float | None:
    if rate is None:
        return None
    observed_s = max(arrival.received_at_s - rate.last_s, arrival.work_s, MIN_GAP_S)
    if rate.gap_s is None:
        return observed_s
    return (1.0 - SMOOTHING) * rate.gap_s + SMOOTHING * observed_s


def is_live(rate: SiteRate, now_s: float) -> bool:
    """True until the site has been silent for DEAD_AFTER_GAPS of its gaps.

    A site that was heard once has no gap yet, so nothing tells that it is overdue: it is live.
    """
    return rate.gap_s is None or now_s - rate.last_s <= DEAD_AFTER_GAPS * rate.gap_s


def live(rates: Mapping[str, SiteRate], now_s: float) -> dict[str, SiteRate]:
    """Those of the sites that are live at `now_s`."""
    return {site: rate for site, rate in rates.items() if is_live(rate, now_s)}


def current_gap_s(rate: SiteRate, now_s: float) -> float | None:
    """The site's gap; the present silence where that is already longer. None until the second arrival."""
    return None if rate.gap_s is None else max(rate.gap_s, now_s - rate.last_s)


def mean_rate(rates: Mapping[str, SiteRate], now_s: float) -> float | None:
    """Mean updates a second over the live sites whose gap is known; None where there is none."""
    gaps_s = [current_gap_s(rate, now_s) for rate in live(rates, now_s).values()]
    known_s = [gap_s for gap_s in gaps_s if gap_s is not None]
    return sum(1.0 / gap_s for gap_s in known_s) / len(known_s) if known_s else None
