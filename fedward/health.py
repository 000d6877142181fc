"""`python -m fedward.health [HOST]`: whether the program in this container can do its work, for its health check.

It asks /readyz of the endpoint on `FEDWARD_HTTP__PORT`, as the images set it, and ends with 0 or 1; with a host, of the
program there. It runs every few seconds, so it imports next to nothing.
"""

import os
import socket
import sys

TIMEOUT_S = 3.0
MAX_ANSWER_BYTES = 4096
HERE = "127.0.0.1"


def is_ready(port: int, host: str = HERE) -> tuple[bool, str]:
    """Whether the endpoint says so, and in which words."""
    try:
        with socket.create_connection((host, port), TIMEOUT_S) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            with connection.makefile("rb") as answer:
                head, _, body = answer.read(MAX_ANSWER_BYTES).partition(b"\r\n\r\n")
    except OSError as error:
        return False, f"no answer on port {port}: {error}"
    status = head.split(b" ", 2)[1:2]
    return status == [b"200"], body.decode(errors="replace").strip()


def main() -> int:
    """0 when it is ready, 1 when not; what it said is printed, and `docker inspect` shows it."""
    port = os.environ.get("FEDWARD_HTTP__PORT", "")
    if not port.isdecimal():
        print("FEDWARD_HTTP__PORT is not set to a port")  # noqa: T201
        return 1
    ready, words = is_ready(int(port), *sys.argv[1:2])
    print(words)  # noqa: T201
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main())
