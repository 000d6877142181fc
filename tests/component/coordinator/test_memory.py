"""What a coordinator holds while it makes a version, in processes of their own."""

from pathlib import Path

import pytest

from benchmarks.memory import Peak, bar_mb, measure, meets_bar, spread

PARAMETERS = 2_000_000


def peak(pending: int, peak_mb: float) -> Peak:
    return Peak(pending=pending, begun_mb=1.0, peak_mb=peak_mb, making_s=1.0)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, which tells what is resident")
def test_a_version_of_many_updates_needs_no_more_memory_than_one_of_few(tmp_path: Path) -> None:
    few, many = measure(tmp_path, PARAMETERS, [8, 40])
    payload_mb = PARAMETERS / 2 / 1e6
    assert many.peak_mb < few.peak_mb + 4 * payload_mb  # 32 more were mapped, or decoded, at once otherwise
    assert few.begun_mb < few.peak_mb <= bar_mb(PARAMETERS)


def test_the_bar_is_on_the_highest_peak_and_on_how_far_they_lie_apart() -> None:
    most = bar_mb(110_000_000)
    assert most == pytest.approx(150 + 3 * 440)
    assert spread([peak(8, 100.0), peak(32, 103.0), peak(64, 99.0)]) == pytest.approx(103 / 99 - 1)
    assert meets_bar([peak(8, 0.96 * most), peak(64, most)], 110_000_000)
    assert not meets_bar([peak(8, 0.99 * most), peak(64, 1.001 * most)], 110_000_000)
    assert not meets_bar([peak(8, 100.0), peak(64, 106.0)], 110_000_000)
