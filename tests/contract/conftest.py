"""One network per test: the in-memory fake, or a broker of its own with paho links to it."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import TypeVar

import pytest

from edge_agent.egress import EgressLink
from edge_agent.egress_log import EgressLog
from fedward.limits import MIB
from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import Connected, Link, LinkEvent, LinkInbox, Will
from fedward.process import SystemClock
from fedward.settings import TlsSettings
from fedward.testing import MemoryBroker, MemoryLink
from sandbox.broker import EmbeddedBroker, find_mosquitto
from tests.support.authority import Authority
from tests.support.paused import pause

DEADLINE_S = 10.0
NO_MOSQUITTO = "mosquitto is not installed: apt-get install mosquitto runs these tests"

E = TypeVar("E", bound=LinkEvent)

# A process that connects with a will and then waits to be killed.
DOOMED = """
import random, sys
from queue import Queue
from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import Connected, Will
from fedward.settings import TlsSettings
inbox = Queue(100)
tls = TlsSettings.model_validate_json(sys.argv[4]) if len(sys.argv) > 4 else None
settings = MqttSettings(host="127.0.0.1", port=int(sys.argv[1]), client_id="doomed", session_expiry_s=60,
                        tls=tls, will=Will(sys.argv[2], sys.argv[3].encode(), 0))
MqttLink(settings, inbox, random.Random(0)).open()
assert isinstance(inbox.get(timeout=10), Connected)
print("up", flush=True)
inbox.get()
"""


class Station:
    """A link with its inbox, read event by event; what a test does not wait for yet stays in order."""

    def __init__(self, link: Link, inbox: LinkInbox) -> None:
        self.link = link
        self._inbox = inbox
        self._unread: list[LinkEvent] = []

    def expect(self, kind: type[E], deadline_s: float = DEADLINE_S) -> E:
        """The next event of this kind, skipping none of the others."""
        give_up_s = time.monotonic() + deadline_s
        while True:
            for position, event in enumerate(self._unread):
                if isinstance(event, kind):
                    del self._unread[position]
                    return event
            try:
                self._unread.append(self._inbox.get(timeout=max(0.0, give_up_s - time.monotonic())))
            except Empty:
                pytest.fail(
                    f"no {kind.__name__} within {deadline_s} s, only {[type(e).__name__ for e in self._unread]}"
                )

    def connect(self, *filters: str) -> Connected:
        """Subscribe, open, and wait until it is up."""
        self.link.subscribe(*filters)
        self.link.open()
        return self.expect(Connected)


class MemoryNetwork:
    """Everything in this process, over `MemoryBroker`."""

    kind = "memory"

    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def station(self, client_id: str, *, window: int = 8, will: Will | None = None) -> Station:
        inbox: LinkInbox = Queue(1000)
        return Station(MemoryLink(self.broker, client_id, inbox, window=window, will=will), inbox)

    def stop(self) -> None:
        self.broker.stop()

    def start(self) -> None:
        self.broker.start()

    def pause(self) -> None:
        self.broker.pause()

    def resume(self) -> None:
        self.broker.resume()

    def kill_a_client(self, will: Will) -> None:
        link = MemoryLink(self.broker, "doomed", Queue(100), will=will)
        link.open()
        link.kill()


class LoggedNetwork(MemoryNetwork):
    """As above, through the egress log that an agent writes."""

    kind = "logged"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def station(self, client_id: str, *, window: int = 8, will: Will | None = None) -> Station:
        inbox: LinkInbox = Queue(1000)
        link = MemoryLink(self.broker, client_id, inbox, window=window, will=will)
        log = EgressLog(self._folder / client_id, 64 * MIB, SystemClock())
        return Station(EgressLink(link, log, will or Will("f/gone", b"", 0)), inbox)


class BrokerNetwork:
    """A broker process, and paho links to it that reconnect fast; with TLS where they have certificates."""

    def __init__(self, broker: EmbeddedBroker, tls: TlsSettings | None) -> None:
        self.broker = broker
        self.kind = broker.kind
        self._tls = tls
        self._links: list[MqttLink] = []

    def station(self, client_id: str, *, window: int = 8, will: Will | None = None) -> Station:
        inbox: LinkInbox = Queue(1000)
        return Station(self.mqtt_link(client_id, inbox, window=window, will=will), inbox)

    def mqtt_link(
        self, client_id: str, inbox: LinkInbox, *, window: int = 8, will: Will | None = None, acknowledge_s: float = 60
    ) -> MqttLink:
        settings = MqttSettings(
            host=self.broker.host,
            port=self.broker.port,
            client_id=client_id,
            session_expiry_s=600,
            window=window,
            reconnect_min_s=0.05,
            reconnect_max_s=0.2,
            acknowledge_s=acknowledge_s,
            will=will,
            tls=self._tls,
        )
        self._links.append(MqttLink(settings, inbox, random.Random(0)))  # jitter
        return self._links[-1]

    def stop(self) -> None:
        self.broker.kill()

    def start(self) -> None:
        self.broker.start()

    def pause(self) -> None:
        assert self.broker.pid is not None
        pause(self.broker.pid)

    def resume(self) -> None:
        assert self.broker.pid is not None
        os.kill(self.broker.pid, signal.SIGCONT)

    def kill_a_client(self, will: Will) -> None:
        command = [sys.executable, "-c", DOOMED, str(self.broker.port), will.topic, will.payload.decode()]
        if self._tls is not None:
            command.append(self._tls.model_dump_json())
        root = Path(__file__).parent.parent.parent
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            process.kill()

    def close(self) -> None:
        if self.broker.pid is not None:
            self.resume()  # or a link would wait for it, and its sockets would outlive the tests
        for link in self._links:
            link.close()


def start_network(kind: str, folder: Path) -> Iterator[MemoryNetwork | BrokerNetwork]:
    if kind == "memory":
        yield MemoryNetwork()
        return
    if kind == "logged":
        yield LoggedNetwork(folder)
        return
    if kind != "iotcore" and find_mosquitto() is None:
        pytest.skip(NO_MOSQUITTO)
    authority = Authority(folder / "authority") if kind == "mosquitto over TLS" else None
    tls = authority.broker() if authority else None
    with EmbeddedBroker(folder, prefer="iotcore" if kind == "iotcore" else "mosquitto", tls=tls) as broker:
        network = BrokerNetwork(broker, authority.party("station") if authority else None)
        yield network
        network.close()


MOSQUITTO = pytest.param("mosquitto", marks=pytest.mark.network)
OVER_TLS = pytest.param("mosquitto over TLS", marks=pytest.mark.network)
IOTCORE = pytest.param("iotcore", marks=pytest.mark.network)


@pytest.fixture(params=["memory", "logged", MOSQUITTO, OVER_TLS, IOTCORE])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryNetwork | BrokerNetwork]:
    yield from start_network(request.param, tmp_path)


@pytest.fixture(params=[MOSQUITTO, OVER_TLS, IOTCORE])
def broker_network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryNetwork | BrokerNetwork]:
    yield from start_network(request.param, tmp_path)
