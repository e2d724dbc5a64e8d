"""Serves /metrics for Prometheus and /health for the container's health check. Touches one listening port."""

import json
import socket
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from io3ops_observer.metrics import Metrics

# A web page may have a host name that resolves to 127.0.0.1. Requests under other names are refused.
HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "host.docker.internal"})
SECONDS = 5.0


def server(port: int, metrics: Metrics, health: Callable[[], Mapping[str, Any]]) -> ThreadingHTTPServer:
    """Return a server that is bound and not running yet. `health`: the body of /health; its `ok` decides between 200 and 503."""

    class Handler(BaseHTTPRequestHandler):
        timeout = SECONDS
        server_version = "io3ops"
        sys_version = ""

        def do_GET(self) -> None:
            if not _ours(self.headers.get("Host", "")):
                return self._answer(403, "text/plain", b"unknown host name\n")
            path = self.path.partition("?")[0]
            if path == "/metrics":
                return self._answer(200, CONTENT_TYPE_LATEST, generate_latest(metrics.registry))
            if path == "/health":
                status = health()
                return self._answer(200 if status["ok"] else 503, "application/json", json.dumps(status).encode())
            return self._answer(404, "text/plain", b"not found; supported paths: /metrics, /health\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: Prometheus scrapes every few seconds."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Log nothing: a scraper may disconnect."""

    return Server(("0.0.0.0", port), Handler)


def _ours(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() in HOSTS
