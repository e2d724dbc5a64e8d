"""Writes a stream of chunks as LiteLLM's proxy sends them: the role first, then the text, the finish reason, and the usage if wanted. Pure."""

from typing import Any

import orjson

from io3ops_gateway.codec.base import Facts, Reply, TruncatedResponse, UnrecognisedResponse

DONE = b"data: [DONE]\n\n"
# LiteLLM ends a stream that repeats the same chunk this many times.
REPEATS = 100
# Upper bound for one line of a stream, far above any real one.
LINE_BYTES = 16_000_000


class Lines:
    """Splits incoming bytes into lines."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes."""
        self._parts.append(chunk)
        if b"\n" not in chunk:
            self._size += len(chunk)
            if self._size > LINE_BYTES:
                raise UnrecognisedResponse("the model's server sent an endless line")
            return []
        self._size = 0
        *lines, rest = b"".join(self._parts).split(b"\n")
        self._parts = [rest]
        return lines

    def rest(self) -> bytes:
        """Return the bytes after the last line end."""
        return b"".join(self._parts)


class Writer:
    """Writes the events of one stream. `chat`: False for a text completion. `usage`: the client wants it at the end.

    `begun`: an event was written. `failed`: the last event was an error, and nothing may follow.
    """

    def __init__(self, reply: Reply, *, chat: bool, usage: bool) -> None:
        self.begun = self.failed = False
        self.calls = 0
        self.texts: list[str] = []
        self.usage = usage
        self.chat = chat
        self._reply = reply
        self._reasoning: list[str] | None = None
        self._tools = False
        self._last: object = None
        self._times = 0
        self._head = self._tail = b""

    def name(self, name: str, fingerprint: str | None = None) -> None:
        """Set the id and the system fingerprint of all chunks. LiteLLM gives each chunk from Ollama another id; here they share one."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        opened = {"id": name, "object": kind, "created": self._reply.now, "model": self._reply.asked}
        if fingerprint is not None and self.chat:
            opened["system_fingerprint"] = fingerprint
        opens = b'{"index":0,"delta":' if self.chat else b""
        self._head = b"data: " + orjson.dumps(opened)[:-1] + b',"choices":[' + opens
        # LiteLLM's text chunks carry zero counts when the client did not ask for usage.
        zero = {"completion_tokens": 0, "prompt_tokens": 0, "total_tokens": 0}
        self._tail = b"]}\n\n" if self.chat or self.usage else b'],"usage":' + orjson.dumps(zero) + b"}\n\n"

    def add(self, delta: dict[str, Any]) -> bytes:
        """Return the event for a delta (content, reasoning_content, tool_calls). The first one gets its role here."""
        if self._times >= REPEATS:
            kind = "internal_server_error" if self.chat else None
            return self.error(f"the model is repeating the same chunk = {self._last}", "500", kind)
        content = delta.get("content")
        self.texts.append(content or delta.get("reasoning_content") or "")
        long = isinstance(content, str) and len(content) > 2
        self._times = self._times + 1 if long and content == self._last else 1
        self._last = content
        if "reasoning_content" in delta:
            self._reasoning = self._reasoning or []
            self._reasoning.append(delta["reasoning_content"])
        self._tools = self._tools or "tool_calls" in delta
        if self.chat:
            if not self.begun:
                delta["role"] = "assistant"
            self.begun = True
            return self._head + orjson.dumps(delta) + b"}" + self._tail
        self.begun = True
        choice: dict[str, Any] = {"index": 0}
        if content is not None:
            choice["text"] = content
        if "reasoning_content" in delta:
            choice["reasoning_content"] = delta["reasoning_content"]
        return self._head + orjson.dumps(choice) + self._tail

    def finish(self, reason: str) -> bytes:
        """Return the event with the finish reason."""
        self.begun = True
        field = b'"finish_reason":' + orjson.dumps(reason)
        return self._head + (b"{}," + field + b"}" if self.chat else b'{"index":0,' + field + b"}") + self._tail

    def counts(
        self,
        facts: Facts,
        completion_details: dict[str, Any] | None = None,
        prompt_details: dict[str, Any] | None = None,
    ) -> bytes:
        """Return the event with the usage. `completion_details`, `prompt_details`: the upstream's details of their tokens."""
        used = spent(facts.prompt or 0, facts.completion or 0)
        completion = used["completion_tokens"]
        details = dict(completion_details or {})
        reasoning = "".join(self._reasoning or [])
        share = 0
        if reasoning:
            share = min(self._reply.count(reasoning), completion) if self._reply.count else -1
        counted = share > 0 or (self._reasoning is None and not self._tools)
        if counted and "reasoning_tokens" not in details:
            details["reasoning_tokens"] = share
            details.setdefault("text_tokens", completion - share)
        if details:
            used["completion_tokens_details"] = details
        if prompt_details:
            used["prompt_tokens_details"] = prompt_details
        closes = b"{}}" if self.chat else b'{"index":0}'
        return self._head + closes + b'],"usage":' + orjson.dumps(used) + b"}\n\n"

    def error(self, message: str, code: str, kind: str | None = None) -> bytes:
        """Return the event with which a stream that has begun reports its failure.

        Raises:
            UnrecognisedResponse: the stream has not begun.
        """
        if not self.begun:
            raise UnrecognisedResponse(message)
        self.failed = True
        return error_event(message, code, kind)


def error_event(message: str, code: str = "500", kind: str | None = None) -> bytes:
    """Return an error event, which ends a stream."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


def spent(prompt: int, completion: int) -> dict[str, Any]:
    """Return OpenAI's `usage` object."""
    return {"completion_tokens": completion, "prompt_tokens": prompt, "total_tokens": prompt + completion}


class Streamed:
    """A call whose response may be streamed. Subclasses translate a line in `_line`, and add the last events in `_last`.

    `chat`: False for a text completion. `usage`: the client wants it at the end of the stream.
    """

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

    @property
    def begun(self) -> bool:
        """Return whether some of the response was relayed."""
        return self._writer.begun

    @property
    def failed(self) -> bool:
        """Return whether the last event was an error."""
        return self._writer.failed

    def counted(self) -> tuple[int, int]:
        """Return the (prompt, completion) tokens by our own count; without a counter, over-estimate them (about 4 bytes per token)."""
        texts, count = self._writer.texts, self._reply.count
        prompt = self._reply.prompt() if self._reply.prompt else len(self.body) // 4
        return prompt, count("".join(texts)) if count else len(texts)

    def events(self, chunk: bytes) -> list[bytes]:
        """Return the events that these bytes complete.

        Raises:
            UnrecognisedResponse: nothing was relayed yet, and the upstream reports an error or sends something unknown.
        """
        return [event for line in self._lines.add(chunk) for event in self._line(line)]

    def end(self) -> list[bytes]:
        """Return the last events, after the upstream has ended its response.

        Raises:
            TruncatedResponse: the response is not complete.
            UnrecognisedResponse: as in `events`, for a last line without a line end.
        """
        begun = self.begun
        events = self._line(self._lines.rest())
        if self.failed:
            return events
        if not self.finished:
            # The events of the last line are not relayed.
            self._writer.begun = begun
            raise TruncatedResponse
        return [*events, *self._last(), DONE]

    def _line(self, line: bytes) -> list[bytes]:
        raise NotImplementedError

    def _last(self) -> list[bytes]:
        raise NotImplementedError
