"""What is looked at before anybody is let in: the name the gateway is called by, the web page, the body's size and form.

Touches only the request it is handed.
"""

import asyncio
import json
from collections.abc import Callable, Collection
from typing import Any

import orjson

from io3ops_gateway.asgi import Headers, Receive
from io3ops_gateway.errors import Refusal

# Where this machine and its containers find the gateway; a web page that points its own name here is not among them.
HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "host.docker.internal", "gateway"})
# A whole body must arrive within this time: a client that sends a byte a minute holds memory, not a conversation.
BODY_SECONDS = 120.0
# Three bytes of JSON can become a hundred in memory: ten million empty objects were the end of the container.
PARTS = 1_000_000
# Of all requests of a worker together; parsed, they are some three times as large.
BUDGET_BYTES = 96_000_000


def check_host(headers: Headers, hosts: Collection[str]) -> None:
    """Raises Refusal when the gateway is called by a name that is not its own."""
    given = [value for name, value in headers if name == b"host"]
    name = given[0].decode("latin-1").lower() if len(given) == 1 else ""
    host, _, port = name.rpartition(":")
    if not (port.isdecimal() and host and (host[0] == "[") == (host[-1] == "]")):
        host = name
    if host not in hosts:
        message = "the gateway is not called by this name; `gateway: hosts:` in runtime/routing.yaml adds one"
        raise Refusal(421, "wrong_host", message)


def cross_origin(headers: Headers, origins: Collection[str]) -> Headers:
    """The headers with which an allowed web page may read the answer. A page that is not allowed is refused."""
    origin = next((value.decode("latin-1") for name, value in headers if name == b"origin"), None)
    if origin is None:
        return []
    if origin not in origins:
        message = "web pages may not call the gateway; `gateway: origins:` in runtime/routing.yaml allows one"
        raise Refusal(403, "wrong_origin", message)
    asked = next((v for n, v in headers if n == b"access-control-request-headers"), b"authorization, content-type")
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"vary", b"Origin"),
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", asked),
        (b"access-control-expose-headers", b"*"),
    ]


class BodyBudget:
    """The bytes of all requests that a worker holds. `room`: that many, or one request of the largest size."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._bytes = 0

    def take(self, size: int) -> None:
        """Raises Refusal when so many more are too many: they would end the worker, and everybody's requests with it."""
        if self._bytes and self._bytes + size > self._room:
            raise Refusal(503, "busy", "the gateway holds as many bytes of requests as it can", 1)
        self._bytes += size

    def give_back(self, size: int) -> None:
        self._bytes -= size


async def read_body(
    headers: Headers, receive: Receive, limit: int, take: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """The request's JSON object, whole and within the limits. `take`: is told of the bytes that come."""
    for name, value in headers:
        if name == b"content-type" and value.partition(b";")[0].strip().lower() != b"application/json":
            raise Refusal(415, "not_json", "send JSON with `Content-Type: application/json`")
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise Refusal(415, "encoded", "send the body as it is, without a Content-Encoding")
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise Refusal(415, "encoded", "send the body as it is; the one Transfer-Encoding taken is `chunked`")
        if name == b"content-length" and not value.strip().isdigit():
            raise Refusal(400, "bad_length", "the Content-Length is no number")
        if name == b"content-length" and int(value) > limit:
            raise _too_large(limit)
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "cut", "the request ended in the middle")
                part = message.get("body", b"")
                take(len(part))
                data += part
                more = message.get("more_body", False)
                if len(data) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise Refusal(408, "too_slow", f"the body did not arrive within {BODY_SECONDS:g} s") from None
    if len(data) > PARTS and sum(map(data.count, (b"[", b"{", b","))) > PARTS:
        why = f"a body may have {PARTS:,} commas and brackets: every part takes far more memory than text"
        raise Refusal(413, "too_many_parts", why)
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "not_json", f"the body is not JSON: {error.msg}") from None
    if not isinstance(body, dict):
        raise Refusal(400, "not_json", "the body must be a JSON object")
    check_unique(data, body)
    return body


def check_unique(data: bytes | bytearray, body: dict[str, Any]) -> None:
    """Refuse a body in which an object has one key twice: parsers keep the first, the last or both, so what its sender meant
    (a data class, a model) cannot be known. `body`: what orjson, which keeps the last, made of `data`.

    Raises:
        Refusal: 400, naming the key; or the body is nested too deeply.
    """
    try:
        # Each pair that the parser dropped leaves two quotes fewer when the rest is written again. A quote written as \u0022
        # is the one thing that changes the count otherwise.
        if b"\\u0022" not in data and data.count(b'"') == orjson.dumps(body).count(b'"'):
            return
        # Numbers stay text: how they are written says nothing here, and a long one is slow.
        json.loads(data, object_pairs_hook=_once, parse_int=str, parse_float=str)
    except (orjson.JSONEncodeError, RecursionError):
        raise Refusal(400, "too_deep", "the body is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise Refusal(400, "duplicate_key", f"{name[:40]!r} stands twice in one object of the body; send it once")
        seen.add(name)


def _too_large(limit: int) -> Refusal:
    return Refusal(
        413, "too_large", f"a request may have {limit // 1_000_000} MB; `gateway: max_body_mb:` changes that"
    )
