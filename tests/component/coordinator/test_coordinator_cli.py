"""The operator's commands, on the folder of a federation that has run."""

import hashlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from coordinator.ledger import Ledger
from coordinator.tables import ALL
from fedward.cli import EXIT_CONFIG, main
from fedward.messages import FederationState
from fedward.modelfile import load_model, save_model
from tests.support.updates import FEDERATION, SMALL, vector


def fedward(folder: Path, verb: str, *arguments: object) -> int:
    return main(["coordinator", verb, "--config", str(folder / "federation.yaml"), *map(str, arguments)])


def wishes(folder: Path) -> dict[str, FederationState]:
    ledger = Ledger.in_folder(folder / "state")
    found = ledger.wishes()
    ledger.close()
    return found


def test_status_shows_version_buffer_and_sites(after_a_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedward(after_a_run, "status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"federation {FEDERATION}: running, task tabular"
    assert lines[1].startswith(f"version    1 ({SMALL.size} parameters, digest ")
    assert lines[2] == "buffer     1 updates since then"
    assert [line.split() for line in lines[4:]] == [["north", "2", "1", "100", "-"], ["south", "1", "0", "100", "-"]]


def test_a_command_beside_a_coordinator_that_is_just_making_its_ledger_leaves_the_making_to_it(
    after_a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = after_a_run / "state" / "ledger.sqlite"
    for part in ledger.parent.glob("ledger.sqlite*"):
        part.unlink()
    ledger.touch()
    assert fedward(after_a_run, "status") == EXIT_CONFIG
    assert "no version there yet" in capsys.readouterr().err
    with sqlite3.connect(ledger) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []


@pytest.mark.parametrize(
    ("verb", "arguments", "expected"),
    [
        ("pause", [], {ALL: FederationState.PAUSED}),
        ("pause", ["--site", "north"], {"north": FederationState.PAUSED}),
        ("resume", [], {ALL: FederationState.RUNNING}),
        ("finish", [], {ALL: FederationState.FINISHED}),
    ],
)
def test_a_wish_is_noted_for_the_running_coordinator(
    after_a_run: Path, verb: str, arguments: list[str], expected: dict[str, FederationState]
) -> None:
    assert fedward(after_a_run, verb, *arguments) == 0
    assert wishes(after_a_run) == expected


def test_a_wish_for_a_site_that_is_not_admitted_is_refused(
    after_a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedward(after_a_run, "pause", "--site", "west") == EXIT_CONFIG
    assert "site west is not admitted; admitted: north, south" in capsys.readouterr().err
    assert wishes(after_a_run) == {}


def test_the_newest_version_is_exported_with_its_card(after_a_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    assert fedward(after_a_run, "export", "--out", out) == 0
    layout, vector_P = load_model(out)
    assert layout == SMALL
    assert np.abs(vector_P - vector(SMALL, 0, scale=1.0)).max() > 0
    card = (tmp_path / "model.md").read_text()
    assert f"# {FEDERATION}, version 1" in card
    assert hashlib.sha256(out.read_bytes()).hexdigest() in card
    assert hashlib.sha256(vector_P.astype("<f4").tobytes()).hexdigest() in card


def test_an_older_version_is_exported_bit_by_bit(after_a_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    assert fedward(after_a_run, "export", "--version", 0, "--out", out) == 0
    np.testing.assert_array_equal(load_model(out)[1], vector(SMALL, 0, scale=1.0))


def test_a_version_that_was_never_made_cannot_be_exported(
    after_a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedward(after_a_run, "export", "--version", 9, "--out", tmp_path / "model.safetensors") == EXIT_CONFIG
    assert "version 9 was never made; the newest is 1" in capsys.readouterr().err
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("verb", ["status", "pause", "finish"])
def test_before_the_first_run_there_is_nothing_to_work_on(
    folder: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedward(folder, verb) == EXIT_CONFIG
    assert "start `fedward coordinator run` first" in capsys.readouterr().err
    assert not (folder / "state").exists()


def test_a_ledger_without_a_version_has_no_status(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Ledger.in_folder(folder / "state").close()  # a first run that died before its first version
    assert fedward(folder, "status") == EXIT_CONFIG
    assert "start `fedward coordinator run` first" in capsys.readouterr().err


def test_the_folder_of_another_federation_is_refused(
    after_a_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDWARD_FEDERATION", "other")
    assert fedward(after_a_run, "status") == EXIT_CONFIG
    assert f"belongs to federation {FEDERATION}, the configuration says other" in capsys.readouterr().err


def test_a_model_of_another_layout_is_refused(after_a_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_model(after_a_run / "initial.safetensors")
    other = type(SMALL).of([*SMALL.tensors[:1]])
    save_model(after_a_run / "initial.safetensors", other, np.zeros(other.size, np.float32), {})
    assert fedward(after_a_run, "status") == EXIT_CONFIG
    assert "belongs to layout" in capsys.readouterr().err


def test_a_missing_configuration_file_is_the_operators_to_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedward(tmp_path, "run") == EXIT_CONFIG
    assert "federation.yaml: not found" in capsys.readouterr().err


def test_help_prints_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["coordinator", "run", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for setting in ("federation (required)", "broker.port (default 8883)", "engine.buffer_size (default None)"):
        assert setting in text


def test_broker_config_writes_a_broker_and_says_what_it_still_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "broker"
    command = ["coordinator", "broker-config", "--federation", FEDERATION, "--host", "broker.example.org"]
    assert main([*command, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"mosquitto.conf", "dynamic-security.json"}
    assert "broker.example.org.key" in said
    assert main([*command, "--out", str(out)]) == EXIT_CONFIG
    assert "there already" in capsys.readouterr().err
