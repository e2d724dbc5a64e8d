"""Requests and prepared answers of an upstream, for the codec alone and for the codec beside LiteLLM.

`DEPLOYMENTS`: how each mode's one deployment stands in the rendered file, as the lane sees it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from io3ops_gateway.codec import ollama_requests, openai_requests
from io3ops_gateway.codec.base import Call, Reply, Target
from io3ops_gateway.policy import endpoints

CODECS = {"ollama": ollama_requests.call, "openai_compatible": openai_requests.call}
NOW = 1_700_000_000


@dataclass(frozen=True)
class Case:
    """`data`: what the upstream answers. `full`: the codec leaves this answer to LiteLLM."""

    name: str
    path: str
    body: dict[str, Any]
    data: bytes
    full: bool = False


@dataclass
class Ids:
    """Ids that can be told apart, in the formats of real ones."""

    made: int = 0

    def __call__(self, prefix: str) -> str:
        self.made += 1
        return f"{prefix}00000000-0000-4000-8000-{self.made:012d}"


@dataclass
class Targets:
    """The deployments of the modes below, at one address."""

    url: str
    found: dict[str, Target] = field(default_factory=dict)

    def __post_init__(self) -> None:
        base = {"num_ctx": 2048}
        for mode, model, kind, task, parameters in (
            ("oll", "a:latest", "ollama", "chat", base | {"keep_alive": "7m"}),
            ("tuned", "b:latest", "ollama", "chat", base | {"keep_alive": "24h", "temperature": 0.125, "seed": 3}),
            ("embed", "vec:latest", "ollama", "embeddings", {"num_ctx": 512, "keep_alive": "24h"}),
            ("oai", "d", "openai_compatible", "chat", {}),
            ("oaituned", "e", "openai_compatible", "chat", {"temperature": 0.25, "max_tokens": 9}),
            ("embed2", "vec2", "openai_compatible", "embeddings", {}),
        ):
            url = self.url if kind == "ollama" else f"{self.url}/v1"
            self.found[mode] = Target(kind=kind, task=task, url=url, model=model, parameters=parameters)


def call(case: Case, targets: Targets, now: int = NOW) -> Call | None:
    """The codec's call for a case, as the lane would ask for it."""
    target = targets.found[case.body["model"].partition(":")[0]]
    reply = Reply(asked=case.body["model"], now=now, new_id=Ids(), count=lambda text: len(text.split()))
    return CODECS[target.kind](endpoints.SERVED[f"/{case.path}"], case.body, target, reply)


# -- Ollama

STREAM: dict[str, Any] = {"stream": True}
USAGE: dict[str, Any] = STREAM | {"stream_options": {"include_usage": True}}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "tells",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
CALL = {"function": {"name": "weather", "arguments": {"place": "Zürich", "n": 12345678901234567890123, "x": 1e2}}}
NAMED = {"id": "call_abc", "function": {"index": 1, "name": "other", "arguments": {}}}


def line(**more: Any) -> bytes:
    base = {"model": "a:latest", "created_at": "2026-01-01T00:00:00.1Z", "done": False}
    return json.dumps(base | more, ensure_ascii=False).encode() + b"\n"


def part(content: Any = "", **more: Any) -> bytes:
    return line(message={"role": "assistant", "content": content} | more)


def last(content: Any = "", reason: Any = "stop", said: dict[str, Any] | None = None, **more: Any) -> bytes:
    counts = {"total_duration": 5, "load_duration": 1, "prompt_eval_count": 3, "prompt_eval_duration": 1}
    counts |= {"eval_count": 2, "eval_duration": 1}
    message = {"role": "assistant", "content": content} | (said or {})
    return line(message=message, done=True, done_reason=reason, **counts | more)


def user(content: Any = "hello", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content} | more


def used(arguments: str, **more: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}} | more


FIELDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "nulls": dict.fromkeys(
        [
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "max_tokens",
            "max_completion_tokens",
            "stop",
            "seed",
            "presence_penalty",
            "frequency_penalty",
            "repeat_penalty",
            "n",
            "user",
            "logprobs",
            "logit_bias",
            "stream",
            "stream_options",
            "tools",
            "tool_choice",
            "response_format",
            "reasoning_effort",
            "parallel_tool_calls",
        ]
    ),
    "sampling": {"temperature": 0.5, "top_p": 1, "top_k": 4, "min_p": 0.1, "typical_p": 0.5, "repetition_penalty": 1.1},
    "zeros": {"temperature": 0, "top_p": 0.0, "top_k": 0, "min_p": 0, "seed": 0, "frequency_penalty": 0.0},
    "penalties": {"frequency_penalty": 0.7, "presence_penalty": 1.5},
    "both_penalties": {"repeat_penalty": 1.5, "frequency_penalty": 0.7},
    "max": {"max_tokens": 5},
    "max_none": {"max_tokens": -1},
    "max_zero": {"max_tokens": 0},
    "stop": {"stop": "x"},
    "stop_empty": {"stop": ""},
    "stops": {"stop": ["a", "b"], "seed": -3},
    "no_stops": {"stop": []},
    "dropped": {"n": 1, "user": "me", "logit_bias": {"5": 1}, "presence_penalty": 0},
    "stream_false": {"stream": False, "stream_options": {"include_usage": True}},
}
CHAT_FIELDS: dict[str, dict[str, Any]] = FIELDS | {
    "max_completion": {"max_completion_tokens": 6},
    "max_both": {"max_completion_tokens": 5, "max_tokens": 7},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "no_logprobs": {"logprobs": False, "top_logprobs": 0},
    "dropped_too": {"safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "auto", "verbosity": "low"},
    "text": {"response_format": {"type": "text"}},
    "json": {"response_format": {"type": "json_object"}},
    "schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "strict": True, "schema": {"type": "object", "properties": {}}},
        }
    },
    "no_schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
    "empty_schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
    "tools": {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": True},
    "tools_strict": {"tools": [{**TOOL, "strict": True}, {"type": "function", "function": {"name": "bare"}}]},
    "tools_required": {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    "tools_one": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    "tools_none": {"tools": [], "tool_choice": "none"},
    **{f"effort_{word}": {"reasoning_effort": word} for word in ("none", "minimal", "low", "medium", "high")},
}
TEXT_FIELDS: dict[str, dict[str, Any]] = FIELDS | {
    "logprobs": {"logprobs": 3},
    "old_words": {"suffix": "x", "echo": False, "best_of": 1},
    "echo": {"echo": True, "best_of": 2},
}
TALKS: dict[str, list[dict[str, Any]]] = {
    "system": [{"role": "system", "content": "s"}, user()],
    "developer": [{"role": "developer", "content": "s"}, user()],
    "parts": [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])],
    "cached_part": [user([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}])],
    "no_parts": [user([])],
    "empty": [user("")],
    "null": [user(None), {"role": "user"}],
    "name": [user("q", name="bob")],
    "unicode": [user('ü€😀\u2028\u0000"\\\n</')],
    "thought": [user(), {"role": "assistant", "content": "<think>xx</think>yy"}, user()],
    "thought_kept": [user(), {"role": "assistant", "content": "yy", "reasoning_content": "rr"}, user()],
    "thought_none": [user(), {"role": "assistant", "content": "<think>x</think>y", "reasoning_content": None}, user()],
    "thought_empty": [user(), {"role": "assistant", "content": "yy", "reasoning_content": ""}, user()],
    "sdk_nulls": [
        user(),
        {
            "role": "assistant",
            "content": "y",
            "refusal": None,
            "audio": None,
            "function_call": None,
            "annotations": [],
            "tool_calls": None,
        },
        user(),
    ],
    "no_calls": [user(), {"role": "assistant", "content": "yy", "tool_calls": []}, user()],
    "calls": [
        user(),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [used('{"place": "Z\\u00fc", "n": 1e2}'), used("{}", id="call_2", index=1)],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "warm"},
        {"role": "tool", "tool_call_id": "call_2", "name": "weather", "content": [{"type": "text", "text": "cold"}]},
    ],
    "lone_tool": [{"role": "tool", "content": "r"}],
    "assistant_last": [user(), {"role": "assistant", "content": "r "}],
    "user_with_id": [user("q", tool_call_id="x")],
}
WHOLE: dict[str, bytes] = {
    "stop": last("hi there"),
    "length": last("hi", "length"),
    "empty": last(""),
    "unicode": last('ü€😀\u2028\u0000"\\\n</'),
    "thinking": last("x", said={"thinking": "hm"}),
    "thinking_empty": last("x", said={"thinking": ""}),
    "thinking_inside": last("<think>\nxx</think>yy"),
    "thinking_open": last("<think>xx"),
    "call": last("", said={"tool_calls": [CALL]}),
    "calls": last("c", "length", said={"tool_calls": [CALL, NAMED]}),
    "no_calls": last("c", said={"tool_calls": []}),
    "nulls": last("c", said={"tool_calls": None, "images": None}),
    "load": last("", "load"),
    "no_reason": last("x", None),
    "zero_counts": last("x", eval_count=0, prompt_eval_count=0),
}
STREAMS: dict[str, tuple[bytes, ...]] = {
    "two": (part("hi"), part(" there"), last()),
    "length": (part("hi"), last(" there", "length")),
    "gaps": (part(""), part("a"), part(""), part("b"), b"\n", last()),
    "only_last": (last("x"),),
    "nothing": (last(),),
    "null": (part(None), part("b"), last()),
    "unicode": (part("ü€😀\u0000"), part('"\\\n</'), last()),
    "thinking": (part(thinking="t one"), part(thinking=" t two"), part("a"), last(eval_count=40)),
    "thinking_beside": (part("a", thinking="t"), part(thinking="u"), last(eval_count=40)),
    "thinking_inside": (part("<think>"), part("t"), part("</think>"), part("a"), last()),
    "thinking_inside_more": (part("x<think>y"), part("t"), part("u</think>v"), part("a<think>b"), last(eval_count=40)),
    "thinking_at_once": (part("<think></think>"), part("b"), last()),
    "thinking_closed": (part("</think>x"), last()),
    "thinking_beside_a_mark": (part("x"), part("</think>", thinking=" u"), part("b"), last(eval_count=40)),
    "thinking_only": (part(thinking="t"), last()),
    "call": (part(tool_calls=[CALL]), last()),
    "call_after_text": (part("a"), part(tool_calls=[CALL]), last(reason="length")),
    "call_with_text": (part("a", tool_calls=[CALL]), last()),
    "call_last": (part("a"), last(said={"tool_calls": [CALL]})),
    "calls_at_once": (part(tool_calls=[CALL, NAMED]), last()),
    "call_after_thinking": (part(thinking="t"), part(tool_calls=[NAMED]), last(eval_count=40)),
    "unknown_reason": (part("a"), last(reason="weird")),
    "no_reason": (part("a"), last(reason=None)),
    "junk": (b"junk\n", part("a"), b"data: x\n", b"{}\n", last()),
    "role": (line(message={"role": "tool", "content": "ok", "foo": 1}), last()),
    "repeats": (*[part("abc")] * 100, last()),
    "repeats_short": (*[part("ab")] * 101, last()),
    "repeats_thinking": (*[part(thinking=" abc")] * 101, last()),
    "zero_counts": (part("a"), last(eval_count=0, prompt_eval_count=0)),
    "no_end_of_line": (part("a"), last().rstrip()),
}
STRANGE: dict[str, bytes] = {
    "error": b'{"error":"boo"}\n',
    "junk": b"no json",
    "list": b"[1]\n",
    "no_message": line(done=True),
    "number": part(5) + last(5),
    "text_for_message": line(message="b") + last(5),
}


def ollama() -> Iterator[Case]:
    """Every request with a plain answer, and a plain request with every answer."""
    chat = {"model": "oll", "messages": [user()]}
    text = {"model": "oll", "prompt": "once"}
    ways: tuple[tuple[str, dict[str, Any]], ...] = (("whole", {}), ("stream", STREAM), ("usage", USAGE))
    plain = {"whole": WHOLE["stop"], "stream": b"".join(STREAMS["two"]), "usage": b"".join(STREAMS["two"])}
    for path, base, table in (("chat/completions", chat, CHAT_FIELDS), ("completions", text, TEXT_FIELDS)):
        for name, fields in table.items():
            yield Case(f"{path}-{name}", path, base | fields, plain["whole"])
        for name, data in WHOLE.items():
            yield Case(f"{path}-answers-{name}", path, base, data)
        for way, more in ways[1:]:
            for name, parts in STREAMS.items():
                yield Case(f"{path}-{way}-{name}", path, base | more, b"".join(parts))
        for way, more in ways:
            for name, data in STRANGE.items():
                yield Case(f"{path}-{way}-strange-{name}", path, base | more, data, full=True)
            yield Case(f"{path}-{way}-suffixed", path, base | more | {"model": "oll:internal"}, plain[way])
            yield Case(f"{path}-{way}-tuned", path, base | more | {"model": "tuned"}, plain[way])
            yield Case(f"{path}-{way}-tuned-more", path, base | more | {"model": "tuned", "seed": None, "max_tokens": 3, "temperature": 1}, plain[way])  # fmt: skip
            yield Case(f"{path}-{way}-many", path, base | more | table["sampling"] | table["stops"], plain[way])
    for name, messages in TALKS.items():
        yield Case(f"chat/completions-talk-{name}", "chat/completions", chat | {"messages": messages}, plain["whole"])
    for name, prompt in {
        "empty": "",
        "list": ["a"],
        "lists": ["a", "b"],
        "thought": "<think>a</think>b",
        "in_list": [""],
    }.items():
        yield Case(f"completions-prompt-{name}", "completions", text | {"prompt": prompt}, plain["whole"])
    for options in ({"include_usage": False}, {}, {"include_usage": True, "include_obfuscation": False}):
        for path, base in (("chat/completions", chat), ("completions", text)):
            name = f"{path}-stream_options-{len(options)}-{options.get('include_usage')}"
            yield Case(name, path, base | STREAM | {"stream_options": options}, plain["stream"])
    yield from _embeddings()


def _embeddings() -> Iterator[Case]:
    base: dict[str, Any] = {"model": "embed", "input": "once"}
    good = b'{"model":"vec","embeddings":[[0.1,0.25,1]],"total_duration":5,"load_duration":1,"prompt_eval_count":4}'
    bodies: dict[str, dict[str, Any]] = {
        "nothing": {},
        "empty": {"input": ""},
        "list": {"input": ["a", ""]},
        "no_list": {"input": []},
        "float": {"encoding_format": "float"},
        "base64": {"encoding_format": "base64", "user": "u"},
        "nulls": dict.fromkeys(("encoding_format", "dimensions", "user", "input_type", "truncate")),
        "dimensions": {"dimensions": 2, "truncate": False},
        "input_type": {"input_type": "query", "truncate": True},
        "suffixed": {"model": "embed:internal"},
    }
    for name, more in bodies.items():
        yield Case(f"embeddings-{name}", "embeddings", base | more, good)
    for name, data in {
        "two": b'{"model":"vec","embeddings":[[0.1,0.25],[1e-7,-0.0,0.1234567890123456789]],"prompt_eval_count":0}',
        "empty": b'{"model":"vec","embeddings":[],"prompt_eval_count":4}',
    }.items():
        yield Case(f"embeddings-answers-{name}", "embeddings", base, data)
    for name, data in {
        "error": b'{"error":"boo"}',
        "junk": b"junk",
        "uncounted": b'{"model":"vec","embeddings":[[1]]}',
        "text": b'{"model":"vec","embeddings":"x","prompt_eval_count":2}',
    }.items():
        yield Case(f"embeddings-strange-{name}", "embeddings", base, data, full=True)
