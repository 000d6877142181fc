"""The API of a real coordinator at work: whoever asks, and however slowly, the versions go on."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from coordinator.api.client import ApiClient
from coordinator.api.server import CONNECTIONS
from fedward.layout import vector_digest
from fedward.modelfile import load_model
from sandbox.federation import COORDINATOR, STANDBY, STOP_S, Federation, Plan
from sandbox.ports import HOST
from tests.integration.conftest import READY_S
from tests.support.api import TOKEN, write_token
from tests.support.postgres import server

pytestmark = [pytest.mark.slow, pytest.mark.network]

SLOW_READERS = 50
DEMO = "/v1/federations/demo"


def client(running: Federation, name: str = COORDINATOR) -> ApiClient:
    return ApiClient(f"http://{HOST}:{running.api_ports[name]}", TOKEN, None)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A federation with an API, in which a first version was made; the last test ends its coordinator."""
    folder = tmp_path_factory.mktemp("federation")
    plan = Plan(folder=folder, num_sites=2, api={"token_file": str(write_token(folder))})
    with Federation(plan) as running:
        running.wait_for(lambda state: state["version"] >= 1, READY_S, "a first version")
        yield running


def reader(port: int, path: str) -> socket.socket:
    """One that asks for something and takes nothing of it."""
    connection = socket.create_connection((HOST, port), timeout=30)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: ward\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    return connection


@pytest.fixture
def crowd(asked: Federation) -> Iterator[list[socket.socket]]:
    """More than there is room for, half of which never end their request."""
    port = asked.api_ports[COORDINATOR]
    with ExitStack() as stack:
        readers = [stack.enter_context(reader(port, f"{DEMO}/versions/0/model")) for _ in range(SLOW_READERS // 2)]
        for _ in range(SLOW_READERS // 2):
            half = stack.enter_context(socket.create_connection((HOST, port), timeout=30))
            half.sendall(b"GET /v1/federations HTTP/1.1\r\nX-Slow: ")
            readers.append(half)
        yield readers


def test_what_is_told_of_a_running_federation_is_what_its_ledger_has(asked: Federation, tmp_path: Path) -> None:
    told = client(asked).federation()
    assert (told.leads, told.connected, told.num_sites) == (True, True, 2)
    assert {site.online for site in client(asked).sites().sites} == {True}
    digest = client(asked).download(told.version, tmp_path / "model.safetensors")
    assert len(digest) == 64
    ledger = asked.ledger()
    _, vector_P = load_model(tmp_path / "model.safetensors")
    assert ledger.model_digest(told.version) == vector_digest(vector_P) == bytes.fromhex(told.model_digest)
    ledger.close()


def test_versions_go_on_while_fifty_slow_clients_hold_every_connection(
    asked: Federation, crowd: list[socket.socket]
) -> None:
    assert len(crowd) > CONNECTIONS
    before = asked.wait_for(lambda _: True, READY_S, "a state")["version"]
    asked.wait_for(lambda state: state["version"] >= before + 5, READY_S, "five more versions")


@pytest.mark.timeout(300)
def test_one_that_stands_by_answers_too(federation: Callable[..., Federation], tmp_path: Path) -> None:
    api = {"token_file": str(write_token(tmp_path))}
    with server() as postgres:
        running = federation(ledger={"url": postgres.new_url()}, standby=True, api=api)
        running.wait_for(lambda state: state["version"] >= 1, READY_S, "a first version")
        other = COORDINATOR if running.leader() == STANDBY else STANDBY
        told = client(running, other).federation()
        assert (told.leads, told.connected) == (False, None)
        assert client(running, other).sites().sites[0].online is None
        client(running, other).download(told.version, tmp_path / "model.safetensors")
        running.stop()


def test_a_coordinator_with_slow_clients_stops_when_it_is_told_to(
    asked: Federation, crowd: list[socket.socket]
) -> None:
    coordinator = asked.children[COORDINATOR]
    coordinator.terminate()
    coordinator.wait(STOP_S)
    events = [json.loads(line)["event"] for line in coordinator.log.read_text().splitlines()]
    assert events[-1] == "stopped"
    assert not [event for event in events if "xception" in event]
