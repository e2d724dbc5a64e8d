"""Translates whole responses of servers with OpenAI's API to those that LiteLLM's proxy sends. Pure."""

from typing import Any

import orjson

from io3ops_gateway.codec.base import NO_DETAILS, REASONS, THOUGHT, Facts, Reply, UnstreamedCall, is_int
from io3ops_gateway.codec.sse import spent
from io3ops_gateway.policy.embedding_formats import formatted
from io3ops_gateway.request.payload import parsed

KNOWN = {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
CHOICE = {"index", "message", "finish_reason", "logprobs"}
MESSAGE = {"role", "content", "refusal", "annotations", "audio", "function_call", "tool_calls", "reasoning_content"}
TOOL_CALL = {"id", "type", "function", "index"}
# In a text completion LiteLLM writes all of them, null when not reported.
PROMPT_DETAILS = ("audio_tokens", "cached_tokens", "text_tokens", "image_tokens", "video_tokens")
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


class Embedding(UnstreamedCall):
    """One call of /embeddings. `wanted`: the format of the vectors; some servers always send lists."""

    def __init__(self, path: str, body: bytes, *, reply: Reply, wanted: str | None) -> None:
        super().__init__(path, body, reply=reply)
        self._wanted = wanted

    def answer(self, data: bytes) -> bytes | None:
        """Return a whole response in the client's format; None when it is not recognised."""
        response = parsed(data)
        entries, used = response.get("data"), response.get("usage")
        if not isinstance(entries, list) or not all(map(_is_embedding, entries)) or not isinstance(used, dict):
            return None
        prompt = used.get("prompt_tokens")
        if not isinstance(prompt, int) or not is_int(used.get("total_tokens")):
            return None
        vectors = formatted(entries, self._wanted)
        if vectors is None:
            return None
        self.facts.prompt, self.facts.completion = prompt, 0
        usage = spent(prompt, 0) | {"total_tokens": used["total_tokens"]} | NO_DETAILS
        return orjson.dumps({"model": self._reply.asked, "data": vectors, "object": "list", "usage": usage})


def whole(response: dict[str, Any], asked: str, facts: Facts, *, chat: bool) -> bytes | None:
    """Return a whole generation in the client's format, None when it is not recognised. Note its usage in `facts`."""
    choices, used = response.get("choices"), response.get("usage")
    named = isinstance(response.get("id"), str) and response["id"] and is_int(response.get("created"))
    if response.get("error") or not named or not isinstance(choices, list) or len(choices) != 1:
        return None
    choice = _choice(choices[0], chat) if isinstance(choices[0], dict) else None
    if choice is None or not isinstance(used, dict | None):
        return None
    used = dict.fromkeys(COUNTS, 0) | (used or {})
    if not all(is_int(used[name]) for name in COUNTS):
        return None
    facts.prompt, facts.completion = used["prompt_tokens"], used["completion_tokens"]
    facts.finish_reason = choice["finish_reason"]
    answer = {"id": response["id"], "created": response["created"], "model": asked}
    answer["object"] = "chat.completion" if chat else "text_completion"
    extras = {name: value for name, value in response.items() if name not in KNOWN}
    extras["system_fingerprint"] = response.get("system_fingerprint")
    if chat:
        extras, used = without_nulls(extras), {n: without_nulls(v) for n, v in used.items() if v is not None}
    else:
        used = NO_DETAILS | used
        if isinstance(used["prompt_tokens_details"], dict):
            used["prompt_tokens_details"] = dict.fromkeys(PROMPT_DETAILS) | used["prompt_tokens_details"]
    return orjson.dumps(answer | extras | {"choices": [choice], "usage": used})


def _choice(upstream: dict[str, Any], chat: bool) -> dict[str, Any] | None:
    reason = upstream.get("finish_reason") or "stop"
    if not isinstance(reason, str) or reason not in REASONS or upstream.get("index", 0) != 0:
        return None
    if upstream.get("logprobs") is not None:
        return None
    extras = {name: value for name, value in upstream.items() if name not in CHOICE}
    choice: dict[str, Any] = {"finish_reason": reason, "index": 0}
    if not chat:
        if not isinstance(upstream.get("text"), str) or "message" in upstream:
            return None
        return extras | choice | {"logprobs": None}
    message = _message(upstream["message"]) if isinstance(upstream.get("message"), dict) else None
    if message is None:
        return None
    if "tool_calls" in message and reason == "stop":
        choice["finish_reason"] = "tool_calls"
    return choice | {"message": message, "provider_specific_fields": extras}


def _message(upstream: dict[str, Any]) -> dict[str, Any] | None:
    content, calls = upstream.get("content"), upstream.get("tool_calls") or []
    if upstream.get("audio") is not None or upstream.get("function_call") is not None:
        return None
    thought = upstream.get("reasoning_content")
    if thought is None:
        thought = upstream.get("reasoning")
    if not isinstance(content, str | None) or not isinstance(thought, str | None):
        return None
    if not isinstance(calls, list) or not all(map(_is_tool_call, calls)):
        return None
    if thought is None and content:
        tagged = THOUGHT.match(content)
        thought, content = tagged.groups() if tagged else (None, content)
    message: dict[str, Any] = {"content": content, "role": upstream.get("role") or "assistant"}
    if calls:
        message["tool_calls"] = calls
    if thought is not None:
        message["reasoning_content"] = thought
    if upstream.get("annotations") is not None:
        message["annotations"] = upstream["annotations"]
    extras = {name: value for name, value in upstream.items() if name not in MESSAGE}
    return message | {"provider_specific_fields": extras | {"refusal": upstream.get("refusal")}}


def without_nulls(value: Any) -> Any:
    """Return an object without its null fields, and anything else unchanged."""
    return {name: inner for name, inner in value.items() if inner is not None} if isinstance(value, dict) else value


def _is_embedding(entry: object) -> bool:
    if not isinstance(entry, dict) or entry.get("object") != "embedding" or not is_int(entry.get("index")):
        return False
    return isinstance(entry.get("embedding"), list | str)


def _is_tool_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) and call.get("type") == "function" else None
    if not isinstance(function, dict) or function.keys() != {"name", "arguments"}:
        return False
    return call.keys() <= TOOL_CALL and all(isinstance(value, str) for value in (call.get("id"), *function.values()))
