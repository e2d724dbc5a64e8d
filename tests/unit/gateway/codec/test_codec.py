"""The codec: every case in pieces of any size, hostile bytes, requests that are not plain, and where it differs from LiteLLM on purpose."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import codec_cases, codec_cases_openai
from tests.codec_cases import CALL, NAMED, STREAM, TOOL, USAGE, Case, Targets, call, last, part, user
from tests.codec_compare import said, seen

from io3ops_gateway.codec.base import Call, Reply, TruncatedResponse, UnrecognisedResponse
from io3ops_gateway.policy import endpoints

TARGETS = Targets("http://upstream")
CASES = [*codec_cases.ollama(), *codec_cases_openai.openai()]
CHAT: dict[str, Any] = {"model": "oll", "messages": [user()]}
OAI: dict[str, Any] = {"model": "oai", "messages": [user()]}
QUICK = settings(max_examples=60, deadline=None)


def made(body: dict[str, Any], path: str = "chat/completions") -> Call:
    found = call(Case("", path, body, b""), TARGETS)
    assert found is not None, body
    return found


def deltas(data: bytes) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in seen(data) if isinstance(chunk, dict) and chunk.get("choices")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_any_pieces_give_the_same_events(case: Case) -> None:
    once = call(case, TARGETS)
    assert once is not None
    whole = said(once, case.data)
    assert (whole is None) == case.full
    for size in (1, 7) if once.stream and len(case.data) < 4000 else ():
        again = call(case, TARGETS)
        assert again is not None and said(again, case.data, size) == whole


def test_a_chat_from_ollama() -> None:
    asked = made(CHAT | {"max_tokens": 5, "temperature": 0})
    assert asked.path == "http://upstream/api/chat"
    assert json.loads(asked.body) == {
        "model": "a:latest",
        "messages": [{"role": "user", "content": "hello", "images": []}],
        "options": {"temperature": 0, "num_ctx": 2048, "num_predict": 5},
        "stream": False,
        "truncate": False,
        "shift": False,
        "keep_alive": "7m",
    }
    answer = asked.answer(last("hi", "length"))
    assert answer and json.loads(answer) == {
        "id": "chatcmpl-00000000-0000-4000-8000-000000000001",
        "created": codec_cases.NOW,
        "model": "oll",
        "object": "chat.completion",
        "choices": [{"finish_reason": "length", "index": 0, "message": {"content": "hi", "role": "assistant"}}],
        "usage": {"completion_tokens": 2, "prompt_tokens": 3, "total_tokens": 5},
    }
    assert (asked.facts.prompt, asked.facts.completion, asked.facts.finish_reason) == (3, 2, "length")
    assert asked.facts.timings["total_duration"] == 5 and len(asked.facts.timings) == 6


def test_a_stream() -> None:
    asked = made(CHAT | USAGE)
    head = (
        b'data: {"id":"00000000-0000-4000-8000-000000000001","object":"chat.completion.chunk","created":1700000000,'
        b'"model":"oll","choices":[{"index":0,"delta":'
    )
    assert asked.events(part("h\u00e9")) == [head + '{"content":"h\u00e9","role":"assistant"}}]}\n\n'.encode()]
    assert asked.events(part(" y")[:-3]) == [] and not asked.finished
    fresh = made(CHAT | USAGE)
    assert fresh.events(part("a") + last()) == [
        head + b'{"content":"a","role":"assistant"}}]}\n\n',
        head + b'{},"finish_reason":"stop"}]}\n\n',
    ]
    assert fresh.finished and fresh.end() == [
        head + b'{}}],"usage":{"completion_tokens":2,"prompt_tokens":3,"total_tokens":5,'
        b'"completion_tokens_details":{"reasoning_tokens":0,"text_tokens":2}}}\n\n',
        b"data: [DONE]\n\n",
    ]
    assert (fresh.facts.prompt, fresh.facts.completion) == (3, 2)


NOT_PLAIN: list[dict[str, Any]] = [
    {"temperature": True},
    {"temperature": "0.5"},
    {"temperature": [1]},
    {"max_tokens": 1.5},
    {"max_tokens": True},
    {"stop": [1]},
    {"stop": {"a": 1}},
    {"seed": 1.0},
    {"n": 2},
    {"n": True},
    {"user": 5},
    {"stream": 1},
    {"stream": "true"},
    {"stream_options": {"include_usage": 1}},
    {"stream_options": {"other": True}},
    {"stream_options": []},
    {"functions": [{"name": "f"}]},
    {"function_call": "auto"},
    {"audio": {"voice": "x"}},
    {"modalities": ["text"]},
    {"prediction": {}},
    {"web_search_options": {}},
    {"thinking": {"type": "enabled"}},
    {"tools": [{"type": "web_search"}]},
    {"tools": [{"name": "f"}]},
    {"tools": {"type": "function"}},
    {"tool_choice": "weather"},
    {"tool_choice": {"type": "any"}},
    {"tool_choice": ["auto"]},
    {"response_format": "json"},
    {"response_format": {"type": "grammar"}},
    {"response_format": {"type": ["text"]}},
    {"logit_bias": [1]},
    {"unheard_of": 1},
    {"messages": []},
    {"messages": None},
    {"messages": "hello"},
    {"messages": ["hello"]},
    {"messages": [{}]},
    {"messages": [{"role": "function", "name": "f", "content": "x"}]},
    {"messages": [{"role": ["user"], "content": "x"}]},
    {"messages": [{"role": "user", "content": 5}]},
    {"messages": [{"role": "user", "content": {"text": "x"}}]},
    {"messages": [user([{"type": "text"}])]},
    {"messages": [user([{"type": "file", "file": {}}])]},
    {"messages": [user([{"type": "image_url", "image_url": {"url": "https://x/y.png"}}])]},
    {"messages": [user([{"type": "image_url", "image_url": "data:image/png;base64,AA"}])]},
    {"messages": [user("x", foo=1)]},
    {"messages": [user("x", cache_control={"type": "ephemeral"})]},
    {"messages": [user("x", thinking_blocks=[])]},
    {"messages": [user("x", tool_call_id=1)]},
    {"messages": [user("x", reasoning_content=1)]},
    {"messages": [{"role": "assistant", "tool_calls": "x"}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"type": "custom"}]}]},
]  # fmt: skip


@pytest.mark.parametrize("mode", ["oll", "oai"])
@pytest.mark.parametrize("more", NOT_PLAIN, ids=repr)
def test_not_plain(mode: str, more: dict[str, Any]) -> None:
    assert call(Case("", "chat/completions", CHAT | more | {"model": mode}, b""), TARGETS) is None


@pytest.mark.parametrize(
    "arguments", ["", "no json", "[]", '"x"', "null", '{"a": NaN}', '{"a": 1' + "0" * 30 + "}", "[" * 9000]
)
def test_tool_arguments_that_ollama_cannot_take_are_not_plain(arguments: str) -> None:
    messages = [user(), {"role": "assistant", "tool_calls": [codec_cases.used(arguments)]}]
    assert call(Case("", "chat/completions", CHAT | {"messages": messages}, b""), TARGETS) is None


def test_not_plain_elsewhere() -> None:
    for path, body in (
        ("completions", {"model": "oll", "prompt": [1, 2]}),
        ("completions", {"model": "oll", "prompt": []}),
        ("completions", {"model": "oll"}),
        ("completions", {"model": "oll", "prompt": "x", "messages": [user()]}),
        ("completions", {"model": "oai", "prompt": ["a", "b"]}),
        ("completions", {"model": "oai", "prompt": "x", "echo": True}),
        ("completions", {"model": "oai", "prompt": "x", "logprobs": 2}),
        ("completions", {"model": "oai"}),
        ("embeddings", {"model": "embed", "input": [1]}),
        ("embeddings", {"model": "embed", "input": [["a"]]}),
        ("embeddings", {"model": "embed", "input": {"a": 1}}),
        ("embeddings", {"model": "embed"}),
        ("embeddings", {"model": "embed", "input": "x", "dimensions": "2"}),
        ("embeddings", {"model": "embed2", "input": "x", "encoding_format": "x"}),
        ("chat/completions", {"model": "oai", "messages": [user()], "logprobs": True}),
        ("embeddings", {"model": "oll", "input": "x"}),
        ("chat/completions", {"model": "embed", "messages": [user()]}),
        ("responses", {"model": "oll", "input": "x"}),
        ("messages", {"model": "oai", "messages": [user()], "max_tokens": 1}),
    ):
        assert call(Case("", path, body, b""), TARGETS) is None, body


@pytest.mark.parametrize("model", ["gpt-4o", "openai/o3-mini", "gpt-5", "my-gpt-5", "ft:x", "text-embedding-3-small"])
def test_openais_own_models_are_not_plain(model: str) -> None:
    targets = Targets("http://upstream")
    target = targets.found["oai"]
    targets.found["oai"] = type(target)(kind=target.kind, task=target.task, url=target.url, model=model)
    assert call(Case("", "chat/completions", OAI, b""), targets) is None


# -- where the codec is not LiteLLM's twin


def test_two_tool_calls_in_two_chunks_stay_two() -> None:
    """LiteLLM gives both the index 0, and clients put their arguments together."""
    answer = said(made(CHAT | STREAM), part(tool_calls=[CALL]) + part(tool_calls=[NAMED]) + last())
    assert answer and [call["index"] for delta in deltas(answer) for call in delta.get("tool_calls", [])] == [0, 1]


def test_a_tool_without_arguments_has_an_id() -> None:
    bare = {"function": {"name": "f", "arguments": {}}}
    answer = said(made(CHAT | STREAM), part(tool_calls=[bare]) + last())
    assert answer and deltas(answer)[0]["tool_calls"][0]["id"]


@pytest.mark.parametrize("text", ["data: [DONE]", "a\x85b", "a\x1cb", "a\u2028b"])
def test_text_that_litellm_loses_is_kept(text: str) -> None:
    """It takes a word for the end of the stream, and more characters for the end of a line than JSON does."""
    answer = said(made(CHAT | STREAM), part(text) + last())
    assert answer and deltas(answer)[0]["content"] == text


def test_a_cut_stream_has_no_finish_reason() -> None:
    """LiteLLM calls it a good end when the connection was closed in order."""
    for body, data in ((CHAT, part("a")), (OAI, codec_cases_openai.X)):
        asked = made(body | STREAM)
        assert len(asked.events(data)) == 1 and asked.begun
        with pytest.raises(TruncatedResponse):
            asked.end()
        nothing = made(body | STREAM)
        with pytest.raises(TruncatedResponse):
            nothing.end()
        assert not nothing.begun
        half = made(body | STREAM)
        assert half.events(data.rstrip()) == []
        with pytest.raises(TruncatedResponse):
            half.end()
        assert not half.begun


@pytest.mark.parametrize(
    ("body", "good", "bad"),
    [
        (CHAT, part("a"), b'{"error":"boo"}\n'),
        (OAI, codec_cases_openai.X, b'data: {"error":{"message":"boo"}}\n\n'),
    ],
)
def test_an_error_in_a_stream(body: dict[str, Any], good: bytes, bad: bytes) -> None:
    asked = made(body | STREAM)
    with pytest.raises(UnrecognisedResponse, match="boo"):
        asked.events(bad)
    asked = made(body | STREAM)
    asked.events(good)
    (event,) = asked.events(bad + good)
    assert event.startswith(b'data: {"error":{"message":"the model\'s server reported an error: boo"') and asked.failed
    assert asked.events(good) == [] and asked.end() == []


def test_a_model_that_repeats_itself_is_stopped() -> None:
    asked = made(CHAT | STREAM)
    events = asked.events(part("abc") * 200)
    assert len(events) == 101 and b"repeating" in events[-1] and asked.failed and asked.end() == []


def test_unreported_usage_is_unknown() -> None:
    """LiteLLM would count the tokens of a stream itself; the upstream's own number is taken, and none for none."""
    bare = json.loads(last())
    for name in ("eval_count", "prompt_eval_count"):
        bare.pop(name)
    answer = said(made(CHAT | USAGE), part("a") + json.dumps(bare).encode())
    assert answer and seen(answer)[-2]["usage"]["total_tokens"] == 0
    assert made(CHAT).answer(json.dumps(bare).encode()) is None


def test_reasoning_tokens_are_counted_only_with_a_counter() -> None:
    target, body = TARGETS.found["oll"], CHAT | USAGE
    reply = Reply(asked="oll", now=1, new_id=codec_cases.Ids())
    asked = codec_cases.CODECS["ollama"](endpoints.CHAT, body, target, reply)
    assert asked
    answer = said(asked, part(thinking="t") + part("a") + last())
    assert answer and "completion_tokens_details" not in seen(answer)[-2]["usage"]


# -- anything at all

OLLAMAS = [part("a"), part(thinking="t"), part(tool_calls=[CALL]), last(), b"\n", b"{", b'{"error":1}\n', part(5)]
OPENAIS = [
    codec_cases_openai.X, codec_cases_openai.STOP, codec_cases_openai.USED, codec_cases_openai.DONE, b"data: 5\n", b"data: {}\n"
]  # fmt: skip
WORDS = st.sampled_from([*OLLAMAS, *OPENAIS])
SOUP = st.lists(st.one_of(st.binary(max_size=20), WORDS, WORDS.map(lambda data: data[: len(data) // 2])), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BODIES = (CHAT, OAI, CHAT | USAGE, OAI | USAGE)


@QUICK
@given(SOUP, st.sampled_from(BODIES))
def test_any_bytes_give_events_or_are_unrecognised(pieces: list[bytes], body: dict[str, Any]) -> None:
    asked = made(body | STREAM)
    try:
        events = [event for piece in pieces for event in asked.events(piece)]
        events += asked.end()
    except (UnrecognisedResponse, TruncatedResponse):
        return
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") for event in events)
    assert not asked.failed or events[-1].startswith(b'data: {"error"')


@QUICK
@given(SOUP, st.sampled_from(BODIES))
def test_pieces_do_not_matter(pieces: list[bytes], body: dict[str, Any]) -> None:
    found: list[tuple[bytes | bool, type[Exception | None]]] = []
    for given_so in (pieces, [b"".join(pieces)]):
        asked = made(body | STREAM)
        events: list[bytes] = []
        try:
            for piece in given_so:
                events += asked.events(piece)
            events += asked.end()
        except (UnrecognisedResponse, TruncatedResponse) as error:
            found.append((asked.begun, type(error)))
        else:
            found.append((b"".join(events), type(None)))
    assert found[0] == found[1]


@QUICK
@given(
    JSON,
    st.sampled_from([codec_cases.WHOLE["calls"], codec_cases_openai.WHOLE["calls"], codec_cases_openai.WHOLE["vllm"]]),
    st.data(),
)
def test_any_response_is_recognised_or_not(value: Any, good: bytes, data: st.DataObject) -> None:
    """Somewhere in a good answer stands something else."""
    found = json.loads(good)
    _replace(found, value, data)
    written = json.dumps(found, allow_nan=True).encode()
    for body in (CHAT, OAI):
        answer = made(body).answer(written)
        assert answer is None or json.loads(answer)["model"] == body["model"]
        streamed = made(body | STREAM)
        assert said(streamed, written.replace(b"\n", b"") + b"\n") is None or streamed.begun


@QUICK
@given(JSON, st.sampled_from([CHAT, OAI]), st.data())
def test_any_request_is_plain_or_not(value: Any, base: dict[str, Any], data: st.DataObject) -> None:
    talk = [
        user([{"type": "text", "text": "x"}]),
        {"role": "assistant", "content": None, "tool_calls": [codec_cases.used("{}")]},
    ]
    body = json.loads(json.dumps(base | {"messages": talk, "tools": [TOOL], "stop": ["a"], "temperature": 1} | USAGE))
    _replace(body, value, data)
    body["model"] = base["model"]
    found = call(Case("", "chat/completions", body, b""), TARGETS)
    assert found is None or isinstance(json.loads(found.body), dict)


def _replace(tree: Any, value: Any, data: st.DataObject) -> None:
    """Put `value` somewhere into `tree`."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if not isinstance(tree[key], dict | list) or data.draw(st.booleans()):
            tree[key] = value
            return
        tree = tree[key]
