"""The small HTTP endpoint that both sides serve: health, metrics and read-only state, computed when asked."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Protocol

from fedward.errors import ConfigError
from fedward.ports import Clock
from fedward.settings import HttpSettings


@dataclass(frozen=True)
class Page:
    """What a path answers."""

    body: str
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200


Pages = Mapping[str, Callable[[], Page]]


STUCK_AFTER_S = 120.0
"""A loop that did not turn for this long is stuck: the supervisor should restart the process."""


class Program(Protocol):
    """What a page can ask of a running program."""

    @property
    def unready(self) -> str | None:
        """Why the program can't do its work now, in words for the operator; None when it can."""

    @property
    def looped_at_s(self) -> float:
        """Monotonic time at which the loop last turned."""

    def page(self) -> dict[str, Any]:
        """What the program knows now."""


def pages_of(program: Program, exposition: Callable[[Mapping[str, Any]], str], clock: Clock) -> Pages:
    """/healthz: the loop turns. /readyz: and the work can be done. /metrics, /v1/state: what is known."""

    def healthz() -> Page:
        silent_s = clock.monotonic_s() - program.looped_at_s
        return Page("ok\n") if silent_s < STUCK_AFTER_S else Page(f"stuck for {silent_s:.0f} s\n", status=503)

    def readyz() -> Page:
        return Page("ok\n") if program.unready is None else Page(f"{program.unready}\n", status=503)

    return {
        "/healthz": healthz,
        "/readyz": readyz,
        "/metrics": lambda: Page(exposition(program.page()), "text/plain; version=0.0.4; charset=utf-8"),
        "/v1/state": lambda: Page(json.dumps(program.page()), "application/json"),
    }


class HttpServer:
    """Serves pages from a thread of its own; None as port serves nothing."""

    def __init__(self, settings: HttpSettings, pages: Pages) -> None:
        """Bind. Raises ConfigError when the address can't be bound."""
        self._server: ThreadingHTTPServer | None = None
        if settings.port is None:
            return
        try:
            self._server = ThreadingHTTPServer((settings.host, settings.port), _answering(pages))
        except OSError as error:
            raise ConfigError(f"http: can't listen on {settings.host}:{settings.port}: {error.strerror}") from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="http", daemon=True)

    @property
    def port(self) -> int | None:
        """The port that is really listened on."""
        return self._server.server_address[1] if self._server else None

    def __enter__(self) -> "HttpServer":
        if self._server:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def _answering(pages: Pages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # a client that says nothing must not hold a thread for ever

        def do_GET(self) -> None:
            make = pages.get(self.path.split("?", 1)[0])
            page = make() if make else Page(f"not found; pages: {' '.join(sorted(pages))}\n", status=404)
            content = page.body.encode()
            self.send_response(page.status)
            self.send_header("Content-Type", page.content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
            """Requests are not logged: probes would drown everything else."""

    return Handler
