"""The held version on disk: whole or not there, whatever a crash left."""

from pathlib import Path

import numpy as np
import pytest

from edge_agent.models import Held, ModelFolder
from fedward.layout import Layout, Tensor, vector_digest

LAYOUT = Layout.of([Tensor("weight", (5,))])


def held(version: int, value: float) -> Held:
    vector_P = np.full(LAYOUT.size, value, np.float32)
    return Held(version, vector_digest(vector_P), vector_P)


def test_what_was_saved_is_loaded_by_the_next_process(tmp_path: Path) -> None:
    ModelFolder(tmp_path).save(held(4, 1.5))
    loaded = ModelFolder(tmp_path).load(LAYOUT)
    assert loaded is not None
    assert (loaded.version, loaded.digest) == (4, held(4, 1.5).digest)
    np.testing.assert_array_equal(loaded.vector_P, held(4, 1.5).vector_P)


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert ModelFolder(tmp_path).load(LAYOUT) is None
    assert ModelFolder(tmp_path).label() == {}


def test_a_crash_between_vector_and_label_costs_a_download_and_never_a_wrong_model(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.save(held(1, 1.0))
    label = (tmp_path / "model.json").read_bytes()
    folder.save(held(2, 2.0))
    (tmp_path / "model.json").write_bytes(label)
    assert folder.load(LAYOUT) is None


@pytest.mark.parametrize("damage", [b"", b"\xff", b"[]", b'{"version": 1', b'{"version": 1}'])
def test_an_unreadable_label_means_that_nothing_is_held(tmp_path: Path, damage: bytes) -> None:
    folder = ModelFolder(tmp_path)
    folder.save(held(1, 1.0))
    (tmp_path / "model.json").write_bytes(damage)
    assert folder.load(LAYOUT) is None


@pytest.mark.parametrize("size", [0, 7, 16, 24])
def test_a_vector_of_another_length_is_not_used(tmp_path: Path, size: int) -> None:
    folder = ModelFolder(tmp_path)
    folder.save(held(1, 1.0))
    (tmp_path / "model.f32").write_bytes(bytes(size))
    assert folder.load(LAYOUT) is None


def test_a_model_of_another_layout_is_not_used(tmp_path: Path) -> None:
    ModelFolder(tmp_path).save(held(1, 1.0))
    assert ModelFolder(tmp_path).load(Layout.of([Tensor("weight", (6,))])) is None


def test_a_forgotten_version_is_not_loaded_and_can_be_forgotten_twice(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.save(held(1, 1.0))
    folder.forget()
    folder.forget()
    assert folder.load(LAYOUT) is None


def test_tidy_drops_what_crashes_left_half_written_and_nothing_else(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.save(held(1, 1.0))
    (tmp_path / ".model.f32.99.part").write_bytes(bytes(20))
    (folder.parts / "ab.part").write_bytes(b"collected")
    folder.tidy()
    assert {path.name for path in tmp_path.iterdir()} == {"model.f32", "model.json", "parts"}
    assert (folder.parts / "ab.part").exists()
