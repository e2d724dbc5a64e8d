"""What is tried to get an internal prompt out: every endpoint, failure, mark, field and client trick, as data. Pure.

Each case carries a needle of its own, a word that stands nowhere else. Whoever finds it in what a cloud received has found a leak.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any

# How local models fail, by the server that stands for them: an Ollama, and one that speaks OpenAI's API.
OLLAMA = ("ok", "500", "429", "400", "401", "404", "slow:3", "badjson", "cut", "redirect")
SERVED = ("ok", "500", "429", "context", "content", "blocked", "badjson", "cut", "refuse")
CLOUD = {"gpt": "openai", "claude": "anthropic", "gem": "gemini"}


def word(behaviour: str) -> str:
    return behaviour.replace(":", "-")


LOCAL = [*(f"o-{word(b)}" for b in OLLAMA), *(f"s-{word(b)}" for b in SERVED), "down"]


def table(host: int, dead: int) -> str:
    """A routing table in which every local model has a cloud behind it, in each way that the language knows."""
    chat = "capabilities: [chat, tools, vision]"
    lines = [
        "version: 1",
        "defaults: {timeouts: {step: 1s, first_token: 1s}, context: 2048, cooldown: {failures: 1000, pause: 1s}}",
        "overrides:",
        "  owner: {modes: [mix-o-500]}",
        "  alice: {modes: [mix-o-500, strict]}",
        "providers:",
        f'  host: {{kind: ollama, url: "http://127.0.0.1:{host}"}}',
        f'  dead: {{kind: openai_compatible, url: "http://127.0.0.1:{dead}/v1"}}',
        '  lan: {kind: openai_compatible, url: "http://lan.example:8000/v1", locality: local}',
        "  openai: {kind: openai, key: openai, enabled: true}",
        "  anthropic: {kind: anthropic, key: anthropic, enabled: true}",
        "  gemini: {kind: gemini, key: gemini, enabled: true}",
        "  mistral: {kind: mistral, key: mistral, enabled: false}",
        "models:",
        f"  gpt: {{provider: openai, source: {{external: gpt-4o-mini}}, {chat}}}",
        f"  claude: {{provider: anthropic, source: {{external: claude-3-5-haiku-latest}}, {chat}}}",
        f"  gem: {{provider: gemini, source: {{external: gemini-2.0-flash}}, {chat}}}",
        f"  quiet: {{provider: mistral, source: {{external: mistral-small-latest}}, {chat}}}",
        "  draw: {provider: openai, source: {external: gpt-image-1}, capabilities: [images]}",
        "  say: {provider: openai, source: {external: tts-1}, capabilities: [speech]}",
        "  say-here: {provider: lan, source: {external: s-500}, capabilities: [speech]}",
        "  judge: {provider: openai, source: {external: omni-moderation-latest}, capabilities: [moderations]}",
        "  vec-gpt: {provider: openai, source: {external: text-embedding-3-small}, capabilities: [embeddings]}",
        "  vec: {provider: host, source: {external: vec}, capabilities: [embeddings]}",
    ]
    providers = {"o": "host", "s": "lan", "d": "dead"}
    lines += [f"  {n}: {{provider: {providers[n[0]]}, source: {{external: {n}}}, {chat}}}" for n in LOCAL]
    lines += ["modes:"]
    for name in LOCAL:
        lines.append(f"  mix-{name}: {{chain: [{name}, gpt, claude, gem]}}")
        all_kinds = "error: cloudy, context_overflow: cloudy, content_policy: cloudy"
        lines.append(f"  fall-{name}: {{chain: [{name}], fallbacks: {{{all_kinds}}}}}")
    lines += [
        "  share: {chain: [{o-500: 1, gpt: 9}, claude]}",
        "  cloudy: {chain: [gpt, claude, gem]}",
        "  back: {chain: [gpt, o-ok], data_class: public}",
        "  strict: {chain: [o-500, gpt], data_class: internal}",
        "  disabled: {chain: [quiet, o-ok], data_class: public}",
        "  draws: {chain: [draw]}",
        "  says: {chain: [say-here, say]}",
        "  judges: {chain: [judge]}",
        "  embed: {chain: [vec]}",
        "  embed-cloud: {chain: [vec-gpt]}",
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request. `body`: bytes are sent as they are, anything else as JSON. `key`: owner, or the name of a client key.
    `query` with its question mark. `served`: a local model answers it, once the machine is quick enough for the table's one second."""

    name: str
    path: str
    body: Any
    needle: str
    headers: dict[str, str] = field(default_factory=dict)
    key: str = "owner"
    method: str = "POST"
    query: str = ""
    served: bool = False


_NUMBERS = count(1)


def needle() -> str:
    return f"canary{next(_NUMBERS):05d}xq"


def chat(mode: str, text: str, **more: Any) -> dict[str, Any]:
    return {"model": mode, "messages": [{"role": "user", "content": text}], "max_tokens": 8} | more


# Endpoint -> the body of a request for a mode, with the text where the prompt goes.
BODIES: dict[str, Any] = {
    "/v1/chat/completions": chat,
    "/v1/completions": lambda mode, text: {"model": mode, "prompt": text, "max_tokens": 8},
    "/v1/responses": lambda mode, text: {"model": mode, "input": text, "max_output_tokens": 16},
    "/v1/messages": chat,
}
# What a table adds: endpoint, mode, body.
OTHERS: list[tuple[str, str, Any]] = [
    ("/v1/images/generations", "draws", lambda mode, text: {"model": mode, "prompt": text}),
    ("/v1/audio/speech", "says", lambda mode, text: {"model": mode, "input": text, "voice": "alloy"}),
    ("/v1/moderations", "judges", lambda mode, text: {"model": mode, "input": text}),
]
# How a request says that it is internal: (name, headers, fields, suffix of the mode, key).
MARKS: list[tuple[str, dict[str, str], dict[str, Any], str, str]] = [
    ("unmarked", {}, {}, "", "owner"),
    ("header", {"x-io3-data-class": "internal"}, {}, "", "owner"),
    ("metadata", {}, {"metadata": {"data_class": "internal"}}, "", "owner"),
    ("tags", {}, {"metadata": {"tags": ["x", "internal"]}}, "", "owner"),
    ("suffix", {}, {}, ":internal", "owner"),
    ("key", {}, {}, "", "inside"),
    ("key and a public mark", {"x-io3-data-class": "public"}, {}, "", "inside"),
]


def cases() -> list[Case]:
    """All of them, with fresh needles."""
    return [*_failures(), *_marks(), *_embeddings(), *_others(), *_places(), *_tricks(), *_lost_marks()]


def _case(name: str, path: str, mode: str, mark: Any, *, stream: bool = False) -> Case:
    label, headers, fields, suffix, key = mark
    mine = needle()
    body = BODIES[path](mode + suffix, f"secret {mine}") | ({"stream": True} if stream else {}) | fields
    shown = f"{name}, {path}, {mode}, {label}{', stream' if stream else ''}"
    well = mode.endswith(("-o-ok", "-s-ok"))
    return Case(name=shown, path=path, body=body, needle=mine, headers=headers, key=key, served=well)


def _failures() -> Iterator[Case]:
    """Every way in which a local model fails, at every endpoint, streamed or not."""
    marks = cycle(MARKS)
    modes = [f"{way}-{model}" for model in LOCAL for way in ("mix", "fall")]
    for mode in [*modes, "share", "cloudy", "strict"]:
        for path in BODIES:
            for stream in (False, True):
                yield _case("failure", path, mode, next(marks), stream=stream)


def _marks() -> Iterator[Case]:
    """Every mark at every endpoint, where the next step is a cloud."""
    for path in BODIES:
        for mark in MARKS:
            yield _case("mark", path, "mix-o-500", mark)


def _others() -> Iterator[Case]:
    """The endpoints that a table adds."""
    for path, mode, build in OTHERS:
        for label, headers, fields, suffix, key in MARKS:
            mine = needle()
            body = build(mode + suffix, f"secret {mine}") | fields
            yield Case(name=f"other: {path}, {label}", path=path, body=body, needle=mine, headers=headers, key=key)


def _embeddings() -> Iterator[Case]:
    for mode in ("embed", "embed-cloud"):
        for label, headers, fields, suffix, key in MARKS:
            mine = needle()
            body = {"model": mode + suffix, "input": [f"secret {mine}"]} | fields
            yield Case(
                name=f"embeddings, {mode}, {label}",
                path="/v1/embeddings",
                body=body,
                needle=mine,
                headers=headers,
                key=key,
                served=mode == "embed",
            )


def _places() -> Iterator[Case]:
    """Everywhere in a request where something of the user's may stand."""
    tool: dict[str, Any] = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
    }
    places: dict[str, Callable[[str], dict[str, Any]]] = {
        "a part": lambda n: {"messages": [{"role": "user", "content": [{"type": "text", "text": n}]}]},
        "the system prompt": lambda n: {"messages": [{"role": "system", "content": n}, {"role": "user", "content": "x"}]},
        "an earlier answer": lambda n: {"messages": [{"role": "assistant", "content": n}, {"role": "user", "content": "x"}]},
        "a name": lambda n: {"messages": [{"role": "user", "name": n, "content": "x"}]},
        "arguments of a tool": lambda n: {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"a": n})}}]},
                {"role": "tool", "tool_call_id": "1", "content": n},
            ],
            "tools": [tool],
        },
        "a tool's description": lambda n: {"tools": [{"type": "function", "function": {**tool["function"], "description": n}}]},
        "a schema": lambda n: {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "description": n}}}},
        "user": lambda n: {"user": n},
        "stop": lambda n: {"stop": [n]},
        "metadata": lambda n: {"metadata": {"note": n}},
        "tags": lambda n: {"metadata": {"tags": [n]}},
        "an image": lambda n: {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{n}0000"}}]}]},
        "an unknown field": lambda n: {n: n, "extra": n},
        "extra_body": lambda n: {"extra_body": {"note": n}},
    }  # fmt: skip
    for name, build in places.items():
        mine = needle()
        yield Case(
            name=f"place: {name}", path="/v1/chat/completions", body=chat("mix-o-500", "x") | build(mine), needle=mine
        )
    for header in ("user-agent", "x-request-id", "traceparent", "openai-organization", "x-litellm-call-id", "cookie"):
        mine = needle()
        yield Case(
            name=f"place: header {header}",
            path="/v1/chat/completions",
            body=chat("mix-o-500", "x"),
            needle=mine,
            headers={header: mine},
        )
    mine = needle()
    yield Case(
        name="place: query", path="/v1/chat/completions", body=chat("mix-o-500", "x"), needle=mine, query=f"?q={mine}"
    )


def _lost_marks() -> Iterator[Case]:
    """Marks that a reader could lose: a key that stands twice, a slip in a name, a tag that says public."""
    tail = '"messages":[{"role":"user","content":"secret NEEDLE"}],"max_tokens":8'
    twice = {
        "data_class": '"metadata":{"data_class":"internal","data_class":"public"}',
        "data_class, escaped": '"metadata":{"data_class":"internal","data\\u005fclass":"public"}',
        "data_class at the top": '"data_class":"internal","data_class":"public"',
        "metadata": '"metadata":{"data_class":"internal"},"metadata":{"data_class":"public"}',
        "metadata, escaped": '"metadata":{"data_class":"internal"},"m\\u0065tadata":{"data_class":"public"}',
        "extra_body": '"extra_body":{"data_class":"internal"},"extra_body":{"data_class":"public"}',
        "extra_body's metadata": '"extra_body":{"metadata":{"data_class":"internal"},"metadata":{"data_class":"public"}}',
        "litellm_metadata": '"litellm_metadata":{"data_class":"internal"},"litellm_metadata":{"data_class":"public"}',
        "quotes that hide it": '"user":"\\u0022\\u0022\\u0022\\u0022","data_class":"internal","data_class":"public"',
        "model": '"model":"MODE:internal","model":"MODE:public"',
        "model, escaped": '"model":"MODE:internal","mod\\u0065l":"MODE:public"',
    }
    for mode in ("mix-o-500", "cloudy"):
        for name, fields in twice.items():
            mine = needle()
            first = "" if name.startswith("model") else '"model":"MODE",'
            text = f"{{{first}{fields},{tail}}}".replace("MODE", mode).replace("NEEDLE", mine)
            yield Case(
                name=f"lost mark: {name} twice, {mode}", path="/v1/chat/completions", body=text.encode(), needle=mine
            )
        said: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
            "a public tag": ({}, {"tags": ["public"]}),
            "a public tag in metadata": ({}, {"metadata": {"tags": ["x", "public"]}}),
            "a public tag in words": ({}, {"metadata": {"tags": ["data_class:public"]}}),
            "a public tag in litellm_metadata": ({}, {"litellm_metadata": {"tags": "public"}}),
            "a public tag in extra_body": ({}, {"extra_body": {"tags": ["public"]}}),
            "a public tag in a header": ({"x-litellm-tags": "public"}, {}),
            "a public tag in words in a header": ({"x-litellm-tags": "a,data_class:public"}, {}),
            "another header": ({"x-data-class": "public"}, {}),
            "a header of another name": ({"x-io3ops-data-class": "public"}, {}),
            "another letter case": ({}, {"metadata": {"dataClass": "public"}}),
            "dashes": ({}, {"data-class": "public"}),
            "another place": ({}, {"Metadata": {"data_class": "public"}}),
        }  # fmt: skip
        for name, (headers, more) in said.items():
            mine = needle()
            body = chat(mode, f"secret {mine}") | more
            yield Case(
                name=f"lost mark: {name}, {mode}", path="/v1/chat/completions", body=body, needle=mine, headers=headers
            )


def _tricks() -> Iterator[Case]:
    """What a client may try to be routed elsewhere, or to be taken for public."""
    cloud = "https://api.openai.com/v1"
    params = {"model": "openai/gpt-4o-mini", "api_key": "sk-own"}
    fields: dict[str, dict[str, Any]] = {
        "fallbacks": {"fallbacks": ["cloudy"]},
        "fallbacks with parameters": {"fallbacks": [params]},
        "fallbacks as objects": {"fallbacks": [{"mix-o-500": ["cloudy"]}]},
        "context_window_fallbacks": {"context_window_fallbacks": [{"fall-s-context": ["cloudy"]}]},
        "content_policy_fallbacks": {"content_policy_fallbacks": [{"fall-s-content": ["cloudy"]}]},
        "router_settings_override": {"router_settings_override": {"fallbacks": [{"strict": ["cloudy"]}]}},
        "api_base": {"api_base": cloud},
        "base_url": {"base_url": cloud},
        "api_base and key": {"api_base": cloud, "api_key": "sk-own", "custom_llm_provider": "openai"},
        "api_key": {"api_key": "sk-own"},
        "user_config": {"user_config": {"model_list": [{"model_name": "strict", "litellm_params": params}]}},
        "model_list": {"model_list": [{"model_name": "strict", "litellm_params": params}]},
        "mock failure": {"mock_testing_fallbacks": True},
        "mock context": {"mock_testing_context_fallbacks": True},
        "mock content": {"mock_testing_content_policy_fallbacks": True},
        "specific_deployment": {"specific_deployment": True},
        "model_info": {"model_info": {"id": "mix-o-500:public.2.gpt"}},
        "metadata.model_info": {"metadata": {"model_info": {"id": "cloudy:public.1.gpt"}, "deployment": "openai/gpt-4o-mini"}},
        "litellm_metadata": {"litellm_metadata": {"model_group": "cloudy:public", "specific_deployment": True}},
        "num_retries": {"num_retries": 5, "max_retries": 5},
        "order": {"order": 2, "_target_order": 2},
        "fastest_response": {"model": "strict,cloudy", "fastest_response": True},
        "callbacks": {"success_callback": ["langfuse"], "failure_callback": ["langfuse"], "langfuse_host": "https://api.openai.com"},
        "logging host": {"langfuse_public_key": "a", "langfuse_secret": "b", "langfuse_host": "https://api.openai.com"},
        "guardrails": {"guardrails": ["x"], "disable_global_guardrails": True},
        "cache": {"cache": {"type": "redis", "host": "api.openai.com"}, "caching": True},
        "web search": {"web_search_options": {"search_context_size": "low"}},
        "web search tool": {"tools": [{"type": "web_search"}]},
        "mcp": {"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://api.openai.com/mcp", "require_approval": "never"}]},
        "mcp of the proxy": {"tools": [{"type": "mcp", "server_label": "litellm", "server_url": "litellm_proxy"}]},
        "unknown parameter": {"no_such_parameter": 1},
        "proxy_server_request": {"proxy_server_request": {"body": {"model": "cloudy"}}},
        "custom provider": {"custom_llm_provider": "openai"},
        "aws": {"aws_bedrock_runtime_endpoint": "https://api.openai.com"},
        "ollama host": {"options": {"num_ctx": 1}, "format": "json", "host": cloud},
        "public in one place": {"metadata": {"data_class": "public"}, "tags": ["internal"]},
        "override without a right": {"metadata": {"override_reason": "because I would like to, please"}},
    }  # fmt: skip
    for base in ("mix-o-500", "strict", "fall-down"):
        for name, more in fields.items():
            mine = needle()
            body = chat(base, f"secret {mine}") | more
            yield Case(
                name=f"trick: {name}, {base}",
                path="/v1/chat/completions",
                body=body,
                needle=mine,
                key="bob" if "override" in name else "owner",
            )
    models = ["gpt-4o-mini", "openai/gpt-4o-mini", "openai/*", "*", "strict,cloudy", "cloudy,strict", "mix-o-500:public.2.gpt", "cloudy:public.1.gpt",
              "claude-3-5-haiku-latest", "anthropic/claude-3-5-haiku-latest", "gemini/gemini-2.0-flash", "cloudy:PUBLIC", "cloudy:public:internal",
              "cloudy::internal", " cloudy", "CLOUDY", "o-500:cloud", "gpt", "mistral/mistral-small-latest", "disabled:internal"]  # fmt: skip
    for model in models:
        for path in BODIES:
            mine = needle()
            yield Case(
                name=f"model: {model!r}, {path}",
                path=path,
                body=BODIES[path](model, f"secret {mine}"),
                needle=mine,
                # A request without a mark of its own that names a public group is public; this one is not.
                headers={"x-io3-data-class": "internal"},
            )
    for name, headers in {
        "x-litellm-tags": {"x-litellm-tags": "internal,public"},
        "x-litellm-timeout": {"x-litellm-timeout": "0.001"},
        "x-litellm-num-retries": {"x-litellm-num-retries": "5"},
        "x-litellm-api-base": {"x-litellm-api-base": cloud},
        "x-litellm-enable-message-redaction": {"x-litellm-enable-message-redaction": "false"},
        "x-pass-authorization": {"x-pass-authorization": "Bearer x", "x-pass-x-api-key": "x"},
        "host": {"x-forwarded-host": "api.openai.com", "forwarded": "host=api.openai.com"},
        "two classes": {"x-io3-data-class": "public, internal"},
        "an unknown class": {"x-io3-data-class": "secret"},
    }.items():
        mine = needle()
        yield Case(
            name=f"header: {name}",
            path="/v1/chat/completions",
            body=chat("mix-o-500", f"secret {mine}"),
            needle=mine,
            headers=headers,
        )
    for part in (
        {"type": "image_url", "image_url": {"url": "https://api.openai.com/NEEDLE.png"}},
        {"type": "image_url", "image_url": "https://api.openai.com/NEEDLE.png"},
        {"type": "file", "file": {"file_id": "NEEDLE"}},
        {"type": "input_image", "image_url": "http://lan.example:8000/NEEDLE.png"},
        {"type": "image", "source": {"type": "url", "url": "https://api.openai.com/NEEDLE.png"}},
        {"type": "video_url", "video_url": {"url": "https://api.openai.com/NEEDLE.mp4"}},
    ):
        for mode in ("mix-o-ok", "mix-s-ok", "strict"):
            mine = needle()
            filled = json.loads(json.dumps(part).replace("NEEDLE", mine))
            body = chat(mode, "x") | {"messages": [{"role": "user", "content": [filled]}]}
            yield Case(name=f"link: {part['type']}, {mode}", path="/v1/chat/completions", body=body, needle=mine)
    forbidden: dict[str, dict[str, Any]] = {
        "an earlier response": {"previous_response_id": "resp_abc"},
        "background": {"background": True},
        "a conversation": {"conversation": "conv_1"},
        "a stored prompt": {"prompt": {"id": "pmpt_1"}},
        "store": {"store": True},
        "a file": {
            "input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://api.openai.com/f"}]}]
        },
    }
    for name, more in forbidden.items():
        mine = needle()
        body = {"model": "mix-o-500", "input": f"secret {mine}"} | more | {"instructions": f"secret {mine}"}
        yield Case(name=f"responses: {name}", path="/v1/responses", body=body, needle=mine)
    for path in (
        "/engines/cloudy/chat/completions", "/openai/deployments/cloudy/chat/completions", "/cursor/chat/completions", "/v1/chat/completions/",
        "//v1/chat/completions", "/v1//chat/completions", "/v1/./chat/completions", "/x/../v1/chat/completions", "/v1/chat%2fcompletions",
        "/v1/chat/completions%00", "/V1/CHAT/COMPLETIONS", "/openai/v1/chat/completions", "/anthropic/v1/messages", "/v1/rerank", "/v1/images/edits", "/v1/audio/transcriptions", "/v1/batches", "/v1/files", "/v1/assistants", "/v1/threads",
        "/v1/realtime", "/v1beta/models/cloudy:generateContent", "/models/cloudy:generateContent", "/v1/messages/count_tokens", "/utils/token_counter",
        "/gemini/v1beta/models/gemini-2.0-flash:generateContent", "/bedrock/model/x/converse", "/vertex_ai/x", "/mcp", "/v1/search", "/v1/ocr",
        "/queue/chat/completions", "/v1/responses/compact", "/responses/x/input_items", "/health/test_connection", "/v1/vector_stores",
    ):  # fmt: skip
        mine = needle()
        yield Case(
            name=f"path: {path}",
            path=path,
            body=chat("cloudy", f"secret {mine}") | {"input": mine, "prompt": mine},
            needle=mine,
        )
