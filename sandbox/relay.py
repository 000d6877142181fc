"""One site's way to the broker, which can be cut, stalled and throttled: a relay of TCP connections on loopback."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Self

from sandbox.packets import PacketCounter
from sandbox.ports import free_port

PIECE_BYTES = 64 * 1024
CONNECT_S = 5.0


class Weather(StrEnum):
    """What the link does at the moment."""

    FAIR = "fair"
    CUT = "cut"  # connections end at once, and new ones are turned away
    STALLED = "stalled"  # half-open: connections stay, and nothing passes, as behind a firewall that forgot them
    SLOW = "slow"  # as many bytes a second as `throttle` said


class Relay:
    """Passes connections to `port` on as they come, in a `with` block; its own port is free and stays."""

    def __init__(self, host: str, port: int, tap: Callable[[bytes], None] | None = None) -> None:
        """`tap` is called with each piece on its way to the broker, before it is passed on."""
        self._tap = tap
        self.port = free_port(host)
        self._address = (host, port)
        self._host = host
        self._weather = Weather.FAIR
        self._bytes_per_s = 0.0
        self._passes = threading.Event()
        self._passes.set()
        self._lock = threading.Lock()  # guards the sockets: a connection that opens during a cut must not slip through
        self._sockets: set[socket.socket] = set()
        self._closed = False
        self.num_connections = 0
        """That came in, also those that led nowhere."""
        self.bytes_up = 0
        """From the sites to the broker, in all connections."""
        self.bytes_down = 0
        self.num_published = 0
        """MQTT messages from the sites to the broker."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server((self._host, self.port))
        threading.Thread(target=self._accept, name=f"relay-{self.port}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.cut()

    @property
    def weather(self) -> Weather:
        return self._weather

    def clear(self) -> None:
        """Pass everything on again."""
        self._become(Weather.FAIR)

    def cut(self) -> None:
        """End all connections, and every new one as it comes."""
        self._become(Weather.CUT)
        with self._lock:
            for end in self._sockets:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)  # the pumps close them

    def stall(self) -> None:
        """Keep the connections and pass nothing on."""
        self._become(Weather.STALLED)

    def throttle(self, bytes_per_s: float) -> None:
        """Pass on at most so much in each direction of each connection."""
        self._bytes_per_s = bytes_per_s
        self._become(Weather.SLOW)

    def _become(self, weather: Weather) -> None:
        self._weather = weather
        if weather is Weather.STALLED:
            self._passes.clear()
        else:
            self._passes.set()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # closed
            self.num_connections += 1
            self._connect(near)

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._address, timeout=CONNECT_S)
        except OSError:  # the broker is down
            near.close()
            return
        far.settimeout(None)
        with self._lock:
            if self._weather is Weather.CUT:
                near.close()
                far.close()
                return
            self._sockets |= {near, far}
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._pump, args=(far, near, self._count_down), daemon=True)
        threading.Thread(target=self._carry, args=(near, far, back), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket, back: threading.Thread) -> None:
        """Both directions of one connection, until both have ended."""
        back.start()
        packets = PacketCounter()
        self._pump(near, far, lambda piece: self._count_up(piece, packets))
        back.join()
        with self._lock:
            self._sockets -= {near, far}
        near.close()
        far.close()

    def _count_up(self, piece: bytes, packets: PacketCounter) -> None:
        with self._lock:
            if self._tap:
                self._tap(piece)
            self.bytes_up += len(piece)
            self.num_published += packets.feed(piece)

    def _count_down(self, piece: bytes) -> None:
        with self._lock:
            self.bytes_down += len(piece)

    def _pump(self, source: socket.socket, target: socket.socket, count: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError):  # either end is gone: so is the connection
            while piece := source.recv(PIECE_BYTES):
                self._passes.wait()
                if self._weather is Weather.SLOW:
                    time.sleep(len(piece) / self._bytes_per_s)
                count(piece)
                target.sendall(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
