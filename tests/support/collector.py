"""A collector of OpenTelemetry traces: an HTTP server that unpacks what OTLP sends."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

HOST = "127.0.0.1"


class Collector:
    """What came, in `spans`, and from whom, in `resources`."""

    def __init__(self) -> None:
        self.spans: queue.Queue[Span] = queue.Queue()
        self.resources: list[dict[str, str]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def take(self, request: bytes) -> None:
        for resource_spans in ExportTraceServiceRequest.FromString(request).resource_spans:
            named = resource_spans.resource.attributes
            self.resources.append({pair.key: pair.value.string_value for pair in named})
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    self.spans.put(span)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listens inside the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
            pass

    server = HTTPServer((HOST, 0), Handler)
    collector.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
