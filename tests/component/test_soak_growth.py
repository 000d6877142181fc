"""What the soak makes of its samples: a leak is called one, noise is not, and what can't be told is said to be so."""

import gc
import math
import mmap
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.growth import HOUR_S, Slope, Verdict, largest_step, slope_of
from benchmarks.soak import EVERY_S, MB_BAR, Growth, Sample, growth_of, sample, table, verdict
from fedward.limits import MIB
from sandbox.collect import collect_every

TIMES_S = np.arange(0, 15 * 60, EVERY_S)
"""What is left of 20 minutes after a warm-up."""

NOISE_MB, DRIFT_MB = 0.05, 0.05
"""Twice those of an agent: standard deviations of a sample, and of where the level wanders to within a minute."""

RUNS = 200


def noise(seed: int) -> np.ndarray:
    """MB at each of TIMES_S: white noise, and a level that forgets itself within a minute."""
    rng = np.random.default_rng(seed)
    kept = math.exp(-EVERY_S / 60)
    level, drift = 0.0, np.empty(len(TIMES_S))
    for index in range(len(TIMES_S)):
        level = kept * level + math.sqrt(1 - kept**2) * DRIFT_MB * rng.standard_normal()
        drift[index] = level
    return drift + NOISE_MB * rng.standard_normal(len(TIMES_S))


def leak(mb_per_hour: float) -> np.ndarray:
    return mb_per_hour * TIMES_S / HOUR_S


def jump(at_s: float, mb: float) -> np.ndarray:
    return np.where(at_s <= TIMES_S, mb, 0.0)


def slope(values: np.ndarray) -> Slope:
    return slope_of(TIMES_S.tolist(), values.tolist())


def verdicts(values: Callable[[int], np.ndarray]) -> list[Verdict]:
    return [slope(values(seed)).beside(MB_BAR) for seed in range(RUNS)]


def test_the_slope_of_a_straight_line_is_exact() -> None:
    found = slope(390 + leak(7.5))
    assert (found.per_hour, found.low, found.high) == pytest.approx((7.5, 7.5, 7.5))
    assert found.error == pytest.approx(0.0, abs=1e-9)


def test_a_leak_of_two_megabytes_an_hour_is_called_one_in_a_run_of_twenty_minutes() -> None:
    found = verdicts(lambda seed: 390 + noise(seed) + leak(2.0))
    assert Verdict.FLAT not in found
    assert found.count(Verdict.GROWS) >= 0.95 * RUNS


def test_noise_alone_is_flat_and_never_called_growth() -> None:
    found = verdicts(lambda seed: 390 + noise(seed))
    assert Verdict.GROWS not in found
    assert found.count(Verdict.FLAT) >= 0.95 * RUNS


def test_a_leak_at_the_bar_is_hardly_ever_called_flat() -> None:
    found = verdicts(lambda seed: 390 + noise(seed) + leak(MB_BAR))
    assert found.count(Verdict.FLAT) <= 0.05 * RUNS


def test_the_interval_holds_the_true_slope_in_nearly_all_runs() -> None:
    slopes = [slope(noise(seed) + leak(3.0)) for seed in range(RUNS)]
    assert sum(found.low <= 3.0 <= found.high for found in slopes) >= 0.9 * RUNS


def test_a_single_jump_at_either_end_is_no_growth() -> None:
    for at_s in (30.0, 14.5 * 60):
        assert slope(390 + jump(at_s, 3.0)).beside(MB_BAR) is Verdict.FLAT


def test_a_jump_in_the_middle_can_not_be_told_from_growth_and_is_not_called_flat() -> None:
    assert slope(390 + jump(7.5 * 60, 3.0)).beside(MB_BAR) is Verdict.UNDECIDED


def test_a_jump_is_the_largest_step_and_a_leak_takes_many_small_ones() -> None:
    assert largest_step((390 + noise(1) + jump(7 * 60, -3.0)).tolist()) == pytest.approx(-3.0, abs=0.2)
    assert abs(largest_step((390 + leak(12.0)).tolist())) == pytest.approx(12.0 * 15 / 60 / 12, rel=0.05)
    assert largest_step([390.0]) == largest_step([]) == 0.0


def test_the_least_leak_told_is_where_the_verdict_turns() -> None:
    found = slope(noise(1))
    least = found.least_told(MB_BAR)
    assert MB_BAR < least < 2.0
    for share, told in ((1.2, Verdict.GROWS), (0.8, Verdict.UNDECIDED)):
        assert slope(noise(1) + leak(share * least - found.per_hour)).beside(MB_BAR) is told


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_few_samples_tell_nothing(number: int) -> None:
    found = slope_of(TIMES_S[:number].tolist(), [1.0] * number)
    assert found.beside(MB_BAR) is Verdict.UNDECIDED
    assert found.least_told(MB_BAR) == math.inf


def growth(mb_per_hour: float = 0.0, threads_per_hour: float = 0.0, own_noise: float = 0.0) -> Growth:
    """Of a process, by way of its samples."""
    own_mb = 390 + leak(mb_per_hour) + own_noise * noise(1)
    return growth_of(
        [
            Sample(
                at_s=at_s,
                own_bytes=int(own * MIB),
                resident_bytes=int((own + 140) * MIB),
                open_files=8,
                threads=5 + int(threads_per_hour * at_s / HOUR_S),
                disk_bytes=3 * MIB,
            )
            for at_s, own in zip(TIMES_S.tolist(), own_mb.tolist(), strict=True)
        ]
    )


def test_the_bar_is_met_when_no_process_grows() -> None:
    assert verdict({"coordinator": growth(), "hospital-a": growth(0.5)}) is None


def test_the_bar_is_not_met_by_a_process_that_grows_and_the_process_is_named() -> None:
    assert verdict({"coordinator": growth(), "hospital-a": growth(2.0)}) == "hospital-a: memory grows"
    assert verdict({"coordinator": growth(threads_per_hour=60)}) == "coordinator: threads grow"


def test_the_bar_is_not_met_by_memory_of_which_nothing_can_be_told() -> None:
    assert verdict({"hospital-a": growth(own_noise=20.0)}) == "hospital-a: memory undecided"


def test_the_table_has_each_process_with_its_slope_error_and_least_leak() -> None:
    head, coordinator, hospital = table({"coordinator": growth(), "hospital-a": growth(0.5)})
    assert len(head) == len(coordinator) == len(hospital)
    assert coordinator.split()[:8] == ["coordinator", "530.0", "390.0", "+0.00", "±", "0.00", "1.00", "+0.00"]
    assert "+0.50 ± 0.00" in hospital


def test_memory_that_a_process_fills_is_its_own_and_a_file_that_it_maps_is_not(tmp_path: Path) -> None:
    size = 32 * MIB
    file = tmp_path / "payload"
    file.write_bytes(bytes(size))
    before = sample(os.getpid(), tmp_path, 0.0)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:: mmap.PAGESIZE].count(b"\0") == size // mmap.PAGESIZE
        beside_a_map = sample(os.getpid(), tmp_path, 1.0)
    with mmap.mmap(
        -1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    ) as filled:  # never a piece of memory that was freed before
        filled.write(b"\1" * size)
        after = sample(os.getpid(), tmp_path, 2.0)
    assert beside_a_map.resident_bytes - before.resident_bytes > 0.9 * size
    assert beside_a_map.own_bytes - before.own_bytes < 0.1 * size
    assert after.own_bytes - before.own_bytes > 0.9 * size
    assert before.disk_bytes == size


class Node:
    """Holds itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


def test_garbage_of_a_soaked_program_is_collected_whatever_it_allocates() -> None:
    freed = threading.Event()
    gc.disable()
    try:
        node = Node()
        weakref.finalize(node, freed.set)
        del node
        stop = collect_every(0.01)
        assert freed.wait(10)
        stop.set()
    finally:
        gc.enable()
