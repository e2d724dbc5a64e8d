"""Translates requests for servers with OpenAI's API, exactly as LiteLLM's route `openai/` does. Pure."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from io3ops_gateway.codec import base as codec
from io3ops_gateway.codec.base import Call, Reply, Target
from io3ops_gateway.codec.openai_responses import Embedding
from io3ops_gateway.codec.openai_stream import Generation
from io3ops_gateway.policy import endpoints
from io3ops_gateway.policy.endpoints import Endpoint

# Names of OpenAI's own models, for which LiteLLM has special rules.
CATALOGUE = re.compile(
    r"gpt-(?!oss)|chatgpt|responses/|(?:^|[/:])(?:o\d|chat-latest|ft:|davinci|babbage|ada|curie|text-|computer-use|daybreak|codex)"
)
HANDED: dict[str, Callable[[Any], bool]] = {
    "temperature": codec.is_number,
    "top_p": codec.is_number,
    "top_k": codec.is_number,
    "min_p": codec.is_number,
    "typical_p": codec.is_number,
    "repetition_penalty": codec.is_number,
    "repeat_penalty": codec.is_number,
    "frequency_penalty": codec.is_number,
    "presence_penalty": codec.is_number,
    "max_tokens": codec.is_int,
    "seed": codec.is_int,
    "stop": codec.is_stop,
    "n": lambda value: codec.is_int(value) and value == 1,
    "logit_bias": lambda value: isinstance(value, dict),
}
CHAT: dict[str, Callable[[Any], bool]] = HANDED | {
    "max_completion_tokens": codec.is_int,
    "logprobs": lambda value: value is False,
    "response_format": lambda value: (
        isinstance(value, dict) and value.get("type") in ("text", "json_object", "json_schema")
    ),
    "reasoning_effort": codec.is_text,
    "parallel_tool_calls": codec.is_flag,
    "tools": codec.is_tools,
    "tool_choice": codec.is_choice,
    "safety_identifier": codec.is_text,
    "prompt_cache_key": codec.is_text,
    "service_tier": codec.is_text,
    "chat_template_kwargs": lambda value: isinstance(value, dict),
    "guided_json": lambda value: isinstance(value, dict | str),
    "guided_regex": codec.is_text,
    "guided_choice": codec.is_texts,
    "guided_grammar": codec.is_text,
}
TEXT: dict[str, Callable[[Any], bool]] = HANDED | {
    "prompt": lambda value: isinstance(value, str) or (codec.is_texts(value) and len(value) == 1),
    "suffix": codec.is_text,
    "user": codec.is_text,
    "stream": codec.is_flag,
    "stream_options": codec.is_stream_options,
}
EMBEDDINGS: dict[str, Callable[[Any], bool]] = {
    "input": codec.is_stop,
    "encoding_format": lambda value: value in ("float", "base64"),
    "user": codec.is_text,
    "input_type": codec.is_text,
    "truncate": codec.is_flag,
}
# Not sent, or sent in another form.
ASIDE: dict[str, dict[str, Callable[[Any], bool]]] = {
    "chat": {
        "model": codec.is_text,
        "user": codec.is_text,
        "verbosity": codec.is_text,
        "messages": lambda value: isinstance(value, list) and bool(value),
        "stream": codec.is_flag,
        "stream_options": codec.is_stream_options,
    },
    "completions": {"model": codec.is_text},
    "embeddings": {"model": codec.is_text, "dimensions": codec.is_int},
}
KINDS = {"chat": (CHAT, "/chat/completions"), "completions": (TEXT, "/completions"), "embeddings": (EMBEDDINGS, "/embeddings")}  # fmt: skip
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
MESSAGE = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "annotations"}


def call(endpoint: Endpoint, body: Mapping[str, Any], target: Target, reply: Reply) -> Call | None:
    """Return the call for a plain request, None for any other."""
    if endpoint.name not in KINDS or endpoint.task != target.task or CATALOGUE.search(target.model.lower()):
        return None
    handed, path = KINDS[endpoint.name]
    # A field that the client sets to null also overrides the deployment's default.
    fields = codec.plain({**target.parameters, **body}, handed | ASIDE[endpoint.name])
    if fields is None:
        return None
    written = {name: value for name, value in fields.items() if name in handed} | {"model": target.model}
    needed = {"chat": "messages", "completions": "prompt", "embeddings": "input"}[endpoint.name]
    if needed not in fields or (endpoint is endpoints.CHAT and not _add_chat(written, fields)):
        return None
    if isinstance(fields.get("prompt"), list):
        written["prompt"] = fields["prompt"][0]
    try:
        data = orjson.dumps(written)
    except orjson.JSONEncodeError:
        return None
    url = f"{target.url.rstrip('/')}{path}"
    if endpoint is endpoints.EMBEDDINGS:
        return Embedding(url, data, reply=reply, wanted=fields.get("encoding_format"))
    stream = fields.get("stream", False)
    usage = stream and fields.get("stream_options", {}).get("include_usage", False)
    return Generation(url, data, reply=reply, chat=endpoint is endpoints.CHAT, stream=stream, usage=usage)


def _add_chat(written: dict[str, Any], fields: Mapping[str, Any]) -> bool:
    """Add the fields that only a chat has. Return whether its messages are plain."""
    messages = _messages(fields["messages"])
    if messages is None:
        return False
    written["messages"] = messages
    if not fields.get("tools"):
        written.pop("tool_choice", None)
    if fields.get("stream", False):
        # Always ask for the usage: the limits and the log need it.
        options = fields.get("stream_options", {}) | {"include_usage": True}
        written |= {"stream": True, "stream_options": options}
    return True


def _messages(messages: object) -> list[dict[str, Any]] | None:
    if not isinstance(messages, list):
        return None
    translated = [message for message in map(_message, messages) if message is not None]
    return translated if len(translated) == len(messages) else None


def _message(message: object) -> dict[str, Any] | None:
    if not isinstance(message, dict):
        return None
    fields = {name: value for name, value in message.items() if value is not None}
    role = fields.get("role")
    if not isinstance(role, str) or role not in ROLES or not fields.keys() <= MESSAGE:
        return None
    content = fields.get("content", "")
    if not isinstance(content, str) and not (isinstance(content, list) and all(map(_is_part, content))):
        return None
    if not all(isinstance(fields.get(name, ""), str) for name in ("name", "tool_call_id", "reasoning_content")):
        return None
    calls = fields.get("tool_calls", [])
    if fields.get("annotations", []) != [] or not (isinstance(calls, list) and all(map(_is_tool_call, calls))):
        return None
    fields["role"] = ROLES[role]
    return fields


def _is_part(part: object) -> bool:
    if not isinstance(part, dict):
        return False
    if part.get("type") == "text":
        return isinstance(part.get("text"), str) and part.keys() <= {"type", "text", "cache_control"}
    image = part.get("image_url")
    if part.get("type") != "image_url" or not isinstance(image, dict) or part.keys() != {"type", "image_url"}:
        return False
    url = image.get("url")
    return (
        isinstance(url, str)
        and url.startswith("data:image/")
        and image.keys() <= {"url", "detail"}
        and None not in image.values()
    )


def _is_tool_call(call: object) -> bool:
    if not isinstance(call, dict) or call.get("type") != "function" or None in call.values():
        return False
    function = call.get("function")
    if not isinstance(function, dict) or function.keys() != {"name", "arguments"}:
        return False
    return all(isinstance(value, str) for value in function.values())
