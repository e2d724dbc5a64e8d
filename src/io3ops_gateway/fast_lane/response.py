"""The response of a model's server on its way to the client."""

import asyncio
from dataclasses import replace

import aiohttp
import httpx

from io3ops_gateway.asgi import Headers
from io3ops_gateway.codec import sse
from io3ops_gateway.codec.base import Call, TruncatedResponse, UnrecognisedResponse
from io3ops_gateway.errors import Refusal
from io3ops_gateway.fast_lane.upstreams import Upstream
from io3ops_gateway.litellm_proxy import http_transport
from io3ops_gateway.litellm_proxy.http_transport import Outcome
from io3ops_gateway.request import responses
from io3ops_gateway.request.context import RequestContext
from io3ops_gateway.request.responses import STOPPING

# Of an answer that begins with what is not understood: enough for an error.
UNRECOGNISED_BYTES, UNRECOGNISED_SECONDS = 1_000_000, 2.0
# After the last word: so long a server may take to end its answer, or the connection is not used again.
END_SECONDS = 0.5
# More than any model says; the container has not much more.
ANSWER_BYTES = 64_000_000
JSON = (b"content-type", b"application/json")
# Proxies before us must not hold a stream back.
EVENTS = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"content-type", b"text/event-stream; charset=utf-8"),
]
GONE = sse.error_event("the model's server ended in the middle of its answer", "upstream_cut", "server_error")


class ResponseRelay:
    """The upstream's answer on its way to the client."""

    def __init__(self, call: Call, context: RequestContext, upstream: Upstream) -> None:
        self._call = call
        self._context = context
        self._upstream = upstream
        self._response = context.response
        self.cut = False

    async def whole(self, got: aiohttp.ClientResponse) -> Outcome | None:
        """An answer in one piece; what it came to when that is of no use."""
        parts, size = [], 0
        while part := await self._next(got):
            parts.append(part)
            size += len(part)
            if size > ANSWER_BYTES:
                return failed_attempt(
                    self._call.path, self._upstream.name, aiohttp.ClientPayloadError("the answer has no end")
                )
        data = b"".join(parts)
        body = self._call.answer(data) if got.status == 200 else None
        if body is None:
            return self._outcome(got, data)
        if refused := self._overlong():
            return replace(self._outcome(got, b""), status=400, overlong=refused)
        await self._begin([JSON, (b"content-length", str(len(body)).encode())])
        await self._response.write(body, last=True)
        return None

    async def stream(self, got: aiohttp.ClientResponse) -> Outcome | None:
        """An answer in events, handed on as they come."""
        if got.status != 200:
            return self._outcome(got, await _rest(got, b""))
        seen = b""
        try:
            while not self._call.closed and (chunk := await self._next(got)):
                seen = b"" if self._response.begun else seen + chunk
                await self._pass(self._call.events(chunk), last=False)
                if self._call.failed:
                    self._context.record.failed("cut", "upstream_error")
                    break
            if not self._call.failed:
                events = self._call.end()
                if refused := self._overlong():
                    self._context.record.failed("error", refused.code)
                    events = [responses.error_event(refused, self._context.admitted.endpoint)]
                await self._pass(events, last=True)
                await _rest(got, b"", END_SECONDS)
        except UnrecognisedResponse:
            if self._response.begun:
                await self.broken()
                return None
            return self._outcome(got, await _rest(got, seen))
        except TruncatedResponse:
            if not self._response.begun:
                return self._outcome(got, seen)
            await self.broken()
            return None
        await self._finish()
        return None

    def _overlong(self) -> Refusal | None:
        """What to say in place of an answer to a part of the prompt, by a server that says how much it read."""
        allowed = self._context.admitted.truncation == "flag"
        return http_transport.cut(self._context, self._upstream.name, self._call.body, self._call.facts.prompt, allowed)

    async def _next(self, got: aiohttp.ClientResponse) -> bytes:
        """What comes next. aiohttp's own clock stops at a malformed chunk; this one does not."""
        try:
            async with asyncio.timeout(self._upstream.first if self._call.stream else self._upstream.timeout):
                return bytes(await got.content.readany())
        except (aiohttp.ClientError, TimeoutError):
            if self._call.stream and self._call.finished:
                # All was said; how the connection ends says nothing.
                return b""
            raise

    async def _pass(self, events: list[bytes], *, last: bool) -> None:
        if not events:
            return
        if not self._response.begun:
            await self._begin(EVENTS)
        body = events[0] if len(events) == 1 else b"".join(events)
        await self._response.write(body, last=last)

    async def _finish(self) -> None:
        if not self._response.ended:
            await self._response.write(b"", last=True)

    async def _begin(self, headers: Headers) -> None:
        context = self._context
        routing = context.routing
        routing.attempts, routing.deployment, routing.local = 1, self._upstream.name, True
        self._response.begin(200)
        context.record.stream = self._call.stream
        context.budget.reschedule(None)
        await self._response.start([*headers, *responses.facts(context, 200)])

    async def broken(self) -> None:
        """The server has gone in the middle: a stream says so, a whole answer had not begun."""
        self.cut = True
        self._context.record.failed("cut", "upstream_cut")
        await self._event(GONE)

    async def tell(self) -> None:
        """The gateway ends."""
        self._context.record.failed("stopping", STOPPING.code)
        await self._event(responses.error_event(STOPPING, self._context.admitted.endpoint))

    async def _event(self, event: bytes) -> None:
        if not self._response.ended:
            await self._response.write(event, last=True)

    def _outcome(self, got: aiohttp.ClientResponse, body: bytes) -> Outcome:
        kind = got.headers.get("content-type", "application/json")
        return Outcome(
            url=self._call.path, deployment=self._upstream.name, status=got.status, content_type=kind, body=body
        )


async def _rest(got: aiohttp.ClientResponse, seen: bytes, seconds: float = UNRECOGNISED_SECONDS) -> bytes:
    """What an answer goes on with that is not understood, or over; as far as it comes soon."""
    try:
        async with asyncio.timeout(seconds):
            while len(seen) < UNRECOGNISED_BYTES and (part := await got.content.readany()):
                seen += part
    except (TimeoutError, aiohttp.ClientError):
        pass
    return seen


def blames(status: int) -> bool:
    """Whether an answer's status speaks against the server, and not against this one request."""
    return status < 400 or status >= 500 or status in (401, 403, 404, 408, 429)


def failed_attempt(url: str, deployment: str, error: Exception) -> Outcome:
    """A failed attempt in httpx's words, which are LiteLLM's."""
    kinds: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
        (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
        (TimeoutError, httpx.ReadTimeout),
        (aiohttp.ClientConnectorError, httpx.ConnectError),
        (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    )
    kind = next((theirs for ours, theirs in kinds if isinstance(error, ours)), httpx.ReadError)
    return Outcome(url=url, deployment=deployment, error=kind, reason=str(error) or type(error).__name__)
