"""The full path's responses: a provider's key is removed from what may have come from it, and from nothing else."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.gateway.contexts import a_context

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.litellm_proxy.app import FullPath
from io3ops_gateway.request.response_writer import ResponseWriter

KEY = b"sk-real"
JSON, STREAM = (b"content-type", b"application/json"), (b"content-type", b"text/event-stream")


def hide(body: bytes) -> bytes:
    return body.replace(KEY, b"***")


def respond(status: int, header: tuple[bytes, bytes], *parts: bytes, leaves: bool, attempts: int = 1) -> bytes:
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
            context = a_context(budget, may_leave=leaves)
            context.response = ResponseWriter(send, [])
            context.routing.attempts = attempts
            await FullPath(app, "inner", hide, str)({"type": "http", "headers": []}, context, {"model": "m"})

    asyncio.run(serve())
    body = b"".join(message.get("body", b"") for message in sent)
    lengths = [value for name, value in sent[0]["headers"] if name == b"content-length"]
    assert lengths in ([], [str(len(body)).encode()])
    return body


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize(
    ("status", "attempts"), [(401, 1), (500, 2), (200, 2)], ids=["error", "late error", "fallback"]
)
def test_a_response_that_is_held_is_searched_for_keys_only_when_its_prompt_may_leave(
    status: int, attempts: int, leaves: bool
) -> None:
    """Errors of a provider repeat keys. What looks like a key in a local response is the user's own text."""
    body = respond(status, JSON, b'{"error":{"message":"sk', b'-real is wrong"}}', leaves=leaves, attempts=attempts)
    assert (KEY in body, b"***" in body) == (not leaves, leaves)


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize(
    ("header", "part"),
    [
        (STREAM, b'data: {"choices":[{"delta":{"content":"sk-real"}}]}\n\n'),
        (STREAM, b'data: {"error":{"message":"sk-real is wrong"}}\n\n'),
        (JSON, b'{"choices":[{"message":{"content":"sk-real"}}]}'),
    ],
    ids=["text", "error", "not a stream"],
)
def test_a_response_that_is_passed_on_is_searched_for_keys_only_when_its_prompt_may_leave(
    header: tuple[bytes, bytes], part: bytes, leaves: bool
) -> None:
    assert respond(200, header, part, leaves=leaves) == (hide(part) if leaves else part)
