from pathlib import Path

import pytest

from fedward.errors import ConfigError
from sandbox.demo import LEAST_S, MARKER, Options, plan_of, prepare_folder, reason, training_s


def options(**given):
    plain = {
        "task": "breast-cancer",
        "num_sites": 4,
        "data": None,
        "preset": "default",
        "codec": "eden4",
        "model_codec": "q8",
        "slow": {},
        "seconds": None,
        "target": None,
        "json": None,
        "folder": Path("kept"),
        "screenshot": None,
    }
    return Options(**(plain | given))


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not from a demo"):
        prepare_folder(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_folder_of_an_earlier_demo_is_replaced(tmp_path):
    prepare_folder(tmp_path / "kept")
    (tmp_path / "kept" / "model.safetensors").write_text("old")
    prepare_folder(tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [MARKER]


def test_an_empty_folder_is_taken(tmp_path):
    prepare_folder(tmp_path)
    assert (tmp_path / MARKER).is_file()


def test_a_file_in_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(ConfigError, match="--keep"):
        prepare_folder(tmp_path / "kept")


def test_the_last_hospital_of_breast_cancer_is_ten_times_slower_unless_told():
    assert plan_of(options(num_sites=3)).slow == {"hospital-c": 10.0}
    assert plan_of(options(slow={"hospital-a": 2.0})).slow == {"hospital-a": 2.0}
    assert plan_of(options(task="heart-disease")).slow == {}


def test_a_target_ends_the_federation():
    assert plan_of(options(target=("auc", 0.9))).finish == {"metric": "auc", "value": 0.9}
    assert plan_of(options()).finish == {}


def test_the_reason_of_the_end_names_the_target_only_when_it_was_reached():
    wanted = options(target=("auc", 0.9))
    assert reason(wanted, by_itself=True) == "the hospitals measured auc 0.9"
    assert "time" in reason(wanted, by_itself=False)


def test_a_slow_start_shortens_the_training_but_not_what_was_asked_for():
    assert training_s(options(), 5.0) == 20.0
    assert training_s(options(), 20.0) == 12.0
    assert training_s(options(), 50.0) == LEAST_S
    assert training_s(options(seconds=90.0), 50.0) == 90.0
    assert training_s(options(task="pneumonia"), 50.0) == 60.0
