"""The held version on disk: whole or not there, whatever a crash left."""

import json
from pathlib import Path

import numpy as np
import pytest

from edge_agent.models import Held, ModelFolder
from fedward.layout import Layout, Tensor, vector_digest

LAYOUT = Layout.of([Tensor("weight", (5,))])


def held(version: int, value: float) -> Held:
    vector_P = np.full(LAYOUT.size, value, np.float32)
    return Held(version, vector_digest(vector_P), vector_P)


def version_in(folder: ModelFolder) -> int | None:
    loaded = folder.load(LAYOUT)
    return loaded.version if loaded else None


def test_what_was_saved_is_loaded_by_the_next_process(tmp_path: Path) -> None:
    ModelFolder(tmp_path).save(held(4, 1.5))
    loaded = ModelFolder(tmp_path).load(LAYOUT)
    assert loaded is not None
    assert (loaded.version, loaded.digest) == (4, held(4, 1.5).digest)
    np.testing.assert_array_equal(loaded.vector_P, held(4, 1.5).vector_P)


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert ModelFolder(tmp_path).load(LAYOUT) is None
    assert ModelFolder(tmp_path).label() == {}


def test_a_vector_that_an_earlier_release_left_half_written_is_deleted_at_the_start(tmp_path: Path) -> None:
    ModelFolder(tmp_path).save(held(4, 1.5))
    partial = tmp_path / ".model.f32.17.part"
    partial.write_bytes(b"half")
    assert version_in(ModelFolder(tmp_path)) == 4
    assert not partial.exists()


def test_saving_leaves_the_version_before_whole(tmp_path: Path) -> None:
    """So that a process that dies in the middle of a save costs nothing."""
    folder = ModelFolder(tmp_path)
    for version in (1, 2, 3):
        folder.save(held(version, float(version)))
    newest = max(tmp_path.glob("*.json"), key=lambda path: json.loads(path.read_text())["version"])
    newest.unlink()
    assert version_in(folder) == 2


@pytest.mark.parametrize("size", [0, 7, 16, 24])
def test_a_vector_that_a_power_cut_tore_leads_to_the_version_before(tmp_path: Path, size: int) -> None:
    folder = ModelFolder(tmp_path)
    folder.save(held(1, 1.0))
    (first,) = tmp_path.glob("*.f32")
    folder.save(held(2, 2.0))
    (second,) = set(tmp_path.glob("*.f32")) - {first}
    second.write_bytes(bytes(size))
    assert version_in(folder) == 1
    first.write_bytes(bytes(size))
    assert version_in(folder) is None


def test_a_save_beside_a_damaged_vector_spares_the_only_good_one(tmp_path: Path) -> None:
    """The process dies while it writes: of the slots only the one that it did not write in counts."""
    folder = ModelFolder(tmp_path)
    folder.save(held(1, 1.0))
    (good,) = tmp_path.glob("*.f32")
    folder.save(held(2, 2.0))
    (damaged,) = set(tmp_path.glob("*.f32")) - {good}
    damaged.write_bytes(bytes(20))
    again = ModelFolder(tmp_path)
    assert version_in(again) == 1
    again.save(held(3, 3.0))
    assert good.read_bytes() == held(1, 1.0).vector_P.tobytes()
    assert damaged.read_bytes() == held(3, 3.0).vector_P.tobytes()
    assert version_in(ModelFolder(tmp_path)) == 3


def test_the_version_that_was_saved_last_counts_and_not_the_greatest_number(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    for version in (7, 3):
        folder.save(held(version, float(version)))
    assert folder.label()["version"] == 3
    assert version_in(ModelFolder(tmp_path)) == 3


def test_a_label_over_another_vector_never_makes_a_wrong_model(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.save(held(1, 1.0))
    (vector,) = tmp_path.glob("*.f32")
    vector.write_bytes(held(2, 2.0).vector_P.tobytes())
    assert folder.label()["version"] == 1
    assert folder.load(LAYOUT) is None
    assert folder.label() == {}


def test_a_smaller_model_takes_the_place_of_a_larger_one(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    for version in (1, 2):
        larger_P = np.ones(9, np.float32)
        folder.save(Held(version, vector_digest(larger_P), larger_P))
    folder.save(held(3, 3.0))
    assert version_in(folder) == 3


@pytest.mark.parametrize("damage", [b"", b"\xff", b"[]", b'{"version": 1', b'{"version": 1}'])
def test_an_unreadable_label_means_that_nothing_is_held(tmp_path: Path, damage: bytes) -> None:
    folder = ModelFolder(tmp_path)
    folder.save(held(1, 1.0))
    (label,) = tmp_path.glob("*.json")
    label.write_bytes(damage)
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
