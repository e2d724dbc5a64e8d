"""Requests and prepared answers of servers that speak OpenAI's own API: vLLM's, llama.cpp's and Ollama's ways to fill it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.codec_cases import FIELDS, STREAM, TALKS, TOOL, USAGE, Case, used, user

CHAT_FIELDS: dict[str, dict[str, Any]] = FIELDS | {
    "max_completion": {"max_completion_tokens": 6},
    "max_both": {"max_completion_tokens": 5, "max_tokens": 7},
    "no_logprobs": {"logprobs": False},
    "dropped_too": {"verbosity": "low", "user": "me"},
    "handed": {"safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "auto"},
    "text": {"response_format": {"type": "text"}},
    "json": {"response_format": {"type": "json_object"}},
    "schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
    "tools": {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": True},
    "tools_strict": {"tools": [{**TOOL, "strict": True}, {"type": "function", "function": {"name": "bare"}}]},
    "tools_required": {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    "tools_one": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    "tools_none": {"tools": [], "tool_choice": "none"},
    "choice_alone": {"tool_choice": "auto", "parallel_tool_calls": True},
    "effort": {"reasoning_effort": "low"},
    "effort_none": {"reasoning_effort": "none"},
    "template": {"chat_template_kwargs": {"enable_thinking": False}},
    "guided": {"guided_json": {"type": "object"}, "guided_regex": "a", "guided_choice": ["a"], "guided_grammar": "g"},
    "repeat": {"repeat_penalty": 1.2},
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
MORE_TALKS: dict[str, list[dict[str, Any]]] = {
    "image": [user([{"type": "text", "text": "what?"}, IMAGE])],
    "no_json": [user(), {"role": "assistant", "tool_calls": [used("no json")]}, {"role": "tool", "tool_call_id": "call_1", "content": "r"}],
}  # fmt: skip
COUNTS = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CALLS = [{"id": "call_9", "type": "function", "function": {"name": "weather", "arguments": '{"place":"ü"}'}}]


def whole(
    message: dict[str, Any] | None = None, reason: Any = "stop", choice: dict[str, Any] | None = None, **more: Any
) -> bytes:
    said = {"role": "assistant", "content": "x"} | (message or {})
    choices = [{"index": 0, "message": said, "finish_reason": reason} | (choice or {})]
    base = {
        "id": "chatcmpl-9",
        "object": "chat.completion",
        "created": 7,
        "model": "d",
        "choices": choices,
        "usage": COUNTS,
    }
    return json.dumps(base | more, ensure_ascii=False).encode()


def text(said: str = "x", reason: Any = "stop", choice: dict[str, Any] | None = None, **more: Any) -> bytes:
    choices = [{"index": 0, "text": said, "logprobs": None, "finish_reason": reason} | (choice or {})]
    base = {
        "id": "cmpl-9",
        "object": "text_completion",
        "created": 7,
        "model": "d",
        "choices": choices,
        "usage": COUNTS,
    }
    return json.dumps(base | more, ensure_ascii=False).encode()


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def part(
    delta: dict[str, Any] | None = None, reason: Any = None, choice: dict[str, Any] | None = None, **more: Any
) -> bytes:
    choices = [{"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": reason} | (choice or {})]
    base = {"id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 7, "model": "d", "choices": choices}
    return event(json.dumps(base | more, ensure_ascii=False).encode())


def word(said: str = "x", reason: Any = None, choice: dict[str, Any] | None = None, **more: Any) -> bytes:
    base = json.loads(text(said, reason, choice)) | more
    if "usage" not in more:
        del base["usage"]
    return event(json.dumps(base, ensure_ascii=False).encode())


ROLE, X, STOP = part({"role": "assistant", "content": ""}), part({"content": "x"}), part({}, "stop")
USED, DONE = part(choices=[], usage=COUNTS), b"data: [DONE]\n\n"
END = STOP + USED + DONE
WHOLE: dict[str, bytes] = {
    "plain": whole(),
    "length": whole(reason="length"),
    "empty": whole({"content": ""}),
    "null": whole({"content": None}),
    "unicode": whole({"content": 'ü€😀\u2028\u0000"\\\n</'}),
    "vllm": whole(
        {"refusal": None, "annotations": None, "audio": None, "function_call": None, "tool_calls": [], "reasoning_content": None},
        choice={"logprobs": None, "stop_reason": None, "token_ids": None},
        usage=COUNTS | {"prompt_tokens_details": None},
        **dict.fromkeys(["service_tier", "system_fingerprint", "prompt_logprobs", "kv_transfer_params"]),
    ),
    "vllm_reasoning": whole({"reasoning": "r", "reasoning_content": "r", "refusal": None}),
    "vllm_no_reasoning": whole({"reasoning": None, "reasoning_content": None}),
    "llama_cpp": whole(system_fingerprint="b1", timings={"prompt_n": 3, "predicted_ms": 1.5, "none": None}),
    "reasoning": whole({"reasoning": "r"}),
    "reasoning_content": whole({"reasoning_content": "r"}),
    "reasoning_empty": whole({"reasoning_content": ""}),
    "reasoning_inside": whole({"content": "<think>r</think>y"}),
    "refusal": whole({"refusal": "no"}),
    "annotations": whole({"annotations": []}),
    "calls": whole({"content": None, "tool_calls": CALLS}, "tool_calls"),
    "calls_stop": whole({"content": None, "tool_calls": CALLS}),
    "calls_length": whole({"content": "x", "tool_calls": CALLS}, "length"),
    "stop_reason": whole(choice={"stop_reason": 5}),
    "extra": whole({"foo": 1}, choice={"bar": None}, foo=1),
    "no_reason": whole(reason=None),
    "no_usage": whole(usage=None),
    "details": whole(usage=COUNTS | {"prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": None}, "completion_tokens_details": {"reasoning_tokens": 1}}),
    "filter": whole(reason="content_filter"),
}  # fmt: skip
STRANGE: dict[str, bytes] = {
    "error": b'{"error":{"message":"boo"}}',
    "error_text": b'{"error":"boo"}',
    "junk": b"junk",
    "list": b"[1]",
    "no_id": whole(id=None),
    "eos": whole(reason="eos"),
    "two": whole(choices=json.loads(whole())["choices"] * 2),
    "none": whole(choices=[]),
    "logprobs": whole(choice={"logprobs": {"content": []}}),
    "audio": whole({"audio": {"id": "x"}}),
}
TEXTS: dict[str, bytes] = {
    "plain": text(),
    "length": text("ü€😀", "length"),
    "empty": text(""),
    "vllm": text(choice={"stop_reason": None, "prompt_logprobs": None}, system_fingerprint=None, service_tier=None, kv_transfer_params=None, usage=COUNTS | {"prompt_tokens_details": None}),
    "llama_cpp": text(system_fingerprint="b1", timings={"prompt_n": 3}),
    "details": text(usage=COUNTS | {"prompt_tokens_details": {"cached_tokens": 1}}),
    "no_usage": text(usage=None),
}  # fmt: skip


def tool(**more: Any) -> bytes:
    return part({"tool_calls": [{"index": 0} | more]})


STREAMS: dict[str, tuple[bytes, ...]] = {
    "plain": (ROLE, X, part({"content": " y"}), END),
    "no_usage": (ROLE, X, STOP, DONE),
    "length": (ROLE, X, part({"content": "y"}, "length"), USED, DONE),
    "usage_in_last": (ROLE, X, part({"content": ""}, "stop", usage=COUNTS), DONE),
    "usage_always": (ROLE, part({"content": "x"}, usage=COUNTS | {"completion_tokens": 1}), part({}, "stop", usage=COUNTS), USED, DONE),
    "usage_details": (ROLE, X, STOP, part(choices=[], usage=COUNTS | {"prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": None}), DONE),
    "usage_told": (ROLE, X, STOP, part(choices=[], usage=COUNTS | {"completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": None}}), DONE),
    "no_done": (ROLE, X, STOP, USED),
    "no_reason": (ROLE, X, USED, DONE),
    "llama_cpp": (
        part({"role": "assistant", "content": None}, system_fingerprint="b1"),
        part({"content": "x"}, system_fingerprint="b1"),
        part({}, "stop", system_fingerprint="b1"),
        part(choices=[], usage=COUNTS, timings={"a": 1}, system_fingerprint="b1"),
        DONE,
    ),
    "ollama": (
        part({"role": "assistant", "content": "x"}, system_fingerprint="fp_ollama"),
        part({"role": "assistant", "content": "y"}, system_fingerprint="fp_ollama"),
        part({"role": "assistant", "content": ""}, "stop", system_fingerprint="fp_ollama"),
        part(choices=[], usage=COUNTS, system_fingerprint="fp_ollama"),
        DONE,
    ),
    "vllm": (
        part({"role": "assistant", "content": "", "reasoning_content": None}, prompt_token_ids=None),
        part({"content": "x", "reasoning_content": None}, choice={"token_ids": None}),
        part({"content": "", "reasoning_content": None}, "stop", choice={"stop_reason": None, "token_ids": None}),
        USED,
        DONE,
    ),
    "no_role": (X, END),
    "role_alone": (part({"role": "assistant"}), X, END),
    "nothing": (STOP, USED, DONE),
    "at_once": (part({"content": "x"}, "stop"), USED, DONE),
    "empty_parts": (ROLE, part({"content": ""}), X, part({}), part({"content": None}), END),
    "comments": (b": ping\n\n", ROLE, b"event: x\n", X, END),
    "no_space": (ROLE, b"data:" + X[6:], STOP.replace(b"\n", b"\r\n"), USED, DONE),
    "reasoning": (ROLE, part({"reasoning_content": "r"}), part({"reasoning_content": " s"}), X, END),
    "reasoning_vllm": (ROLE, part({"reasoning": "r"}), X, END),
    "reasoning_beside": (ROLE, part({"content": "a", "reasoning_content": "r"}), part({"reasoning_content": ""}), X, END),
    "reasoning_beside_nothing": (ROLE, part({"content": "", "reasoning_content": "r"}), X, END),
    "reasoning_empty": (ROLE, part({"reasoning_content": ""}), X, END),
    "tools": (
        ROLE,
        tool(id="c", type="function", function={"name": "f", "arguments": ""}),
        tool(function={"arguments": '{"a":'}),
        tool(id=None, type=None, function={"name": None, "arguments": "1}"}),
        part({}, "tool_calls"),
        USED,
        DONE,
    ),
    "tools_at_once": (ROLE, part({"tool_calls": [{"index": n, "id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in (0, 1)]}, "tool_calls"), USED, DONE),
    "tools_first": (part({"role": "assistant", "content": None, "tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}), part({}, "tool_calls"), USED, DONE),
    "tools_after_text": (ROLE, X, tool(id="c", type="function", function={"name": "f", "arguments": "{}"}), part({}, "tool_calls"), USED, DONE),
    "no_tools": (ROLE, part({"content": "a", "tool_calls": []}), END),
    "eos": (ROLE, X, part({}, "eos"), USED, DONE),
    "nulls": (part({"role": "assistant", "content": "", "tool_calls": None, "function_call": None, "refusal": None}), X, END),
    "extras": (ROLE, part({"content": "x", "foo": 1}, choice={"foo": 1}, foo=1), END),
    "repeats": (*[part({"content": "abc"})] * 100, END),
    "no_id": (*[part({"content": word}, id="chatcmpl-9") for word in "ab"], END),
}  # fmt: skip
WORDS: dict[str, tuple[bytes, ...]] = {
    "plain": (word("a"), word("b"), word("", "stop"), word(choices=[], usage=COUNTS), DONE),
    "length": (word("a"), word("ü", "length", {"stop_reason": None}), word(choices=[], usage=COUNTS), DONE),
    "usage_in_last": (word("a"), word("", "stop", usage=COUNTS), DONE),
    "empty_first": (word(""), word("a"), word("", "stop"), word(choices=[], usage=COUNTS), DONE),
    "build": (word("a", system_fingerprint="b1", foo=1), word("", "stop"), word(choices=[], usage=COUNTS), DONE),
    "no_done": (word("a"), word("", "stop"), word(choices=[], usage=COUNTS)),
    "no_reason": (word("a"), word(choices=[], usage=COUNTS), DONE),
    "repeats": (*[word("abc")] * 100, word("", "stop"), word(choices=[], usage=COUNTS), DONE),
}
STRANGE_STREAMS: dict[str, bytes] = {
    "error": b'data: {"error":{"message":"boo","code":500}}\n\n' + DONE,
    "error_text": b'data: {"error":"boo"}\n\n',
    "junk": b"data: junk\n\n",
}


def openai() -> Iterator[Case]:
    """Every request with a plain answer, and a plain request with every answer."""
    chat = {"model": "oai", "messages": [user()]}
    prompt = {"model": "oai", "prompt": "once"}
    path = "chat/completions"
    for name, fields in CHAT_FIELDS.items():
        yield Case(f"oai-{name}", path, chat | fields, WHOLE["plain"])
        if not fields.get("stream", True) or name in ("nulls", "tools", "sampling"):
            yield Case(f"oai-stream-{name}", path, chat | fields | STREAM, b"".join(STREAMS["plain"]))
    for name, messages in (TALKS | MORE_TALKS).items():
        yield Case(f"oai-talk-{name}", path, chat | {"messages": messages}, WHOLE["plain"])
    for name, data in WHOLE.items():
        yield Case(f"oai-answers-{name}", path, chat, data)
    for name, data in STRANGE.items():
        yield Case(f"oai-strange-{name}", path, chat, data, full=True)
    for way, more in (("stream", STREAM), ("usage", USAGE)):
        for name, parts in STREAMS.items():
            if not (way == "usage" and name == "no_usage"):
                yield Case(f"oai-{way}-{name}", path, chat | more, b"".join(parts))
        for name, data in STRANGE_STREAMS.items():
            yield Case(f"oai-{way}-strange-{name}", path, chat | more, data, full=True)
            yield Case(f"oai-text-{way}-strange-{name}", "completions", prompt | more, data, full=True)
        for name, parts in WORDS.items():
            yield Case(f"oai-text-{way}-{name}", "completions", prompt | more, b"".join(parts))
    for options in ({"include_usage": False}, {}, {"include_usage": True, "include_obfuscation": False}):
        name = f"stream_options-{len(options)}-{options.get('include_usage')}"
        yield Case(f"oai-{name}", path, chat | STREAM | {"stream_options": options}, b"".join(STREAMS["plain"]))
        yield Case(
            f"oai-text-{name}", "completions", prompt | STREAM | {"stream_options": options}, b"".join(WORDS["plain"])
        )
    for name, fields in {n: f for n, f in FIELDS.items() if n != "nulls"}.items():
        yield Case(f"oai-text-{name}", "completions", prompt | fields, TEXTS["plain"])
    yield Case(
        "oai-text-suffix", "completions", prompt | {"suffix": "s", "prompt": ["a"], "echo": None}, TEXTS["plain"]
    )
    for name, data in TEXTS.items():
        yield Case(f"oai-text-answers-{name}", "completions", prompt, data)
    tuned = {"model": "oaituned"}
    tunings: dict[str, dict[str, Any]] = {
        "": {},
        "null": {"temperature": None},
        "more": {"max_tokens": 3, "temperature": 1},
    }
    for name, more in tunings.items():
        yield Case(f"oai-tuned-{name}", path, chat | tuned | more, WHOLE["plain"])
        yield Case(f"oai-text-tuned-{name}", "completions", prompt | tuned | more, TEXTS["plain"])
    yield from _embeddings()


def _embeddings() -> Iterator[Case]:
    base: dict[str, Any] = {"model": "embed2", "input": "once"}
    entry = {"object": "embedding", "index": 0, "embedding": [0.5, 1e-7]}
    good = {"object": "list", "data": [entry], "model": "d", "usage": {"prompt_tokens": 1, "total_tokens": 1}}

    def said(**more: Any) -> bytes:
        return json.dumps(good | more).encode()

    bodies: dict[str, dict[str, Any]] = {
        "nothing": {},
        "list": {"input": ["a", ""]},
        "float": {"encoding_format": "float", "dimensions": 2, "user": "u"},
        "nulls": dict.fromkeys(["encoding_format", "dimensions", "user", "input_type", "truncate"]),
        "more": {"input_type": "query", "truncate": True},
    }
    for name, more in bodies.items():
        yield Case(f"oai-embeddings-{name}", "embeddings", base | more, said())
    yield Case("oai-embeddings-base64", "embeddings", base | {"encoding_format": "base64"}, said(data=[entry | {"embedding": "AACAPw=="}]))  # fmt: skip
    answers: dict[str, dict[str, Any]] = {
        "none": {"data": []},
        "two": {"data": [entry, entry | {"index": 1}]},
        "extra": {"id": "x", "created": 3, "foo": 1},
        "counts": {
            "usage": {"prompt_tokens": 1, "total_tokens": 1, "completion_tokens": 0, "prompt_tokens_details": None}
        },
    }
    for name, more in answers.items():
        yield Case(f"oai-embeddings-answers-{name}", "embeddings", base, said(**more))
    for name, data in {"error": b'{"error":{"message":"boo"}}', "junk": b"junk", "uncounted": said(usage=None)}.items():
        yield Case(f"oai-embeddings-strange-{name}", "embeddings", base, data, full=True)
