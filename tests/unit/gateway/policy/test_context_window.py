"""Over-long prompts: how Ollama is asked, how servers refuse, which shorter bodies are tried, and when a silent cut is assumed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.unit.gateway.contexts import a_context

from io3ops_gateway.litellm_proxy import http_transport
from io3ops_gateway.litellm_proxy.app import FullPath
from io3ops_gateway.policy import context_window
from io3ops_gateway.request.attempt_outcome import AttemptOutcome
from io3ops_gateway.request.context import CURRENT, RequestContext
from io3ops_gateway.request.response_headers import x_io3_headers

CHAT, EMBED, SERVED = "http://r/api/chat", "http://r/api/embed", "http://r/v1/chat/completions"
EXACT = json.dumps({"error": json.dumps({"error": {"code": 400, "message": "request (600 tokens) exceeds the available context size (512 tokens), try increasing it", "type": "exceed_context_size_error"}})}).encode()  # fmt: skip


def words(text: str) -> int:
    """A tokenizer that is easily foreseen."""
    return len(text.split())


# -- pure


def test_ollama_is_asked_to_refuse_instead_of_cutting() -> None:
    found = context_window.strict("/api/chat", b'{"model":"a"}')
    assert found and json.loads(found[0]) == {"model": "a", "truncate": False, "shift": False} and not found[1]
    found = context_window.strict("/api/embed", b'{"model":"a"}')
    assert found and json.loads(found[0]) == {"model": "a", "truncate": False}


def test_a_client_that_wants_a_cut_is_noticed_and_still_refused_at_first() -> None:
    found = context_window.strict("/prefix/api/embed", b'{"truncate": true, "input": ["x"]}')
    assert found and json.loads(found[0])["truncate"] is False and found[1]
    for body in (b'{"input":["\\"truncate\\":true"]}', b'{"truncate":false}', b'{"input":{"truncate":true}}'):
        found = context_window.strict("/api/embed", body)
        assert found and not found[1]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/show", "/api/chat/completions", "/api/tags"])
def test_nothing_is_added_to_other_calls(path: str) -> None:
    assert context_window.strict(path, b"{}") is None


@pytest.mark.parametrize(
    ("status", "said", "sizes"),
    [
        (400, EXACT, (600, 512)),
        (400, b'{"error":"the input length exceeds the context length"}', (0, 0)),
        (400, b'{"error":"the prompt is longer than the context length currently available to the model; shorten"}', (0, 0)),
        (400, b"This model's maximum context length is 4096 tokens. However, you requested 9000 tokens", (0, 4096)),
        (400, b"The decoder prompt (length 9000) is longer than the maximum model length of 4096.", (0, 4096)),
        (400, b"The input (9000 tokens) is longer than the model's context length (4096 tokens).", (0, 0)),
        (422, b"`inputs` tokens + `max_new_tokens` must be <= 4096", (0, 0)),
        (500, b"The number of tokens to keep from the initial prompt is greater than the context length", (0, 0)),
        (400, b'{"error":"model does not support tools"}', None),
        (404, EXACT, None),
        (200, EXACT, None),
    ],
)  # fmt: skip
def test_refusals_of_every_server_are_recognised(status: int, said: bytes, sizes: tuple[int, int] | None) -> None:
    assert context_window.refused(status, said) == sizes


def test_one_long_message_is_shortened_to_its_end() -> None:
    """The end of it, half a window at first, and always with the `shift` with which the model is loaded."""
    body = json.dumps({"model": "a", "messages": [{"role": "user", "content": "x" * 1000 + "end"}]}).encode()
    asked = [json.loads(b) for b in context_window.shorter("/api/chat", body, 1003, 100)]
    assert [len(a["messages"][0]["content"]) for a in asked] == [50, 25, 10]
    assert all(a["messages"][0]["content"].endswith("end") and not a["shift"] and not a["truncate"] for a in asked)


def test_old_messages_are_dropped_first_and_system_messages_stay() -> None:
    messages = [{"role": r, "content": r * 100} for r in ("system", "user", "assistant", "user")]
    asked = [
        json.loads(b) for b in context_window.shorter("/api/chat", json.dumps({"messages": messages}).encode(), 0, 0)
    ]
    assert asked[0] == {"messages": messages, "truncate": True, "shift": False}
    assert [m["role"] for m in asked[1]["messages"]] == ["system", "user"] and not asked[1]["truncate"]
    assert list(context_window.shorter("/api/chat", b'{"messages":[]}', 0, 0)) == []
    (embedded,) = context_window.shorter("/api/embed", b'{"input":["x"],"truncate":false}', 0, 0)
    assert json.loads(embedded) == {"input": ["x"], "truncate": True}


@pytest.mark.parametrize(
    ("text", "window", "read", "found"),
    [
        ("w " * 200, 100, 60, 200),
        ("w " * 200, 100, 190, 0),
        ("w " * 90, 100, 10, 0),
        ("w " * 200, 0, 10, 0),
        ("w" * 3000, 100, 10, 0),
        ("w " * 5000, 100, 50, 5000),
    ],
)
def test_a_cut_is_assumed_when_the_prompt_cannot_fit_and_less_was_read(
    text: str, window: int, read: int, found: int
) -> None:
    for fields in ({"messages": [{"role": "user", "content": text}]}, {"prompt": text}, {"input": [text, "short"]},
                   {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}):  # fmt: skip
        close = context_window.estimate(json.dumps(fields).encode(), window, read, words)
        assert abs(close - found) <= 1


def test_a_prompt_that_surely_fits_is_not_counted() -> None:
    def never(_: str) -> int:
        raise AssertionError

    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}
    for content in ("hello", [image, {"type": "text", "text": "hello"}]):
        body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
        assert context_window.estimate(body, 100, 1, never) == 0
    assert context_window.estimate(json.dumps({"input": [[1, 2, 3]] * 900}).encode(), 100, 1, never) == 0
    many = {"input": ["short"] * 900}
    assert context_window.estimate(json.dumps(many).encode(), 100, 1, never) == 0, (
        "each input has the window for itself"
    )


def test_the_message_says_what_to_do_and_litellm_recognises_its_form() -> None:
    refused = context_window.refusal("a.1.m", 600, 512)
    assert (refused.status, refused.code) == (400, "context_length_exceeded")
    assert "600 tokens" in refused.message and "512" in refused.message and "context:" in refused.message
    for window in (0, 512):
        said = context_window.known(refused, window)
        assert (
            context_window.KNOWN in json.loads(said)["error"]["message"]
            and context_window.refused(400, said) is not None
        )


# -- on the wire


class Server:
    """In place of httpx's own `send`: gives prepared answers, keeps what was asked."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    async def __call__(self, _client: Any, request: httpx.Request, **_: Any) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        answer.request = request
        return answer

    def bodies(self) -> list[dict[str, Any]]:
        assert all(int(r.headers["content-length"]) == len(r.content) for r in self.asked)
        return [json.loads(r.content) for r in self.asked]


class Parts(httpx.AsyncByteStream):
    def __init__(self, *parts: bytes) -> None:
        self.parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part


@pytest.fixture
def context() -> Iterator[RequestContext]:
    found = a_context()
    found.routing.deployment, found.routing.window = "m.1.a", 512
    token = CURRENT.set(found)
    yield found
    CURRENT.reset(token)


def ask(
    monkeypatch: pytest.MonkeyPatch, server: Server, url: str, body: dict[str, Any], **options: Any
) -> httpx.Response:
    monkeypatch.setattr(http_transport, "_send", server)
    monkeypatch.setattr(http_transport._counter, "text", words)

    async def sent() -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await http_transport.send(client, httpx.Request("POST", url, json=body), **options)

    return asyncio.run(sent())


LONG = {"model": "a", "messages": [{"role": "user", "content": "w " * 600}]}


def test_a_refusal_becomes_one_that_litellm_knows(monkeypatch: pytest.MonkeyPatch, context: RequestContext) -> None:
    server = Server(httpx.Response(400, content=EXACT))
    got = ask(monkeypatch, server, CHAT, LONG)
    assert got.status_code == 400 and context_window.KNOWN in got.json()["error"]["message"]
    assert server.bodies() == [LONG | {"truncate": False, "shift": False}]
    assert context.routing.overlong and context.routing.overflowed and not context.routing.truncated


def test_other_failures_pass_unchanged(monkeypatch: pytest.MonkeyPatch, context: RequestContext) -> None:
    got = ask(monkeypatch, Server(httpx.Response(400, json={"error": "no tools"})), CHAT, LONG)
    assert got.json() == {"error": "no tools"} and not context.routing.overlong


def test_a_prompt_that_may_be_cut_is_sent_again_and_flagged(
    monkeypatch: pytest.MonkeyPatch, context: RequestContext
) -> None:
    context.admitted = replace(context.admitted, truncation="flag")
    server = Server(httpx.Response(400, content=EXACT), httpx.Response(200, json={"ok": 1}))
    assert ask(monkeypatch, server, CHAT, LONG).status_code == 200
    assert context.routing.truncated and not context.routing.overlong and len(server.asked) == 2
    assert all(body["shift"] is False for body in server.bodies())
    server = Server(*(httpx.Response(400, content=EXACT) for _ in range(4)))
    assert ask(monkeypatch, server, CHAT, LONG).status_code == 400
    assert context.routing.overlong and not context.routing.truncated, (
        "a system prompt that alone is too long cannot be cut"
    )


def test_the_lanes_refusal_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch, context: RequestContext) -> None:
    context.routing.outcome = AttemptOutcome(url=CHAT, deployment="m.1.a", status=400, body=EXACT)
    server = Server()
    assert ask(monkeypatch, server, CHAT, LONG).status_code == 400 and context.routing.overlong and not server.asked
    context.routing.outcome = AttemptOutcome(url=CHAT, deployment="m.1.a", status=400, body=EXACT)
    context.admitted = replace(context.admitted, truncation="flag")
    server = Server(httpx.Response(200, json={}))
    assert (
        ask(monkeypatch, server, CHAT, LONG).status_code == 200 and len(server.asked) == 1 and context.routing.truncated
    )


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("read", [256, 600])
def test_a_silent_cut_is_noticed(
    monkeypatch: pytest.MonkeyPatch, context: RequestContext, flag: bool, read: int
) -> None:
    context.admitted = replace(context.admitted, truncation="flag" if flag else "refuse")
    answer = {"choices": [], "usage": {"prompt_tokens": read}}
    got = ask(monkeypatch, Server(httpx.Response(200, json=answer)), SERVED, LONG)
    cut = read == 256
    assert got.status_code == (400 if cut and not flag else 200)
    assert (bool(context.routing.overlong), context.routing.truncated) == (cut and not flag, cut and flag)


@pytest.mark.parametrize("read", [256, 600])
def test_a_stream_that_was_cut_is_known_before_it_ends(
    monkeypatch: pytest.MonkeyPatch, context: RequestContext, read: int
) -> None:
    parts = (b'data: {"choices":[]}\n\n', b'data: {"usage":{"prompt_to', b'kens": %d}}\n\n' % read, b"data: [DONE]\n\n")
    got = ask(
        monkeypatch, Server(httpx.Response(200, stream=Parts(*parts))), SERVED, LONG | {"stream": True}, stream=True
    )

    async def rest() -> None:
        async for part in got.aiter_raw():
            if part.startswith(b"data: [DONE]"):
                assert bool(context.routing.overlong) == (read == 256)

    asyncio.run(rest())
    assert bool(context.routing.overlong) == (read == 256)


def test_a_cloud_is_left_alone(monkeypatch: pytest.MonkeyPatch, context: RequestContext) -> None:
    context.routing.local = False
    server = Server(httpx.Response(400, content=EXACT))
    assert ask(monkeypatch, server, CHAT, LONG).content == EXACT and server.bodies() == [LONG]


def test_a_cut_that_the_lane_saw_keeps_its_message(monkeypatch: pytest.MonkeyPatch, context: RequestContext) -> None:
    said = context_window.refusal("m.1.a", 600, 512, counted=False)
    context.routing.outcome = AttemptOutcome(url=SERVED, deployment="m.1.a", status=400, overlong=said)
    got = ask(monkeypatch, Server(), SERVED, LONG)
    assert (
        got.status_code == 400 and context.routing.overlong is said and said.message in got.json()["error"]["message"]
    )


# -- for the client


def full() -> FullPath:
    async def app(*_: Any) -> None:
        raise AssertionError

    return FullPath(app, "key", bytes, str)


@pytest.mark.parametrize("known", [True, False])
def test_litellms_error_becomes_openais_without_the_prompt(context: RequestContext, known: bool) -> None:
    context.routing.overlong = context_window.refusal("m.1.a", 600, 512) if known else None
    body = b'{"error":{"message":"litellm.ContextWindowExceededError: secret words of the prompt","code":"400"}}'
    status, answer = full().revised(context, 400, body, None)
    error = json.loads(answer)["error"]
    assert error["code"] == "context_length_exceeded" and b"secret" not in answer and b"litellm" not in answer
    assert ("600 tokens" in error["message"]) == known and status == 400
    other = b'{"error":{"message":"no tools"}}'
    assert full().revised(context, 400, other, None) == (400, other)


@pytest.mark.parametrize(
    "last", [b"data: [DONE]\n\n", b"event: message_stop\ndata: {}\n\n", b"event: response.completed\ndata: {}\n\n"]
)
def test_the_end_of_a_cut_stream_is_an_error(context: RequestContext, last: bytes) -> None:
    path = full()
    assert path.event(context, last) == last
    context.routing.overlong = context_window.refusal("m.1.a", 600, 512)
    assert path.event(context, b"data: {}\n\n") == b"data: {}\n\n"
    assert b"context_length_exceeded" in path.event(context, last)


def test_a_flag_is_a_header(context: RequestContext) -> None:
    assert b"x-io3-truncated" not in dict(x_io3_headers(context, 200))
    context.routing.truncated = True
    assert dict(x_io3_headers(context, 200))[b"x-io3-truncated"] == b"true"
