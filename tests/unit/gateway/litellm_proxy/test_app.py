"""The full path's responses: no provider's key reaches a client, and nothing else is changed."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.gateway.contexts import a_context

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.litellm_proxy import sse_events
from io3ops_gateway.litellm_proxy.app import FullPath
from io3ops_gateway.request.context import RequestContext
from io3ops_gateway.request.response_writer import ResponseWriter
from io3ops_shared.request_log.schema import Outcome

KEY = b"sk-real"
JSON, STREAM = (b"content-type", b"application/json"), (b"content-type", b"text/event-stream")


def hide(body: bytes) -> bytes:
    return body.replace(KEY, b"***")


def respond(
    status: int,
    header: tuple[bytes, bytes],
    *parts: bytes,
    leaves: bool,
    attempts: int = 1,
    context: RequestContext | None = None,
) -> bytes:
    """Return what the client gets when LiteLLM responds so."""
    sent: list[Message] = []

    async def app(_scope: Message, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b'{"model":"m"}'
        await send({"type": "http.response.start", "status": status, "headers": [header]})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Message) -> None:
        sent.append(message)

    async def serve() -> None:
        async with asyncio.timeout(None) as budget:
            served = context or a_context(may_leave=leaves)
            served.budget = budget
            served.response = ResponseWriter(send, [])
            served.routing.attempts = attempts
            await FullPath(app, "inner", hide, str)({"type": "http", "headers": []}, served, {"model": "m"})

    asyncio.run(serve())
    body = b"".join(message.get("body", b"") for message in sent)
    lengths = [value for name, value in sent[0]["headers"] if name == b"content-length"]
    assert lengths in ([], [str(len(body)).encode()])
    return body


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize(("status", "attempts"), [(401, 1), (500, 2)], ids=["error", "late error"])
def test_an_error_repeats_no_key(status: int, attempts: int, leaves: bool) -> None:
    """Servers repeat keys in their errors, also those of the user's own network."""
    body = respond(status, JSON, b'{"error":{"message":"sk', b'-real is wrong"}}', leaves=leaves, attempts=attempts)
    assert KEY not in body and b"***" in body


TEXT = b'data: {"choices":[{"delta":{"content":"sk-real"}}]}\n\n'


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize(
    ("header", "part", "attempts"),
    [
        (STREAM, TEXT, 1),
        (STREAM, TEXT.replace(b"\n", b"\r\n"), 1),
        (JSON, b'{"choices":[{"message":{"content":"sk-real"}}]}', 1),
        (JSON, b'{"choices":[{"message":{"content":"sk-real"}}]}', 2),
        ((b"content-type", b"text/plain"), b"sk-real", 1),
    ],
    ids=["text", "lines of Windows", "not a stream", "fallback", "not JSON"],
)
def test_a_text_is_searched_for_keys_only_when_its_prompt_may_leave(
    header: tuple[bytes, bytes], part: bytes, attempts: int, leaves: bool
) -> None:
    """What looks like a key in a local model's text is the user's own. However the network cuts a response, a key is found."""
    right = hide(part) if leaves else part
    for cut in range(len(part) + 1):
        assert respond(200, header, part[:cut], part[cut:], leaves=leaves, attempts=attempts) == right
    apart = [part[i : i + 1] for i in range(len(part))]
    assert respond(200, header, *apart, leaves=leaves, attempts=attempts) == right


@pytest.mark.parametrize("leaves", [True, False])
def test_an_error_within_a_stream_is_seen_however_it_is_cut(leaves: bool) -> None:
    text = b'data: {"choices":[]}\n\n'
    error = b'data: {"error":{"message":"sk-real is wrong"}}\n\n'
    for cut in range(len(text + error)):
        parts = (text + error)[:cut], (text + error)[cut:]
        context = a_context(may_leave=leaves)
        assert respond(200, STREAM, *parts, leaves=leaves, context=context) == text + hide(error)
        assert context.record.outcome == Outcome.CUT


def test_a_stream_that_ends_within_an_event_is_passed_on() -> None:
    body = b'data: {"choices":[]}\n\ndata: {"cho'
    assert respond(200, STREAM, body[:30], body[30:], leaves=True) == body


def test_an_event_without_an_end_cuts_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_events, "EVENT_BYTES", 1000)
    context = a_context(may_leave=True)
    body = respond(200, STREAM, b"data: a\n\n", b"data: " + b"b" * 2000, b"c", leaves=True, context=context)
    first, error = body.removesuffix(b"\n\n").split(b"\n\n")
    assert first == b"data: a" and b"endless event" in error and b"bbb" not in body
    assert context.response.ended and context.record.outcome == Outcome.CUT
