"""`fedward agent` as an operator calls it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.cli import mqtt_settings
from edge_agent.config import SiteConfig
from edge_agent.outbox import Outbox
from edge_agent.permission import LOOK_S
from edge_agent.report import will_of
from fedward.cli import EXIT_CONFIG, EXIT_INTEGRITY, main
from fedward.modelfile import load_model, load_seed
from fedward.pack import pack
from fedward.proxy import Proxy
from fedward.settings import BrokerSettings, IdentitySettings


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
    for setting in ("site", "broker.host", "min_examples", "hours.open", "telemetry_s"):
        assert f"  {setting} (" in text


def test_a_site_keeps_one_session_whatever_process_it_is(config: SiteConfig) -> None:
    first, second = (mqtt_settings(config, will_of(config, boot, pack)) for boot in (b"boot-one", b"boot-two"))
    assert first.client_id == second.client_id == "ward-st-anna"
    assert first.session_expiry_s == 7 * 86_400
    assert first.will != second.will


def test_an_agent_that_has_enrolled_speaks_tls_and_takes_the_proxy_of_the_environment(
    config: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://anna:s3cret@proxy:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    given = config.model_copy(
        update={
            "broker": BrokerSettings(host="broker.example.org", port=443),
            "identity": IdentitySettings(folder=tmp_path),
        }
    )
    settings = mqtt_settings(given, will_of(given, b"boot-one", pack))
    assert settings.tls is not None
    assert settings.tls.key_file == tmp_path / f"{config.site}.key"
    assert settings.proxy == Proxy(host="proxy", port=3128, username="anna", password="s3cret")
    assert "s3cret" not in repr(settings)


def agent(site_yaml: Path, *arguments: str) -> int:
    return main(["agent", *arguments, "--config", str(site_yaml)])


@pytest.fixture
def asking(site_yaml: Path, config: SiteConfig, hospital: Any) -> Any:
    """A hospital whose policy wants a person's approval, and that has been asked for work."""
    assert config.policy_file is not None
    config.policy_file.write_text("approval: by hand")
    hospital.restart()
    hospital.office.announce()
    hospital.settle()
    return hospital


def test_a_person_sees_what_waits_approves_it_and_the_agent_begins(
    site_yaml: Path, asking: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert agent(site_yaml, "pending") == 0
    shown = capsys.readouterr().out
    for fact in ("pending", "federation ward", "task tiny", "sgd, at most 1 epoch", asking.compute.digests["tiny"]):
        assert fact in shown
    assert agent(site_yaml, "status") == 0
    assert "fedward agent approve" in capsys.readouterr().out
    assert agent(site_yaml, "approve", shown.split()[0]) == 0
    assert capsys.readouterr().out.startswith("approved")
    asking.wait(LOOK_S)
    assert asking.page["phase"] == "publishing"
    assert agent(site_yaml, "pending") == 0
    assert "nothing waits" in capsys.readouterr().out
    assert agent(site_yaml, "pending", "--all") == 0
    assert "approved by person" in capsys.readouterr().out


def test_a_person_denies_the_only_request_without_naming_it(
    site_yaml: Path, asking: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert agent(site_yaml, "deny") == 0
    assert agent(site_yaml, "deny") == EXIT_CONFIG
    assert "0 requests wait" in capsys.readouterr().err
    asking.wait(LOOK_S)
    assert asking.page["refused_by_policy"] == "denied"
    assert agent(site_yaml, "status") == 0
    assert "denied (request" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["pending", "approve", "deny", "egress"])
def test_what_people_look_at_is_there_after_the_first_start_only(
    site_yaml: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert agent(site_yaml, verb) == EXIT_CONFIG
    assert "start `fedward agent run` first" in capsys.readouterr().err


def test_egress_shows_what_left_and_proves_it(
    site_yaml: Path, hospital: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    hospital.office.announce()
    hospital.settle()
    assert agent(site_yaml, "egress", "--verify") == 0
    shown = capsys.readouterr().out
    hospital.office.listen()
    for _, payload in hospital.office.heard:
        assert hashlib.sha256(payload).hexdigest() in shown
    assert "each as it was written, none missing" in shown
    digest = shown.split("head: line ")[1].split()[1]
    assert agent(site_yaml, "egress", "--head", digest, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verified"]["head"]["digest"] == digest
    assert sum(total["count"] for total in found["totals"]) == len(found["messages"])
    assert agent(site_yaml, "egress", "--since", "2100-01-01", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"totals": [], "messages": []}


def test_a_changed_egress_log_ends_with_4_and_names_the_line(
    site_yaml: Path, hospital: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    hospital.office.announce()
    hospital.settle()
    (path,) = (hospital.config.state_folder / "egress").glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    assert agent(site_yaml, "egress", "--verify") == EXIT_INTEGRITY
    assert "lines 4 to 4 are missing" in capsys.readouterr().err
    assert agent(site_yaml, "egress") == 0
