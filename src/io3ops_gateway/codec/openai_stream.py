"""Translates streams of servers with OpenAI's API to those that LiteLLM's proxy sends. Pure."""

from typing import Any

import orjson

from io3ops_gateway.codec.base import REASONS, Reply, UnrecognisedResponse, is_int
from io3ops_gateway.codec.openai_responses import whole, without_nulls
from io3ops_gateway.codec.sse import Streamed
from io3ops_gateway.request.payload import parsed


class Generation(Streamed):
    """One call of /chat/completions or, with `chat` False, /completions. `usage`: the client wants it at the end of the stream."""

    def __init__(self, path: str, body: bytes, *, reply: Reply, chat: bool, stream: bool, usage: bool) -> None:
        super().__init__(path, body, reply=reply, chat=chat, stream=stream, usage=usage)
        self.closed = False
        self._named = False
        self._used: dict[str, Any] = {}

    def answer(self, data: bytes) -> bytes | None:
        """Return a whole response in the client's format; None when it is not recognised."""
        return whole(parsed(data), self._reply.asked, self.facts, chat=self._chat)

    def _last(self) -> list[bytes]:
        events = []
        if not self.facts.finish_reason:
            self.facts.finish_reason = "stop"
            events.append(self._writer.finish("stop"))
        if self._writer.usage:
            if not self._used:
                self.facts.prompt, self.facts.completion = self.counted()
            completion, prompt = (self._used.get(f"{name}_tokens_details") for name in ("completion", "prompt"))
            events.append(self._writer.counts(self.facts, without_nulls(completion), without_nulls(prompt)))
        return events

    def _line(self, line: bytes) -> list[bytes]:
        if not line.startswith(b"data:") or self.failed:
            # A comment, an event's name or an empty line.
            return []
        data = line[5:].strip()
        if data == b"[DONE]":
            if not self._named:
                raise UnrecognisedResponse("the model's server sent an empty stream")
            self.finished = self.closed = True
            return []
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            return [self._writer.error("the model's server sent an unrecognised response", "500")]
        return self._chunk(chunk) if isinstance(chunk, dict) else [self._fail(chunk)]

    def _chunk(self, chunk: dict[str, Any]) -> list[bytes]:
        choices, used = chunk.get("choices"), chunk.get("usage")
        if chunk.get("error") or not isinstance(choices, list):
            return [self._fail(chunk)]
        if not self._named:
            self._name(chunk)
        if isinstance(used, dict):
            self._count(used)
        if not choices:
            return []
        choice = choices[0]
        if len(choices) != 1 or not isinstance(choice, dict) or choice.get("index", 0) != 0:
            return [self._fail(chunk)]
        delta = self._delta(choice)
        reason = choice.get("finish_reason")
        if delta is None or reason == "error" or not isinstance(reason, str | None):
            return [self._fail(chunk)]
        events = [self._writer.add(delta)] if delta else []
        if reason and not self.facts.finish_reason and not self.failed:
            self.facts.finish_reason = reason if reason in REASONS else "stop"
            self.finished = True
            events.append(self._writer.finish(self.facts.finish_reason))
        return events

    def _delta(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        """Return what a chunk adds, possibly nothing; None when it is not recognised."""
        if not self._chat:
            text = choice.get("text") or ""
            return ({"content": text} if text else {}) if isinstance(text, str) else None
        upstream = choice.get("delta") or {}
        if not isinstance(upstream, dict) or upstream.get("function_call") is not None:
            return None
        content = upstream.get("content")
        thought = upstream.get("reasoning_content")
        thought = upstream.get("reasoning") if thought is None else thought
        if not isinstance(content, str | None) or not isinstance(thought, str | None):
            return None
        calls = upstream.get("tool_calls")
        delta: dict[str, Any] = {}
        if thought is not None:
            delta["reasoning_content"] = thought
        if calls is not None:
            pieces = [_piece(call) for call in calls] if isinstance(calls, list) else [None]
            if None in pieces:
                return None
            delta["tool_calls"] = pieces
        if upstream.get("role") and not self.begun:
            delta["role"] = "assistant"
        # An empty text makes no event of its own, but is part of one with other fields.
        if content or (content is not None and delta):
            delta["content"] = content
        return delta

    def _name(self, chunk: dict[str, Any]) -> None:
        name, build = chunk.get("id"), chunk.get("system_fingerprint")
        known = isinstance(name, str) and name
        if chunk.get("service_tier") is not None:
            # LiteLLM repeats the service tier in some chunks only.
            raise UnrecognisedResponse("the model's server reports a service tier")
        self._writer.name(
            str(name) if known else self._reply.new_id("chatcmpl-"), build if isinstance(build, str) else None
        )
        self._named = True

    def _count(self, used: dict[str, Any]) -> None:
        prompt, completion = used.get("prompt_tokens"), used.get("completion_tokens")
        self.facts.prompt = prompt if isinstance(prompt, int) else self.facts.prompt
        self.facts.completion = completion if isinstance(completion, int) else self.facts.completion
        self._used = used

    def _fail(self, chunk: object) -> bytes:
        reported = chunk.get("error") if isinstance(chunk, dict) else None
        reported = reported.get("message") if isinstance(reported, dict) else reported
        message = (
            f"the model's server reported an error: {reported}"
            if isinstance(reported, str)
            else "the model's server sent an unrecognised response"
        )
        return self._writer.error(message, "500")


def _piece(call: object) -> dict[str, Any] | None:
    """Return a tool call, or a part of one, as LiteLLM writes it; None when it is not recognised."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not is_int(call.get("index")):
        return None
    piece = {"function": {"arguments": function.get("arguments") or ""}, "type": "function", "index": call["index"]}
    if function.get("name") is not None:
        piece["function"]["name"] = function["name"]
    if call.get("id") is not None:
        piece["id"] = call["id"]
    return piece
