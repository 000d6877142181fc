"""How long things take, counted into buckets as Prometheus wants them; by one thread, read by others."""

from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import Any

from fedward.topics import Up

OTHER = "other"
KINDS = (*(kind.name.lower() for kind in Up), OTHER)

BOUNDS_S = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""Upper ends of the buckets; the last bucket, without end, comes after them."""


@dataclass(frozen=True)
class Durations:
    """What was seen so far. A value: `with_one` makes the next one, so that who reads it never sees half a change."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    """Of each bucket alone."""
    sum_s: float = 0.0

    def with_one(self, seconds: float) -> "Durations":
        """These, and one more."""
        counts = list(self.counts)
        counts[bisect_left(BOUNDS_S, seconds)] += 1
        return Durations(tuple(counts), self.sum_s + seconds)


class Meter:
    """What the coordinator's loop spends its time on."""

    def __init__(self) -> None:
        self.message_s: dict[str, Durations] = dict.fromkeys(KINDS, Durations())
        """To handle a message, by kind; `other` is what no site sends."""
        self.version_s = Durations()
        """To make a version and store it."""
        self.busy_s = 0.0
        """In which the loop did not wait."""

    def handled(self, kind: Up | None, seconds: float) -> None:
        """A message was handled; None is the kind of what no site sends."""
        name = kind.name.lower() if kind else OTHER
        self.message_s[name] = self.message_s[name].with_one(seconds)

    def made(self, seconds: float) -> None:
        """A version was made."""
        self.version_s = self.version_s.with_one(seconds)

    def page(self) -> dict[str, Any]:
        """All of it, for people."""
        return {
            "message_s": {kind: asdict(durations) for kind, durations in self.message_s.items()},
            "version_s": asdict(self.version_s),
            "busy_s": self.busy_s,
        }
