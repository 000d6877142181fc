"""The ways that a hospital's network leaves: an HTTP proxy, WebSocket; and what is said where there is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedward.dial import Obstacle
from fedward.ports import Connected, Delivery, Disconnected
from fedward.proxy import Proxy
from fedward.settings import TlsSettings
from sandbox.broker import EmbeddedBroker, find_mosquitto
from sandbox.ports import free_port
from tests.support.answering_port import AnsweringPort
from tests.support.authority import Authority
from tests.support.connect_proxy import FORBIDDEN, ConnectProxy
from tests.support.stations import DEADLINE_S, Stations, wait_for

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(find_mosquitto() is None, reason="apt-get install mosquitto runs these tests"),
]

LONG_NAME = "a" * 64 + ".example.org"
"""No label may be so long: Python raises a ValueError for it, not an OSError."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def own(authority: Authority) -> TlsSettings:
    return authority.party("st-anna")


@pytest.fixture
def broker(authority: Authority, tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path / "broker", tls=authority.broker("localhost")) as broker:
        yield broker


@pytest.fixture
def stations(caplog: pytest.LogCaptureFixture) -> Iterator[Stations]:
    stations = Stations(caplog)
    yield stations
    stations.close()


def through(proxy: ConnectProxy, password: str | None = None) -> Proxy:
    username = None if password is None else "anna"
    return Proxy(host="127.0.0.1", port=proxy.port, username=username, password=password)


def test_tls_goes_through_a_proxy_that_looks_up_the_name_itself(
    broker: EmbeddedBroker, own: TlsSettings, stations: Stations
) -> None:
    with ConnectProxy() as proxy:
        stations.connected(host="localhost", port=broker.port, tls=own, proxy=through(proxy))
        assert proxy.requests == [f"localhost:{broker.port}"]
        assert proxy.num_tunnels == 1
        stations.close()


def test_an_answer_that_comes_byte_by_byte_is_read_to_its_end_and_no_further(
    broker: EmbeddedBroker, own: TlsSettings, stations: Stations
) -> None:
    with ConnectProxy(piece_bytes=1) as proxy:
        stations.connected(host="localhost", port=broker.port, tls=own, proxy=through(proxy))
        stations.close()


def test_a_proxy_that_asks_for_a_login_gets_it(broker: EmbeddedBroker, own: TlsSettings, stations: Stations) -> None:
    with ConnectProxy(login="anna:päss:word") as proxy:
        stations.connected(host="localhost", port=broker.port, tls=own, proxy=through(proxy, "päss:word"))
        stations.close()


def test_a_wrong_password_is_told_without_the_password_and_tried_again(
    broker: EmbeddedBroker, own: TlsSettings, stations: Stations, caplog: pytest.LogCaptureFixture
) -> None:
    with ConnectProxy(login="anna:right") as proxy:
        _, inbox = stations.open(host="localhost", port=broker.port, tls=own, proxy=through(proxy, "wr0ng"))
        told = vars(stations.told(2)[1])
        assert (told["reason"], told["detail"]) == (Obstacle.PROXY_WANTS_LOGIN, "407, asks for basic")
        assert not any("wr0ng" in str(vars(record)) for record in caplog.records)
        proxy.login = "anna:wr0ng"
        wait_for(inbox, Connected(1))
        stations.close()


def test_a_tunnel_that_is_cut_is_dug_again(broker: EmbeddedBroker, own: TlsSettings, stations: Stations) -> None:
    with ConnectProxy() as proxy:
        _, inbox = stations.connected(host="localhost", port=broker.port, tls=own, proxy=through(proxy))
        proxy.cut()
        wait_for(inbox, Disconnected())
        wait_for(inbox, Connected(2))
        assert proxy.num_tunnels == 2
        stations.close()


@pytest.mark.parametrize(
    ("answer", "obstacle"),
    [
        (FORBIDDEN, Obstacle.PROXY_REFUSES),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Obstacle.PROXY_NOT_UNDERSTOOD),
        (b"HTTP/1.1 200 OK\r\n", Obstacle.PROXY_NOT_UNDERSTOOD),
        (b"\xff" * 20_000, Obstacle.PROXY_NOT_UNDERSTOOD),
        (b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n",
         Obstacle.PROXY_WANTS_LOGIN),
    ],
)  # fmt: skip
def test_a_proxy_that_opens_no_tunnel_is_told_as_such(stations: Stations, answer: bytes, obstacle: Obstacle) -> None:
    with AnsweringPort(answer) as proxy:
        given = Proxy(host="127.0.0.1", port=proxy.port)
        reason, detail = stations.obstacle(host="broker.example.org", port=443, proxy=given)
        stations.close()
    assert reason == obstacle
    assert "NTLM" not in answer.decode(errors="replace") or detail == "407, asks for negotiate, ntlm"


@pytest.mark.parametrize(
    ("host", "obstacle"), [("127.0.0.1", Obstacle.PROXY_UNREACHABLE), (LONG_NAME, Obstacle.PROXY_NAME_UNKNOWN)]
)
def test_a_proxy_that_is_not_there_is_told_as_such(stations: Stations, host: str, obstacle: Obstacle) -> None:
    given = Proxy(host=host, port=free_port("127.0.0.1"))
    assert stations.obstacle(host="broker.example.org", port=443, proxy=given)[0] == obstacle


@pytest.mark.parametrize(
    ("host", "obstacle"), [("127.0.0.1", Obstacle.PORT_CLOSED), (LONG_NAME, Obstacle.NAME_UNKNOWN)]
)
def test_a_broker_that_is_not_there_is_told_as_such(stations: Stations, host: str, obstacle: Obstacle) -> None:
    assert stations.obstacle(host=host, port=free_port("127.0.0.1"))[0] == obstacle


def test_a_broker_that_hangs_up_before_it_answers_is_told_as_such(stations: Stations) -> None:
    with AnsweringPort(b"") as port:
        assert stations.obstacle(port=port.port)[0] == Obstacle.HUNG_UP
        stations.close()


@pytest.mark.parametrize("secure", [False, True])
def test_a_message_goes_there_and_back_over_websocket(
    authority: Authority, own: TlsSettings, stations: Stations, tmp_path: Path, secure: bool
) -> None:
    files = authority.broker("localhost") if secure else None
    with EmbeddedBroker(tmp_path / "broker", tls=files, transport="websockets") as broker:
        link, inbox = stations.connected(
            host="localhost", port=broker.port, tls=own if secure else None, transport="websockets"
        )
        link.subscribe("t")
        assert link.publish("t", bytes(1000))
        delivery = inbox.get(timeout=DEADLINE_S)
        assert isinstance(delivery, Delivery)
        assert delivery.payload == bytes(1000)
        link.reconnect()
        wait_for(inbox, Connected(2))
        stations.close()


@pytest.mark.parametrize("answer", [b"sec-websocket-accept\r\n\r\n", b"sec-websocket-accept: \xff\r\n\r\n", b""])
def test_a_port_that_speaks_no_websocket_is_told_as_such(stations: Stations, answer: bytes) -> None:
    with AnsweringPort(answer) as port:
        assert stations.obstacle(port=port.port, transport="websockets")[0] == Obstacle.NO_WEBSOCKET
        stations.close()
