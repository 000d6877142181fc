"""An MQTT broker of its own for a demo or a test: a child process on loopback, without users; mosquitto also with TLS.

mosquitto where it is installed, otherwise iotcore, which comes with pip. Neither keeps anything over a restart, as
the product must not depend on it. iotcore also has no access rules, ignores ReceiveMaximum and session expiry, and
keeps its whole log in memory: good enough to try Fedward out, never for a hospital.
"""

import argparse
import importlib.util
import ipaddress
import logging
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from fedward.errors import ConfigError, TransientError
from fedward.process import stop_on_signals
from fedward.settings import TlsSettings, Transport
from sandbox.child import POLL_S, Child, start_child, takes_connections
from sandbox.ports import free_port

Kind = Literal["mosquitto", "iotcore"]

SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")
"""Debian installs mosquitto there, and a user's PATH often lacks them."""

START_S = 15.0
STOP_S = 5.0

CONNECT_PACKET = bytes.fromhex("1014 0004 4d515454 05 02 000a 00 0007") + b"fedward"
CONNACK = 0x20
DISCONNECT_PACKET = bytes.fromhex("e000")

MOSQUITTO_CONFIG = """\
listener {port} {host}
allow_anonymous true
max_inflight_messages 20
max_queued_messages 20000
max_packet_size 1114112
max_keepalive 120
set_tcp_nodelay true
persistence false
log_dest stderr
log_type error
log_type warning
log_type notice
"""

# Only who shows a certificate of the authority is let in; its common name is the user's name.
MOSQUITTO_TLS = """\
cafile {ca_file}
certfile {certificate_file}
keyfile {key_file}
require_certificate true
use_identity_as_username true
tls_version tlsv1.2
"""

# A mosquitto that has no other listener than one for WebSocket ends at once (2.0.11).
MOSQUITTO_WEBSOCKETS = """\
protocol websockets
listener {another_port} {host}
"""

# Where mosquitto is started by root, it would become the user `mosquitto`. That one can't read a private folder, and
# the change of user would undo the death signal.
MOSQUITTO_STAY_ROOT = "user root\n"

# One listener, for MQTT 5. The log keeps max_segment_count x max_segment_size bytes, and then drops the oldest.
IOTCORE_CONFIG = """\
id = 0

[router]
id = 0
max_connections = 10000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "v5-1"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 8388608
max_inflight_count = 100
dynamic_filters = true
"""


class EmbeddedBroker:
    """A broker that lives as long as the `with` block, and not longer than this process.

    The kernel ties its life to the *thread* that called `start`: call it from one that stays.
    Port 0 picks a free port, which is kept over `stop` and `start`. The log is `folder/broker.log`. With `tls` (the
    files of the broker's own end) or WebSocket it is mosquitto.
    """

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        prefer: Kind | None = None,
        tls: TlsSettings | None = None,
        transport: Transport = "tcp",
    ) -> None:
        """Raises ConfigError for a host that is not IPv4 loopback, or when there is no such broker."""
        _require_loopback(host)
        self._more = _more_of_mosquitto(host, tls, transport)
        self._plain = not self._more
        self.kind: Kind = _choose("mosquitto" if self._more else prefer)
        self.host = host
        self.port = port or free_port(host)
        self.log_path = folder / "broker.log"
        self._folder = folder
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id, None while the broker is stopped."""
        return self._child.pid if self._child else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.alive

    def start(self) -> None:
        """Return when the broker answers an MQTT CONNECT. Raises TransientError when it does not in time."""
        if self._child is not None:
            return
        # What speaks TLS or HTTP is ready when it takes a connection.
        answers = _answers if self._plain else takes_connections
        command = _command(self.kind, self._write_config())
        self._child = start_child(command, self.log_path, lambda: answers(self.host, self.port), START_S)

    def stop(self, patience_s: float = STOP_S) -> None:
        """End the process politely, or by force when patience is at its end; afterwards it is gone."""
        if self._child is not None:
            self._child.terminate()
            self._child.wait(patience_s)
            self._child = None

    def kill(self) -> None:
        """End the process as a crash or a power cut would (SIGKILL)."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _write_config(self) -> Path:
        """The file that it starts with."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / ("iotcore.toml" if self.kind == "iotcore" else "mosquitto.conf")
        path.write_text(_config(self.kind, self.host, self.port) + self._more)
        return path

    def replace(self) -> None:
        """Let the next start be of the other make, on the same port; the same make where only one is installed."""
        self.kind = _choose("iotcore" if self.kind == "mosquitto" else None)


def find_mosquitto() -> str | None:
    """Path of the mosquitto broker, None where it is not installed."""
    return shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_FOLDERS]))


def _choose(prefer: Kind | None) -> Kind:
    if prefer != "iotcore" and find_mosquitto() is not None:
        return "mosquitto"
    if prefer == "mosquitto":
        raise ConfigError("mosquitto is not installed: `apt-get install mosquitto`")
    if importlib.util.find_spec("iotcore") is None:
        raise ConfigError("no broker: `pip install iotcore`, or `apt-get install mosquitto`")
    return "iotcore"


def _require_loopback(host: str) -> None:
    try:
        loopback = ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(f"an embedded broker listens on loopback only, for it lets anyone in: got host {host!r}")


def _command(kind: Kind, config: Path) -> list[str]:
    mosquitto = find_mosquitto()
    if kind == "mosquitto" and mosquitto is not None:
        return [mosquitto, "-c", str(config)]
    return [sys.executable, "-m", "sandbox.broker", str(config)]


def _config(kind: Kind, host: str, port: int) -> str:
    if kind == "iotcore":
        return IOTCORE_CONFIG.format(host=host, port=port)
    stay_root = MOSQUITTO_STAY_ROOT if os.geteuid() == 0 else ""
    return MOSQUITTO_CONFIG.format(host=host, port=port) + stay_root


def _more_of_mosquitto(host: str, tls: TlsSettings | None, transport: Transport) -> str:
    """Lines for its listener, besides those of every embedded broker."""
    files = "" if tls is None else MOSQUITTO_TLS.format_map(tls.model_dump())
    if transport == "tcp":
        return files
    return files + MOSQUITTO_WEBSOCKETS.format(another_port=free_port(host), host=host)


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0) as connection:
            connection.sendall(CONNECT_PACKET)
            answer = connection.recv(1)
            connection.sendall(DISCONNECT_PACKET)
            return answer == bytes([CONNACK])
    except OSError:
        return False


def _run_iotcore(config_path: str) -> None:
    from iotcore import IotCoreBroker  # noqa: PLC0415  # optional: a machine with mosquitto runs without it

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Its broker core reports every packet as an error.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    IotCoreBroker(config_path=config_path).run_forever()


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `broker` to the command line."""
    text = "a broker on this machine's loopback, to try things out; a hospital's federation needs a real one"
    parser = commands.add_parser("broker", help=text, description=text)
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address; others are refused")
    parser.add_argument("--port", type=int, default=1883, help="TCP port; 0 takes a free one")
    parser.set_defaults(run=_run_command)


def _run_command(arguments: argparse.Namespace) -> None:
    stop = stop_on_signals()
    with (
        tempfile.TemporaryDirectory(prefix="fedward-broker-") as folder,
        EmbeddedBroker(Path(folder), arguments.host, arguments.port) as broker,
    ):
        print(f"{broker.kind} on {broker.host}:{broker.port}; Ctrl-C ends it", flush=True)
        while not stop.wait(POLL_S):
            if not broker.alive:
                raise TransientError(f"{broker.kind} ended unexpectedly:\n{broker.log_path.read_text()[-2000:]}")


if __name__ == "__main__":
    _run_iotcore(sys.argv[1])
