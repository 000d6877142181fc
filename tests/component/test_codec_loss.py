"""What the codec benchmark measures a codec by."""

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.codec_inputs import Input, heavy_tailed, normal, resnet18
from benchmarks.codec_loss import bias, expected, loss, normal_distortion, sharing
from fedward.codec import codec
from fedward.codec.eden import MAGNITUDES
from fedward.layout import Kind, Layout, Tensor

LAYOUT = Layout.of([Tensor("weight", (128, 129)), Tensor("bias", (100,)), Tensor("mean", (50,), Kind.STATISTIC)])
QUANTIZED = 128 * 129


@pytest.mark.parametrize(("bits", "distortion"), [(1, 0.3634), (2, 0.1175), (4, 0.00950)])
def test_the_levels_of_eden_lose_what_lloyd_and_max_say(bits: int, distortion: float) -> None:
    assert normal_distortion(MAGNITUDES[bits]) == pytest.approx(distortion, rel=2e-3)


def test_loss_is_that_of_the_quantized_tensors_alone() -> None:
    """A statistic of a million times the weights' size travels exactly, and would hide any loss."""
    weights = normal(LAYOUT).vector_P
    with_huge_statistics = weights.copy()
    with_huge_statistics[QUANTIZED + 100 :] *= 1e6

    assert loss(codec("q8"), Input("huge", LAYOUT, with_huge_statistics)) == loss(codec("q8"), normal(LAYOUT))


@pytest.mark.parametrize("name", ["q8", "uqz", "eden4", "eden2", "eden1"])
def test_each_codec_loses_of_normal_values_what_the_theory_says(name: str) -> None:
    large = Layout.of([Tensor("weight", (64, 4096))])

    found = loss(codec(name), normal(large))

    assert found.nmse == pytest.approx(expected(name, normal(large)), rel=0.02)
    assert found.deviation == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(("name", "unbiased"), [("eden2", True), ("q8", False)])
def test_only_what_an_unbiased_codec_loses_averages_away_over_seeds(name: str, unbiased: bool) -> None:
    found = bias(codec(name), heavy_tailed(LAYOUT), num_seeds=16)

    assert found.along == pytest.approx(1, abs=1e-3)
    assert found.noise_left == pytest.approx(1 if unbiased else 16, rel=0.05)


def test_one_seed_for_all_costs_nothing_where_updates_differ_and_everything_where_they_are_the_same() -> None:
    """Of 16 updates with seeds of their own the errors average out; identical ones with one seed err alike."""
    apart, alike = sharing(codec("eden2"), 0.0), sharing(codec("eden2"), 1.0)

    assert apart.own == pytest.approx(apart.shared, rel=0.05) == pytest.approx(0.133 / 16, rel=0.05)
    assert alike.own == pytest.approx(0.133 / 16, rel=0.05)
    assert alike.shared == pytest.approx(0.133, rel=0.05)


def test_heavy_tails_have_a_kurtosis_far_above_that_of_normal_values() -> None:
    assert normal(LAYOUT).kurtosis == pytest.approx(3, abs=0.2)
    assert heavy_tailed(LAYOUT).kurtosis > 10


def test_the_network_of_the_real_delta_is_a_resnet_18() -> None:
    shapes: Sequence[Sequence[int]] = [parameter.shape for parameter in resnet18().parameters()]

    assert sum(int(np.prod(shape)) for shape in shapes) == 11_168_706
