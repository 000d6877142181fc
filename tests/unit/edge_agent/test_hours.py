"""Hours of training: what the clock on the wall shows decides, over midnight, the week's end and changes of time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.hours import DAY_MINUTES, DAYS, WallTime, is_open, parse_range
from edge_agent.policy import HoursSettings, PolicySettings
from edge_agent.policy_file import open_at


def at(text: str) -> WallTime:
    """`mon 19:00` as a wall time."""
    day, clock = text.split()
    hours, minutes = clock.split(":")
    return WallTime(DAYS.index(day), 60 * int(hours) + int(minutes))


@pytest.mark.parametrize(
    ("hours", "now", "opened"),
    [
        ("mon-fri 08:00-17:00", "mon 08:00", True),
        ("mon-fri 08:00-17:00", "mon 07:59", False),
        ("mon-fri 08:00-17:00", "fri 16:59", True),
        ("mon-fri 08:00-17:00", "fri 17:00", False),
        ("mon-fri 08:00-17:00", "sat 12:00", False),
        ("mon-fri 19:00-07:00", "fri 19:00", True),
        ("mon-fri 19:00-07:00", "sat 06:59", True),  # Friday's night
        ("mon-fri 19:00-07:00", "sat 07:00", False),
        ("mon-fri 19:00-07:00", "sat 19:00", False),
        ("mon-fri 19:00-07:00", "mon 06:00", False),  # Sunday's night is not named
        ("sun 22:00-04:00", "mon 03:59", True),  # over the end of the week
        ("sun 22:00-04:00", "sun 03:00", False),
        ("fri-mon 00:00-24:00", "sun 23:59", True),
        ("fri-mon 00:00-24:00", "tue 00:00", False),
        ("sat,sun 00:00-24:00", "sat 00:00", True),
        ("mon,wed-thu 10:00-11:00", "tue 10:30", False),
        ("mon,wed-thu 10:00-11:00", "thu 10:30", True),
        ("mon 20:00-00:00", "mon 23:59", True),
        ("mon 20:00-00:00", "tue 00:00", False),
    ],
)
def test_a_range_holds_from_its_begin_until_just_before_its_end(hours: str, now: str, opened: bool) -> None:
    assert is_open([hours], at(now)) is opened


def test_one_range_of_several_is_enough() -> None:
    ranges = ["mon-fri 19:00-07:00", "sat-sun 00:00-24:00"]
    assert is_open(ranges, at("sun 12:00"))
    assert is_open(ranges, at("wed 20:00"))
    assert not is_open(ranges, at("wed 12:00"))


@pytest.mark.parametrize(
    "text",
    ["", "always", "mon", "mon 8-17", "mon 8:00-17:00", "mon 08:00-24:01", "mon 08:60-09:00", "mon 08:00-08:00",
     "mon 24:00-08:00", "mo 08:00-17:00", "mon- 08:00-17:00", "-fri 08:00-17:00", "mon-fri-sun 08:00-17:00",
     "mon, 08:00-17:00", "MON 08:00-17:00", "mon 08:00-17:00 ", "mon 08:00 - 17:00"],
)  # fmt: skip
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|begins|no time"):
        parse_range(text)


@given(st.sampled_from(DAYS), st.sampled_from(DAYS), st.integers(0, DAY_MINUTES - 1), st.integers(0, DAY_MINUTES))
def test_a_range_is_open_as_long_as_it_says_on_each_of_its_days(first: str, last: str, start: int, end: int) -> None:
    if start == end:
        return
    text = f"{first}-{last} {start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"
    num_days = (DAYS.index(last) - DAYS.index(first)) % 7 + 1
    week = [WallTime(day, minute) for day in range(7) for minute in range(DAY_MINUTES)]
    assert sum(is_open([text], now) for now in week) == num_days * ((end - start) % DAY_MINUTES or DAY_MINUTES)


BERLIN = PolicySettings(hours=HoursSettings(time_zone="Europe/Berlin", open=["sat 19:00-07:00", "sun 02:15-02:45"]))


def open_minutes(policy: PolicySettings, begin: datetime, hours: int) -> int:
    minutes = (begin + timedelta(minutes=minute) for minute in range(60 * hours))
    return sum(open_at(policy, minute.timestamp()) for minute in minutes)


@pytest.mark.parametrize(
    ("saturday", "hours_of_the_night"),
    [(datetime(2026, 3, 28, tzinfo=UTC), 11), (datetime(2026, 10, 24, tzinfo=UTC), 13),
     (datetime(2026, 6, 6, tzinfo=UTC), 12)],
)  # fmt: skip
def test_a_night_in_which_the_clock_is_changed_is_an_hour_shorter_or_longer(
    saturday: datetime, hours_of_the_night: int
) -> None:
    assert open_minutes(BERLIN, saturday, 48) == 60 * hours_of_the_night


def test_a_range_in_the_hour_that_the_clock_leaves_out_is_not_there_and_in_the_repeated_one_twice() -> None:
    narrow = PolicySettings(hours=HoursSettings(time_zone="Europe/Berlin", open=["sun 02:15-02:45"]))
    assert open_minutes(narrow, datetime(2026, 3, 29, tzinfo=UTC), 24) == 0
    assert open_minutes(narrow, datetime(2026, 10, 25, tzinfo=UTC), 24) == 60


def test_the_hours_are_those_of_the_hospitals_time_zone_wherever_the_machine_thinks_it_is() -> None:
    noon = datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp()  # a Monday
    for zone, opened in (("UTC", True), ("Asia/Tokyo", False), ("Pacific/Auckland", False)):
        policy = PolicySettings(hours=HoursSettings(time_zone=zone, open=["mon 11:00-13:00"]))
        assert open_at(policy, noon) is opened, zone


def test_without_hours_it_is_always_open() -> None:
    assert open_at(PolicySettings(), 0.0)
