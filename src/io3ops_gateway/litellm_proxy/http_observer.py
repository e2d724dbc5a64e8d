"""Observe LiteLLM's calls at the HTTP client: when they begin and end, Ollama's timings, and whether a response was complete.

LiteLLM itself reports only the first failed attempt, takes a stream that just stops for a finished one, and drops Ollama's timings.
Touches the responses that it is handed; keeps numbers and, while a stream runs, its last bytes.
"""

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from io3ops_gateway.policy.policy import origin
from io3ops_gateway.request.context import RequestContext
from io3ops_gateway.request.payload import parsed
from io3ops_gateway.request.record import Attempt
from io3ops_shared.request_log.schema import AttemptError

# Bytes kept of a stream's end: more than most last lines have. Of a longer line only the end is read.
TAIL = 16_384
_LAST_WORD = re.compile(rb'\[DONE\]|"finish_reason": ?"|"error"')
NUMBERS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def attempt_of(context: RequestContext, request: httpx.Request) -> Attempt | None:
    """Return the attempt that a request belongs to; None for LiteLLM's other requests, such as a model's description."""
    attempts = context.record.attempts
    current = attempts[-1] if attempts else None
    url = str(request.url)
    if (
        current is None
        or request.method != "POST"
        or url.endswith("/api/show")
        or origin(url) != origin(current.deployment.url)
    ):
        return None
    # LiteLLM's client immediately repeats a request that got no response; a prompt that was too long is sent again, shorter.
    return context.record.attempt(current.deployment) if current.ended and current.error else current


def failed(attempt: Attempt, error: BaseException) -> None:
    """Record that no response came."""
    attempt.end(error=_kind(error))


def answered(context: RequestContext, attempt: Attempt, response: httpx.Response) -> None:
    """Record a response that is complete, or observe the rest of one that has begun."""
    status = response.status_code
    attempt.status = status
    if status != 200:
        attempt.end(error=f"http_{status}" if status >= 400 else "")
    elif not response.is_closed and not response.is_stream_consumed:
        if isinstance(response.stream, httpx.AsyncByteStream):
            # The stream is observed as it arrives: the end of a compressed one cannot be read, and must not be taken for a cut.
            encoded = response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")
            path = "" if encoded else urlsplit(str(response.request.url)).path
            response.stream = ObservedStream(response.stream, context, attempt, path)
    else:
        attempt.end()
        if attempt.deployment.local:
            note(context, attempt, parsed(response.content))


def note(context: RequestContext, attempt: Attempt, payload: dict[str, Any]) -> None:
    """Record the numbers of a response, or of a stream's last event."""
    counted, usage = context.record.usage, payload.get("usage")
    if "prompt_eval_count" in payload:
        attempt.timings = {name: payload[name] for name in NUMBERS if isinstance(payload.get(name), int)}
        counted.count(payload["prompt_eval_count"], payload.get("eval_count", 0))
        counted.finish(payload.get("done_reason"))
    elif isinstance(usage, dict):
        counted.count(usage.get("prompt_tokens"), usage.get("completion_tokens", 0))


class ObservedStream(httpx.AsyncByteStream):
    """A stream on its way to LiteLLM. `path`: the request's; "" when the bytes cannot be read.

    Raises:
        httpx.RemoteProtocolError: a local server ended it too early.
    """

    def __init__(self, stream: httpx.AsyncByteStream, context: RequestContext, attempt: Attempt, path: str) -> None:
        self._stream = stream
        self._context = context
        self._attempt = attempt
        self._path = path

    async def __aiter__(self) -> AsyncIterator[bytes]:
        tail = b""
        try:
            async for part in self._stream:
                tail = (tail + part)[-TAIL:]
                yield part
        except GeneratorExit:
            self._end(tail, "")
            raise
        except BaseException as error:
            self._end(tail, _kind(error))
            raise
        if self._attempt.deployment.local and not self._end(tail, ""):
            self._attempt.error = AttemptError.CUT
            raise httpx.RemoteProtocolError("the model's server ended in the middle of its answer")
        self._attempt.end()

    def _end(self, tail: bytes, error: str) -> bool:
        """Record the stream's end. Return whether it was complete; True for a protocol whose end is not known."""
        self._attempt.end(error=error)
        lines = [line for line in tail.split(b"\n") if line.strip()]
        if self._path.endswith(("/api/chat", "/api/generate")):
            last = parsed(lines[-1]) if lines else {}
            note(self._context, self._attempt, last)
            if len(lines) == 1 and len(tail) == TAIL:
                # A whole response in one line, of which only the end is kept: it is complete when a brace closes it.
                return tail.rstrip().endswith(b"}")
            return last.get("done") is True or "error" in last
        if self._path.endswith("/completions"):
            for event in reversed([parsed(line.removeprefix(b"data:")) for line in lines[-8:]]):
                if isinstance(event.get("usage"), dict):
                    note(self._context, self._attempt, event)
                    break
            return any(_LAST_WORD.search(line) for line in lines[-8:])
        return True

    async def aclose(self) -> None:
        self._attempt.end()
        await self._stream.aclose()


def _kind(error: BaseException) -> str:
    """Name a failure for the request log; a call that was cancelled did not fail by itself."""
    return type(error).__name__ if isinstance(error, Exception) else AttemptError.STOPPED
