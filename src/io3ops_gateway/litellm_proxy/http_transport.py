"""Replace `send` of httpx's two clients, through which every call of LiteLLM goes to a server.

- A failure that the fast lane has just seen is handed to LiteLLM as the outcome of its own attempt, so that the server is not asked twice.
  LiteLLM's pauses, retries and fallbacks then act as if it had made the attempt itself.
- No local server cuts a prompt unnoticed (`context_window`): its refusal is put in words that LiteLLM knows, so that fallbacks for long
  prompts act.
- A warm-up request is answered here (`canned_responses`), and nothing is sent.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from io3ops_gateway.errors import Refusal
from io3ops_gateway.litellm_proxy import canned_responses, compat, http_observer
from io3ops_gateway.litellm_proxy.token_counter import TokenCounter
from io3ops_gateway.policy import context_window
from io3ops_gateway.policy.policy import origin
from io3ops_gateway.request.attempt_outcome import AttemptOutcome
from io3ops_gateway.request.context import CURRENT, RequestContext
from io3ops_gateway.request.truncation import check_truncation

# httpx's own, read before `install` replaces them.
_send = httpx.AsyncClient.send
_send_blocking = httpx.Client.send
_counter = TokenCounter()
# One entry for each `silenced` block that runs; the whole process looks here.
_silenced: list[bool] = []


@contextmanager
def silenced() -> Iterator[None]:
    """Send no HTTP request of this process while the block runs: `canned_responses` answers, in every task and thread."""
    _silenced.append(True)
    try:
        yield
    finally:
        _silenced.pop()


def send_blocking(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
    """Stand in for `httpx.Client.send`, which LiteLLM calls in a thread for a few endpoints."""
    context = CURRENT.get()
    if _silenced or (context is not None and context.unsent):
        return canned_responses.respond(request, stream=bool(options.get("stream")))
    return _send_blocking(self, request, **options)


async def send(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
    """Stand in for `httpx.AsyncClient.send`: replay what the lane saw, and notice a prompt that was refused or cut."""
    context = CURRENT.get()
    if _silenced or (context is not None and context.unsent):
        return canned_responses.respond(request, stream=bool(options.get("stream")))
    if context is None:
        return await _send(self, request, **options)
    if not context.routing.local or request.method != "POST" or not isinstance(request.stream, httpx.ByteStream):
        return await _send_observed(self, request, context, options)
    context.routing.overlong, context.routing.truncated = None, False
    path, body, allowed = request.url.path, request.content, context.admitted.truncation == "flag"
    strict = context_window.strict(path, body)
    if strict is not None:
        request, allowed = _with_body(request, strict[0]), allowed or strict[1]
    response = _replay(context, request, stream=bool(options.get("stream")))
    response = response or await _send_observed(self, request, context, options)
    if context.routing.overlong:
        return response
    if response.status_code in context_window.REFUSING:
        sizes = context_window.refused(response.status_code, await response.aread())
        if sizes is None:
            return response
        if strict is not None and allowed:
            for shorter in context_window.shorter(path, body, *sizes):
                retried = await _send_observed(self, _with_body(request, shorter), context, options)
                if retried.status_code < 400:
                    context.routing.truncated = True
                    return retried
                await retried.aread()
        refusal = context_window.refusal(context.routing.deployment, sizes[0], sizes[1] or context.routing.window)
        return _refuse(context, request, refusal)
    if response.status_code == 200 and context.routing.window and len(body) > context.routing.window:
        if not options.get("stream"):
            return _refuse_if_cut(context, request, allowed, await response.aread()) or response
        response.stream = _CheckedStream(response.stream, context, request, allowed)
    return response


def _replay(context: RequestContext, request: httpx.Request, *, stream: bool) -> httpx.Response | None:
    """Return what the lane saw of this very attempt; None when it saw nothing of it."""
    outcome = context.routing.outcome
    if not isinstance(outcome, AttemptOutcome) or _address(str(request.url)) != _address(outcome.url):
        return None
    context.routing.outcome = None
    if outcome.deployment != context.routing.deployment:
        # LiteLLM began with another deployment of the same server, which has not been asked yet.
        return None
    if outcome.overlong:
        return _refuse(context, request, outcome.overlong)
    if not outcome.status:
        raise getattr(httpx, outcome.error)(outcome.reason, request=request)
    headers = {"content-type": outcome.content_type}
    # A replayed failure reuses the fast lane's attempt; it must not be logged twice.
    attempt = context.record.attempts[-1] if context.record.attempts else None
    if outcome.status == 200 and stream and attempt is not None:
        # A stream that ended early must end early for LiteLLM too.
        replayed = http_observer.ObservedStream(httpx.ByteStream(outcome.body), context, attempt, request.url.path)
        return httpx.Response(200, headers=headers, stream=replayed, request=request)
    return httpx.Response(outcome.status, headers=headers, content=outcome.body, request=request)


def _refuse_if_cut(
    context: RequestContext, request: httpx.Request, allowed: bool, data: bytes
) -> httpx.Response | None:
    """Return a refusal for LiteLLM when the server read only a part of the prompt; None when it read all, or may cut it."""
    refusal = _cut(context, request.content, context_window.reported_tokens(data), allowed)
    return _refuse(context, request, refusal) if refusal else None


def _cut(context: RequestContext, body: bytes, read: int | None, allowed: bool) -> Refusal | None:
    """Return the refusal for the client when the server, which reports `read` prompt tokens, has cut the prompt."""
    return check_truncation(context, context.routing.deployment, body, read, allowed=allowed, count=_counter.text)


def _refuse(context: RequestContext, request: httpx.Request, refusal: Refusal) -> httpx.Response:
    context.routing.overlong, context.routing.overflowed = refusal, True
    if context.record.attempts:
        context.record.attempts[-1].error = refusal.code
    headers = {"content-type": "application/json"}
    return httpx.Response(
        400, headers=headers, content=context_window.known(refusal, context.routing.window), request=request
    )


def _with_body(request: httpx.Request, body: bytes) -> httpx.Request:
    """Return the same request with another body, and the matching length."""
    headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"content-length"]
    return httpx.Request(request.method, request.url, headers=headers, content=body, extensions=request.extensions)


class _CheckedStream(httpx.AsyncByteStream):
    """A streamed response, whose end says how much of the prompt was read."""

    def __init__(self, inner: Any, context: RequestContext, request: httpx.Request, allowed: bool) -> None:
        self._inner = inner
        self._context = context
        self._body = request.content
        self._allowed = allowed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        tail, known, context = b"", False, self._context
        async for chunk in self._inner:
            tail = tail[-100:] + chunk
            if not known and (read := context_window.reported_tokens(tail)) is not None:
                known = True
                context.routing.overlong = _cut(context, self._body, read, self._allowed)
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _send_observed(
    self: httpx.AsyncClient, request: httpx.Request, context: RequestContext, options: dict[str, Any]
) -> httpx.Response:
    """Send a request, and record how the attempt that it belongs to goes."""
    attempt = http_observer.attempt_of(context, request)
    if attempt is None:
        return await _send(self, request, **options)
    if attempt.deployment.local:
        # For the server's own log. A cloud gets nothing that a client has chosen beside its prompt.
        request.headers["x-request-id"] = context.record.onward
    try:
        response = await _send(self, request, **options)
    except BaseException as error:
        http_observer.failed(attempt, error)
        raise
    http_observer.answered(context, attempt, response)
    return response


def install() -> None:
    """Send every request of this process's HTTP clients through this module from now on.

    Raises:
        StartError: this httpx sends requests elsewhere.
    """
    compat.SEND.replace(send)
    compat.SEND_BLOCKING.replace(send_blocking)


def _address(url: str) -> tuple[object, str]:
    return origin(url), urlsplit(url).path
