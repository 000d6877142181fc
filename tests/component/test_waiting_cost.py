"""How the waiting benchmark makes figures of an hour from its readings."""

import os

import pytest

from benchmarks.soak import Sample
from benchmarks.waiting import Reading, cost, cpu_seconds
from fedward.limits import MIB


def reading(at_s: float, count: int) -> Reading:
    process = Sample(at_s=at_s, own_bytes=count * MIB, resident_bytes=9 * MIB, open_files=1, threads=1, disk_bytes=0)
    return Reading(
        process=process,
        cpu_s=float(count),
        bytes_up=10 * count,
        bytes_down=20 * count,
        connections=30 * count,
        log_bytes=40 * count,
    )


def test_what_was_counted_in_a_minute_is_sixty_times_as_much_in_an_hour() -> None:
    figures = cost([reading(100.0, 1), reading(130.0, 2), reading(160.0, 3)])
    assert (figures.cpu_s, figures.bytes_up, figures.bytes_down) == pytest.approx((120.0, 1200.0, 2400.0))
    assert (figures.connections, figures.log_bytes) == pytest.approx((3600.0, 4800.0))
    assert figures.own_mb == pytest.approx(120.0)


def test_cpu_time_of_a_process_grows_with_its_work() -> None:
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) == before:
        sum(range(10_000))
    assert cpu_seconds(os.getpid()) > before
