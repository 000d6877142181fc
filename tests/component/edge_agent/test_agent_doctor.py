"""`fedward agent doctor` as a hospital's IT desk calls it, and what a running agent notices of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.approvals import ApprovalsFile
from edge_agent.permission import APPROVALS_FILE
from edge_agent.policy import WorkOrder
from edge_agent.training.capability import runs_on
from fedward import topics
from fedward.cli import EXIT_CONFIG, main
from fedward.doctor.session import NOBODY
from fedward.identity.folder import coordinator_name
from fedward.testing import MemoryBroker
from sandbox.broker import EmbeddedBroker, find_mosquitto
from sandbox.ports import free_port
from tests.support.certificates import Vouching
from tests.support.network import HOST
from tests.support.office import FEDERATION, SITE

needs_mosquitto = pytest.mark.skipif(
    find_mosquitto() is None, reason="mosquitto is not installed: apt-get install mosquitto"
)


def site_yaml(folder: Path, port: int, **changes: Any) -> Path:
    settings = {
        "site": SITE,
        "federation": FEDERATION,
        "tasks": {"breast-cancer": {}},
        "state_folder": str(folder / "state"),
        "broker": {"host": HOST, "port": port},
        "device": "cpu",
    }
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(settings | changes))
    return path


def doctor(capsys: pytest.CaptureFixture[str], path: Path) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and the checks by name."""
    code = main(["agent", "doctor", "--config", str(path), "--json"])
    return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)}


@pytest.mark.network
@needs_mosquitto
def test_a_hospital_where_all_is_well_ends_with_0_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedBroker(tmp_path / "broker", prefer="mosquitto") as broker:
        code, checks = doctor(capsys, site_yaml(tmp_path, broker.port))
    assert code == 0
    assert [name for name in checks if checks[name]["verdict"] == "failed"] == []
    assert list(checks) == [
        *("settings", "name", "proxy", "tcp", "certificate", "tls", "mqtt", "rights", "announcement", "sizes"),
        *("identity", "policy", "disk", "memory", "tasks", "gpu", "limits", "clock"),
    ]
    assert not (tmp_path / "state").exists()


@pytest.mark.network
def test_a_broker_that_is_not_there_ends_with_1_and_this_machine_is_judged_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = site_yaml(tmp_path, free_port(HOST))
    assert main(["agent", "doctor", "--config", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("failed   tcp ") for line in lines)
    assert any(line.startswith("skipped  mqtt ") and line.endswith("because tcp failed") for line in lines)
    assert any(line.startswith("ok       tasks ") for line in lines)


@pytest.mark.network
@needs_mosquitto
def test_a_password_is_used_and_never_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "password"
    secret.write_text("pass-phrase")
    secret.chmod(0o600)
    with EmbeddedBroker(tmp_path / "broker", prefer="mosquitto") as broker:
        settings = {"host": HOST, "port": broker.port, "username": "anna", "password_file": str(secret)}
        code, checks = doctor(capsys, site_yaml(tmp_path, 1, broker=settings))
    assert code == 0
    assert "(user anna)" in checks["rights"]["found"]
    assert "pass-phrase" not in str(checks)


def test_a_password_file_that_can_not_be_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"host": HOST, "username": "a", "password_file": str(tmp_path / "no")}
    code, checks = doctor(capsys, site_yaml(tmp_path, 1, broker=settings))
    assert code == 1
    assert "broker.password_file" in checks["settings"]["found"]
    assert checks["name"]["found"] == checks["sizes"]["found"] == "because settings failed"


@pytest.mark.network
@pytest.mark.parametrize(
    ("tasks", "problem"),
    [
        ({"breast-cancer": {"train": "/nowhere/records.csv"}}, "option train: there is no such file"),
        ({"unheard-of": {}}, "is not installed"),
        ({"breast-cancer": {"train": "/nowhere" + "\0"}}, "its code fails (ValueError)"),
    ],
)
def test_a_task_that_could_not_start_is_told_without_its_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tasks: dict[str, Any], problem: str
) -> None:
    _, checks = doctor(capsys, site_yaml(tmp_path, free_port(HOST), tasks=tasks))
    assert checks["tasks"]["verdict"] == "failed"
    assert problem in checks["tasks"]["found"]
    assert "/nowhere" not in checks["tasks"]["found"]


@pytest.mark.network
def test_a_site_that_is_not_enrolled_yet_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = {"folder": str(tmp_path / "identity")}
    _, checks = doctor(capsys, site_yaml(tmp_path, free_port(HOST), identity=identity))
    assert checks["identity"]["verdict"] == "failed"
    assert checks["identity"]["remedy"].startswith("enrol")


@pytest.mark.network
def test_an_enrolled_site_is_told_that_its_identity_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ward = Vouching(tmp_path / "identity")
    ward.files(SITE)
    (ward.files(coordinator_name(FEDERATION)).certificate_file or Path()).rename(tmp_path / "identity/coordinator.crt")
    _, checks = doctor(capsys, site_yaml(tmp_path, free_port(HOST), identity={"folder": str(tmp_path / "identity")}))
    assert checks["identity"]["verdict"] == "ok"


@pytest.mark.network
@pytest.mark.parametrize(
    ("policy", "verdict", "found"),
    [
        ("federatons: [ward]", "failed", "federatons: unknown setting"),
        (None, "failed", "not found"),
        ("federations: [another]", "warning", f"federation {FEDERATION} is not among `federations`"),
        ("approval: automatic", "ok", "may ask for work"),
    ],
)
def test_a_policy_that_lets_nothing_happen_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str | None, verdict: str, found: str
) -> None:
    if policy is not None:
        (tmp_path / "policy.yaml").write_text(policy)
    _, checks = doctor(capsys, site_yaml(tmp_path, free_port(HOST), policy_file=str(tmp_path / "policy.yaml")))
    assert checks["policy"]["verdict"] == verdict
    assert found in checks["policy"]["found"]
    assert bool(checks["policy"]["remedy"]) == (verdict != "ok")


@pytest.mark.network
def test_a_request_that_waits_for_a_person_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = site_yaml(tmp_path, free_port(HOST))
    (tmp_path / "state").mkdir()
    order = WorkOrder(FEDERATION, "breast-cancer", "00" * 32, "sgd, at most 1 epoch a round")
    ApprovalsFile(tmp_path / "state" / APPROVALS_FILE).ask(order, 1.0, automatic=False)
    _, checks = doctor(capsys, path)
    assert checks["policy"]["verdict"] == "warning"
    assert order.id in checks["policy"]["remedy"]


@pytest.mark.network
def test_a_device_that_is_not_here_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, checks = doctor(capsys, site_yaml(tmp_path, free_port(HOST), device="cpu", precision="fp16"))
    assert checks["gpu"]["verdict"] == "failed"
    assert "fp16 needs a GPU" in checks["gpu"]["found"]


def test_a_configuration_with_problems_is_the_usual_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = site_yaml(tmp_path, 1, hostname="x")
    assert main(["agent", "doctor", "--config", str(path)]) == EXIT_CONFIG
    assert "hostname: unknown setting" in capsys.readouterr().err


def test_an_agent_ignores_what_a_coordinators_doctor_says_to_it(hospital: Any, broker: MemoryBroker) -> None:
    hospital.office.announce()
    hospital.settle()
    before = hospital.page["refused"]
    broker.publish(topics.down_chunk(FEDERATION, SITE, NOBODY, 0), b"")
    hospital.settle()
    assert hospital.page["refused"] == before


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 6), ["sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((6, 0), ["sm_75", "sm_80", "compute_90"], False),
        ((12, 0), ["sm_90a", "compute_90"], True),
        ((12, 0), ["sm_120"], True),
        ((9, 0), [], False),
    ],
)
def test_a_gpu_runs_code_of_its_generation_or_code_to_translate(
    capability: tuple[int, int], built: list[str], runs: bool
) -> None:
    assert runs_on(capability, built) is runs
