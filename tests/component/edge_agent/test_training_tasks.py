"""The tasks that ship, their options, and the metrics."""

import doctest
import traceback
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score
from torch import nn

from edge_agent.training import metrics
from edge_agent.training.metrics import binary_metrics, mean_loss
from edge_agent.training.module import layout_of
from edge_agent.training.task import load_task, num_records
from edge_agent.training.tasks.columns import load_column_map, shipped_names
from edge_agent.training.tasks.image import ImageTask, pneumonia
from edge_agent.training.tasks.table import canonical, read_table
from edge_agent.training.tasks.tabular import TabularTask, heart_disease
from fedward.errors import ConfigError

MAP = """
label: {name: ill, positive_above: 0}
features:
  age: {center: 50, scale: 10}
  chol: {center: 200, scale: 50, missing: ["?", "", 0]}
  sex: {categories: [f, m]}
  pain: {categories: [1, 2], missing: ["?"]}
hidden: [8]
"""
ROWS = "id,age,chol,sex,pain,ill\n1,60,250,m,1,0\n2,40.0,?,f,2.0,3\n3,50,,f,?,1\n4,50,0.0,m,1,0\n"
INPUTS = [
    [1, 1, 0, 0, 1, 1, 0, 0],
    [-1, 0, 1, 1, 0, 0, 1, 0],
    [0, 0, 1, 1, 0, 0, 0, 1],
    [0, 0, 1, 0, 1, 1, 0, 0],
]


@pytest.fixture
def columns(tmp_path: Path) -> Path:
    path = tmp_path / "columns.yaml"
    path.write_text(MAP)
    return path


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "records.csv"
    path.write_text(ROWS)
    return path


# --- metrics


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_accuracy_and_auc_equal_those_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([score for score, _ in pairs], float), np.array([label for _, label in pairs], int)
    sums = binary_metrics(scores, labels, threshold=0.0)
    assert sums["accuracy"][0] / sums["accuracy"][1] == pytest.approx(accuracy_score(labels, scores > 0))
    positives = int(labels.sum())
    assert sums["auc"][1] == positives * (len(pairs) - positives)
    if sums["auc"][1]:
        assert sums["auc"][0] / sums["auc"][1] == pytest.approx(roc_auc_score(labels, scores))
    else:
        assert sums["auc"][0] == 0


@pytest.mark.parametrize(("scores", "labels"), [([0.1], [0, 1]), ([0.1, 0.2], [0, 2]), ([[0.1]], [[0]])])
def test_scores_that_do_not_fit_the_labels_are_refused(scores: list[float], labels: list[int]) -> None:
    with pytest.raises(ValueError, match="labels"):
        binary_metrics(scores, labels)


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(metrics)
    assert (result.failed, result.attempted > 0) == (0, True)


@pytest.mark.parametrize("batch", [torch.ones(3, 2), {"x": torch.ones(3)}, [[torch.ones(3)], torch.ones(1)]])
def test_the_mean_loss_counts_the_records_of_any_batch(batch: object) -> None:
    assert mean_loss(lambda *_: torch.tensor(2.0), nn.ReLU(), [batch, batch]) == {"loss": (12.0, 6.0)}


# --- load_task


def test_every_task_that_ships_is_installed_and_has_a_model(columns: Path) -> None:
    options: dict[str, Mapping[str, object]] = {"tabular": {"columns": str(columns)}}
    for name in ("tabular", "image", "breast-cancer", "heart-disease", "pneumonia"):
        assert layout_of(load_task(name, options.get(name, {})).model()).size > 0


def test_an_unknown_task_is_refused_with_a_list_of_those_installed() -> None:
    with pytest.raises(ConfigError, match=r"'astrology' is not installed; installed: .*breast-cancer.*tabular"):
        load_task("astrology", {})


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"trian": "secret"}, "trian.*its options are: train, held_out"), ({"train": "/secret/x.csv"}, "option train")],
)
def test_a_wrong_option_is_named_without_its_value(options: Mapping[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        load_task("breast-cancer", options)
    assert "secret" not in str(caught.value)


def test_a_lacking_option_is_named() -> None:
    with pytest.raises(ConfigError, match="missing a required argument: 'columns'"):
        load_task("tabular", {})


# --- tabular


def test_a_table_becomes_scaled_one_hot_and_flagged_inputs(columns: Path, records: Path) -> None:
    inputs, labels = read_table(records, load_column_map(columns), "train")
    assert inputs.tolist() == INPUTS
    assert labels.tolist() == [0, 1, 1, 0]
    assert inputs.dtype == labels.dtype == np.float32


def test_parquet_gives_the_same_inputs_as_csv(columns: Path, tmp_path: Path) -> None:
    table = pa.table({
        "age": [60, 40, 50, 50], "chol": [250.0, None, None, 0.0], "sex": ["m", "f", "f", "m"],
        "pain": ["1", "2", "?", "1"], "ill": [0, 3, 1, 0],
    })  # fmt: skip
    pa.parquet.write_table(table, tmp_path / "records.parquet")
    assert read_table(tmp_path / "records.parquet", load_column_map(columns), "train")[0].tolist() == INPUTS


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (ROWS.replace("60", "sixty"), "column age: 1 cells are neither numbers"),
        (ROWS.replace("m", "x"), "column sex: 2 cells are neither one of its categories"),
        (ROWS.replace(",3\n", ",\n"), "column ill: 1 cells"),
        (ROWS.replace("pain", "ache"), "lacks the columns pain"),
        ("", "expected a CSV with a header"),
    ],
)
def test_a_table_that_does_not_fit_its_map_is_told_by_column_and_count(
    rows: str, problem: str, columns: Path, records: Path
) -> None:
    records.write_text(rows)
    with pytest.raises(ConfigError, match=problem) as caught:
        TabularTask(columns, records).train_data()
    assert "sixty" not in str(caught.value)


def test_a_printed_traceback_of_a_broken_table_quotes_no_row(columns: Path, records: Path) -> None:
    records.write_text(ROWS + "patient-4711,1\n")
    with pytest.raises(ConfigError) as caught:
        TabularTask(columns, records).train_data()
    assert "4711" not in "".join(traceback.format_exception(caught.value))


def test_a_table_with_a_header_only_has_no_records(columns: Path, records: Path) -> None:
    records.write_text(ROWS.splitlines()[0] + "\n")
    assert num_records(TabularTask(columns, records).train_data()) == 0


def test_every_way_to_write_a_value_is_the_same() -> None:
    assert {canonical(value) for value in (1, 1.0, "1", " 1.00 ", "1e0")} == {"1.0"}
    assert {canonical(value) for value in (True, "True", "true")} == {"true"}
    assert canonical("-0") == canonical(0)


def test_held_out_records_are_the_fraction_asked_for_and_never_trained_on(columns: Path, records: Path) -> None:
    header = ROWS.splitlines()[0]
    records.write_text("\n".join([header, *(f"{i},{i},250,m,1,{i % 2}" for i in range(100))]))
    task = TabularTask(columns, records, held_out=0.2)
    ages = [{float(item[0][0]) for item in part} for part in (task.train_data(), task.held_out_data())]  # type: ignore[attr-defined]
    assert (len(ages[0]), len(ages[1])) == (80, 20)
    assert not ages[0] & ages[1]
    again = TabularTask(columns, records, held_out=0.2).held_out_data()
    assert {float(item[0][0]) for item in again} == ages[1]  # type: ignore[attr-defined]


def test_held_out_records_in_a_file_of_their_own_leave_all_others_to_training(columns: Path, records: Path) -> None:
    task = TabularTask(columns, records, held_out=str(records))
    assert num_records(task.train_data()) == num_records(task.held_out_data()) == 4


def test_a_file_of_held_out_records_is_read_for_the_first_version_and_not_for_each(
    columns: Path, records: Path
) -> None:
    task = TabularTask(columns, held_out=str(records))
    first = task.held_out_data()
    records.unlink()
    assert task.held_out_data() is first


def test_options_of_a_table_are_all_checked_at_once(columns: Path) -> None:
    with pytest.raises(ConfigError, match=r"option train.*option held_out"):
        TabularTask(columns, "nowhere.csv", held_out=1.5)


def test_a_table_without_a_file_has_a_model_and_says_what_is_not_set() -> None:
    task = heart_disease()
    assert layout_of(task.model()).size > 4096
    with pytest.raises(ConfigError, match="option train is not set"):
        task.train_data()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (MAP.replace("scale: 10", "scale: 0"), "scale: .*greater than 0"),
        (MAP.replace("hidden", "hiden"), "hiden: Extra"),
        ("a: [", "not YAML"),
    ],
)
def test_a_column_map_that_is_wrong_is_told_field_by_field(text: str, problem: str, columns: Path) -> None:
    columns.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        load_column_map(columns)


def test_an_unknown_column_map_is_refused_with_those_that_ship() -> None:
    assert shipped_names() == ["breast-cancer", "heart-disease"]
    with pytest.raises(ConfigError, match="breast-cancer, heart-disease"):
        load_column_map("lung-cancer")


# --- image


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    arrays = {
        f"{part}_{name}": array
        for part, count in (("train", 6), ("test", 4))
        for name, array in (
            ("images", rng.integers(0, 256, (count, 28, 28), np.uint8)),
            ("labels", np.arange(count)[:, None] % 2),
        )
    }
    np.savez(tmp_path / "images.npz", allow_pickle=False, **arrays)
    return tmp_path / "images.npz"


def test_an_archive_gives_its_own_splits_scaled_to_one(archive: Path) -> None:
    task = pneumonia(archive)
    assert (num_records(task.train_data()), num_records(task.held_out_data())) == (6, 4)
    image, label = task.held_out_data()[1]
    assert (image.shape, int(label)) == ((1, 28, 28), 1)
    assert -1 <= float(image.min()) < float(image.max()) <= 1


def test_the_loss_and_metrics_of_images_agree(archive: Path) -> None:
    task = pneumonia(archive)
    model = task.model()
    batch = [torch.stack([task.train_data()[i][0] for i in range(6)]), torch.arange(6) % 2]
    sums = task.metrics(model, [batch])
    assert set(sums) == {"loss", "accuracy", "auc"}
    assert sums["loss"][0] / sums["loss"][1] == pytest.approx(float(task.loss(model, batch).detach()), rel=1e-5)


@pytest.mark.parametrize("size", [28, 29, 64])
def test_the_network_fits_images_of_any_size(size: int) -> None:
    model = ImageTask(size=size).model()
    assert model(torch.zeros(2, 1, size, size)).shape == (2, 2)


def test_a_folder_of_images_is_resized_and_partly_held_out(tmp_path: Path) -> None:
    for label, shade in (("normal", 0), ("pneumonia", 255)):
        (tmp_path / label).mkdir()
        for index in range(4):
            Image.new("L", (40, 30), shade).save(tmp_path / label / f"{index}.png")
    task = pneumonia(tmp_path, held_out=0.25)
    train, held_out = task.train_data(), task.held_out_data()
    assert (num_records(train), num_records(held_out)) == (6, 2)
    for image, label in (train[i] for i in range(6)):
        assert torch.equal(image, torch.full((1, 28, 28), 2.0 * label - 1))


def test_an_image_of_sixteen_bits_is_refused_rather_than_clipped(tmp_path: Path) -> None:
    for label in ("normal", "pneumonia"):
        (tmp_path / label).mkdir()
        Image.fromarray(np.full((28, 28), 40_000, np.uint16)).save(tmp_path / label / "1.png")
    with pytest.raises(ConfigError, match="more than 8 bits"):
        pneumonia(tmp_path).train_data()[0]


def test_images_that_cannot_be_read_are_config_errors(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(ConfigError, match="lacks the subfolders normal, pneumonia"):
        pneumonia(tmp_path).train_data()
    with pytest.raises(ConfigError, match=r"expected an \.npz"):
        ImageTask(archive, size=32).train_data()
    archive.write_bytes(b"not a zip")
    with pytest.raises(ConfigError, match=r"expected an \.npz"):
        pneumonia(archive).train_data()
    with pytest.raises(ConfigError, match=r"option images.*option labels.*option size"):
        ImageTask("nowhere", labels=["one"], size=1)
