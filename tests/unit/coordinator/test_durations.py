"""Counting how long things take."""

import pytest

from coordinator.durations import BOUNDS_S, KINDS, Durations, Meter
from fedward.topics import Up


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.001, 0), (0.0011, 1), (100.0, 5), (101.0, 6)])
def test_a_duration_is_in_the_first_bucket_that_holds_it(seconds: float, bucket: int) -> None:
    one = Durations().with_one(seconds)
    assert one.counts.index(1) == bucket
    assert sum(one.counts) == 1
    assert one.sum_s == seconds
    assert len(one.counts) == len(BOUNDS_S) + 1


def test_every_kind_of_message_is_there_from_the_start() -> None:
    meter = Meter()
    assert set(meter.message_s) == set(KINDS) == {*(kind.name.lower() for kind in Up), "other"}
    meter.handled(Up.CHUNK, 0.5)
    meter.handled(None, 0.5)
    assert sum(meter.message_s["chunk"].counts) == sum(meter.message_s["other"].counts) == 1
