"""What LiteLLM's calls look like on the wire: when they begin and end, what Ollama says of its times, whether an answer was whole.

LiteLLM itself tells of the first failed attempt only, takes a stream that just stops for a finished one, and drops Ollama's timings.
Touches the responses that it is handed; keeps numbers, and for a moment the last bytes of a stream.
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

# The end of a stream: more than the last line of most. Of a longer one only its end is looked at.
TAIL = 16_384
_LAST_WORD = re.compile(rb'\[DONE\]|"finish_reason": ?"|"error"')
NUMBERS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def attempt_of(context: RequestContext, request: httpx.Request) -> Attempt | None:
    """The attempt that a request on the wire belongs to. LiteLLM also fetches what is none, such as what a server says of a model."""
    attempts = context.record.attempts
    found = attempts[-1] if attempts else None
    url = str(request.url)
    if (
        found is None
        or request.method != "POST"
        or url.endswith("/api/show")
        or origin(url) != origin(found.deployment.url)
    ):
        return None
    # Its client sends once more, by itself and at once, what did not reach a server or got no answer; a prompt that was too long goes again, cut.
    return context.record.attempt(found.deployment) if found.ended and found.error else found


def failed(attempt: Attempt, error: BaseException) -> None:
    """No answer came."""
    attempt.end(error=AttemptError.STOPPED if not isinstance(error, Exception) else type(error).__name__)


def answered(context: RequestContext, attempt: Attempt, response: httpx.Response) -> None:
    """An answer has come, or begun."""
    status = response.status_code
    attempt.status = status
    if status != 200:
        attempt.end(error=f"http_{status}" if status >= 400 else "")
    elif not response.is_closed and not response.is_stream_consumed:
        if isinstance(response.stream, httpx.AsyncByteStream):
            # Bytes as they come: packed ones say nothing here, and a good end among them would look like none.
            packed = response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")
            path = "" if packed else urlsplit(str(response.request.url)).path
            response.stream = ObservedStream(response.stream, context, attempt, path)
    else:
        attempt.end()
        if attempt.deployment.local:
            note(context, attempt, parsed(response.content))


def note(context: RequestContext, attempt: Attempt, found: dict[str, Any]) -> None:
    """What an answer, or a stream's last word, says in numbers."""
    counted, usage = context.record.usage, found.get("usage")
    if "prompt_eval_count" in found:
        attempt.timings = {name: found[name] for name in NUMBERS if isinstance(found.get(name), int)}
        counted.count(found["prompt_eval_count"], found.get("eval_count", 0))
        counted.finish(found.get("done_reason"))
    elif isinstance(usage, dict):
        counted.count(usage.get("prompt_tokens"), usage.get("completion_tokens", 0))


class ObservedStream(httpx.AsyncByteStream):
    """A stream on its way to LiteLLM. `path`: of the request; '' when nothing can be read from the bytes.

    Raises:
        httpx.RemoteProtocolError: a local server ended it before its last word.
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
            self._end(tail, AttemptError.STOPPED if not isinstance(error, Exception) else type(error).__name__)
            raise
        if self._attempt.deployment.local and not self._end(tail, ""):
            self._attempt.error = AttemptError.CUT
            raise httpx.RemoteProtocolError("the model's server ended in the middle of its answer")
        self._attempt.end()

    def _end(self, tail: bytes, error: str) -> bool:
        """The stream is over. Returns whether its last word was heard; of one in no known words, that is not asked."""
        self._attempt.end(error=error)
        lines = [line for line in tail.split(b"\n") if line.strip()]
        if self._path.endswith(("/api/chat", "/api/generate")):
            last = parsed(lines[-1]) if lines else {}
            note(self._context, self._attempt, last)
            if len(lines) == 1 and len(tail) == TAIL:
                # A line that is longer than what is kept of it, as of a server that streams all in one: whole, when it ends as one does.
                return tail.rstrip().endswith(b"}")
            return last.get("done") is True or "error" in last
        if self._path.endswith("/completions"):
            for found in reversed([parsed(line.removeprefix(b"data:")) for line in lines[-8:]]):
                if isinstance(found.get("usage"), dict):
                    note(self._context, self._attempt, found)
                    break
            return any(_LAST_WORD.search(line) for line in lines[-8:])
        return True

    async def aclose(self) -> None:
        self._attempt.end()
        await self._stream.aclose()
