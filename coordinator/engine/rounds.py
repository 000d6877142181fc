"""When a version is made: the buffer is full, or the deadline has passed with something in it."""

from collections.abc import Collection, Mapping, Sequence
from statistics import median_low

from coordinator.engine.buffer import buffer_size, count
from coordinator.engine.rates import MIN_GAP_S, Arrival, SiteRate, live
from coordinator.engine.settings import EngineSettings

SHORTEST_DEADLINE_S = 1.0
"""Below this a version costs more to publish than it brings."""

LONGEST_DEADLINE_S = 3600.0
"""Nobody waits longer than this for a buffer to fill, whatever training times sites report."""

LONGEST_BARRIER_S = 86_400.0
"""A barrier has to wait for the slowest site, but a reported time can't hold up the others for ever."""

PATIENCE = 2.0
"""The deadline over the time that the buffer is expected to take: passed only when something is wrong."""

LEAST_WORK = 0.1
"""Share of the sites' median training time down to which a training time is believed: a site that claims to need none
would have a version made of its own update alone every second, and all others would be stale."""


def flush_after_s(settings: EngineSettings, size: int, rates: Mapping[str, SiteRate], now_s: float) -> float:
    """Seconds after the first arrival of a buffer at which a version is made of what is there.

    The setting, or from the training times w_j of the live sites: K of them finish in about K / sum_j 1/w_j, and the
    deadline is twice that; no w_j is believed below LEAST_WORK of their median. Where no site is live all known ones
    count, and where none is known the longest holds. A barrier waits for all: see `_barrier_after_s`. `size` is K.

    Training times, not arrival gaps: a site that waits for a new version before it trains again has gaps as long
    as versions take, so a deadline made of gaps would feed back on itself, and one long stall would lengthen all
    deadlines after it.
    """
    if settings.flush_after_s is not None:
        return settings.flush_after_s
    if settings.barrier:
        return _barrier_after_s(size, rates)
    works_s = [max(rate.work_s, MIN_GAP_S) for rate in (live(rates, now_s) or rates).values()]
    if not works_s:
        return LONGEST_DEADLINE_S
    least_s = LEAST_WORK * median_low(works_s)
    expected_s = size / sum(1.0 / max(work_s, least_s) for work_s in works_s)
    return min(max(PATIENCE * expected_s, SHORTEST_DEADLINE_S), LONGEST_DEADLINE_S)


def _barrier_after_s(size: int, rates: Mapping[str, SiteRate]) -> float:
    """Twice the longest training time, once each of the `size` sites has told its own; the longest until then.

    Without that wait a site slower than twice the others would miss every version: its late update is refused
    as stale, so its training time would never become known.
    """
    if len(rates) < size:
        return LONGEST_BARRIER_S
    slowest_s = max(rate.work_s for rate in rates.values())
    return min(max(PATIENCE * slowest_s, SHORTEST_DEADLINE_S), LONGEST_BARRIER_S)


def flush_at_s(arrivals: Sequence[Arrival], deadline_s: float) -> float | None:
    """When the deadline of this buffer passes, None while it is empty; `deadline_s` counts from its first arrival."""
    return min(arrival.received_at_s for arrival in arrivals) + deadline_s if arrivals else None


def is_ready(
    arrivals: Sequence[Arrival],
    settings: EngineSettings,
    active_sites: Collection[str],
    deadline_s: float,
    now_s: float,
) -> bool:
    """True when a version is to be made of the buffer now.

    Full: K updates counted; behind a barrier, one of every active site. Or overdue: at least one update, and
    the deadline (flush_after_s) has passed since the first.
    """
    due_s = flush_at_s(arrivals, deadline_s)
    if due_s is None:
        return False
    if now_s >= due_s:
        return True
    if settings.barrier:
        return {arrival.site for arrival in arrivals} >= set(active_sites)
    return count(arrivals, settings) >= buffer_size(settings, len(active_sites))
