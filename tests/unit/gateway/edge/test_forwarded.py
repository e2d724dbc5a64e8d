"""What is forwarded to LiteLLM: fields, headers, formats, and how its failure or a disconnect ends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.edge.house import House, a_mode

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.policy.policy import Policy
from io3ops_gateway.request_log.recorder import RequestRecorder


def test_only_known_fields_are_handed_on_and_the_others_are_listed(house: House) -> None:
    body = {
        "model": "near", "messages": [{"role": "user", "content": "x"}], "temperature": 0, "stream": True,
        "fallbacks": ["open"], "api_base": "https://evil", "api_key": "sk-x", "mock_response": "x", "num_retries": 9,
        "metadata": {"a": 1}, "litellm_metadata": {}, "tags": ["a"], "extra_body": {"api_base": "https://evil"},
        "new\r\nx-evil: 1": 1,
    }  # fmt: skip
    found = house.ask(body=body)
    assert house.inner.bodies == [{k: body[k] for k in ("model", "messages", "temperature", "stream")}]
    assert found.headers["x-io3-ignored"] == "api_base,api_key,fallbacks,mock_response,new??x-evil: 1,num_retries"


def test_the_list_of_ignored_fields_is_bounded(house: House) -> None:
    fields: dict[str, Any] = {f"{'x' * 100}{i}": 1 for i in range(1000)}
    assert len(house.chat(**fields).headers["x-io3-ignored"]) <= 500
    assert "x-io3-ignored" not in house.chat().headers


def test_only_known_headers_are_handed_on_with_the_inner_key_and_without_a_query(house: House) -> None:
    given = [
        (b"accept", b"text/event-stream"), (b"anthropic-version", b"2023-06-01"), (b"anthropic-beta", b"x"),
        (b"content-type", b"application/json; charset=utf-8"), (b"content-length", b"35"), (b"transfer-encoding", b"chunked"),
        (b"x-litellm-timeout", b"1"), (b"x-litellm-tags", b"a"), (b"x-litellm-api-key", b"sk-owner"), (b"x-io3-data-class", b"internal"),
        (b"x-api-key", b"sk-owner"), (b"api-key", b"sk-owner"), (b"openai-organization", b"o"), (b"cookie", b"c"), (b"x-forwarded-for", b"1.1.1.1"),
        (b"x-forwarded-host", b"evil"), (b"x-original-url", b"/key/generate"), (b"x-rewrite-url", b"/ui"), (b"forwarded", b"host=evil"),
        (b"user-agent", b"u"), (b"traceparent", b"t"), (b"connection", b"upgrade"), (b"upgrade", b"h2c"), (b"expect", b"100-continue"),
        (b"origin", b"http://localhost:3000"), (b"referer", b"r"), (b"langfuse_trace_id", b"x"),
    ]  # fmt: skip
    found = house.ask(
        headers=given, query_string=b"api-version=1&model=open&key=sk-owner", root_path="", client=("127.0.0.1", 1)
    )
    assert found.status == 200
    (scope,) = house.inner.scopes
    length = len(json.dumps(house.inner.bodies[0], separators=(",", ":")))
    assert sorted(scope["headers"]) == sorted(
        [
            (b"accept", b"text/event-stream"),
            (b"anthropic-version", b"2023-06-01"),
            (b"anthropic-beta", b"x"),
            (b"content-type", b"application/json"),
            (b"content-length", str(length).encode()),
            (b"host", b"localhost"),
            (b"authorization", b"Bearer sk-inside"),
        ]
    )
    assert scope["query_string"] == b""
    assert b"sk-owner" not in repr(scope).encode()


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"open","model":"near","messages":[]}',
        b'{"model":"quiet:internal","model":"quiet:public","messages":[]}',
        b'{"model":"quiet","mod\\u0065l":"quiet:public","messages":[]}',
        b'{"model":"quiet","messages":[],"metadata":{"data_class":"internal","data_class":"public"}}',
        b'{"model":"quiet","messages":[],"metadata":{"data_class":"internal","data\\u005fclass":"public"}}',
        b'{"model":"quiet","messages":[],"metadata":{"data_class":"internal"},"metadata":{"data_class":"public"}}',
        b'{"model":"quiet","messages":[],"metadata":{"data_class":"internal"},"metadata":null}',
        b'{"model":"quiet","messages":[],"extra_body":{"tags":["internal"],"tags":[]}}',
        b'{"model":"quiet","messages":[{"role":"user","content":"a","content":"b"}]}',
        # Escaped quotes elsewhere must not hide the missing ones.
        b'{"model":"quiet","messages":[{"role":"user","content":"\\u0022\\u0022\\u0022\\u0022"}],"data_class":"internal","data_class":"public"}',
        b'{"model":"quiet","messages":[{"role":"user","content":"\\"\\""}],"data_class":"internal","data_class":"public"}',
    ],
)
def test_a_body_with_a_duplicate_key_is_refused(house: House, body: bytes) -> None:
    """Parsers take the first, the last or both: where such a prompt may go cannot be known."""
    found = house.ask(body=body)
    assert (found.status, found.code) == (400, "duplicate_key") and house.inner.bodies == []


@pytest.mark.parametrize(
    "content",
    [
        "\\u0022model\\u0022:\\u0022",
        '\\"model\\":1,\\"model\\":2',
        "\\\\\\\\u0022",
        "\\u00e9\\n\\t\\/",
        "\\ud83d\\ude00",
    ],
)
def test_quotes_and_escapes_in_a_prompt_are_not_duplicate_keys(house: House, content: str) -> None:
    body = f'{{"model":"near","seed":1.50,"messages":[{{"role":"user","content":"{content}"}},{{"role":"user","content":""}}]}}'
    assert house.ask(body=body.encode()).status == 200
    assert house.inner.bodies[0]["messages"][0]["content"] == json.loads(f'"{content}"')


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("base64", "AAAAPwAAoL8="), ("float", [0.5, -1.25]), (None, [0.5, -1.25])],
)
def test_embeddings_through_litellm_have_the_format_that_was_asked_for(
    house: House, wanted: str | None, expected: object
) -> None:
    """LiteLLM drops the field for Ollama and hands on a list."""

    async def answer(_scope: Message, _receive: Receive, send: Send) -> None:
        data = json.dumps({"object": "list", "model": "m", "data": [{"index": 0, "embedding": [0.5, -1.25]}]}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data[:9], "more_body": True})
        await send({"type": "http.response.body", "body": data[9:]})

    house.inner.does = answer
    asked = {"model": "vec", "input": "x"} | ({"encoding_format": wanted} if wanted else {})
    found = house.ask("/v1/embeddings", asked)
    assert found.status == 200 and found.body["data"] == [{"index": 0, "embedding": expected}]
    assert found.headers["content-length"] == str(len(found.data))


def test_an_unknown_format_of_embeddings_is_refused(house: House) -> None:
    found = house.ask("/v1/embeddings", {"model": "vec", "input": "x", "encoding_format": "int8"})
    assert (found.status, found.code) == (400, "bad_request") and "encoding_format" in found.body["error"]["message"]


@pytest.mark.parametrize(
    ("error", "begun", "said"),
    [
        (RuntimeError("a secret"), False, ("error", "RuntimeError")),
        (RuntimeError("a secret"), True, ("cut", "RuntimeError")),
        (asyncio.CancelledError(), True, ("stopping", "CancelledError")),
    ],
)
def test_an_unexpected_error_is_logged_as_one(
    house: House, error: BaseException, begun: bool, said: tuple[str, str]
) -> None:
    lines: list[bytes] = []

    async def broken(_scope: Message, _receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    house.edge._recorder = RequestRecorder(lines.append, Nothing())
    house.edge._backend.full_path._app = broken
    with pytest.raises(type(error)):
        house.chat()
    (line,) = map(json.loads, lines)
    assert (line["outcome"], line["error"]) == said and b"secret" not in lines[0]


class Nothing:
    """A recorder that wants nothing."""

    def wants(self, *_: object) -> bool:
        return False

    def keep(self, *_: object) -> bool:
        return False

    def close(self, seconds: float = 1.0) -> bool:
        return True


def test_a_disconnect_cancels_the_call_and_frees_its_place(house: House) -> None:
    ended: list[str] = []

    async def forever(_scope: Message, _receive: Receive, _send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    house.inner.does = forever
    # The server throws this answer away: there is nobody.
    assert house.ask(leaves=True).status == 504 and ended == ["cancelled"]


def test_after_the_body_the_app_receives_only_the_disconnect(house: House) -> None:
    heard: list[Message] = []

    async def listen(_scope: Message, receive: Receive, send: Send) -> None:
        heard.append(await receive())
        await house.inner.answer({}, receive, send)

    house.inner.does = listen
    house.ask(leaves=True)
    assert heard == [{"type": "http.disconnect"}]


def test_the_mode_is_applied(tmp_path: Path) -> None:
    modes = {"m": a_mode("m", forced={"max_tokens": 5}, system_prompt="P", denied=("tools",))}
    house = House(tmp_path, Policy(modes=modes, aliases={}))
    house.ask("/v1/responses", {"model": "m", "input": "x", "store": True})
    assert house.inner.bodies == [
        {"model": "m", "input": "x", "store": False, "max_output_tokens": 5, "instructions": "P"}
    ]
    assert house.ask(body={"model": "m", "messages": [], "tools": [{}]}).code == "tools_not_allowed"


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "background", "prompt"])
def test_a_conversation_kept_by_a_provider_is_refused(house: House, name: str) -> None:
    found = house.ask("/v1/responses", {"model": "open", "input": "x", name: "x"})
    assert (found.status, found.code) == (400, "stateless") and house.inner.scopes == []
