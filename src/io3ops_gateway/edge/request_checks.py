"""Checks before authentication (Host, Origin), and of the body (size, time, JSON, duplicate keys).

Touches only the request it is handed.
"""

import asyncio
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from io3ops_gateway.asgi import Headers, Receive
from io3ops_gateway.errors import Refusal
from io3ops_gateway.request.record import RequestRecord
from io3ops_shared.policy import GatewaySettings

# The names by which this machine and its containers reach the gateway. A web page that points its own name here uses another.
HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "host.docker.internal", "gateway"})
# A whole body must arrive within this time: a client that sends one byte a minute would hold memory for ever.
BODY_SECONDS = 120.0
# Three bytes of JSON can take a hundred in memory: a body of ten million empty objects would kill the container.
PARTS = 1_000_000
# For all bodies that a worker holds; parsed, they take about three times as much.
BUDGET_BYTES = 96_000_000


class RequestChecks:
    """The checks that `settings` ask for. `body_budget`: shared by all requests of the worker."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._hosts = HOSTS | set(settings.hosts)
        self._origins = frozenset(settings.origins)
        self.body_budget = BodyBudget(max(BUDGET_BYTES, settings.max_body))

    def before_authentication(self, headers: Headers) -> Headers:
        """Return the headers that every response to this request carries (CORS).

        Raises:
            Refusal: 421 or 403, the Host or the Origin is not an allowed one.
        """
        check_host(headers, self._hosts)
        return cross_origin(headers, self._origins)


def check_host(headers: Headers, hosts: Collection[str]) -> None:
    """Raise Refusal when the Host header is not one of `hosts`."""
    given = [value for name, value in headers if name == b"host"]
    name = given[0].decode("latin-1").lower() if len(given) == 1 else ""
    host, _, port = name.rpartition(":")
    if not (port.isdecimal() and host and (host[0] == "[") == (host[-1] == "]")):
        host = name
    if host not in hosts:
        message = "the gateway is not called by this name; `gateway: hosts:` in runtime/routing.yaml adds one"
        raise Refusal(421, "wrong_host", message)


def cross_origin(headers: Headers, origins: Collection[str]) -> Headers:
    """Return the CORS headers for an allowed web page; none for a caller that is no web page.

    Raises:
        Refusal: 403, the page's origin is not one of `origins`.
    """
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
    """Limits the bytes of all bodies that a worker holds to `room`. A single body may be larger."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._bytes = 0

    def take(self, size: int) -> None:
        """Reserve `size` bytes. Raise Refusal (503) when too many are held: running out of memory would end every request."""
        if self._bytes and self._bytes + size > self._room:
            raise Refusal(503, "busy", "the gateway holds as many bytes of requests as it can", 1)
        self._bytes += size

    def give_back(self, size: int) -> None:
        self._bytes -= size

    @contextmanager
    def reserved(self, record: RequestRecord) -> Iterator[Callable[[int], None]]:
        """Yield a function that takes bytes of the budget for one request. They are given back when the block ends."""

        def take(size: int) -> None:
            self.take(size)
            record.bytes_in += size

        try:
            yield take
        finally:
            self.give_back(record.bytes_in)


async def read_body(
    headers: Headers, receive: Receive, limit: int, take: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """Return the request's JSON object. `limit`: bytes; `take`: is called with the size of each part that arrives.

    Raises:
        Refusal: 400, 408, 413 or 415, the body is not a JSON object within the limits; or `take` refused.
    """
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
