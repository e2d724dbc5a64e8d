"""Where every call of LiteLLM goes over the wire: `send` of httpx's two clients, which this touches.

An outcome that the fast lane has already seen is handed to LiteLLM in place of a second call to a server that just failed. So a failure
in the lane is a failure of that deployment for LiteLLM too: its pauses, retries and fallbacks act as if it had made the attempt itself.
And no local server cuts a prompt unseen (`truncation`): what it refuses is put in LiteLLM's words, so that fallbacks for long prompts act.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from io3ops_gateway.errors import Refusal, StartError
from io3ops_gateway.litellm_proxy import canned_responses, http_observer
from io3ops_gateway.litellm_proxy.token_counter import TokenCounter
from io3ops_gateway.policy import context_window
from io3ops_gateway.policy.policy import origin
from io3ops_gateway.request.attempt_outcome import AttemptOutcome
from io3ops_gateway.request.context import CURRENT, RequestContext
from io3ops_gateway.request.truncation import check_truncation

_send = httpx.AsyncClient.send
_counter = TokenCounter()
_send_blocking = httpx.Client.send
_silenced: list[bool] = []


@contextmanager
def silenced() -> Iterator[None]:
    """While the block runs, no HTTP request of this process is sent: `canned_responses` answers, in every task and thread."""
    _silenced.append(True)
    try:
        yield
    finally:
        _silenced.pop()


def send_blocking(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
    """Replaces `httpx.Client.send`, which LiteLLM calls in a thread for a few endpoints."""
    context = CURRENT.get()
    if _silenced or (context is not None and context.unsent):
        return canned_responses.respond(request, stream=bool(options.get("stream")))
    return _send_blocking(self, request, **options)


async def send(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
    """In place of httpx's own."""
    context = CURRENT.get()
    if _silenced or (context is not None and context.unsent):
        return canned_responses.respond(request, stream=bool(options.get("stream")))
    if context is None:
        return await _send(self, request, **options)
    if not context.routing.local or request.method != "POST" or not isinstance(request.stream, httpx.ByteStream):
        return await _asked(self, request, context, options)
    context.routing.overlong, context.routing.truncated = None, False
    path, body, allowed = request.url.path, request.content, context.admitted.truncation == "flag"
    ours = context_window.strict(path, body)
    if ours is not None:
        request, allowed = _with(request, ours[0]), allowed or ours[1]
    response = _recorded(context, request, stream=bool(options.get("stream"))) or await _asked(
        self, request, context, options
    )
    if context.routing.overlong:
        return response
    if response.status_code in context_window.REFUSING:
        sizes = context_window.refused(response.status_code, await response.aread())
        if sizes is None:
            return response
        if ours is not None and allowed:
            for shorter in context_window.shorter(path, body, *sizes):
                found = await _asked(self, _with(request, shorter), context, options)
                if found.status_code < 400:
                    context.routing.truncated = True
                    return found
                await found.aread()
        return _refuse(
            context,
            request,
            context_window.refusal(context.routing.deployment, sizes[0], sizes[1] or context.routing.window),
        )
    if response.status_code == 200 and context.routing.window and len(body) > context.routing.window:
        if not options.get("stream"):
            return _judged(context, request, allowed, await response.aread()) or response
        response.stream = _CheckedStream(response.stream, context, request, allowed)
    return response


def _recorded(context: RequestContext, request: httpx.Request, *, stream: bool) -> httpx.Response | None:
    """What the lane has seen of this very attempt."""
    outcome = context.routing.outcome
    if not isinstance(outcome, AttemptOutcome) or _address(str(request.url)) != _address(outcome.url):
        return None
    context.routing.outcome = None
    if outcome.deployment != context.routing.deployment:
        # LiteLLM has begun with another one of the same server, and that was not asked yet.
        return None
    if outcome.overlong:
        return _refuse(context, request, outcome.overlong)
    if not outcome.status:
        raise getattr(httpx, outcome.error)(outcome.reason, request=request)
    headers = {"content-type": outcome.content_type}
    # The lane's own: what is replayed is no attempt more.
    attempt = context.record.attempts[-1] if context.record.attempts else None
    if outcome.status == 200 and stream and attempt is not None:
        # A stream that ended without its last word is as short here as it was on the wire.
        told = http_observer.ObservedStream(httpx.ByteStream(outcome.body), context, attempt, request.url.path)
        return httpx.Response(200, headers=headers, stream=told, request=request)
    return httpx.Response(outcome.status, headers=headers, content=outcome.body, request=request)


def _judged(context: RequestContext, request: httpx.Request, allowed: bool, data: bytes) -> httpx.Response | None:
    """What LiteLLM gets in place of an answer to a part of the prompt; None: it was read, or may be cut."""
    refused = _cut(context, request.content, context_window.told(data), allowed)
    return _refuse(context, request, refused) if refused else None


def _cut(context: RequestContext, body: bytes, read: int | None, allowed: bool) -> Refusal | None:
    return check_truncation(context, context.routing.deployment, body, read, allowed=allowed, count=_counter.text)


def _refuse(context: RequestContext, request: httpx.Request, refused: Refusal) -> httpx.Response:
    context.routing.overlong, context.routing.overflowed = refused, True
    if context.record.attempts:
        context.record.attempts[-1].error = refused.code
    headers = {"content-type": "application/json"}
    return httpx.Response(
        400, headers=headers, content=context_window.known(refused, context.routing.window), request=request
    )


def _with(request: httpx.Request, body: bytes) -> httpx.Request:
    """The same request with another body, and the length that it then has."""
    headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"content-length"]
    return httpx.Request(request.method, request.url, headers=headers, content=body, extensions=request.extensions)


class _CheckedStream(httpx.AsyncByteStream):
    """An answer in parts, which says at its end how much of the prompt was read."""

    def __init__(self, inner: Any, context: RequestContext, request: httpx.Request, allowed: bool) -> None:
        self._inner = inner
        self._context = context
        self._body = request.content
        self._allowed = allowed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen, known, context = b"", False, self._context
        async for chunk in self._inner:
            seen = seen[-100:] + chunk
            if not known and (read := context_window.told(seen)) is not None:
                known = True
                context.routing.overlong = _cut(context, self._body, read, self._allowed)
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _asked(
    self: httpx.AsyncClient, request: httpx.Request, context: RequestContext, options: dict[str, Any]
) -> httpx.Response:
    """A call that is made, and what is seen of it."""
    attempt = http_observer.attempt_of(context, request)
    if attempt is None:
        return await _send(self, request, **options)
    if attempt.deployment.local:
        # For the server's own log. A cloud is told nothing that a client has chosen beside its prompt.
        request.headers["x-request-id"] = context.record.onward
    try:
        response = await _send(self, request, **options)
    except BaseException as error:
        http_observer.failed(attempt, error)
        raise
    http_observer.answered(context, attempt, response)
    return response


def install() -> None:
    """From now on. Raises StartError when this httpx is not the one it is written for."""
    if not all(callable(getattr(client, "send", None)) for client in (httpx.AsyncClient, httpx.Client)):
        raise StartError("this httpx cannot be handed outcomes", "build the image with the locked version")
    httpx.AsyncClient.send = send  # type: ignore[method-assign]
    httpx.Client.send = send_blocking  # type: ignore[method-assign]


def _address(url: str) -> tuple[object, str]:
    return origin(url), urlsplit(url).path
