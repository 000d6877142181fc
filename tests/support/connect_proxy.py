"""A small HTTP proxy that tunnels with CONNECT: real sockets, a thread for each direction."""

import base64
import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

CONNECTED = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 ward\r\n\r\n"
WANTS_LOGIN = b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="ward"\r\n\r\n'
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\n\r\n"


class ConnectProxy:
    """Tunnels to anywhere, for whoever gives the login if there is one, until the `with` block ends.

    `answer` is sent in pieces of `piece_bytes`, each in a segment of its own.
    """

    def __init__(self, login: str | None = None, answer: bytes = CONNECTED, piece_bytes: int = 1_000_000) -> None:
        self.login = login
        self.answer = answer
        self.requests: list[str] = []
        """The place of each tunnel that was asked for, as it was asked for."""
        self.num_tunnels = 0
        self._piece_bytes = piece_bytes
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.cut()

    def cut(self) -> None:
        """End every tunnel, as a proxy that is restarted does."""
        while self._open:
            with contextlib.suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(connection,)).start()

    def _tunnel(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += near.recv(1)
            lines = head.decode().split("\r\n")
            place = lines[0].split(" ")[1]
            self.requests.append(place)
            if (
                self.login
                and f"Proxy-Authorization: Basic {base64.b64encode(self.login.encode()).decode()}" not in lines
            ):
                near.sendall(WANTS_LOGIN)
                return
            host, _, port = place.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port))) as far:
                for start in range(0, len(self.answer), self._piece_bytes):
                    near.sendall(self.answer[start : start + self._piece_bytes])
                if self.answer == FORBIDDEN:
                    return
                self.num_tunnels += 1
                self._open += [near, far]
                up = threading.Thread(target=_copy, args=(near, far))
                up.start()
                _copy(far, near)
                up.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
