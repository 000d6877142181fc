"""A torch model as a vector and back."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from edge_agent.training.capability import Capability, Precision, choose_precision, measure
from edge_agent.training.module import all_finite, initial_model, layout_of, read_delta, read_vector, write_vector
from edge_agent.training.tasks.tabular import breast_cancer
from fedward.errors import ConfigError
from fedward.layout import Kind
from tests.support.hospital import Tiny
from tests.support.pretend_gpu import DEVICE, PretendGpu


class Tied(nn.Module):
    """Two names for one weight, a norm with running statistics, a frozen layer, a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 3, bias=False)
        self.norm = nn.BatchNorm1d(3)
        self.decoder = nn.Linear(3, 3, bias=False)
        self.decoder.weight = self.encoder.weight
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.register_buffer("cache", torch.zeros(2), persistent=False)


def test_what_travels_is_trained_parameters_once_and_running_statistics() -> None:
    kinds = {tensor.name: tensor.kind for tensor in layout_of(Tied()).tensors}
    assert kinds == {
        "encoder.weight": Kind.WEIGHT,
        "norm.weight": Kind.WEIGHT,
        "norm.bias": Kind.WEIGHT,
        "norm.running_mean": Kind.STATISTIC,
        "norm.running_var": Kind.STATISTIC,
    }


def test_parameters_that_share_memory_appear_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
    second.weight = nn.Parameter(first.weight.data)
    model = nn.Sequential(first, second)
    assert [tensor.name for tensor in layout_of(model).tensors] == ["0.bias", "0.weight"]


def test_a_vector_written_is_read_back_exactly_and_reaches_both_tied_names() -> None:
    model = Tied()
    layout = layout_of(model)
    vector_P = np.random.default_rng(1).standard_normal(layout.size).astype(np.float32)
    vector_P.flags.writeable = False  # as it is when it is a view of received bytes
    write_vector(model, layout, vector_P)
    assert read_vector(model, layout).tobytes() == vector_P.tobytes()
    assert torch.equal(model.decoder.weight, model.encoder.weight)


def test_reading_gives_a_copy_that_later_training_does_not_change() -> None:
    model = nn.Linear(2, 2)
    before = read_vector(model, layout_of(model))
    kept = before.copy()
    nn.init.zeros_(model.weight)
    assert np.array_equal(before, kept)


@pytest.mark.parametrize(
    "model",
    [
        Tied(),
        nn.Linear(70, 70, dtype=torch.bfloat16),
        nn.Linear(70, 70, dtype=torch.float64),
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).to(memory_format=torch.channels_last),
    ],
    ids=["tied", "bf16", "float64", "channels-last"],
)
def test_a_delta_is_to_the_bit_what_is_read_minus_the_base_in_float32(model: nn.Module) -> None:
    layout = layout_of(model)
    base_P = np.random.default_rng(2).standard_normal(layout.size, np.float32)
    base_P.flags.writeable = False
    delta_P = read_delta(model, layout, base_P)
    assert (delta_P.dtype, delta_P.device.type, delta_P.requires_grad) == (torch.float32, "cpu", False)
    assert delta_P.numpy().tobytes() == (read_vector(model, layout) - base_P).tobytes()


def test_the_delta_of_a_model_on_a_gpu_stays_there_and_only_the_base_crosses() -> None:
    model = Tied()
    layout = layout_of(model)
    base_P = np.random.default_rng(2).standard_normal(layout.size, np.float32)
    expected_P = read_delta(model, layout, base_P)
    with PretendGpu() as gpu:
        delta_P = read_delta(gpu.moved(model), layout, base_P)
        assert (gpu.to_device, gpu.to_host) == (base_P.nbytes, 0)
        assert delta_P.device == DEVICE
        assert torch.equal(delta_P.cpu(), expected_P)


def test_a_delta_is_a_copy_and_leaves_the_model_as_it_is() -> None:
    model = nn.Linear(2, 2)
    layout = layout_of(model)
    before = read_vector(model, layout)
    read_delta(model, layout, np.ones(layout.size, np.float32)).zero_()
    assert np.array_equal(read_vector(model, layout), before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1234, 4999])
def test_one_value_that_is_not_finite_is_found_among_many(bad: float, where: int) -> None:
    values = torch.linspace(-1, 1, 5000)
    assert all_finite(values)
    assert all_finite(torch.full((3,), torch.finfo(torch.float32).max))
    values[where] = bad
    assert not all_finite(values)


def test_a_model_of_another_layout_is_refused() -> None:
    model, layout = nn.Linear(2, 2), layout_of(nn.Linear(2, 3))
    with pytest.raises(ValueError, match="layout"):
        write_vector(model, layout, np.zeros(layout.size, np.float32))
    with pytest.raises(ValueError, match="layout"):
        read_vector(model, layout)
    with pytest.raises(ValueError, match="layout"):
        read_delta(model, layout, np.zeros(layout.size, np.float32))
    with pytest.raises(ValueError, match="expected float32"):
        read_delta(model, layout_of(model), np.zeros(layout_of(model).size))


@pytest.mark.parametrize(
    "model", [nn.ReLU(), nn.ParameterDict({"w": nn.Parameter(torch.zeros(2, dtype=torch.complex64))})]
)
def test_a_model_that_cannot_travel_is_a_config_error(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="travel"):
        layout_of(model)


def test_the_initial_model_of_a_task_that_draws_with_numpy_and_random_is_fixed_by_its_seed_too() -> None:
    class Drawing(Tiny):
        def model(self) -> nn.Module:
            return nn.PReLU(init=np.random.standard_normal() + random.random())

    assert initial_model(Drawing(), seed=5)[1].tobytes() == initial_model(Drawing(), seed=5)[1].tobytes()


def test_the_initial_model_is_fixed_by_its_seed() -> None:
    layout, vector_P = initial_model(breast_cancer(), seed=5)
    assert initial_model(breast_cancer(), seed=5)[1].tobytes() == vector_P.tobytes()
    assert initial_model(breast_cancer(), seed=6)[1].tobytes() != vector_P.tobytes()
    assert any(not segment.exact for segment in layout.segments), "no tensor is large enough for a codec"


def test_a_cpu_trains_in_float32_unless_told_otherwise() -> None:
    assert measure("cpu") == Capability("cpu", Precision.FLOAT32)
    assert measure("cpu", "bf16").precision is Precision.BF16


def test_new_gpus_train_in_bf16_and_older_ones_in_fp16() -> None:
    assert choose_precision(on_gpu=True, computes_bf16=True) is Precision.BF16
    assert choose_precision(on_gpu=True, computes_bf16=False) is Precision.FP16


def test_bf16_computes_in_bf16_and_keeps_float32_weights() -> None:
    model = nn.Linear(2, 2)
    with measure("cpu", "bf16").autocast():
        assert model(torch.zeros(1, 2)).dtype is torch.bfloat16
    assert model.weight.dtype is torch.float32


def test_only_fp16_scales_the_loss() -> None:
    assert Capability("cpu", Precision.FP16).grad_scaler().is_enabled()
    assert not Capability("cpu", Precision.BF16).grad_scaler().is_enabled()


def test_every_wrong_choice_of_device_and_precision_is_listed() -> None:
    with pytest.raises(ConfigError, match=r"device 'tpu-x'.*precision 'int3'"):
        measure("tpu-x", "int3")
    with pytest.raises(ConfigError, match="this machine shows"):
        measure("cuda:99")
    with pytest.raises(ConfigError, match="needs a GPU"):
        measure("cpu", "fp16")
