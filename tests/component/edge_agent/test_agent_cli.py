"""`fedward agent` as an operator calls it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.cli import mqtt_settings
from edge_agent.config import SiteConfig
from edge_agent.outbox import Outbox
from edge_agent.report import will_of
from fedward.cli import EXIT_CONFIG, main
from fedward.modelfile import load_model, load_seed
from fedward.pack import pack


@pytest.fixture
def site_yaml(tmp_path: Path, config: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FEDWARD_DATA", raising=False)
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def test_status_before_the_first_start_says_what_to_do(site_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agent", "status", "--config", str(site_yaml)]) == EXIT_CONFIG
    assert "start `fedward agent run` first" in capsys.readouterr().err


def test_status_reads_the_state_folder(site_yaml: Path, hospital: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hospital.office.announce()
    hospital.settle()
    assert main(["agent", "status", "--config", str(site_yaml)]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.replace("d ", "d-").splitlines())
    assert lines["held-version"] == "0"
    assert lines["trained-from"] == "0"
    assert "1 in the outbox" in lines["updates"].replace("-", " ")


def test_status_changes_nothing_under_a_running_agent(
    site_yaml: Path, config: SiteConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    outbox = config.state_folder / "outbox"
    Outbox(outbox)
    (outbox / "ab.payload").write_bytes(b"being saved")
    (outbox / ".ab.offer.1.part").write_bytes(b"being saved")
    (outbox / "cd.offer").write_bytes(b"of a newer release")
    before = sorted(outbox.iterdir())
    assert main(["agent", "status", "--config", str(site_yaml)]) == 0
    assert sorted(outbox.iterdir()) == before
    assert "0 in the outbox" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["run", "status"])
def test_a_bad_configuration_is_one_message_with_every_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("site: St. Anna\nfederation: ward\nsecret: x\ntasks: {}\nbroker: {host: h, port: 0}\n")
    assert main(["agent", verb, "--config", str(path)]) == EXIT_CONFIG
    message = capsys.readouterr().err
    for problem in ("site:", "secret: unknown setting", "tasks:", "broker.port:", "state_folder: missing"):
        assert problem in message


def test_init_model_writes_a_file_that_the_coordinator_can_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(name: str, seed: str) -> Path:
        path = tmp_path / name
        assert main(["agent", "init-model", "--task", "breast-cancer", "--seed", seed, "--out", str(path)]) == 0
        return path

    layout, vector_P = load_model(write("one.safetensors", "1"))
    assert load_seed(tmp_path / "one.safetensors", "breast-cancer") == 1
    assert layout.digest.hex() in capsys.readouterr().out
    assert (load_model(write("again.safetensors", "1"))[1] == vector_P).all()
    assert not (load_model(write("two.safetensors", "2"))[1] == vector_P).all()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--task", "unheard-of"], "is not installed"),
        (["--task", "breast-cancer", "--options", "[1]"], "--options: expected"),
        (["--task", "breast-cancer", "--options", "{"], "--options: expected YAML"),
        (["--task", "breast-cancer", "--options", "{depth: 3}"], "its options are"),
        (["--task", "breast-cancer", "--seed", "-1"], "--seed: a seed from 0"),
    ],
)
def test_init_model_says_what_it_can_not_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    out = tmp_path / "model.safetensors"
    assert main(["agent", "init-model", "--out", str(out), *arguments]) == EXIT_CONFIG
    assert problem in capsys.readouterr().err
    assert not out.exists()


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["agent", "run", "--help"])
    text = capsys.readouterr().out
    for setting in ("site", "broker.host", "policy.min_examples", "telemetry_s"):
        assert f"  {setting} (" in text


def test_a_site_keeps_one_session_whatever_process_it_is(config: SiteConfig) -> None:
    first, second = (mqtt_settings(config, will_of(config, boot, pack)) for boot in (b"boot-one", b"boot-two"))
    assert first.client_id == second.client_id == "ward-st-anna"
    assert first.session_expiry_s == 7 * 86_400
    assert first.will != second.will
