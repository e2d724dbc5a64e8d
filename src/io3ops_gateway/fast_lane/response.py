"""Relays the response of a model's server to the client. Touches the two connections that it is handed."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import aiohttp

from io3ops_gateway.asgi import Headers
from io3ops_gateway.codec import sse
from io3ops_gateway.codec.base import Call, TruncatedResponse, UnrecognisedResponse
from io3ops_gateway.errors import Refusal
from io3ops_gateway.fast_lane.upstreams import Upstream
from io3ops_gateway.request import error_responses
from io3ops_gateway.request.attempt_outcome import AttemptOutcome, Failure
from io3ops_gateway.request.context import RequestContext
from io3ops_gateway.request.error_responses import STOPPING
from io3ops_gateway.request.response_headers import x_io3_headers
from io3ops_gateway.request.truncation import check_truncation
from io3ops_shared.request_log.schema import Outcome

# Read at most this much of an unrecognised response, for at most this long, to quote it in the error.
UNRECOGNISED_BYTES, UNRECOGNISED_SECONDS = 1_000_000, 2.0
# A server that does not end its response within this time after the last event loses the connection.
END_SECONDS = 0.5
# Upper bound for one buffered response; the container has 1 GB.
RESPONSE_BYTES = 64_000_000
JSON = (b"content-type", b"application/json")
# The first two keep proxies in front of the gateway from holding a stream back.
EVENTS = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"content-type", b"text/event-stream; charset=utf-8"),
]
CUT = sse.error_event("the model's server stopped before its response was complete", "upstream_cut", "server_error")
# The first that fits names the failure; any other is a ReadError.
FAILURES: tuple[tuple[type[Exception], Failure], ...] = (
    (aiohttp.ConnectionTimeoutError, "ConnectTimeout"),
    (TimeoutError, "ReadTimeout"),
    (aiohttp.ClientConnectorError, "ConnectError"),
    (aiohttp.ServerDisconnectedError, "RemoteProtocolError"),
)


class ResponseRelay:
    """Relays the response to one `call`.

    `count`: the tokens of a text. `hide`: masks providers' keys. `cut`: the server ended its response in the middle.
    """

    def __init__(
        self,
        call: Call,
        context: RequestContext,
        upstream: Upstream,
        count: Callable[[str], int],
        hide: Callable[[bytes], bytes],
    ) -> None:
        self._call = call
        self._context = context
        self._upstream = upstream
        self._count = count
        self._hide = hide
        self._response = context.response
        self.cut = False

    async def whole(self, upstream: aiohttp.ClientResponse) -> AttemptOutcome | None:
        """Relay a response in one piece. Return its outcome when the lane cannot use it; the client has got nothing then."""
        parts, size = [], 0
        while part := await self._read(upstream):
            parts.append(part)
            size += len(part)
            if size > RESPONSE_BYTES:
                error = aiohttp.ClientPayloadError(f"the response is longer than {RESPONSE_BYTES // 1_000_000} MB")
                return failed_attempt(self._call.path, self._upstream.name, error)
        data = b"".join(parts)
        body = self._call.answer(data) if upstream.status == 200 else None
        if body is None:
            return self._outcome(upstream, data)
        if refusal := self._check_truncation():
            return replace(self._outcome(upstream, b""), status=400, overlong=refusal)
        await self._begin([JSON, (b"content-length", str(len(body)).encode())])
        await self._response.write(body, last=True)
        return None

    async def stream(self, upstream: aiohttp.ClientResponse) -> AttemptOutcome | None:
        """Relay a response event by event. Return its outcome when the lane cannot use it; the client has got nothing then."""
        if upstream.status != 200:
            return self._outcome(upstream, await _read_rest(upstream, b""))
        unrelayed = b""
        try:
            while not self._call.closed and (chunk := await self._read(upstream)):
                unrelayed = b"" if self._response.begun else unrelayed + chunk
                await self._relay(self._call.events(chunk), last=False)
                if self._call.failed:
                    self._context.record.failed(Outcome.CUT, "upstream_error")
                    break
            if not self._call.failed:
                events = self._call.end()
                if refusal := self._check_truncation():
                    self._context.record.failed(Outcome.ERROR, refusal.code)
                    events = [error_responses.error_event(refusal, self._context.admitted.endpoint)]
                await self._relay(events, last=True)
                await _read_rest(upstream, b"", END_SECONDS)
        except UnrecognisedResponse:
            if not self._response.begun:
                return self._outcome(upstream, await _read_rest(upstream, unrelayed))
            await self.announce_cut()
        except TruncatedResponse:
            if not self._response.begun:
                return self._outcome(upstream, unrelayed)
            await self.announce_cut()
        await self._finish(b"")
        return None

    def _check_truncation(self) -> Refusal | None:
        """Return the refusal that replaces a response to a part of the prompt; None when the server read all or does not say."""
        return check_truncation(
            self._context,
            self._upstream.name,
            self._call.body,
            self._call.facts.prompt,
            allowed=self._context.admitted.truncation == "flag",
            count=self._count,
        )

    async def _read(self, upstream: aiohttp.ClientResponse) -> bytes:
        """Return the next bytes, b'' at the end. aiohttp's own timeout starts anew with each byte, even of a chunk's header; this one does not."""
        try:
            async with asyncio.timeout(self._upstream.first if self._call.stream else self._upstream.timeout):
                return bytes(await upstream.content.readany())
        except (aiohttp.ClientError, TimeoutError):
            if self._call.stream and self._call.finished:
                # The response is complete, so it does not matter how the connection ends.
                return b""
            raise

    async def _relay(self, events: list[bytes], *, last: bool) -> None:
        if not events:
            return
        if not self._response.begun:
            await self._begin(EVENTS)
        if self._call.failed:
            # The server's own words, which may repeat the key that it was sent.
            events = [*events[:-1], self._hide(events[-1])]
        body = events[0] if len(events) == 1 else b"".join(events)
        await self._response.write(body, last=last)

    async def _begin(self, headers: Headers) -> None:
        context, routing = self._context, self._context.routing
        routing.attempts, routing.deployment, routing.local = 1, self._upstream.name, True
        self._response.begin(200)
        context.record.stream = self._call.stream
        context.budget.reschedule(None)
        await self._response.start([*headers, *x_io3_headers(context, 200)])

    async def announce_cut(self) -> None:
        """Tell the client of a stream that the server ended it in the middle."""
        self.cut = True
        self._context.record.failed(Outcome.CUT, "upstream_cut")
        await self._finish(CUT)

    async def announce_stop(self) -> None:
        """Tell the client of a stream that the gateway stops."""
        self._context.record.failed(Outcome.STOPPING, STOPPING.code)
        await self._finish(error_responses.error_event(STOPPING, self._context.admitted.endpoint))

    async def _finish(self, event: bytes) -> None:
        if not self._response.ended:
            await self._response.write(event, last=True)

    def _outcome(self, upstream: aiohttp.ClientResponse, body: bytes) -> AttemptOutcome:
        content_type = upstream.headers.get("content-type", "application/json")
        return AttemptOutcome(
            url=self._call.path,
            deployment=self._upstream.name,
            status=upstream.status,
            content_type=content_type,
            body=body,
        )


async def _read_rest(upstream: aiohttp.ClientResponse, data: bytes, seconds: float = UNRECOGNISED_SECONDS) -> bytes:
    """Return `data` and the rest of the response, as far as it arrives within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while len(data) < UNRECOGNISED_BYTES and (part := await upstream.content.readany()):
                data += part
    except (TimeoutError, aiohttp.ClientError):
        pass
    return data


def blames_server(status: int) -> bool:
    """Return whether a response's status speaks against the server, and not only against this one request."""
    return status < 400 or status >= 500 or status in (401, 403, 404, 408, 429)


def failed_attempt(url: str, deployment: str, error: Exception) -> AttemptOutcome:
    """Return the outcome of an attempt that ended with one of aiohttp's exceptions."""
    failure: Failure = next((name for kind, name in FAILURES if isinstance(error, kind)), "ReadError")
    return AttemptOutcome(url=url, deployment=deployment, error=failure, reason=str(error) or type(error).__name__)
