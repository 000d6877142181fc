"""`fedward coordinator doctor`, and what a running coordinator notices of a site's doctor."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fedward import topics
from fedward.cli import main
from fedward.doctor.session import NOBODY
from sandbox.broker import EmbeddedBroker, find_mosquitto
from sandbox.ports import free_port
from tests.support.coordinator_bench import Bench, refusals
from tests.support.network import HOST
from tests.support.site import Site
from tests.support.updates import FEDERATION


def doctor(capsys: pytest.CaptureFixture[str], folder: Path, port: int) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and the checks by name, with the broker on this port."""
    path = folder / "federation.yaml"
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(settings | {"broker": {"host": HOST, "port": port}}))
    code = main(["coordinator", "doctor", "--config", str(path), "--json"])
    return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)}


@pytest.mark.network
@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed: apt-get install mosquitto")
def test_a_coordinator_where_all_is_well_ends_with_0(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedBroker(tmp_path / "broker", prefer="mosquitto") as broker:
        code, checks = doctor(capsys, folder, broker.port)
    assert code == 0
    assert list(checks) == [
        *("settings", "name", "proxy", "tcp", "certificate", "tls", "mqtt", "rights", "sizes"),
        *("identity", "disk", "memory", "model", "limits", "clock"),
    ]
    assert "subscribe to fl/v1/" in checks["rights"]["found"]
    assert not (folder / "state").exists()


@pytest.mark.network
def test_a_model_that_can_not_be_read_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "initial.safetensors").write_bytes(b"none")
    code, checks = doctor(capsys, folder, free_port(HOST))
    assert code == 1
    assert checks["model"]["verdict"] == "failed"
    assert "expected a safetensors file" in checks["model"]["found"]


def test_a_sites_doctor_costs_a_coordinator_one_refusal_and_nothing_else(
    start: Callable[..., Bench], north: Site
) -> None:
    bench = start()
    bench.settle()
    assert refusals(bench) == {}
    heard = len(north.deliveries())
    north.link.publish(topics.update_chunk(FEDERATION, north.name, NOBODY, 0), b"")
    bench.settle()
    assert refusals(bench) == {"not_offered": 1}
    assert len(north.deliveries()) == heard
