"""An outcome of the fast lane is replayed to LiteLLM as if it came from the server."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from tests.unit.gateway.litellm_proxy.test_http_observer import CHAT, END, context, line

from io3ops_gateway.litellm_proxy import http_transport
from io3ops_gateway.request.attempt_outcome import AttemptOutcome
from io3ops_gateway.request.context import CURRENT


def replayed(body: bytes) -> bytes:
    """Return a stream that the lane did not understand, as LiteLLM reads it."""
    made = context()
    made.routing.deployment = "m.1.a"
    made.routing.outcome = AttemptOutcome(url=CHAT, deployment="m.1.a", status=200, body=body)

    async def run() -> bytes:
        token = CURRENT.set(made)
        try:
            async with httpx.AsyncClient() as client:
                response = await http_transport.send(client, httpx.Request("POST", CHAT), stream=True)
                return b"".join([part async for part in response.aiter_bytes()])
        finally:
            CURRENT.reset(token)

    return asyncio.run(run())


def test_a_complete_stream_is_replayed_completely() -> None:
    assert replayed(line(END)) == line(END)


@pytest.mark.parametrize("body", [b'{"this is": no JSON', line({"done": False}), b""])
def test_a_stream_that_just_stops_is_an_error_in_its_replay_too(body: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        replayed(body)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """What is sent, by either of httpx's clients."""
    seen: list[httpx.Request] = []

    def blocking(_client: object, request: httpx.Request, **_: object) -> httpx.Response:
        seen.append(request)
        return httpx.Response(204, request=request)

    async def asynchronous(client: object, request: httpx.Request, **options: object) -> httpx.Response:
        return blocking(client, request, **options)

    monkeypatch.setattr(http_transport, "_send", asynchronous)
    monkeypatch.setattr(http_transport, "_send_blocking", blocking)
    return seen


def asked(path: str = "/v1/chat/completions", *, stream: bool = False, unsent: bool = False) -> httpx.Response:
    """What comes of a request; of both clients the same."""
    request = httpx.Request("POST", f"https://api.example{path}")
    made = context()
    made.unsent = unsent

    async def run() -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await http_transport.send(client, request, stream=stream)

    token = CURRENT.set(made if unsent else None)
    try:
        with httpx.Client() as client:
            other = http_transport.send_blocking(client, request, stream=stream)
        found = asyncio.run(run())
    finally:
        CURRENT.reset(token)
    assert (found.status_code, found.content) == (other.status_code, other.content)
    return found


def test_a_warmup_is_answered_and_not_sent(wire: list[httpx.Request]) -> None:
    assert asked(unsent=True).json()["choices"][0]["message"]["content"] == "ok" and wire == []
    assert asked().status_code == 204 and len(wire) == 2


def test_nothing_is_sent_from_any_thread_while_http_is_silenced(wire: list[httpx.Request]) -> None:
    """LiteLLM works in threads and tasks that know nothing of a request."""
    found: list[int] = []
    with http_transport.silenced():
        thread = threading.Thread(target=lambda: found.append(asked().status_code))
        thread.start()
        thread.join()
    assert found == [200] and wire == []
    assert asked().status_code == 204 and len(wire) == 2


def test_a_canned_answer_speaks_the_api_that_is_asked() -> None:
    assert asked("/v1/responses", unsent=True).json()["output"][0]["type"] == "message"
    assert asked("/model/x/converse", unsent=True).json()["output"]["message"]["role"] == "assistant"
    assert asked("/v1beta/models/x:batchEmbedContents", unsent=True).json()["embeddings"] == [{"values": [0.5]}]
    assert asked(stream=True, unsent=True).content == b""
    event = asked("/model/x/converse-stream", stream=True, unsent=True).content
    # The length comes first, and covers all of it.
    assert int.from_bytes(event[:4], "big") == len(event) and b"messageStop" in event
