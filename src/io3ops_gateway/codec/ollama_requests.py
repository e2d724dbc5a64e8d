"""Translates OpenAI requests for Ollama's API, exactly as LiteLLM's routes `ollama_chat/` and `ollama/` do. Pure.

Oddities are LiteLLM's: clients get the same response whether the lane or LiteLLM serves them.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import orjson

from io3ops_gateway.codec import base as codec
from io3ops_gateway.codec.base import THOUGHT, Call, Reply, Target
from io3ops_gateway.codec.ollama_responses import Embedding, Generation
from io3ops_gateway.policy import endpoints
from io3ops_gateway.policy.context_window import STRICT
from io3ops_gateway.policy.endpoints import Endpoint

# Sent among the model's options, most of them under their own names.
OPTIONS: dict[str, Callable[[Any], bool]] = {
    "temperature": codec.is_number,
    "top_p": codec.is_number,
    "top_k": codec.is_number,
    "min_p": codec.is_number,
    "typical_p": codec.is_number,
    "repetition_penalty": codec.is_number,
    "seed": codec.is_int,
    "stop": codec.is_stop,
    "num_ctx": codec.is_int,
    "suffix": codec.is_text,
    "echo": codec.is_flag,
    "best_of": codec.is_int,
    # Of two with the same meaning, the later one wins.
    "max_tokens": codec.is_int,
    "max_completion_tokens": codec.is_int,
    "frequency_penalty": codec.is_number,
    "repeat_penalty": codec.is_number,
}
RENAMED = {
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
    "frequency_penalty": "repeat_penalty",
}
# Ollama has no such parameters; LiteLLM's `drop_params` removes them.
DROPPED: dict[str, Callable[[Any], bool]] = {
    "model": codec.is_text,
    "n": lambda value: codec.is_int(value) and value == 1,
    "user": codec.is_text,
    "presence_penalty": codec.is_number,
    "logprobs": lambda value: isinstance(value, bool | int),
    "top_logprobs": codec.is_int,
    "logit_bias": lambda value: isinstance(value, dict),
    "parallel_tool_calls": codec.is_flag,
    "tool_choice": codec.is_choice,
    "safety_identifier": codec.is_text,
    "prompt_cache_key": codec.is_text,
    "service_tier": codec.is_text,
    "verbosity": codec.is_text,
    "stream_options": codec.is_stream_options,
}
EFFORTS = ("none", "minimal", "low", "medium", "high")
ELSEWHERE: dict[str, Callable[[Any], bool]] = {
    "messages": lambda value: isinstance(value, list) and bool(value),
    "prompt": lambda value: isinstance(value, str) or (codec.is_texts(value) and bool(value)),
    "stream": codec.is_flag,
    "keep_alive": lambda value: isinstance(value, str) or codec.is_int(value),
    "tools": codec.is_tools,
    "response_format": lambda value: (
        isinstance(value, dict) and value.get("type") in ("text", "json_object", "json_schema")
    ),
    "reasoning_effort": lambda value: value in EFFORTS,
}
CHAT = OPTIONS | DROPPED | ELSEWHERE
EMBEDDINGS: dict[str, Callable[[Any], bool]] = {
    "model": codec.is_text,
    "input": codec.is_stop,
    "dimensions": codec.is_int,
    "truncate": codec.is_flag,
    "encoding_format": lambda value: value in ("float", "base64"),
    "user": codec.is_text,
    "input_type": codec.is_text,
    "num_ctx": codec.is_int,
    "keep_alive": ELSEWHERE["keep_alive"],
}
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
# The fields of a message, and the values that a field may have that is not sent.
MESSAGE = {"role", "content", "tool_calls", "tool_call_id", "reasoning_content", "name"}
EMPTY: dict[str, tuple[Any, ...]] = {
    "refusal": (None,),
    "audio": (None,),
    "function_call": (None,),
    "annotations": (None, []),
}


def call(endpoint: Endpoint, body: Mapping[str, Any], target: Target, reply: Reply) -> Call | None:
    """Return the call for a plain request, None for any other."""
    embeds = endpoint is endpoints.EMBEDDINGS
    if not (embeds or endpoint in (endpoints.CHAT, endpoints.COMPLETIONS)) or endpoint.task != target.task:
        return None
    # A field that the client sets to null also overrides the deployment's default.
    fields = codec.plain({**target.parameters, **body}, EMBEDDINGS if embeds else CHAT)
    if fields is None:
        return None
    try:
        if embeds:
            if "input" not in fields:
                return None
            return Embedding(*_embedding(fields, target), reply=reply, wanted=fields.get("encoding_format"))
        messages = _messages(fields, endpoint)
        if not messages:
            return None
        path, written = _generation(fields, messages, target)
    except (TypeError, ValueError, RecursionError):
        # A tool's arguments are not JSON, or orjson cannot write the body.
        return None
    stream, options = fields.get("stream", False), fields.get("stream_options", {})
    usage = stream and options.get("include_usage", False)
    return Generation(path, written, reply=reply, chat=endpoint is endpoints.CHAT, stream=stream, usage=usage)


def _embedding(fields: Mapping[str, Any], target: Target) -> tuple[str, bytes]:
    texts = fields["input"]
    body: dict[str, Any] = {"model": target.model, "input": [texts] if isinstance(texts, str) else texts}
    body |= {name: fields[name] for name in ("dimensions", "keep_alive") if name in fields}
    # Also when the client wants it cut: the full path then asks again, and marks the response as truncated.
    body["truncate"] = False
    options = {name: fields[name] for name in ("num_ctx", "input_type") if name in fields}
    if options:
        body["options"] = options
    return _address(target, "/api/embed"), orjson.dumps(body)


def _generation(fields: Mapping[str, Any], messages: list[dict[str, Any]], target: Target) -> tuple[str, bytes]:
    options = {RENAMED.get(name, name): fields[name] for name in OPTIONS if name in fields}
    body: dict[str, Any] = {"model": target.model, "messages": messages, "options": options}
    body["stream"] = fields.get("stream", False)
    body |= STRICT
    body |= {name: fields[name] for name in ("tools", "keep_alive") if name in fields}
    wanted = fields.get("response_format", {})
    schema = wanted.get("json_schema") or {}
    if wanted.get("type") == "json_object":
        body["format"] = "json"
    elif wanted.get("type") == "json_schema" and schema.get("schema"):
        body["format"] = schema["schema"]
    effort = fields.get("reasoning_effort")
    if effort is not None:
        body["think"] = effort if target.model.startswith("gpt-oss") else effort in ("low", "medium", "high")
    return _address(target, "/api/chat"), orjson.dumps(body)


def _address(target: Target, path: str) -> str:
    return target.url if target.url.endswith(path) else f"{target.url}{path}"


def _messages(fields: Mapping[str, Any], endpoint: Endpoint) -> list[dict[str, Any]] | None:
    if endpoint is endpoints.COMPLETIONS:
        prompt = fields.get("prompt") or ""
        messages = [{"role": "user", "content": text} for text in ([prompt] if isinstance(prompt, str) else prompt)]
        if "prompt" not in fields or "messages" in fields:
            return None
    else:
        messages = fields.get("messages") or []
    translated = [message for message in map(_message, messages) if message is not None]
    return translated if len(translated) == len(messages) else None


def _message(message: object) -> dict[str, Any] | None:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(role, str) or role not in ROLES:
        return None
    content = codec.text_of(message.get("content"))
    left_out = message.keys() - MESSAGE
    if content is None or not all(name in EMPTY and message[name] in EMPTY[name] for name in left_out):
        return None
    translated: dict[str, Any] = {"role": ROLES[role], "content": content, "images": []}
    thought = message.get("reasoning_content")
    if thought is None and isinstance(message.get("content"), str):
        tagged = THOUGHT.match(content)
        thought = tagged.group(1) if tagged else None
    for name, value in (("thinking", thought), ("tool_call_id", message.get("tool_call_id"))):
        if value is not None:
            if not isinstance(value, str):
                return None
            translated[name] = value
    if message.get("tool_calls") is not None:
        calls = (
            [_tool_call(entry) for entry in message["tool_calls"]]
            if isinstance(message["tool_calls"], list)
            else [None]
        )
        if None in calls:
            return None
        translated["tool_calls"] = calls
    return translated


def _tool_call(call: object) -> dict[str, Any] | None:
    function = call.get("function") if isinstance(call, dict) and call.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return None
    arguments = json.loads(function.get("arguments", "{}"), parse_constant=_no_number)
    return {"function": {"name": function["name"], "arguments": arguments}} if isinstance(arguments, dict) else None


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)
