"""Who asks the API without being let in, or for what it should not answer: over real HTTP on loopback."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from coordinator.api.connection import Connection
from coordinator.api.server import CONNECTIONS
from fedward.layout import Layout, Tensor
from fedward.testing import ManualClock, MemoryBroker
from tests.support.api import HOST, ROOT, TOKEN, Api, serving, write_token
from tests.support.coordinator_bench import Bench, config_of, write_config
from tests.support.stations import polls

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation with version 0, in a folder."""
    folder = tmp_path_factory.mktemp("attacked")
    write_config(folder)
    Bench(config_of(folder), MemoryBroker(), ManualClock()).kill()
    return folder


@pytest.fixture(scope="module")
def api(folder: Path) -> Iterator[Api]:
    with serving(folder, token_file=write_token(folder)) as server:
        assert server.port
        yield Api(server.port)


@pytest.fixture
def stranger(api: Api) -> Api:
    """Somebody without the token."""
    return Api(api.port, {})


ALL_PATHS = [
    "/openapi.json",
    "/v1/federations",
    ROOT,
    f"{ROOT}/versions",
    f"{ROOT}/versions/1",
    f"{ROOT}/versions/1/model",
    f"{ROOT}/sites",
    f"{ROOT}/sites/north",
    f"{ROOT}/ledger/head",
    "/nothing",
]


@pytest.mark.parametrize("path", ALL_PATHS)
def test_no_path_answers_one_without_a_token(stranger: Api, path: str) -> None:
    answer = stranger.get(path)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"] == "unauthorized"


def test_a_token_in_the_query_is_not_looked_at(stranger: Api) -> None:
    assert stranger.get(f"{ROOT}?token={TOKEN}&access_token={TOKEN}").status == 401


@pytest.mark.parametrize(
    "path",
    [
        "/v1/federations/other",
        "/v1/federations/../../etc/passwd",
        f"{ROOT}/versions/9",
        f"{ROOT}/versions/9/model",
        f"{ROOT}/versions/..%2f..%2fledger.sqlite/model",
        f"{ROOT}/sites/west",
        f"{ROOT}/sites/..%2f..%2ftoken",
        f"{ROOT}/sites/%00",
        "/",
    ],
)
def test_what_is_not_there_is_not_found(api: Api, folder: Path, path: str) -> None:
    answer = api.get(path)
    assert answer.status in (404, 422)
    assert answer.json()["error"] in ("not_found", "invalid")
    assert str(folder) not in answer.content.decode()


@pytest.mark.parametrize(
    "path",
    [
        f"{ROOT}/versions/-1",
        f"{ROOT}/versions/1e3",
        f"{ROOT}/versions/{2**63}",
        f"{ROOT}/versions?limit=1000000",
        f"{ROOT}/versions?before=<script>",
        f"{ROOT}/sites/{'x' * 65}",
    ],
)
def test_a_parameter_out_of_its_bounds_is_refused_and_not_repeated(api: Api, path: str) -> None:
    answer = api.get(path)
    assert (answer.status, answer.json()["error"]) == (422, "invalid")
    assert b"script" not in answer.content


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(api: Api, method: str) -> None:
    answer = api.get(ROOT, method)
    assert (answer.status, answer.json()["error"]) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("bytes=0-0," * 5000 + "0-0", 200),
        ("bytes=0-0,5-9", 200),
        (f"bytes={'9' * 40}-", 416),
        ("bytes=5-1", 400),
        (f"bytes=0-{'9' * 30}", 206),
    ],
)
def test_a_hostile_range_costs_one_file_at_most(api: Api, asked: str, status: int) -> None:
    whole = api.get(f"{ROOT}/versions/0/model").content
    answer = api.get(f"{ROOT}/versions/0/model", Range=asked)
    assert answer.status == status
    assert len(answer.content) <= len(whole)


def test_refused_callers_are_told_of_once_in_a_while(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(folder, token_file=write_token(folder)) as server:
        assert server.port
        for _ in range(5):
            assert Api(server.port, {"Authorization": "Bearer guess"}).get(ROOT).status == 401
    refused = [record for record in caplog.records if record.msg == "api_refused"]
    assert [vars(record)["num_refused"] for record in refused] == [1]
    assert "guess" not in caplog.text


# Those who are slow.


def num_files() -> int:
    """That this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def says(sent: bytes, port: int, holds_bytes: int | None = None) -> socket.socket:
    """A connection on which this was said, and nothing after it; its own buffer may hold little."""
    connection = socket.socket()
    if holds_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, holds_bytes)
    connection.settimeout(30)
    connection.connect((HOST, port))
    connection.sendall(sent)
    return connection


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation whose model no socket's buffer holds: 16 MB."""
    folder, layout = tmp_path_factory.mktemp("large"), Layout.of([Tensor("weight", (4_000, 1_000))])
    write_config(folder, layout)
    Bench(config_of(folder), MemoryBroker(), ManualClock(), layout).kill()
    return folder


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API waits for nobody."""
    monkeypatch.setattr(Connection, "header_s", 0.2)
    monkeypatch.setattr(Connection, "stall_s", 0.2)


@pytest.fixture
def impatient(folder: Path, impatience: None) -> Iterator[Api]:
    with serving(folder, token_file=write_token(folder)) as server:
        assert server.port
        yield Api(server.port)


def test_a_reader_that_takes_nothing_is_cut_off_and_nobody_else(
    large: Path, impatience: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with serving(large) as server:
        assert server.port
        whole = Api(server.port, {}).get(f"{ROOT}/versions/0/model")
        assert len(whole.content) > 16_000_000
        asks = f"GET {ROOT}/versions/0/model HTTP/1.1\r\nHost: ward\r\n\r\n".encode()
        with says(asks, server.port, 4096) as stalled:
            for _ in polls():
                if "api_cut_off" in caplog.messages:
                    break
            got = b"".join(iter(lambda: stalled.recv(1 << 20), b""))
            assert 0 < len(got) < len(whole.content)
        assert Api(server.port, {}).get(f"{ROOT}/versions/0/model").content == whole.content


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /v1/federations HTTP/1.1\r\nHost: ward\r\nX-Slow: ",
        b"GET /openapi.json HTTP/1.1\r\nHost: ward\r\n\r\nGET /openapi.json HTTP/1.1\r\nX-Slow: ",
        b"POST /v1/federations HTTP/1.1\r\nHost: ward\r\nContent-Length: 100000\r\n\r\nabc",
    ],
    ids=["silence", "half a header", "half a second header", "half a body"],
)
def test_a_request_that_does_not_end_is_cut_off(impatient: Api, sent: bytes) -> None:
    with says(sent, impatient.port) as connection:
        while connection.recv(65536):
            pass  # answers that it may have got before


def trickle(connection: socket.socket) -> None:
    """One header after the other, as long as the other side listens. Raises ConnectionError when it does not."""
    connection.settimeout(0.01)
    while True:
        connection.sendall(b"X-Slow: 1\r\n")
        with suppress(TimeoutError):
            if not connection.recv(1):
                raise ConnectionResetError


def test_a_header_that_trickles_in_is_cut_off_all_the_same(impatient: Api) -> None:
    with says(b"GET / HTTP/1.1\r\n", impatient.port) as connection, pytest.raises(ConnectionError):
        trickle(connection)


def test_more_connections_than_there_is_room_for_wait_and_are_answered(impatient: Api) -> None:
    with ExitStack() as crowd:
        for _ in range(CONNECTIONS + 18):
            crowd.enter_context(says(b"GET /v1/federations HTTP/1.1\r\n", impatient.port))
        assert impatient.get("/v1/federations").status == 200


def test_no_more_connections_are_open_than_there_is_room_for(folder: Path) -> None:
    with serving(folder, token_file=write_token(folder)) as server, ExitStack() as crowd:
        assert server.port
        before, num_callers = num_files(), CONNECTIONS + 20
        first, *_ = [crowd.enter_context(says(b"GET / HTTP/1.1\r\n", server.port)) for _ in range(num_callers)]
        first.sendall(b"Host: ward\r\n\r\n")
        assert first.recv(12) == b"HTTP/1.1 401"  # the loop has turned since the last one came
        assert num_files() <= before + num_callers + CONNECTIONS


def test_the_api_is_closed_while_somebody_is_still_asking(folder: Path) -> None:
    with ExitStack() as crowd:
        with serving(folder, token_file=write_token(folder)) as server:
            assert server.port
            slow = crowd.enter_context(says(b"GET /v1/federations HTTP/1.1\r\n", server.port))
        with suppress(ConnectionError):
            assert slow.recv(1) == b""
