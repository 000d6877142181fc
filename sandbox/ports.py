"""This machine's own address, and free TCP ports there."""

import atexit
import socket
from collections import deque

HOST = "127.0.0.1"

KEPT = 100

_kept: deque[socket.socket] = deque()
"""Sockets that are bound and never listen: the kernel gives their ports to nobody who asks for any free one, and lets
a server listen there that names the port (with SO_REUSEADDR, as servers do)."""


def free_port(host: str) -> int:
    """A port for a server that starts soon: nobody else is given it before a hundred more were asked for."""
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind((host, 0))
    _kept.append(kept)
    if len(_kept) > KEPT:
        _kept.popleft().close()
    port: int = kept.getsockname()[1]
    return port


@atexit.register
def _close() -> None:
    for kept in _kept:
        kept.close()
