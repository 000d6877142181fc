"""paho's client, over connections that are made here.

paho's own way knows neither `https_proxy` nor certificates that are renewed, takes an answer that a proxy sends in two
parts for the broker's, lets some failures end its thread, and tells none of them. `BrokerClient` replaces its one
method that makes a connection, and guards the one that reads; neither is public there, so the contract tests hold them.
"""

import logging
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from paho.mqtt.client import Client, _WebsocketWrapper
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fedward.dial import Obstacle, UnreachableError
from fedward.limits import MAX_PACKET_BYTES
from fedward.tls import failure_of

log = logging.getLogger(__name__)

WEBSOCKET_PATH = "/mqtt"

PAUSE_S = 0.005
"""Between two looks whether more may be read; acknowledgements and pings go out meanwhile."""


@dataclass(frozen=True)
class WebSocket:
    """MQTT in WebSocket frames, to this host: what a proxy or a firewall sees is HTTP."""

    host: str
    port: int
    secure: bool


class BrokerClient(Client):
    """An MQTT 5 client with manual acknowledgements, over what `dial` returns."""

    def __init__(
        self,
        client_id: str,
        dial: Callable[[], socket.socket],
        websocket: WebSocket | None,
        may_read: Callable[[], bool],
    ) -> None:
        """`dial` raises UnreachableError for what it can't reach. Nothing is read while `may_read` says no."""
        super().__init__(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
        self.failure: UnreachableError | None = None
        """Why the latest connection could not be made, or ended, as far as it is known; for paho's thread alone."""
        self._dial = dial
        self._websocket = websocket
        self._may_read = may_read
        self._connection: socket.socket | None = None

    def cut(self) -> None:
        """End the connection as a broken network does: paho's thread notices and connects again. From any thread."""
        if self._connection is not None:
            try:
                # Not the method of a TLS socket, which would write what comes next as it is, without TLS.
                socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already

    def _create_socket(self) -> socket.socket | _WebsocketWrapper:
        self.failure = None
        try:
            self._connection = self._dial()
            return self._connection if self._websocket is None else self._wrapped(self._connection, self._websocket)
        except UnreachableError as error:
            # A copy: one that was raised holds the frames that it went through, and in them this client.
            self.failure = UnreachableError(error.obstacle, error.detail)
            raise

    def _wrapped(self, connection: socket.socket, websocket: WebSocket) -> _WebsocketWrapper:
        try:
            return _WebsocketWrapper(
                connection, websocket.host, websocket.port, websocket.secure, WEBSOCKET_PATH, extra_headers=None
            )
        except (OSError, ValueError, IndexError) as error:  # the latter two for an answer that is no HTTP
            connection.close()
            raise UnreachableError(Obstacle.NO_WEBSOCKET) from error

    def _sock_recv(self, bufsize: int) -> bytes:
        """What paho asks for is the rest of a packet, whose length the broker has named: paho holds it to no limit."""
        if bufsize > MAX_PACKET_BYTES:
            log.warning("mqtt_packet_too_large", extra={"size": bufsize, "limit": MAX_PACKET_BYTES})
            raise ConnectionAbortedError(f"a packet of {bufsize} bytes")
        if not self._may_read():
            time.sleep(PAUSE_S)  # the socket stays readable, and paho would ask for it without end
            raise BlockingIOError
        try:
            return super()._sock_recv(bufsize)
        except ssl.SSLError as error:
            self.failure = failure_of(error)
            raise
