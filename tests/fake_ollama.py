"""An Ollama that fails on command, and a model library: both must misbehave or exist where no real one can.

Runs in the test process on all interfaces, because the gateway's and the loader's containers call it.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeOllama:
    """`behaviour`: ok, error (500 to every call of a model) or missing (404, as for a model that is not there)."""

    def __init__(self, models: tuple[str, ...]) -> None:
        self.models = models
        self.behaviour = "ok"
        self.prompts: list[str] = []
        self.port = 0

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        entries = [
            {"name": m, "model": m, "digest": "d" * 64, "size": 1, "context_length": 4096, "size_vram": 0}
            for m in self.models
        ]
        if path == "/api/version":
            return 200, {"version": "0.0.0-fake"}
        if path in ("/api/tags", "/api/ps"):
            return 200, {"models": entries}
        asked = json.loads(body or b"{}")
        if self.behaviour == "error":
            return 500, {"error": "told to fail"}
        if self.behaviour == "missing":
            return 404, {"error": f"model '{asked.get('model')}' not found"}
        done = {"model": asked.get("model"), "created_at": "2026-01-01T00:00:00Z", "done": True, "done_reason": "stop"}
        counts = {"prompt_eval_count": 3, "eval_count": 2, "total_duration": 1, "eval_duration": 1}
        if path == "/api/embed":
            return 200, {"model": asked.get("model"), "embeddings": [[0.1, 0.2, 0.3]], "prompt_eval_count": 1}
        if path == "/api/chat":
            self.prompts.append(asked["messages"][-1]["content"])
            return 200, done | counts | {"message": {"role": "assistant", "content": "from the fake"}}
        return 200, done | counts | {"response": ""}


class Cut(bytes):
    """A body that ends in the middle: more was announced, and the connection is closed."""


@contextmanager
def serve(answer: Any, tls: ssl.SSLContext | None = None, *, headers: bool = False) -> Iterator[int]:
    """Serve until the block ends; the port. `answer(method, path, body)`, with `headers` or TLS also the request's headers,
    gives (status, dict | bytes | iterator of bytes[, headers])."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # A head and a body are two packets; waiting between them would be 40 ms of every request.
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content, *rest = (
                answer(self.command, self.path, body, self.headers)
                if tls or headers
                else answer(self.command, self.path, body)
            )
            if isinstance(content, Iterator):
                return self.drip(status, content)
            data = content if isinstance(content, bytes) else json.dumps(content).encode() + b"\n"
            self.send_response(status)
            for name, value in (rest[0] if rest else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) + 1000 * isinstance(data, Cut)))
            self.end_headers()
            if self.command != "HEAD":
                # A client that waits no longer has left.
                with suppress(OSError):
                    self.wfile.write(data)
            self.close_connection = self.close_connection or isinstance(data, Cut)

        def drip(self, status: int, parts: Iterator[bytes]) -> None:
            self.send_response(status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with suppress(OSError):
                for part in parts:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_HEAD = do_DELETE = handle_any

        def log_message(self, *_args: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        # Its own is 5: a crowd would be refused before it is seen.
        request_queue_size = 512

    server = Server(("0.0.0.0", 0), Handler)
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class FakeLibrary:
    """A model library with one model of two blobs; blobs are redirected, as Ollama expects of a library."""

    def __init__(self) -> None:
        weights = b"GGUF" + b"w" * 3_000_000
        config = json.dumps(
            {"model_format": "gguf", "model_family": "llama", "architecture": "amd64", "os": "linux"}
        ).encode()
        self.blobs = {self._digest(b): b for b in (weights, config)}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "digest": self._digest(config),
                    "size": len(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.ollama.image.model",
                        "digest": self._digest(weights),
                        "size": len(weights),
                    }
                ],
            }
        ).encode()
        self.files = ""
        self.corrupt = False
        self.asked: list[str] = []

    def answer(self, method: str, path: str, _body: bytes, headers: Any) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append(f"{method} {path}")
        name = path.rsplit("/", 1)[-1]
        if "/manifests/" in path:
            return 200, self.manifest, {"Content-Type": "application/vnd.docker.distribution.manifest.v2+json"}
        if "/blobs/" in path and name in self.blobs:
            return 307, b"", {"Location": f"{self.files}/files/{name}"}
        if path.startswith("/files/"):
            data = self.blobs[name]
            if self.corrupt and len(data) > 1000:
                data = b"x" * len(data)
            wanted = headers.get("Range", "").removeprefix("bytes=")
            if wanted:
                first, last = (int(n) for n in wanted.split("-"))
                return 206, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            return 200, data, {}
        return 404, b"", {}

    @staticmethod
    def _digest(data: bytes) -> str:
        return f"sha256:{hashlib.sha256(data).hexdigest()}"
