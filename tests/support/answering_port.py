"""A port that answers whatever is said with the same bytes and hangs up: what is not the broker."""

import contextlib
import socket
import ssl
import threading
from types import TracebackType
from typing import Self


class AnsweringPort:
    """Until the `with` block ends. With a context it speaks TLS first."""

    def __init__(self, answer: bytes, context: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._context = context
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

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                if self._context is None:
                    self._speak(connection)
                else:
                    with self._context.wrap_socket(connection, server_side=True) as secured:
                        self._speak(secured)

    def _speak(self, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(self._answer)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):  # up to their end, so that the answer is not lost in a reset
            pass
