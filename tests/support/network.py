"""Real sockets on loopback that behave as networks of hospitals do: they refuse, swallow, forbid and look inside."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedward.doctor.facts import TlsFiles
from sandbox.broker import find_mosquitto
from sandbox.child import start_child, takes_connections
from sandbox.ports import free_port

HOST = "127.0.0.1"
START_S = 10.0
DYNAMIC_SECURITY = next(Path("/usr/lib").glob("**/mosquitto_dynamic_security.so"), None)
"""The plugin that can deny a subscription; a file of access rules grants all of them."""


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port on which `serve` gets every connection, each in a thread of its own; what fails there is the client's."""
    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=_accept, args=(server, serve), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def black_hole(host: str = HOST, port: int = 0) -> Iterator[int]:
    """A port to which connections get no answer: the queue of its listener is full, so the kernel drops them."""
    with socket.socket() as server, contextlib.ExitStack() as held:
        server.bind((host, port))
        server.listen(0)
        port = server.getsockname()[1]
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield port


@contextmanager
def door(host: str, port: int) -> Iterator[int]:
    """A port at another address of this machine that leads to `port` on loopback."""

    def serve(near: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port)) as far:
            threading.Thread(target=_pump, args=(far, near), daemon=True).start()
            _pump(near, far)

    with socket.create_server((host, 0)) as server:
        threading.Thread(target=_accept, args=(server, serve), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def silence(connection: socket.socket) -> None:
    """Take all, say nothing."""
    while connection.recv(4096):
        pass


def tls_server(
    files: TlsFiles, *, asks_for_certificates: bool = False, newest: str = "TLSv1_3"
) -> Callable[[socket.socket], None]:
    """Shakes hands as a broker does and then waits for the first packet."""
    assert files.certificate_file
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion[newest]
    context.load_cert_chain(files.certificate_file, files.key_file)
    if asks_for_certificates:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(files.ca_file)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            silence(secured)

    return serve


class ConnectProxy:
    """An HTTP proxy: answers CONNECT with a status and, if that is 200, tunnels, or opens TLS with its own files."""

    def __init__(self, status: int = 200, date: str = "", inspects_with: TlsFiles | None = None) -> None:
        self.status = status
        self.date = date
        self.inspects_with = inspects_with
        self.requests: list[str] = []

    def serve(self, connection: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        self.requests.append(head.decode())
        date = f"Date: {self.date}\r\n" if self.date else ""
        connection.sendall(f"HTTP/1.1 {self.status} said so\r\n{date}Content-Length: 0\r\n\r\n".encode())
        if self.status != 200:
            return
        if self.inspects_with:
            tls_server(self.inspects_with)(connection)
            return
        host, port = head.split()[1].decode().rsplit(":", 1)
        with socket.create_connection((host, int(port))) as onward:
            threading.Thread(target=_pump, args=(onward, connection), daemon=True).start()
            _pump(connection, onward)


@contextmanager
def mosquitto(folder: Path, settings: str) -> Iterator[int]:
    """A real mosquitto on loopback with these lines in its configuration; `{port}` stands for its port."""
    program, port = find_mosquitto(), free_port(HOST)
    assert program
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mosquitto.conf"
    path.write_text(f"user root\npersistence false\nlog_dest stderr\n{settings.format(port=port)}\n")
    command = [program, "-c", str(path)]
    broker = start_child(command, folder / "broker.log", lambda: takes_connections(HOST, port), START_S)
    try:
        yield port
    finally:
        broker.terminate()
        broker.wait(5.0)


def _accept(server: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return  # the test is over
        threading.Thread(target=_serve, args=(connection, serve), daemon=True).start()


def _serve(connection: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with connection, contextlib.suppress(OSError):
        serve(connection)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
