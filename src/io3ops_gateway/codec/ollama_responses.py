"""Translates Ollama's responses, whole and streamed, to OpenAI's format as LiteLLM's proxy sends it. Pure.

Chunks, keys and finish reasons are LiteLLM's. Comments mark where LiteLLM is wrong in a way that hurts clients, and this is not.
"""

import json
from typing import Any

import orjson

from io3ops_gateway.codec.base import NO_DETAILS, REASONS, THOUGHT, Facts, Reply, UnstreamedCall, is_int
from io3ops_gateway.codec.sse import Streamed, spent
from io3ops_gateway.policy.embedding_formats import formatted
from io3ops_gateway.request.payload import parsed

TIMINGS = (
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
)


class Embedding(UnstreamedCall):
    """One call of /api/embed. `wanted`: the format of the vectors; Ollama always sends lists."""

    def __init__(self, path: str, body: bytes, *, reply: Reply, wanted: str | None) -> None:
        super().__init__(path, body, reply=reply)
        self._wanted = wanted

    def answer(self, data: bytes) -> bytes | None:
        """Return a whole response in the client's format; None when it is not recognised."""
        response = parsed(data)
        vectors = response.get("embeddings")
        tokens = response.get("prompt_eval_count")
        if (
            not isinstance(vectors, list)
            or not all(isinstance(v, list) for v in vectors)
            or not isinstance(tokens, int)
        ):
            return None
        plain = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
        entries = formatted(plain, self._wanted)
        if entries is None:
            return None
        self.facts = Facts(prompt=tokens, completion=0, timings=_timings(response))
        usage = spent(tokens, 0) | NO_DETAILS
        return orjson.dumps({"model": self._reply.asked, "data": entries, "object": "list", "usage": usage})


class Generation(Streamed):
    """One call of /api/chat. `chat`: for a chat; False for a text completion. `usage`: the client wants it at the end of the stream."""

    def __init__(self, path: str, body: bytes, *, reply: Reply, chat: bool, stream: bool, usage: bool) -> None:
        super().__init__(path, body, reply=reply, chat=chat, stream=stream, usage=usage)
        self._thinks = self._thought = False
        self._calls = 0
        if stream:
            self._writer.name(reply.new_id(""))

    @property
    def closed(self) -> bool:
        """Return whether the upstream sent its last line."""
        return self.finished

    def answer(self, data: bytes) -> bytes | None:
        """Return a whole response in the client's format; None when it is not recognised."""
        response = parsed(data)
        message = response.get("message")
        if not isinstance(message, dict) or message.get("role") != "assistant":
            return None
        content, prompt, completion = (
            message.get("content"),
            response.get("prompt_eval_count"),
            response.get("eval_count"),
        )
        if completion is None and content == "":
            completion = 0
        if not isinstance(content, str) or not isinstance(prompt, int) or not isinstance(completion, int):
            return None
        if "thinking" in message:
            thought = message["thinking"]
        else:
            tagged = THOUGHT.match(content)
            thought, content = tagged.groups() if tagged else (None, content)
        calls = self._tool_calls(data) if message.get("tool_calls") else []
        if calls is None or not isinstance(thought, str | None):
            return None
        self._note(response, "tool_calls" if calls else None)
        return self._whole(content, thought, calls)

    def _whole(self, content: str, thought: str | None, calls: list[dict[str, Any]]) -> bytes:
        kind = "chat.completion" if self._chat else "text_completion"
        usage = spent(self.facts.prompt or 0, self.facts.completion or 0)
        choice: dict[str, Any] = {"finish_reason": self.facts.finish_reason, "index": 0}
        if self._chat:
            message: dict[str, Any] = {"content": content, "role": "assistant"}
            if calls:
                message["tool_calls"] = calls
            if thought is not None:
                message["reasoning_content"] = thought
            choice["message"] = message
        else:
            choice |= {"text": content, "logprobs": None}
            usage |= NO_DETAILS
        answer = {"id": self._reply.new_id("chatcmpl-"), "created": self._reply.now, "model": self._reply.asked}
        return orjson.dumps(answer | {"object": kind, "choices": [choice], "usage": usage})

    def _last(self) -> list[bytes]:
        return [self._writer.counts(self.facts)] if self._writer.usage else []

    def _line(self, line: bytes) -> list[bytes]:
        if self.finished or self.failed:
            return []
        try:
            chunk = orjson.loads(line)
        except orjson.JSONDecodeError:
            # LiteLLM ignores a line that is not JSON.
            return []
        if chunk == {}:
            return []
        if not isinstance(chunk, dict) or not chunk.keys() >= {"message", "model", "done"}:
            return self._fail(chunk, "400")
        message = chunk["message"]
        delta = self._delta(message, line) if isinstance(message, dict) else None
        if delta is None:
            return self._fail(chunk, "500")
        events = [self._writer.add(delta)] if delta else []
        if self.failed or chunk["done"] is not True:
            return events
        self._note(chunk, "tool_calls" if self._calls else None)
        self.finished = True
        return [*events, self._writer.finish(self.facts.finish_reason)]

    def _delta(self, message: dict[str, Any], line: bytes) -> dict[str, Any] | None:
        """Return what a chunk adds, possibly nothing; None when it is not recognised."""
        text, thought = message.get("content") or "", message.get("thinking") or None
        if not isinstance(text, str) or not isinstance(thought, str | None):
            return None
        self._thinks = self._thinks or bool(thought)
        thought, content = self._sorted(thought, text) if text else (thought, None)
        delta: dict[str, Any] = {}
        if message.get("tool_calls"):
            calls = self._tool_calls(line)
            if calls is None:
                return None
            delta["tool_calls"] = calls
        if thought is not None:
            delta["reasoning_content"] = thought
        # An empty text makes no event of its own, but is part of one with other fields.
        if content or (content is not None and delta):
            delta["content"] = content
        return delta

    def _sorted(self, thought: str | None, content: str) -> tuple[str | None, str | None]:
        """Return (reasoning, text) of a chunk. As with LiteLLM, of reasoning inside the text only the first chunk is recognised."""
        if self._thinks:
            self._thought = True
        if "<think>" in content:
            content = content.replace("<think>", "")
            self._thinks = True
        if "</think>" in content and self._thinks:
            content = content.replace("</think>", "")
            self._thought = True
        return (content, None) if self._thinks and not self._thought else (thought, content)

    def _tool_calls(self, data: bytes) -> list[dict[str, Any]] | None:
        """Return the tool calls of a response or a chunk. Parsed again, because orjson rounds very large numbers."""
        try:
            calls = json.loads(data)["message"]["tool_calls"]
            return [self._tool_call(entry, entry["function"]) for entry in calls]
        except (KeyError, TypeError, ValueError, RecursionError):
            return None

    def _tool_call(self, entry: dict[str, Any], function: dict[str, Any]) -> dict[str, Any]:
        name, arguments, known = function["name"], function["arguments"], entry.get("id")
        if not isinstance(name, str) or not isinstance(arguments, dict | str):
            raise TypeError
        written = arguments if isinstance(arguments, str) else json.dumps(arguments)
        # In a stream LiteLLM gives every call with arguments a new id.
        kept = isinstance(known, str) and known and not (self.stream and arguments)
        call = {"id": known if kept else self._reply.new_id(""), "type": "function"}
        call["function"] = {"arguments": written, "name": name}
        if self.stream:
            # LiteLLM restarts at 0 in every chunk, so that clients merge two calls into one.
            call["index"] = self._calls
        self._calls += 1
        return call

    def _note(self, response: dict[str, Any], reason: str | None) -> None:
        done_reason = response.get("done_reason")
        prompt, completion = response.get("prompt_eval_count"), response.get("eval_count")
        self.facts.finish_reason = reason or (
            done_reason if isinstance(done_reason, str) and done_reason in REASONS else "stop"
        )
        self.facts.prompt = prompt if isinstance(prompt, int) else 0
        self.facts.completion = completion if isinstance(completion, int) else 0
        self.facts.timings = _timings(response)

    def _fail(self, response: object, code: str) -> list[bytes]:
        reported = response.get("error") if isinstance(response, dict) else None
        message = (
            f"the model's server reported an error: {reported}"
            if isinstance(reported, str)
            else "the model's server sent an unrecognised response"
        )
        return [self._writer.error(message, code)]


def _timings(response: dict[str, Any]) -> dict[str, int]:
    return {name: response[name] for name in TIMINGS if is_int(response.get(name))}
