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

# The names by which this machine and its containers reach the gateway. DNS rebinding comes with another name.
HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "host.docker.internal", "gateway"})
# A whole body must arrive within this time, or a slow client would hold memory for ever.
BODY_SECONDS = 120.0
# Three bytes of JSON can take a hundred in memory, so a body of ten million empty objects would exceed the container's.
PARTS = 1_000_000
# For all bodies that a worker holds. Parsed, they take about three times as much.
BUDGET_BYTES = 96_000_000


class RequestChecks:
    """Applies the checks of `settings`. `body_budget`: shared by all requests of the worker."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._hosts = HOSTS | set(settings.hosts)
        self._origins = frozenset(settings.origins)
        self.body_budget = BodyBudget(max(BUDGET_BYTES, settings.max_body))

    def before_authentication(self, headers: Headers) -> Headers:
        """Return the headers of every response to this request (CORS).

        Raises:
            Refusal: 421 or 403, the Host or the Origin is not allowed.
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
        message = "unknown Host header; add the name to `gateway: hosts:` in runtime/routing.yaml"
        raise Refusal(421, "wrong_host", message)


def cross_origin(headers: Headers, origins: Collection[str]) -> Headers:
    """Return the CORS headers for an allowed web page; none for a client that is not one.

    Raises:
        Refusal: 403, the page's origin is not in `origins`.
    """
    origin = next((value.decode("latin-1") for name, value in headers if name == b"origin"), None)
    if origin is None:
        return []
    if origin not in origins:
        message = (
            "web pages of this origin may not call the gateway; add it to `gateway: origins:` in runtime/routing.yaml"
        )
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
            raise Refusal(503, "busy", "the gateway is busy: it holds as many request bodies as its memory allows", 1)
        self._bytes += size

    def give_back(self, size: int) -> None:
        self._bytes -= size

    @contextmanager
    def reserved(self, record: RequestRecord) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves bytes for one request. They are given back when the block ends."""

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
    """Return the request's JSON object. `limit`: bytes; `take`: called with the size of each part.

    Raises:
        Refusal: 400, 408, 413 or 415, the body is not a JSON object within the limits; or what `take` raises.
    """
    for name, value in headers:
        if name == b"content-type" and value.partition(b";")[0].strip().lower() != b"application/json":
            raise Refusal(415, "not_json", "send JSON with `Content-Type: application/json`")
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise Refusal(415, "encoded", "send the body without a Content-Encoding")
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise Refusal(415, "encoded", "unsupported Transfer-Encoding; only `chunked` is supported")
        if name == b"content-length" and not value.strip().isdigit():
            raise Refusal(400, "bad_length", "the Content-Length is not a number")
        if name == b"content-length" and int(value) > limit:
            raise _too_large(limit)
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "cut", "the connection closed before the whole body arrived")
                part = message.get("body", b"")
                take(len(part))
                data += part
                more = message.get("more_body", False)
                if len(data) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise Refusal(408, "too_slow", f"the body did not arrive within {BODY_SECONDS:g} s") from None
    if len(data) > PARTS and sum(map(data.count, (b"[", b"{", b","))) > PARTS:
        why = f"the body has more than {PARTS:,} commas and brackets, which take too much memory"
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
    """Refuse a body with a duplicate key in an object: parsers differ in which value they keep, so a data class or a model could mean
    something else to a server. `body`: `data` as parsed by orjson, which keeps the last value.

    Raises:
        Refusal: 400, naming the key; or the body is nested too deeply.
    """
    try:
        # Every pair that the parser dropped leaves at least two quotes fewer when the rest is written again. Only a quote written as
        # \u0022 changes the count as well.
        if b"\\u0022" not in data and data.count(b'"') == orjson.dumps(body).count(b'"'):
            return
        # Keep numbers as text: their values do not matter here, and parsing a long one is slow.
        json.loads(data, object_pairs_hook=_once, parse_int=str, parse_float=str)
    except (orjson.JSONEncodeError, RecursionError):
        raise Refusal(400, "too_deep", "the body is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise Refusal(400, "duplicate_key", f"{name[:40]!r} occurs twice in one object of the body; send it once")
        seen.add(name)


def _too_large(limit: int) -> Refusal:
    return Refusal(
        413,
        "too_large",
        f"the body is larger than {limit // 1_000_000} MB; `gateway: max_body_mb:` in runtime/routing.yaml sets the limit",
    )
