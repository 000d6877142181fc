"""What no transfer of the same bytes on this machine can beat, measured at the moment when it is compared with."""

import hashlib
import os
import socket
import threading
import time
from pathlib import Path

from fedward.limits import CHUNK_BYTES


def tcp_s(payload: bytes) -> float:
    """Seconds for the payload over one TCP connection on loopback, from one thread to another."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        begin = time.perf_counter()
        sender = threading.Thread(target=_send, args=(server.getsockname(), payload))
        sender.start()
        connection, _ = server.accept()
        with connection:
            while connection.recv(CHUNK_BYTES):
                pass
        sender.join()
        return time.perf_counter() - begin


def _send(address: tuple[str, int], payload: bytes) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(payload)


def disk_s(payload: bytes, folder: Path) -> float:
    """Seconds to write the payload into a new file and make it durable."""
    path = folder / "bound"
    begin = time.perf_counter()
    with path.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    elapsed_s = time.perf_counter() - begin
    path.unlink()
    return elapsed_s


def sha256_s(payload: bytes) -> float:
    begin = time.perf_counter()
    hashlib.sha256(payload).digest()
    return time.perf_counter() - begin
