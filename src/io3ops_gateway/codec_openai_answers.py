"""Answers of servers that speak OpenAI's own API, whole and streamed, as LiteLLM's proxy hands them on. Pure."""

from typing import Any

import orjson

from io3ops_gateway.codec import REASONS, Cut, Facts, Reply, Strange, is_int
from io3ops_gateway.codec_ollama_answers import NO_DETAILS, THOUGHT
from io3ops_gateway.codec_stream import DONE, Lines, Writer, spent

KNOWN = {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
CHOICE = {"index", "message", "finish_reason", "logprobs"}
MESSAGE = {"role", "content", "refusal", "annotations", "audio", "function_call", "tool_calls", "reasoning_content"}
# In a text completion LiteLLM writes all of them, said or not.
PROMPT_DETAILS = ("audio_tokens", "cached_tokens", "text_tokens", "image_tokens", "video_tokens")


class Embedding:
    """One call of /embeddings."""

    stream = begun = finished = failed = False

    def __init__(self, path: str, body: bytes, *, reply: Reply) -> None:
        self.path = path
        self.body = body
        self.facts = Facts()
        self._reply = reply

    def answer(self, data: bytes) -> bytes | None:
        """A whole answer in the client's words; None: not understood."""
        found = _object(data)
        entries, used = found.get("data"), found.get("usage")
        if not isinstance(entries, list) or not all(map(_is_embedding, entries)) or not isinstance(used, dict):
            return None
        prompt = used.get("prompt_tokens")
        if not isinstance(prompt, int) or not is_int(used.get("total_tokens")):
            return None
        self.facts = Facts(prompt=prompt, completion=0)
        usage = spent(prompt, 0) | {"total_tokens": used["total_tokens"]} | NO_DETAILS
        return orjson.dumps({"model": self._reply.asked, "data": entries, "object": "list", "usage": usage})

    def events(self, chunk: bytes) -> list[bytes]:
        """Embeddings are not streamed."""
        raise Strange("embeddings are not streamed")

    def end(self) -> list[bytes]:
        """Embeddings are not streamed."""
        raise Strange("embeddings are not streamed")


class Generation:
    """One call of /chat/completions or (`chat` false) /completions. `usage`: the client wants it at the stream's end."""

    def __init__(self, path: str, body: bytes, *, reply: Reply, chat: bool, stream: bool, usage: bool) -> None:
        self.path = path
        self.body = body
        self.stream = stream
        self.facts = Facts()
        self.finished = False
        self._reply = reply
        self._chat = chat
        self._lines = Lines()
        self._writer = Writer(reply, chat=chat, usage=usage)
        self._named = False
        self._used: dict[str, Any] = {}

    @property
    def begun(self) -> bool:
        """Something was handed on."""
        return self._writer.begun

    @property
    def failed(self) -> bool:
        """The last event was an error."""
        return self._writer.failed

    def answer(self, data: bytes) -> bytes | None:
        """A whole answer in the client's words; None: not understood."""
        found = _object(data)
        choices, used = found.get("choices"), found.get("usage")
        counts = (used or {}).get if isinstance(used, dict | None) else dict[str, Any]().get
        prompt, completion, total = (
            counts("prompt_tokens", 0),
            counts("completion_tokens", 0),
            counts("total_tokens", 0),
        )
        named = isinstance(found.get("id"), str) and found["id"] and is_int(found.get("created"))
        if found.get("error") or not named or not isinstance(choices, list) or len(choices) != 1:
            return None
        if not isinstance(used, dict | None) or not all(map(is_int, (prompt, completion, total))):
            return None
        choice = self._choice(choices[0]) if isinstance(choices[0], dict) else None
        if choice is None:
            return None
        self.facts = Facts(prompt=prompt, completion=completion, finish_reason=choice["finish_reason"])
        usage = (used or {}) | spent(prompt, completion) | {"total_tokens": total}
        answer = {"id": found["id"], "created": found["created"], "model": self._reply.asked}
        answer["object"] = "chat.completion" if self._chat else "text_completion"
        extras = {name: value for name, value in found.items() if name not in KNOWN}
        if self._chat:
            extras = _without_nulls(extras)
            usage = {name: _without_nulls(value) for name, value in _without_nulls(usage).items()}
            if found.get("system_fingerprint") is not None:
                extras["system_fingerprint"] = found["system_fingerprint"]
        else:
            extras["system_fingerprint"] = found.get("system_fingerprint")
            usage = NO_DETAILS | usage
            if isinstance(usage["prompt_tokens_details"], dict):
                usage["prompt_tokens_details"] = dict.fromkeys(PROMPT_DETAILS) | usage["prompt_tokens_details"]
        return orjson.dumps(answer | extras | {"choices": [choice], "usage": usage})

    def _choice(self, given: dict[str, Any]) -> dict[str, Any] | None:
        reason = given.get("finish_reason") or "stop"
        if not isinstance(reason, str) or reason not in REASONS or given.get("index", 0) != 0:
            return None
        extras = {name: value for name, value in given.items() if name not in CHOICE}
        choice: dict[str, Any] = {"finish_reason": reason, "index": 0}
        if not self._chat:
            if not isinstance(given.get("text"), str) or "message" in given or given.get("logprobs") is not None:
                return None
            return extras | choice | {"logprobs": None}
        message = self._message(given["message"]) if isinstance(given.get("message"), dict) else None
        if message is None or given.get("logprobs") is not None:
            return None
        if "tool_calls" in message and reason == "stop":
            choice["finish_reason"] = "tool_calls"
        return choice | {"message": message, "provider_specific_fields": extras}

    def _message(self, given: dict[str, Any]) -> dict[str, Any] | None:
        content, calls = given.get("content"), given.get("tool_calls") or []
        if given.get("audio") is not None or given.get("function_call") is not None:
            return None
        thought = given.get("reasoning_content")
        if thought is None:
            thought = given.get("reasoning")
        if not isinstance(content, str | None) or not isinstance(thought, str | None):
            return None
        if not isinstance(calls, list) or not all(map(_is_tool_call, calls)):
            return None
        if thought is None and content:
            told = THOUGHT.match(content)
            thought, content = told.groups() if told else (None, content)
        message: dict[str, Any] = {"content": content, "role": given.get("role") or "assistant"}
        if calls:
            message["tool_calls"] = calls
        if thought is not None:
            message["reasoning_content"] = thought
        if given.get("annotations") is not None:
            message["annotations"] = given["annotations"]
        extras = {name: value for name, value in given.items() if name not in MESSAGE}
        return message | {"provider_specific_fields": extras | {"refusal": given.get("refusal")}}

    def events(self, chunk: bytes) -> list[bytes]:
        """The events that these bytes complete.

        Raises:
            Strange: nothing was handed on yet, and the upstream reports an error or is not understood.
        """
        return [event for line in self._lines.add(chunk) for event in self._line(line)]

    def end(self) -> list[bytes]:
        """The last events, after the upstream has ended.

        Raises:
            Cut: it ended in the middle.
            Strange: as `events`, of a last line without an end.
        """
        found = self._line(self._lines.rest())
        if self.failed:
            return found
        if not self.finished:
            raise Cut
        if not self.facts.finish_reason:
            self.facts.finish_reason = "stop"
            found.append(self._writer.finish("stop"))
        if self._writer.usage:
            told, prompt = (self._used.get(f"{name}_tokens_details") for name in ("completion", "prompt"))
            found.append(self._writer.counts(self.facts, _without_nulls(told), _without_nulls(prompt)))
        return [*found, DONE]

    def _line(self, line: bytes) -> list[bytes]:
        if not line.startswith(b"data:") or self.failed:
            # Comments, names of events, empty lines.
            return []
        data = line[5:].strip()
        if data == b"[DONE]":
            self.finished = True
            return []
        try:
            found = orjson.loads(data)
        except orjson.JSONDecodeError:
            return [self._writer.error("the model's server is not understood", "500")]
        return self._chunk(found) if isinstance(found, dict) else [self._fail(found)]

    def _chunk(self, found: dict[str, Any]) -> list[bytes]:
        choices, used = found.get("choices"), found.get("usage")
        if found.get("error") or not isinstance(choices, list):
            return [self._fail(found)]
        if not self._named:
            self._name(found)
        if isinstance(used, dict):
            self._count(used)
        if not choices:
            return []
        choice = choices[0]
        if len(choices) != 1 or not isinstance(choice, dict) or choice.get("index", 0) != 0:
            return [self._fail(found)]
        delta = self._delta(choice)
        reason = choice.get("finish_reason")
        if delta is None or reason == "error" or not isinstance(reason, str | None):
            return [self._fail(found)]
        events = [self._writer.add(delta)] if delta else []
        if reason and not self.facts.finish_reason and not self.failed:
            self.facts.finish_reason = reason if reason in REASONS else "stop"
            self.finished = True
            events.append(self._writer.finish(self.facts.finish_reason))
        return events

    def _delta(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        """What a chunk adds; empty: nothing, None: not understood."""
        if not self._chat:
            text = choice.get("text") or ""
            return ({"content": text} if text else {}) if isinstance(text, str) else None
        given = choice.get("delta") or {}
        if not isinstance(given, dict) or given.get("function_call") is not None:
            return None
        content = given.get("content")
        thought = given.get("reasoning_content")
        thought = given.get("reasoning") if thought is None else thought
        if not isinstance(content, str | None) or not isinstance(thought, str | None):
            return None
        calls = given.get("tool_calls")
        delta: dict[str, Any] = {}
        # An empty text says something only together with the role.
        if content or (content is not None and given.get("role") and not self.begun):
            delta["content"] = content
        if thought is not None:
            delta["reasoning_content"] = thought
        if calls is not None:
            pieces = [_piece(call) for call in calls] if isinstance(calls, list) else [None]
            if None in pieces:
                return None
            delta["tool_calls"] = pieces
        if not delta and given.get("role") and not self.begun:
            delta["role"] = "assistant"
        return delta

    def _name(self, found: dict[str, Any]) -> None:
        name, build = found.get("id"), found.get("system_fingerprint")
        known = isinstance(name, str) and name
        if found.get("service_tier") is not None:
            # LiteLLM repeats it here and there.
            raise Strange("the model's server speaks of service tiers")
        self._writer.name(
            str(name) if known else self._reply.new_id("chatcmpl-"), build if isinstance(build, str) else None
        )
        self._named = True

    def _count(self, used: dict[str, Any]) -> None:
        prompt, completion = used.get("prompt_tokens"), used.get("completion_tokens")
        self.facts.prompt = prompt if isinstance(prompt, int) else self.facts.prompt
        self.facts.completion = completion if isinstance(completion, int) else self.facts.completion
        self._used = used

    def _fail(self, found: object) -> bytes:
        said = found.get("error") if isinstance(found, dict) else None
        said = said.get("message") if isinstance(said, dict) else said
        message = (
            f"the model's server broke off: {said}" if isinstance(said, str) else "the model's server is not understood"
        )
        return self._writer.error(message, "500")


def _piece(given: object) -> dict[str, Any] | None:
    """A tool call, or a part of one, as LiteLLM writes it."""
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(function, dict) or not is_int(given.get("index")):
        return None
    found = {"function": {"arguments": function.get("arguments") or ""}, "type": "function", "index": given["index"]}
    if function.get("name") is not None:
        found["function"]["name"] = function["name"]
    if given.get("id") is not None:
        found["id"] = given["id"]
    return found


def _is_embedding(entry: object) -> bool:
    if not isinstance(entry, dict) or entry.get("object") != "embedding" or not is_int(entry.get("index")):
        return False
    return isinstance(entry.get("embedding"), list | str)


def _is_tool_call(given: object) -> bool:
    function = given.get("function") if isinstance(given, dict) and given.get("type") == "function" else None
    return (
        isinstance(given, dict)
        and isinstance(given.get("id"), str)
        and isinstance(function, dict)
        and function.keys() == {"name", "arguments"}
        and all(isinstance(value, str) for value in function.values())
    )


def _without_nulls(value: Any) -> Any:
    return {name: inner for name, inner in value.items() if inner is not None} if isinstance(value, dict) else value


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
