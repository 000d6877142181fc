"""Anybody who connects to a broker with certificates of any kind: a bare paho client that does as it is told."""

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fedward.identity.certificates import FileAuthority, Role, make_request, parse_request
from fedward.identity.keys import make_signing_key

DEADLINE_S = 10.0
SESSION_S = 600


@dataclass(frozen=True)
class Papers:
    """A certificate with its key, and the authority that its holder trusts."""

    name: str
    serial: int
    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Nothing:
    """A name without a certificate, and the authority that its holder trusts."""

    name: str
    authority: Path


def papers(
    folder: Path, authority: FileAuthority, trusted: Path, name: str, *, made_at_s: float | None = None, days: float = 1
) -> Papers:
    """New papers for any name, also one that no site may have."""
    place = folder / f"papers-{len(list(folder.glob('papers-*')))}"
    key = make_signing_key(place / "party.key")
    request = parse_request(make_request(key, name))
    certificate = authority.sign(request, Role.CLIENT, time.time() if made_at_s is None else made_at_s, days)
    (place / "party.crt").write_bytes(certificate.pem)
    return Papers(name, certificate.serial, trusted, place / "party.crt", place / "party.key")


def context(papers: Papers | Nothing | None, trusted: Path) -> ssl.SSLContext:
    """TLS that trusts the broker, and shows these papers if there are any."""
    made = ssl.create_default_context(cafile=str(trusted))
    if isinstance(papers, Papers):
        made.load_cert_chain(papers.certificate, papers.key)
    return made


class Party:
    """A connection in a `with` block; it does not come back when it was ended."""

    def __init__(
        self,
        port: int,
        papers: Papers | Nothing,
        *,
        client_id: str | None = None,
        username: str | None = None,
        password: str | None = None,
        will: tuple[str, bytes] | None = None,
        resume: bool = False,
    ) -> None:
        """Claims `client_id`, which is the papers' name where none is given. `resume` goes on with its session."""
        self.received: list[tuple[str, bytes]] = []
        self.ended: str | None = None
        """Why the connection ended, in the broker's words; None while it lasts."""
        self._answers: dict[int, str] = {}
        self._changed = threading.Condition()
        self._connected: str | None = None
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            papers.name if client_id is None else client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        self._client.tls_set_context(context(papers, papers.authority))
        self._client.username_pw_set(username, password)
        if will is not None:
            self._client.will_set(*will, qos=1, retain=True)
        self._port, self._resume = port, resume
        self._bind()

    def __enter__(self) -> Self:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = SESSION_S
        self._client.connect("127.0.0.1", self._port, 30, clean_start=not self._resume, properties=properties)
        self._client.loop_start()
        self.wait_until(lambda: self._connected is not None or self.ended is not None, "an answer to CONNECT")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def answer(self) -> str | None:
        """The broker's to CONNECT."""
        return self._connected

    @property
    def connected(self) -> bool:
        return self._connected == "Success" and self.ended is None

    def publish(self, topic: str, payload: bytes = b"x", *, qos: int = 1, retain: bool = False) -> str:
        """The broker's answer, such as `Success` or `Not authorized`."""
        sent = self._client.publish(topic, payload, qos, retain)
        return self._answer(sent.mid)

    def flood(self, topic: str, count: int) -> None:
        """Send so many messages, and wait for no answer."""
        for _ in range(count):
            self._client.publish(topic, b"x", 0)

    def subscribe(self, topic_filter: str) -> str:
        """The broker's answer."""
        _, packet_id = self._client.subscribe(topic_filter, 1)
        assert packet_id is not None
        return self._answer(packet_id)

    def hear(self, topic: str) -> bytes:
        """The payload of the first message on this topic, once it is there."""
        self.wait_until(lambda: any(found == topic for found, _ in self.received), f"a message on {topic}")
        return next(payload for found, payload in self.received if found == topic)

    def wait_until(self, true: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Return when it is so; it is looked at whenever something came from the broker."""
        with self._changed:
            assert self._changed.wait_for(true, deadline_s), f"no {what} within {deadline_s} s"

    def wait_for_end(self, deadline_s: float = DEADLINE_S) -> str:
        """Why the connection ended, once it has."""
        self.wait_until(lambda: self.ended is not None, "the end of the connection", deadline_s)
        assert self.ended is not None
        return self.ended

    def break_off(self) -> None:
        """End the connection as a broken network does: the broker sends the will."""
        connection = self._client.socket()
        assert isinstance(connection, ssl.SSLSocket)
        connection.shutdown(2)
        self.wait_for_end()

    def _answer(self, packet_id: int) -> str:
        self.wait_until(lambda: packet_id in self._answers or self.ended is not None, "an answer of the broker")
        return self._answers.pop(packet_id, f"ended: {self.ended}")

    def _bind(self) -> None:
        self._client.on_connect = lambda _c, _u, _f, reason, _p: self._note(lambda: self._on_connect(str(reason)))
        self._client.on_disconnect = lambda _c, _u, _f, reason, _p: self._note(lambda: self._on_end(str(reason)))
        self._client.on_publish = lambda _c, _u, packet_id, reason, _p: self._note(
            lambda: self._answers.update({packet_id: str(reason)})
        )
        self._client.on_subscribe = lambda _c, _u, packet_id, reasons, _p: self._note(
            lambda: self._answers.update({packet_id: str(reasons[0])})
        )
        self._client.on_message = lambda _c, _u, message: self._note(lambda: self._on_message(message))

    def _note(self, change: Callable[[], Any]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    def _on_connect(self, reason: str) -> None:
        self._connected = reason

    def _on_end(self, reason: str) -> None:
        self.ended = reason

    def _on_message(self, message: MQTTMessage) -> None:
        self.received.append((message.topic, bytes(message.payload)))
