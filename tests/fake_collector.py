"""An OpenTelemetry collector that keeps what it gets: OTLP over HTTP, decoded with OpenTelemetry's own classes."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, kw_only=True)
class Span:
    """One span; times in nanoseconds, ids in hexadecimal digits, `parent` '' for the root."""

    trace: str
    id: str
    parent: str
    name: str
    start: int
    end: int
    attributes: dict[str, Any]

    @property
    def ms(self) -> float:
        return (self.end - self.start) / 1e6


class Collector:
    """`status`: what it answers; anything but 200 keeps nothing. Its port may be given, so that one can come back."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        self.service = ""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector.status == 200:
                    collector.paths.add(self.path)
                    collector.bodies.append(body + str(self.headers).encode())
                    collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        # Containers reach it, so it cannot be on loopback alone.
        self._server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            named = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.service = named["service.name"]
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                values = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}
                self.spans.append(
                    Span(
                        trace=span.trace_id.hex(), id=span.span_id.hex(), parent=span.parent_span_id.hex(), name=span.name,
                        start=span.start_time_unix_nano, end=span.end_time_unix_nano, attributes=values,
                    )
                )  # fmt: skip

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
