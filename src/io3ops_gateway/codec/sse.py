"""A stream of chunks as LiteLLM's proxy sends them: the first with a role, one with the reason, one with the usage if wanted. Pure."""

from typing import Any

import orjson

from io3ops_gateway.codec.base import Facts, Reply, TruncatedResponse, UnrecognisedResponse

DONE = b"data: [DONE]\n\n"
# LiteLLM ends a stream that says the same word so many times.
REPEATS = 100
# Far more than any piece of an answer has.
LINE_BYTES = 16_000_000


class Lines:
    """Bytes as they come, line by line."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete now."""
        self._parts.append(chunk)
        if b"\n" not in chunk:
            self._size += len(chunk)
            if self._size > LINE_BYTES:
                raise UnrecognisedResponse("the model's server sends a line without an end")
            return []
        self._size = 0
        *lines, rest = b"".join(self._parts).split(b"\n")
        self._parts = [rest]
        return lines

    def rest(self) -> bytes:
        """What stands after the last end of a line."""
        return b"".join(self._parts)


class Writer:
    """The events of one stream, for a chat or (`chat` false) a text completion. `usage`: the client wants it at the end.

    `begun`: something was written; `failed`: an error was, and nothing may follow.
    """

    def __init__(self, reply: Reply, *, chat: bool, usage: bool) -> None:
        self.begun = self.failed = False
        self.calls = 0
        self.said: list[str] = []
        self.usage = usage
        self.chat = chat
        self._reply = reply
        self._reasoning: list[str] | None = None
        self._tools = False
        self._last: object = None
        self._times = 0
        self._head = self._tail = b""

    def name(self, name: str, fingerprint: str | None = None) -> None:
        """Under which id, and from which build of a server, all of it is sent. LiteLLM gives chunks from Ollama one id each; here it is one."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        opened = {"id": name, "object": kind, "created": self._reply.now, "model": self._reply.asked}
        if fingerprint is not None and self.chat:
            opened["system_fingerprint"] = fingerprint
        opens = b'{"index":0,"delta":' if self.chat else b""
        self._head = b"data: " + orjson.dumps(opened)[:-1] + b',"choices":[' + opens
        # LiteLLM's text chunks carry empty counts, as long as nobody asked for any.
        zero = {"completion_tokens": 0, "prompt_tokens": 0, "total_tokens": 0}
        self._tail = b"]}\n\n" if self.chat or self.usage else b'],"usage":' + orjson.dumps(zero) + b"}\n\n"

    def add(self, delta: dict[str, Any]) -> bytes:
        """The event for a piece of the answer: its content, reasoning_content, tool_calls; the first one is given its role here."""
        if self._times >= REPEATS:
            kind = "internal_server_error" if self.chat else None
            return self.error(f"the model is repeating the same chunk = {self._last}", "500", kind)
        content = delta.get("content")
        self.said.append(content or delta.get("reasoning_content") or "")
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
        """The event that says why the answer ends."""
        self.begun = True
        said = b'"finish_reason":' + orjson.dumps(reason)
        return self._head + (b"{}," + said + b"}" if self.chat else b'{"index":0,' + said + b"}") + self._tail

    def counts(self, facts: Facts, told: dict[str, Any] | None = None, prompt: dict[str, Any] | None = None) -> bytes:
        """The event with the usage. `told`, `prompt`: what the upstream itself said about the completion's and the prompt's tokens."""
        used = spent(facts.prompt or 0, facts.completion or 0)
        completion = used["completion_tokens"]
        details = dict(told or {})
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
        if prompt:
            used["prompt_tokens_details"] = prompt
        closes = b"{}}" if self.chat else b'{"index":0}'
        return self._head + closes + b'],"usage":' + orjson.dumps(used) + b"}\n\n"

    def error(self, message: str, code: str, kind: str | None = None) -> bytes:
        """How a stream that had begun tells of its failure.

        Raises:
            UnrecognisedResponse: it had not.
        """
        if not self.begun:
            raise UnrecognisedResponse(message)
        self.failed = True
        return error_event(message, code, kind)


def error_event(message: str, code: str = "500", kind: str | None = None) -> bytes:
    """An error in the middle of a stream, also for a caller who lost the upstream; nothing comes after it."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


def spent(prompt: int, completion: int) -> dict[str, Any]:
    """OpenAI's `usage`."""
    return {"completion_tokens": completion, "prompt_tokens": prompt, "total_tokens": prompt + completion}


class Streamed:
    """What calls have in common whose answers may be streamed: `_line` understands a line, `_last` says what an answer ends with.

    `chat` false: a text completion; `usage`: the client wants it at the stream's end.
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
        """Something was handed on."""
        return self._writer.begun

    @property
    def failed(self) -> bool:
        """The last event was an error."""
        return self._writer.failed

    def counted(self) -> tuple[int, int]:
        """(prompt, completion): tokens by our own count, and without a counter a guess that is rather too high than none."""
        said, count = self._writer.said, self._reply.count
        prompt = self._reply.prompt() if self._reply.prompt else len(self.body) // 4
        return prompt, count("".join(said)) if count else len(said)

    def events(self, chunk: bytes) -> list[bytes]:
        """The events that these bytes complete.

        Raises:
            UnrecognisedResponse: nothing was handed on yet, and the upstream reports an error or is not understood.
        """
        return [event for line in self._lines.add(chunk) for event in self._line(line)]

    def end(self) -> list[bytes]:
        """The last events, after the upstream has ended.

        Raises:
            TruncatedResponse: it ended in the middle.
            UnrecognisedResponse: as `events`, of a last line without an end.
        """
        begun = self.begun
        found = self._line(self._lines.rest())
        if self.failed:
            return found
        if not self.finished:
            # What the last piece said is not handed on.
            self._writer.begun = begun
            raise TruncatedResponse
        return [*found, *self._last(), DONE]

    def _line(self, line: bytes) -> list[bytes]:
        raise NotImplementedError

    def _last(self) -> list[bytes]:
        raise NotImplementedError
