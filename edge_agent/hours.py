"""When a hospital allows training: ranges of its own wall clock, such as "mon-fri 19:00-07:00". Pure.

A rule sees what the clock on the wall shows, and nothing else. So it needs no rule for the two nights in which that
clock is put back or forward: an hour that is shown twice is open twice, one that is left out is not there, and a range
ends when the clock shows its end or anything later.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
RANGE = re.compile(r"([a-z,-]+) +(\d\d):(\d\d)-(\d\d):(\d\d)")
EXPECTED = "expected days and times such as 'mon-fri 19:00-07:00' or 'sat,sun 00:00-24:00'"


@dataclass(frozen=True)
class WallTime:
    """What the clock on the hospital's wall shows: `weekday` from 0 for Monday, `minute` of the day."""

    weekday: int
    minute: int


@dataclass(frozen=True)
class Opening:
    """From `start` to `end`, minutes of a day, on each of these days; an end before the start is on the day after."""

    days: frozenset[int]
    start: int
    end: int

    def holds(self, now: WallTime) -> bool:
        """The end itself is outside."""
        if self.start < self.end:
            return now.weekday in self.days and self.start <= now.minute < self.end
        evening = now.weekday in self.days and now.minute >= self.start
        morning = (now.weekday - 1) % 7 in self.days and now.minute < self.end
        return evening or morning


def is_open(ranges: Iterable[str], now: WallTime) -> bool:
    """Is training allowed at this time, by any of the ranges?"""
    return any(parse_range(text).holds(now) for text in ranges)


def parse_range(text: str) -> Opening:
    """Raises ValueError for anything but days and two times, and for two times that are the same."""
    found = RANGE.fullmatch(text)
    if found is None:
        raise ValueError(EXPECTED)
    days, *numbers = found.groups()
    start, end = _minute(*numbers[:2]), _minute(*numbers[2:])
    if start in (end, DAY_MINUTES):
        raise ValueError("begins when it ends: a whole day is 00:00-24:00")
    return Opening(frozenset(day for part in days.split(",") for day in _days(part)), start, end)


def _days(text: str) -> list[int]:
    """`mon`, or a range that may go over the end of the week, as `fri-mon` does."""
    first, _, last = text.partition("-")
    if first not in DAYS or (last or first) not in DAYS or text.endswith("-"):
        raise ValueError(f"{EXPECTED}; the days are {', '.join(DAYS)}")
    begin, length = DAYS.index(first), (DAYS.index(last or first) - DAYS.index(first)) % 7
    return [(begin + number) % 7 for number in range(length + 1)]


def _minute(hours: str, minutes: str) -> int:
    minute = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute > DAY_MINUTES:
        raise ValueError(f"{hours}:{minutes} is no time of a day: 00:00 to 24:00")
    return minute
