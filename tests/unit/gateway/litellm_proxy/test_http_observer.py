"""What is recorded of LiteLLM's calls. Above all, a complete response is never taken for one that was cut."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from tests.unit.gateway.contexts import a_context

from io3ops_gateway.litellm_proxy import http_observer
from io3ops_gateway.request.context import RequestContext
from io3ops_gateway.request.record import Attempt
from io3ops_shared.policy import Deployment

HERE = Deployment(name="m.1.a", provider="local", local=True, url="http://runtime:11434", model="a")
CHAT = "http://runtime:11434/api/chat"
OPENAI = "http://runtime:11434/v1/chat/completions"
END = {"model": "m", "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2, "total_duration": 5}


def context() -> RequestContext:
    made = a_context()
    made.record.attempt(HERE)
    return made


class Parts(httpx.AsyncByteStream):
    def __init__(self, parts: Sequence[bytes]) -> None:
        self.parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part


def stream(url: str, *parts: bytes, **headers: str) -> tuple[RequestContext, Attempt, bytes]:
    """A streamed answer as LiteLLM reads it. Raises what it would be told."""
    made = context()
    request = httpx.Request("POST", url)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx.Response(200, headers=headers, stream=Parts(parts), request=request)
    attempt = http_observer.attempt_of(made, request)
    assert attempt is not None
    http_observer.answered(made, attempt, response)

    async def read() -> bytes:
        return b"".join([part async for part in response.aiter_bytes()])

    return made, attempt, asyncio.run(read())


def line(found: dict[str, Any]) -> bytes:
    return json.dumps(found).encode() + b"\n"


@pytest.mark.parametrize(
    "parts",
    [
        [line({"done": False}), line(END)],
        [line({"done": False}), line(END).rstrip()],
        [line({"done": False}) + line(END)[:20], line(END)[20:]],
        [line({"done": False}), line({"error": "it ends"})],
        # All in one line, as some servers send a stream.
        [line(END | {"message": {"content": "x" * 50_000}})],
        [line({"done": False}), line(END | {"context": list(range(50_000))}).rstrip()],
    ],
)
def test_an_ollama_stream_with_its_last_line_is_complete(parts: list[bytes]) -> None:
    _, attempt, data = stream(CHAT, *parts)
    assert data == b"".join(parts) and not attempt.error and attempt.ended


@pytest.mark.parametrize(
    "last",
    [
        b"data: [DONE]\n\n",
        b"data: [DONE]",
        b": a comment\n\n: another\n\n",
        b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n',
        b"",
    ],
)
def test_an_openai_stream_with_a_finish_reason_is_complete(last: bytes) -> None:
    parts = [b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\r\n\r\n', last]
    _, attempt, data = stream(OPENAI, *parts)
    assert data == b"".join(parts) and not attempt.error


@pytest.mark.parametrize(("url", "last"), [(CHAT, line(END)), (OPENAI, b"data: [DONE]\n\n")])
def test_a_compressed_stream_is_never_taken_for_a_cut_one(url: str, last: bytes) -> None:
    """A proxy before a local server may compress its stream: LiteLLM accepts that."""
    compressed = gzip.compress(b"data: x\n\n" * 10 + last)
    _, attempt, data = stream(url, compressed[:10], compressed[10:], content_encoding="gzip")
    assert data.endswith(last) and not attempt.error and attempt.ended


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        (CHAT, [line({"done": False})]),
        (CHAT, [line({"done": False}), line(END)[:-10]]),
        (CHAT, [line({"done": False}), line({"message": {"content": "x" * 50_000}})[:-10]]),
        (CHAT, []),
        (OPENAI, [b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":null}]}\n\n']),
        (OPENAI, []),
    ],
)
def test_a_stream_that_just_stops_is_an_error(url: str, parts: list[bytes]) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        stream(url, *parts)


def test_tokens_and_timings_are_those_of_the_last_line() -> None:
    made, attempt, _ = stream(CHAT, line({"done": False}), line(END))
    assert (made.record.usage.prompt, made.record.usage.completion, made.record.usage.finish_reason) == (3, 2, "stop")
    assert attempt.timings == {"total_duration": 5}


def test_a_request_that_is_repeated_is_another_attempt() -> None:
    """LiteLLM's client repeats a request within one attempt of the router; the answered attempt must not keep the first one's error."""
    made = context()
    request = httpx.Request("POST", CHAT)
    first = http_observer.attempt_of(made, request)
    assert first is made.record.attempts[0] and http_observer.attempt_of(made, request) is first
    http_observer.failed(first, httpx.ConnectError("x"))
    second = http_observer.attempt_of(made, request)
    assert second is not None and second is not first and made.record.attempts == [first, second]
    http_observer.answered(made, second, httpx.Response(200, json=END, request=request))
    assert (first.error, second.error, second.status, made.record.usage.prompt) == ("ConnectError", "", 200, 3)
    assert http_observer.attempt_of(made, request) is second, "it has answered, so a later request is no new attempt"


@pytest.mark.parametrize(
    ("method", "url"), [("GET", CHAT), ("POST", "http://runtime:11434/api/show"), ("POST", "http://elsewhere/api/chat")]
)
def test_a_request_that_calls_no_model_is_no_attempt(method: str, url: str) -> None:
    assert http_observer.attempt_of(context(), httpx.Request(method, url)) is None
