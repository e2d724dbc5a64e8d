"""Requests that a worker sends to its own app, in its own process. Touches the app that it is handed."""

import asyncio
from typing import Any

import orjson

from io3ops_gateway.asgi import App, Message


class _Call:
    """One request to an ASGI app in this process, whose client never disconnects, and its response."""

    def __init__(self, body: bytes) -> None:
        self.status = 0
        self.parts = bytearray()
        self._body = body
        self._received = False

    async def receive(self) -> Message:
        if self._received:
            await asyncio.Event().wait()
        self._received = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.parts.extend(message.get("body", b""))


async def call(app: App, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    """Send one POST to an ASGI app in this process. Return (status, body) of its response."""
    data = orjson.dumps(body)
    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
    ]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers, "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0), "state": {},
    }  # fmt: skip
    made = _Call(data)
    await app(scope, made.receive, made.send)
    return made.status, bytes(made.parts)


def error_text(status: int, response: bytes) -> str:
    """Put an error response into one line, whatever its shape."""
    try:
        message = orjson.loads(response)["error"]["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = response[:200].decode("utf-8", "replace")
    return f"HTTP {status}: {' '.join(str(message).split())[:300]}"
