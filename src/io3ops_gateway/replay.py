"""Hands LiteLLM an outcome that the fast lane has already seen, in place of a second call to a server that just failed.

So a failure in the lane is a failure of that deployment for LiteLLM too: its pauses, retries and fallbacks act as if it had made the
attempt itself, and the server is asked once. Touches `httpx.AsyncClient.send`, through which every call of LiteLLM goes.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from io3ops_gateway import wire
from io3ops_gateway.errors import StartError
from io3ops_gateway.policy import origin
from io3ops_gateway.running import RUNNING, Running


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of the attempt of a deployment at `url`: an answer that is no use to the lane, or with `status` 0 the kind of failure."""

    url: str
    deployment: str
    status: int = 0
    content_type: str = "application/json"
    body: bytes = b""
    error: type[httpx.TransportError] = httpx.ConnectError
    reason: str = ""


_send = httpx.AsyncClient.send


async def send(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
    """In place of httpx's own, which it calls for every request without a recorded outcome."""
    running = RUNNING.get()
    outcome = running.outcome if running is not None else None
    if running is None:
        return await _send(self, request, **options)
    if not isinstance(outcome, Outcome) or _place(str(request.url)) != _place(outcome.url):
        return await _asked(self, request, running, options)
    running.outcome = None
    if outcome.deployment != running.deployment:
        # LiteLLM has begun with another one of the same server, and that was not asked yet.
        return await _asked(self, request, running, options)
    if not outcome.status:
        raise outcome.error(outcome.reason, request=request)
    headers = {"content-type": outcome.content_type}
    attempt = wire.attempt_again(running, outcome.deployment)
    if outcome.status != 200 or not options.get("stream") or attempt is None:
        return httpx.Response(outcome.status, headers=headers, content=outcome.body, request=request)
    # Watched as one from the wire: a stream that just stops is no finished one, whoever has read it first.
    response = httpx.Response(200, headers=headers, stream=httpx.ByteStream(outcome.body), request=request)
    wire.answered(running, attempt, response)
    return response


async def _asked(
    self: httpx.AsyncClient, request: httpx.Request, running: Running, options: dict[str, Any]
) -> httpx.Response:
    """A call that is made, and what is seen of it."""
    attempt = wire.attempt_of(running, request)
    if attempt is None:
        return await _send(self, request, **options)
    if attempt.place.local:
        # For the server's own log. A cloud is told nothing that a client has chosen beside its prompt.
        request.headers["x-request-id"] = running.seen.id
    try:
        response = await _send(self, request, **options)
    except BaseException as error:
        wire.failed(attempt, error)
        raise
    wire.answered(running, attempt, response)
    return response


def install() -> None:
    """From now on. Raises StartError when this httpx is not the one it is written for."""
    if not callable(getattr(httpx.AsyncClient, "send", None)):
        raise StartError("this httpx cannot be handed outcomes", "build the image with the locked version")
    httpx.AsyncClient.send = send  # type: ignore[method-assign]


def _place(url: str) -> tuple[object, str]:
    return origin(url), urlsplit(url).path
