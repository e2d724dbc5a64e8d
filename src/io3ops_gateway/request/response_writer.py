"""Sends one response, in parts or as a whole, and remembers how far it has got. Touches the connection it is handed."""

from collections.abc import Mapping
from typing import Any

import orjson

from io3ops_gateway.asgi import Headers, Send


class ResponseWriter:
    """One response. `begun`: its status is decided; `ended`: its last byte was sent; `status`: 0 until it has begun.

    `extra`: headers that every response of this connection carries (CORS).
    """

    __slots__ = ("_extra", "_send", "begun", "ended", "status")

    def __init__(self, send: Send, extra: Headers) -> None:
        self._send = send
        self._extra = extra
        self.begun = self.ended = False
        self.status = 0

    def begin(self, status: int) -> None:
        """Decide the status. The head is sent by `start`, which may have to wait until the whole body is known."""
        self.begun, self.status = True, status

    async def start(self, headers: Headers) -> None:
        """Send the head of the response."""
        await self._send({"type": "http.response.start", "status": self.status, "headers": [*headers, *self._extra]})

    async def write(self, body: bytes, *, last: bool) -> None:
        """Send a part of the body. After the `last` part nothing may follow."""
        self.ended = last
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})


async def send_json(send: Send, status: int, body: Mapping[str, Any] | None, more: Headers) -> None:
    """Send a whole JSON response. `body`: None sends none."""
    data = b"" if body is None else orjson.dumps(body)
    headers = [(b"content-type", b"application/json")] if data else []
    length = (b"content-length", str(len(data)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length, *more]})
    await send({"type": "http.response.body", "body": data})
