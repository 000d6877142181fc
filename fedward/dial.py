"""A connection to the broker's port: TCP, or a tunnel through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6).

Through a proxy it is the proxy that looks up the broker's name. Whatever fails is an `UnreachableError` that says what
is in the way; the advice for each is in `ADVICE`.
"""

import base64
import re
import socket
import time
from collections.abc import Mapping
from enum import StrEnum

from fedward.limits import KIB
from fedward.proxy import Proxy

STEP_S = 10.0
"""Seconds for each step of making a connection: TCP, the proxy's answer, TLS."""

MAX_ANSWER_BYTES = 16 * KIB
"""Of a proxy's answer to CONNECT; proxies answer in a few hundred."""


class Obstacle(StrEnum):
    """What is in the way: a closed list, for the log."""

    NAME_UNKNOWN = "name_unknown"
    NO_ANSWER = "no_answer"
    PORT_CLOSED = "port_closed"
    HUNG_UP = "hung_up"
    PROXY_NAME_UNKNOWN = "proxy_name_unknown"
    PROXY_UNREACHABLE = "proxy_unreachable"
    PROXY_WANTS_LOGIN = "proxy_wants_login"
    PROXY_REFUSES = "proxy_refuses"
    PROXY_NOT_UNDERSTOOD = "proxy_not_understood"
    NOT_TLS = "not_tls"
    TLS_VERSION = "tls_version"
    ISSUER_UNKNOWN = "issuer_unknown"
    HOST_NAME = "host_name"
    BROKER_EXPIRED = "broker_expired"
    NOT_VERIFIED = "not_verified"
    CERTIFICATE_REFUSED = "certificate_refused"
    NO_WEBSOCKET = "no_websocket"


ADVICE: Mapping[Obstacle, str] = {
    Obstacle.NAME_UNKNOWN: "check broker.host, and that this machine can look up names (DNS)",
    Obstacle.NO_ANSWER: "let the firewall allow TCP to the broker's host and port, or set broker.proxy",
    Obstacle.PORT_CLOSED: "check broker.port, and that the broker runs",
    Obstacle.HUNG_UP: "the broker, or something before it, ended the connection: its log says why",
    Obstacle.PROXY_NAME_UNKNOWN: "check the host of broker.proxy, or of https_proxy",
    Obstacle.PROXY_UNREACHABLE: "check host and port of broker.proxy, or of https_proxy, and that the proxy runs",
    Obstacle.PROXY_WANTS_LOGIN: "check the proxy's user name and broker.proxy_password_file; only basic authentication "
    "is spoken, so a proxy that asks for NTLM or Kerberos needs a helper such as cntlm before it",
    Obstacle.PROXY_REFUSES: "let the proxy allow CONNECT to the broker's host and port; many allow port 443 only",
    Obstacle.PROXY_NOT_UNDERSTOOD: "check broker.proxy, or https_proxy: what answers there is no HTTP proxy",
    Obstacle.NOT_TLS: "check broker.port: what answers there does not speak TLS",
    Obstacle.TLS_VERSION: "let the broker speak TLS 1.2 or newer",
    Obstacle.ISSUER_UNKNOWN: "somebody opens TLS on the way (a firewall that inspects it: exempt the broker's host), "
    "or the authority's certificate of the TLS settings is not that of the broker",
    Obstacle.HOST_NAME: "set broker.host to the name in the broker's certificate, or issue one for this name",
    Obstacle.BROKER_EXPIRED: "renew the broker's certificate; or set this machine's clock, if it is wrong",
    Obstacle.NOT_VERIFIED: "have a look at the broker's certificate",
    Obstacle.CERTIFICATE_REFUSED: "the broker refuses this side's certificate: expired, revoked, of another authority, "
    "or missing; renew it or enrol again",
    Obstacle.NO_WEBSOCKET: "check broker.port, and that the broker listens there for MQTT over WebSocket; or use tcp",
}


class UnreachableError(OSError):
    """There is no connection. An OSError, as those who use connections expect one; `detail` is for the log."""

    def __init__(self, obstacle: Obstacle, detail: str = "") -> None:
        super().__init__(f"{obstacle}: {detail}" if detail else str(obstacle))
        self.obstacle = obstacle
        self.detail = detail


def connect(host: str, port: int, proxy: Proxy | None = None) -> socket.socket:
    """A connection on which nothing was said yet; each of its operations times out after `STEP_S`.

    Raises UnreachableError.
    """
    if proxy is None:
        return _dial(host, port, Obstacle.NAME_UNKNOWN)
    try:
        connection = _dial(proxy.host, proxy.port, Obstacle.PROXY_NAME_UNKNOWN)
    except UnreachableError as error:
        if error.obstacle is Obstacle.PROXY_NAME_UNKNOWN:
            raise
        raise UnreachableError(Obstacle.PROXY_UNREACHABLE, error.obstacle) from error
    try:
        connection.sendall(_request(host, port, proxy))
        _check_answer(_read_answer(connection))
    except UnreachableError:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        raise UnreachableError(Obstacle.PROXY_UNREACHABLE, "it ends the connection, or does not answer") from error
    return connection


def _dial(host: str, port: int, name_unknown: Obstacle) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=STEP_S)
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: a name that no DNS could hold
        raise UnreachableError(name_unknown) from error
    except ConnectionRefusedError as error:
        raise UnreachableError(Obstacle.PORT_CLOSED) from error
    except OSError as error:
        raise UnreachableError(Obstacle.NO_ANSWER, error.strerror or "timed out") from error


def _request(host: str, port: int, proxy: Proxy) -> bytes:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if proxy.username is not None:
        login = base64.b64encode(f"{proxy.username}:{proxy.password or ''}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {login}")
    return "\r\n".join([*lines, "", ""]).encode()


def _read_answer(connection: socket.socket) -> bytes:
    """The head of the answer, and not a byte of what follows: that is TLS's."""
    answer = bytearray()
    deadline_s = time.monotonic() + STEP_S
    while not answer.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        answer += byte
        if not byte or len(answer) > MAX_ANSWER_BYTES or time.monotonic() > deadline_s:
            raise UnreachableError(Obstacle.PROXY_NOT_UNDERSTOOD)
    return bytes(answer)


def _check_answer(answer: bytes) -> None:
    status_line = re.match(rb"HTTP/1\.[01] (\d{3})\b", answer)
    if status_line is None:
        raise UnreachableError(Obstacle.PROXY_NOT_UNDERSTOOD)
    status = int(status_line[1])
    if status == 407:
        schemes = re.findall(rb"(?im)^proxy-authenticate: *([a-z]{1,20})\b", answer)
        asked = ", ".join(sorted({scheme.decode().lower() for scheme in schemes}))
        raise UnreachableError(Obstacle.PROXY_WANTS_LOGIN, f"407, asks for {asked or 'a login'}")
    if not 200 <= status < 300:
        raise UnreachableError(Obstacle.PROXY_REFUSES, str(status))
