"""A model file holds tensors, their kinds and text, and anything else is the operator's mistake, told plainly."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from fedward.errors import ConfigError
from fedward.layout import Kind, Layout, Tensor
from fedward.limits import MAX_SEED
from fedward.modelfile import SEED_KEY, STATISTICS_KEY, TASK_KEY, load_model, load_seed, save_model

LAYOUT = Layout.of(
    [
        Tensor("conv.weight", (64, 65)),
        Tensor("conv.bias", (64,)),
        Tensor("temperature", ()),
        Tensor("norm.running_mean", (64,), Kind.STATISTIC),
    ]
)
VECTOR = np.random.default_rng(5).standard_normal(LAYOUT.size).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def assert_refused(path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as error:
        load_model(path)
    assert str(path) in str(error.value)


def test_layout_kinds_and_bits_survive_the_file(path):
    save_model(path, LAYOUT, VECTOR, {})
    layout, vector_P = load_model(path)
    assert layout == LAYOUT
    assert layout.digest == LAYOUT.digest
    assert vector_P.tobytes() == VECTOR.tobytes()


def test_anyone_reads_the_tensors_by_name_and_the_text(path):
    save_model(path, LAYOUT, VECTOR, {"fedward.version": "42"})
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {STATISTICS_KEY: '["norm.running_mean"]', "fedward.version": "42"}
        assert np.array_equal(file.get_tensor("conv.weight"), VECTOR[: 64 * 65].reshape(64, 65))


@pytest.mark.parametrize("seed", [0, MAX_SEED])
def test_the_seed_is_read_where_it_is_of_the_task_that_is_asked_for(path: Path, seed: int) -> None:
    save_model(path, LAYOUT, VECTOR, {TASK_KEY: "tabular", SEED_KEY: str(seed)})
    assert load_seed(path, "tabular") == seed
    assert load_seed(path, "pneumonia") is None


def test_a_file_without_a_seed_has_none(path: Path) -> None:
    save_model(path, LAYOUT, VECTOR, {TASK_KEY: "tabular"})
    assert load_seed(path, "tabular") is None
    save_file({"a": np.ones(3, np.float32)}, path)
    assert load_seed(path, "tabular") is None


@pytest.mark.parametrize("seed", ["-1", str(MAX_SEED + 1), "1.5", "many"])
def test_a_seed_that_no_announcement_can_carry_is_refused(path: Path, seed: str) -> None:
    save_model(path, LAYOUT, VECTOR, {TASK_KEY: "tabular", SEED_KEY: seed})
    with pytest.raises(ConfigError, match=seed) as error:
        load_seed(path, "tabular")
    assert str(path) in str(error.value)


def test_a_vector_of_another_layout_is_not_written(path):
    with pytest.raises(ValueError, match="expected float32"):
        save_model(path, LAYOUT, VECTOR[:-1], {})
    assert not path.exists()


def test_a_file_of_another_program_is_all_weights(path):
    save_file({"b": np.zeros(2, np.float32), "a": np.ones(3, np.float32)}, path)
    layout, vector_P = load_model(path)
    assert layout.tensors == (Tensor("a", (3,)), Tensor("b", (2,)))
    assert vector_P.tolist() == [1, 1, 1, 0, 0]


def test_tensors_of_whole_numbers_are_left_out(path):
    save_file({"weight": np.ones(3, np.float32), "num_batches_tracked": np.array([7])}, path)
    assert [tensor.name for tensor in load_model(path)[0].tensors] == ["weight"]


def test_half_precision_is_widened(path):
    save_file({"weight": np.array([0.5, -2], np.float16)}, path)
    vector_P = load_model(path)[1]
    assert (vector_P.dtype, vector_P.tolist()) == (np.float32, [0.5, -2.0])


def test_a_missing_file_tells_how_to_make_one(path):
    assert_refused(path, "fedward agent init-model")


def test_a_folder_is_refused(tmp_path):
    assert_refused(tmp_path, "expected a safetensors file")


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 100, b"\x08" + bytes(7) + b"nonsense"])
def test_a_file_that_is_no_safetensors_file_is_refused(path, content):
    path.write_bytes(content)
    assert_refused(path, "expected a safetensors file of float tensors")


def test_a_file_cut_short_is_refused(path):
    save_model(path, LAYOUT, VECTOR, {})
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(path, "expected a safetensors file")


def test_a_file_without_float_tensors_is_refused(path):
    save_file({"labels": np.arange(3)}, path)
    assert_refused(path, "0 tensors")


@pytest.mark.parametrize("text", ["{", "5", '[["a"]]', "null"])
def test_metadata_that_lists_no_names_is_refused(path, text):
    save_file({"a": np.zeros(2, np.float32)}, path, metadata={STATISTICS_KEY: text})
    assert_refused(path, "expected a safetensors file")
