"""Runs in a container: an upstream that answers at once, so that what is measured is what stands before it.

It speaks OpenAI's protocol and Ollama's own. Every answer is bytes made before the first request, and the server is
one protocol class: it must never be what a measurement waits for.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, cast

PORT = 8000
CHUNKS = 100
TEXT = "hello " * 20
DAY = "2026-01-01T00:00:00Z"
VECTOR = [round(0.001 * number - 0.2, 3) for number in range(384)]
COUNTS = {"total_duration": 5000, "load_duration": 1000, "prompt_eval_count": 3, "prompt_eval_duration": 1000}
DONE = {"done": True, "done_reason": "stop", **COUNTS, "eval_count": 20, "eval_duration": 1000}
USAGE = {"prompt_tokens": 3, "completion_tokens": 20, "total_tokens": 23}
STREAM = re.compile(rb'"stream"\s*:\s*(true|false)')
LENGTH = re.compile(rb"\r\ncontent-length:\s*([0-9]+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
LAST = re.compile(rb"\r\nconnection:\s*close", re.IGNORECASE)


def whole(value: Any) -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def streamed(kind: str, parts: list[bytes]) -> bytes:
    """All parts at once, each as a chunk of its own: a gateway cannot count on more than one at a time."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def line(value: dict[str, Any]) -> bytes:
    return json.dumps({"model": "m", "created_at": DAY, **value}).encode() + b"\n"


CHAT = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
}  # fmt: skip
EVENTS = [event({"role": "assistant", "content": ""})]
EVENTS += [event({"content": "hello "}) for _ in range(CHUNKS - 2)]
EVENTS += [event({}, "stop"), b"data: [DONE]\n\n"]
SAID = {"message": {"role": "assistant", "content": "hello "}, "done": False}
NATIVE = {"model": "m", "created_at": DAY}
DETAILS = {"family": "llama", "parameter_size": "1B", "quantization_level": "Q4_0", "format": "gguf"}
TAGS = {"models": [{"name": name, "model": name, "size": 1, "digest": "0" * 64, "details": DETAILS} for name in "me"]}
SHOWN = {"details": DETAILS, "model_info": {"llama.context_length": 4096}, "capabilities": ["completion"]}
EMBEDDED = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": VECTOR}], "model": "e"}

WHOLE = {
    b"/v1/chat/completions": whole(CHAT),
    b"/v1/embeddings": whole(EMBEDDED | {"usage": {"prompt_tokens": 3, "total_tokens": 3}}),
    b"/v1/models": whole({"object": "list", "data": [{"id": name, "object": "model"} for name in "me"]}),
    b"/api/chat": whole(NATIVE | {"message": {"role": "assistant", "content": TEXT}} | DONE),
    b"/api/generate": whole(NATIVE | {"response": TEXT} | DONE),
    b"/api/embed": whole({"model": "e", "embeddings": [VECTOR], **COUNTS}),
    b"/api/tags": whole(TAGS),
    b"/api/ps": whole({"models": []}),
    b"/api/show": whole(SHOWN),
    b"/api/version": whole({"version": "0.32.15"}),
}
STREAMS = {
    b"/v1/chat/completions": streamed("text/event-stream", EVENTS),
    b"/api/chat": streamed(
        "application/x-ndjson",
        [line(SAID)] * (CHUNKS - 1) + [line({"message": {"role": "assistant", "content": ""}, **DONE})],
    ),
    b"/api/generate": streamed(
        "application/x-ndjson",
        [line({"response": "hello ", "done": False})] * (CHUNKS - 1) + [line({"response": "", **DONE})],
    ),
}
MISSING = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection: requests in, bytes out."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of it.
        self._transport = cast(asyncio.Transport, transport)
        self._waiting = b""

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while True:
            end = self._waiting.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            head = self._waiting[:end]
            length = LENGTH.search(head)
            last = end + int(length[1]) if length else end
            if CHUNKED.search(head):
                last = self._waiting.find(b"0\r\n\r\n", end) + 5
            if last < end or len(self._waiting) < last:
                return
            self._transport.write(answer(head, self._waiting[end:last]))
            self._waiting = self._waiting[last:]
            if LAST.search(head):
                self._transport.close()
                return


def answer(head: bytes, body: bytes) -> bytes:
    path = head.split(b" ", 2)[1].partition(b"?")[0]
    said = STREAM.search(body)
    # Ollama streams unless told not to; OpenAI's protocol is the other way round.
    stream = said[1] == b"true" if said else path.startswith(b"/api/")
    return (STREAMS.get(path) if stream else None) or WHOLE.get(path, MISSING)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "0.0.0.0", PORT, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        # A third less time for each request; the measurement holds without it.
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
