"""For the tests of the request log: upstreams that misbehave byte by byte, and a reader of the lines."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.clone import PATIENCE, Clone, until
from tests.raw_http import Answer, Connection, request

TABLE = """
version: 1
gateway: {{max_body_mb: 1, origins: ["https://page.example"]}}
defaults: {{timeouts: {{step: 60s, first_token: 60s}}, context: 2048, cooldown: {{failures: 1000, pause: 1s}}}}
providers:
  host: {{kind: ollama, url: "http://127.0.0.1:{port}"}}
  served: {{kind: openai_compatible, url: "http://127.0.0.1:{port}/v1"}}
  gone: {{kind: openai_compatible, url: "http://127.0.0.1:{gone}/v1"}}
models:
  a: {{provider: host, source: {{external: a}}}}
  b: {{provider: host, source: {{external: b}}}}
  d: {{provider: served, source: {{external: d}}}}
  g: {{provider: gone, source: {{external: g}}}}
  vec: {{provider: host, source: {{external: vec}}, capabilities: [embeddings], context: 512}}
modes:
  one: {{chain: [a]}}
  served: {{chain: [d]}}
  failing: {{chain: [a]}}
  cut: {{chain: [a]}}
  ends: {{chain: [a]}}
  closes: {{chain: [a]}}
  cut2: {{chain: [d]}}
  ends2: {{chain: [d]}}
  closes2: {{chain: [d]}}
  early: {{chain: [a, b]}}
  two: {{chain: [a, b]}}
  limited: {{chain: [a, b]}}
  down: {{chain: [g, b]}}
  hasty: {{chain: [a, b], timeouts: {{steps: [700ms, 60s], first_token: 700ms, total: 90s}}}}
  retried: {{chain: [a, b], retries: {{server_error: 2}}}}
  log-few: {{chain: [a], limits: {{requests_per_minute: 1}}}}
  log-few2: {{chain: [a], limits: {{requests_per_minute: 1}}}}
  brief: {{chain: [a], timeouts: {{step: 700ms, first_token: 700ms, total: 1s}}, retries: {{timeout: 3}}}}
  embed: {{chain: [vec]}}
  kept: {{chain: [a], record_internal: true}}
"""
SECRET = "the-prompt-is-a-secret"
COUNTS = {"prompt_eval_count": 3, "eval_count": 2}
TIMES = {"total_duration": 40_000_000, "load_duration": 5_000_000, "prompt_eval_duration": 10_000_000, "eval_duration": 20_000_000}  # fmt: skip
USAGE = {"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
HEAD = b"HTTP/1.1 %d x\r\ncontent-type: %b\r\nconnection: close\r\n%b\r\n"
CONTROL = ("/usr/bin/python3", "-I", "-S", "/opt/io3ops/io3ops_gateway/scripts/control.py")


class Upstream:
    """Ollama's API and OpenAI's on one port, by bytes. `behaviours`, by model: ok, a status, slow:SECONDS (before it answers), silent (until
    the reader leaves), endless (a stream, until then), cut (reset), ends (chunked, without its last word), closes (without a length), and
    `says`: a body in place of its own; `reason`: why answers end."""

    def __init__(self) -> None:
        self.behaviours: dict[str, str] = {}
        self.says = ""
        self.reason = "stop"
        self.left, self.busy = threading.Event(), threading.Event()
        self.asked: list[str] = []
        self.socket = socket.create_server(("0.0.0.0", 0), backlog=512)
        self.port: int = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def told(self, says: str = "", reason: str = "stop", **behaviours: str) -> None:
        self.behaviours, self.says, self.reason = behaviours, says, reason
        self.left.clear()
        self.busy.clear()
        self.asked.clear()

    def _serve(self) -> None:
        while True:
            connection, _ = self.socket.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            try:
                first = reader.readline().split()
                heads = list(iter(reader.readline, b"\r\n"))
                length = sum(int(line.split(b":")[1]) for line in heads if line.lower().startswith(b"content-length"))
                self._answer(connection, first[1].decode(), json.loads(reader.read(length) or b"{}"))
            except (OSError, IndexError):
                self.left.set()

    def _answer(self, to: socket.socket, path: str, asked: dict[str, Any]) -> None:
        model = str(asked.get("model", "")).removesuffix(":latest")
        if not any(name in asked for name in ("messages", "prompt", "input")) or not model:
            listed = [{"name": f"{m}:latest", "digest": "d" * 64, "size": 1} for m in ("a", "b", "vec")]
            return self._whole(to, 200, {"models": listed, "version": "0", "done": True, "embeddings": []})
        self.asked.append(model)
        how = self.behaviours.get(model, "ok")
        if how.startswith("slow:"):
            time.sleep(float(how[5:]))
        elif how == "silent":
            self.busy.set()
            to.recv(1)
            self.left.set()
            return None
        elif how.isdecimal():
            return self._whole(to, int(how), {"error": self.says or "told to fail"})
        openai, stream = path.startswith("/v1"), bool(asked.get("stream"))
        if not stream:
            found = self._openai(model) if openai else self._ollama(model, path)
            data = json.dumps(found).encode()
            return to.sendall(HEAD % (200, b"application/json", b"content-length: %d\r\n" % len(data)) + (data[:40] if how != "ok" and "slow" not in how else data))  # fmt: skip
        chunked = how != "closes"
        kind = b"text/event-stream" if openai else b"application/x-ndjson"
        to.sendall(HEAD % (200, kind, b"transfer-encoding: chunked\r\n" if chunked else b""))
        for number, part in enumerate(self._parts(model, openai, how)):
            to.sendall(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            if how == "endless" and number > 3:
                self.busy.set()
                time.sleep(0.02)
            elif how.startswith("slow"):
                time.sleep(0.1)
        if how in ("cut", "ends", "closes"):
            # What was said is with the client by now.
            time.sleep(0.1)
        if chunked and how != "cut":
            to.sendall(b"0\r\n\r\n")
        return None

    def _parts(self, model: str, openai: bool, how: str) -> Iterator[bytes]:
        if how == "early":
            return
        for word in range(100_000 if how == "endless" else 3):
            if openai:
                choice = {"index": 0, "delta": {"role": "assistant", "content": f"w{word} "}, "finish_reason": None}
                yield self._event(
                    {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
                )
            else:
                said = {"message": {"role": "assistant", "content": f"w{word} "}, "done": False}
                yield json.dumps({"model": model, "created_at": "2026-01-01T00:00:00Z"} | said).encode() + b"\n"
        if how in ("cut", "ends", "closes"):
            return
        if not openai:
            yield (
                json.dumps(
                    self._ollama(model, "/api/chat") | {"message": {"role": "assistant", "content": ""}}
                ).encode()
                + b"\n"
            )
            return
        ends: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {}, "finish_reason": self.reason}]},
            {"choices": []} | USAGE,
        ]
        for more in ends:
            yield self._event({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": model} | more)
        yield b"data: [DONE]\n\n"

    @staticmethod
    def _event(found: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps(found).encode() + b"\n\n"

    def _ollama(self, model: str, path: str) -> dict[str, Any]:
        if path == "/api/embed":
            return {"model": model, "embeddings": [[0.1, 0.2]], "prompt_eval_count": 1} | {
                n: TIMES[n] for n in ("total_duration", "load_duration")
            }
        done = {"model": model, "created_at": "2026-01-01T00:00:00Z", "done": True, "done_reason": self.reason}
        return done | COUNTS | TIMES | {"message": {"role": "assistant", "content": f"from {model}"}}

    def _openai(self, model: str) -> dict[str, Any]:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": f"from {model}"},
            "finish_reason": self.reason,
        }
        return {"id": "x", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]} | USAGE

    @staticmethod
    def _whole(to: socket.socket, status: int, found: Any) -> None:
        data = json.dumps(found).encode()
        to.sendall(HEAD % (status, b"application/json", b"content-length: %d\r\n" % len(data)) + data)


class Bench:
    """One gateway with its log. `folder`: where its lines are."""

    def __init__(self, clone: Clone, upstream: Upstream, gone: int) -> None:
        self.clone, self.upstream, self.gone = clone, upstream, gone
        self.container = ""
        self.port, self.key = clone.port, clone.key()
        self.folder: Path = clone.path / ".io3ops/logs"
        self._count = 0

    def switch(self, **edge: Any) -> None:
        """New workers, with these settings; nobody listens where the provider `gone` is."""
        text = (self.clone.path / "runtime/litellm.yaml").read_text("utf-8")
        config = yaml.safe_load(text.replace(f"host.docker.internal:{self.gone}", "127.0.0.1:9"))
        config["io3ops_policy"]["edge"].update(edge)
        done = subprocess.run(
            ["docker", "exec", "-i", self.container or self.clone.container("gateway"), *CONTROL, "reload"],
            input=yaml.safe_dump(config).encode(), capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done

    def lines(self) -> list[dict[str, Any]]:
        """All of them; each must be one."""
        found = []
        for file in sorted(self.folder.glob("requests*.jsonl")):
            data = file.read_bytes()
            assert not data or data.endswith(b"\n")
            found += [json.loads(line) for line in data.split(b"\n")[:-1]]
        return found

    def line(self, name: str) -> dict[str, Any]:
        """The one line of a request; it is written after the answer has ended."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [line for line in self.lines() if line["id"] == name]
            return bool(found)

        until(f"the line of {name}", there)
        assert len(found) == 1, found
        return found[0]

    def head(self, path: str, name: str | bytes, body: bytes, *headers: str | bytes, key: str | None = None) -> bytes:
        given = [f"Authorization: Bearer {self.key if key is None else key}", "Content-Type: application/json"]
        ids = [b"x-request-id: " + (name if isinstance(name, bytes) else name.encode())] if name else []
        return request("POST", f"/v1/{path}", *given, *ids, *headers, body=body)

    def body(self, mode: str, **more: Any) -> bytes:
        return json.dumps({"model": mode, "messages": [{"role": "user", "content": SECRET}]} | more).encode()

    def new(self) -> str:
        self._count += 1
        return f"test-{self._count}-{time.monotonic_ns():x}"

    def ask(self, mode: str, path: str = "chat/completions", *, name: str = "", key: str | None = None, agent: str = "pytest/9.1", **more: Any) -> tuple[Answer, dict[str, Any]]:  # fmt: skip
        """A request, its answer, and its line."""
        name = name or self.new()
        body = self.body(mode, **more) if path == "chat/completions" else json.dumps({"model": mode} | more).encode()
        with Connection(self.port, PATIENCE) as connection:
            connection.send(self.head(path, name, body, f"User-Agent: {agent}", key=key))
            answer = connection.answer()
        assert answer is not None and answer.headers["x-request-id"] == name
        return answer, self.line(name)


def reserved() -> tuple[socket.socket, int]:
    """A port at which nobody answers, for as long as the socket is kept."""
    kept = socket.socket()
    kept.bind(("0.0.0.0", 0))
    return kept, int(kept.getsockname()[1])
