"""A plain door on loopback that leads to a broker over TLS, for a link that speaks no TLS itself."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from tests.support.party import Papers, context

PIECE_BYTES = 64 * 1024


class TlsDoor:
    """Carries each connection to the broker with one party's papers, in a `with` block."""

    def __init__(self, port: int, papers: Papers) -> None:
        self._broker = ("127.0.0.1", port)
        self._context = context(papers, papers.authority)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._sockets:
            _close(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inside, _ = self._listener.accept()
                self._sockets.append(inside)
                try:
                    outside = self._context.wrap_socket(
                        socket.create_connection(self._broker), server_hostname="127.0.0.1"
                    )
                except OSError:
                    _close(inside)
                    continue
                self._sockets.append(outside)
                for source, target in ((inside, outside), (outside, inside)):
                    threading.Thread(target=_carry, args=(source, target), daemon=True).start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
    _close(source)
    _close(target)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
