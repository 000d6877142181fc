"""What the benchmarks make of their curves and times, how they count bytes, and that encoding both ways is compared."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import encoding
from benchmarks.codec_inputs import normal
from benchmarks.codec_loss import Bias, Loss
from benchmarks.codecs import Result, resnet_like, show
from benchmarks.fold import Cost
from benchmarks.fold import measure as measure_folding
from benchmarks.fold import meets_bar as meets_folding_bar
from benchmarks.pneumonia import (
    Point,
    Run,
    downloaded_before,
    first_reaching,
    median_ratio,
    meets_bar,
    ratio,
    received_until,
)
from benchmarks.reference_fedavg import balanced
from coordinator.tables import StoredUpdate
from edge_agent.training.encode import TWINS
from fedward.chunks import manifest_of
from fedward.codec import CODECS
from fedward.messages import Part, PartKind


def curve(*points: tuple[float, float]) -> tuple[Point, ...]:
    """Seconds and AUC of each version."""
    return tuple(
        Point(version=number, after_s=after_s, auc=auc, num_updates=0, up_bytes=0, down_bytes=0)
        for number, (after_s, auc) in enumerate(points, start=1)
    )


def run(ours_s: float, theirs_s: float) -> Run:
    """Both reach every target, after so many seconds."""
    return Run(fedward=curve((ours_s, 0.99)), reference=curve((theirs_s, 0.99)))


NEVER = Run(fedward=curve((1, 0.5)), reference=curve((1, 0.99)))


def update(number: int, received_at_s: float, size_bytes: int) -> StoredUpdate:
    return StoredUpdate(
        number=number,
        update_id=bytes(32),
        site="hospital-a",
        sequence=number,
        base_version=0,
        codec="eden4",
        num_examples=1,
        num_steps=1,
        work_s=1.0,
        size_bytes=size_bytes,
        digest=bytes(32),
        received_at_s=received_at_s,
        arrived_s=received_at_s,
        norm=1.0,
        reason=None,
        version=None,
        weight=None,
    )


def part(kind: PartKind, version: int, size_bytes: int) -> Part:
    return Part(kind=kind, version=version, codec="q8", manifest=manifest_of(bytes(size_bytes)))


def test_a_target_is_reached_by_the_first_version_that_has_it_even_if_the_next_one_has_not() -> None:
    reached = first_reaching(curve((1, 0.90), (2, 0.94), (3, 0.93), (4, 0.95)), 0.94)

    assert reached is not None
    assert (reached.version, reached.after_s) == (2, 2)


def test_the_time_to_a_target_between_two_versions_is_that_of_the_later() -> None:
    reached = first_reaching(curve((10, 0.90), (20, 0.96)), 0.93)

    assert reached is not None
    assert reached.after_s == 20


def test_a_target_above_the_whole_curve_is_never_reached() -> None:
    assert first_reaching(curve((1, 0.90), (2, 0.9399)), 0.94) is None


def test_the_ratio_compares_the_times_to_the_target_and_not_to_the_end() -> None:
    pair = Run(fedward=curve((2, 0.93), (6, 0.94), (60, 0.95)), reference=curve((4, 0.94), (9, 0.96)))

    assert ratio(pair, 0.94) == pytest.approx(1.5)


def test_there_is_no_ratio_when_one_of_the_two_never_reached_the_target() -> None:
    assert ratio(NEVER, 0.94) is None
    assert ratio(Run(fedward=NEVER.reference, reference=NEVER.fedward), 0.94) is None


def test_a_run_without_a_ratio_counts_as_endless_in_the_median() -> None:
    assert median_ratio([1.0, None, 2.0]) == 2.0
    assert median_ratio([1.0, None, None]) is None


def test_the_bar_is_met_at_exactly_one_and_a_half_times_the_reference_in_the_median() -> None:
    assert meets_bar([run(3, 2), run(9, 2), run(1, 2)])
    assert not meets_bar([run(3.01, 2), run(9, 2), run(1, 2)])
    assert not meets_bar([run(1, 2), NEVER, NEVER])


def test_uploads_count_from_the_moment_they_are_stored_also_those_still_in_the_buffer() -> None:
    updates = [update(1, 10.0, 100), update(2, 11.0, 20), update(3, 11.5, 3)]

    assert received_until(updates, 11.0) == (2, 120)


def test_downloads_before_a_version_are_those_of_all_earlier_versions_at_every_site() -> None:
    parts = [part(PartKind.SNAPSHOT, 0, 400), *(part(PartKind.DELTA, version, 100) for version in (1, 2, 3))]

    assert downloaded_before(parts, version=1, num_sites=4) == 4 * 400
    assert downloaded_before(parts, version=3, num_sites=4) == 4 * (400 + 100 + 100)


@pytest.mark.parametrize("reverse", [False, True])
def test_of_a_version_with_a_snapshot_beside_its_delta_the_smaller_one_is_downloaded(reverse: bool) -> None:
    parts = [part(PartKind.SNAPSHOT, 1, 400), part(PartKind.DELTA, 1, 100)]

    assert downloaded_before(reversed(parts) if reverse else parts, version=2, num_sites=1) == 100


def test_the_workers_of_the_reference_have_about_the_same_number_of_records() -> None:
    sizes = [1168, 614, 1345, 1581]

    shares = balanced(sizes, 2)

    assert sorted(index for share in shares for index in share) == [0, 1, 2, 3]
    assert sorted(int(np.take(sizes, share).sum()) for share in shares) == [2195, 2513]


def test_encoding_both_ways_is_compared_for_every_twin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoding.main(["--device", "cpu", "--parameters", "30000", "--rounds", "3", "--json", str(tmp_path / "figures")])
    rows = json.loads((tmp_path / "figures").read_text())["codecs"]
    assert [row["name"] for row in rows] == list(TWINS)
    assert all(row["bytes_equal_ratio"] > 0.95 and row["ratio"] > 0 for row in rows)
    assert all(row["bytes_equal_ratio"] == 1 for row in rows if row["name"] in {"f32", "q8"})
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(TWINS)


@pytest.mark.parametrize(("nmse", "along", "met"), [(0.1029, 1.0009, True), (0.104, 1.0, False), (0.1, 1.002, False)])
def test_the_verdict_on_codecs_is_that_all_are_within_their_bars(
    capsys: pytest.CaptureFixture[str], nmse: float, along: float, met: bool
) -> None:
    given = normal(resnet_like(100_000))
    row = Result(
        name="eden2",
        bits={given.name: 2.0},
        losses={given.name: Loss(nmse=nmse, expected=0.1)},
        bias=Bias(along=along, noise_left=1.0),
        sharing={},
        encode_mb_s=1.0,
        decode_mb_s=1.0,
    )

    assert show([row], [given]) is met
    assert capsys.readouterr().out.rstrip().endswith("met") is met


def test_the_bar_of_folding_is_on_what_a_further_update_adds() -> None:
    cost = Cost(name="eden4", add=2.0, first=60.0, further=8.0, of_8=14.0, norm=6.0)

    assert cost.ratios() == {"first": 30.0, "further": 4.0, "of_8": 7.0, "norm": 3.0}
    assert meets_folding_bar(cost)
    assert not meets_folding_bar(replace(cost, further=8.01))


@pytest.mark.parametrize("name", ["eden4", "q8"])
def test_folding_is_measured_for_codecs_with_and_without_a_shared_seed(name: str) -> None:
    cost = measure_folding(CODECS[name], resnet_like(100_000), repeats=3)

    assert cost.name == name
    assert min(cost.add, cost.first, cost.of_8, cost.norm) > 0
