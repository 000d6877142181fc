"""This machine's own address, and free TCP ports there."""

import socket

HOST = "127.0.0.1"


def free_port(host: str) -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
