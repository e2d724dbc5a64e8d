"""Runs in a container: a cloud under every host name, that answers LiteLLM's clients and keeps every byte it is sent.

Speaks OpenAI's, Anthropic's, Gemini's and Bedrock's APIs over TLS (or plain HTTP, on the same ports), and DNS.
A control port tells how each model is to behave, lists what was recorded and searches it in all its encodings.

Environment: CLOUD_CERT, CLOUD_KEY (files; without them only plain HTTP), CLOUD_PORT (8443; several with commas),
CLOUD_CONTROL_PORT (8080), CLOUD_DNS_PORT (5353; 0 for none), CLOUD_ADDRESS (what DNS answers; else the address of
ours that the asker reaches).

Control: PUT /behaviours, GET and DELETE /recorded, GET /contains?needle=..., POST /search with a list of needles,
GET /health. A hit is a contact (a connection, a request, a question for a name) that holds the needle in any form.

Behaviours, per model or for `*`: ok, a status (429, 500, 401, 503...), slow:SECONDS, refuse, context, content,
blocked (a 200 that says the content was filtered), badjson, cut, tools.
"""

from __future__ import annotations

import base64
import binascii
import http
import http.server
import ipaddress
import json
import os
import re
import signal
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, unquote_to_bytes, urlsplit

KEPT_BYTES = 2 * 1024 * 1024
TAIL_BYTES = 64 * 1024
HEAD_BYTES = 256 * 1024
INFLATED_BYTES = 16 * 1024 * 1024
IDLE_SECONDS = 600.0
HANDSHAKE_SECONDS = 30.0

# ---------------------------------------------------------------------------------------------------------------------
# What was recorded, and the search in it


@dataclass
class Entry:
    """One contact. `parts`: the bytes that came; `names`: host names, which are compared without regard to case."""

    number: int
    kind: str
    facts: dict[str, Any]
    parts: dict[str, bytearray]
    names: list[str] = field(default_factory=list)
    epoch: int = 0
    cache: tuple[object, list[tuple[str, bytes]]] | None = None


class Records:
    """Everything that came. One lock for all of it: nothing is done under it that takes long."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries: list[Entry] = []
        self.epoch = 0
        self.count = 0

    def add(self, kind: str, facts: dict[str, Any], names: Iterable[str] = (), **parts: bytes) -> Entry:
        with self.lock:
            self.count += 1
            kept = {name: bytearray(content) for name, content in parts.items()}
            entry = Entry(self.count, kind, facts | {"time": time.time()}, kept, list(names), self.epoch)
            self.entries.append(entry)
        return entry

    def note(self, entry: Entry, **facts: Any) -> None:
        with self.lock:
            entry.facts.update(facts)

    def named(self, entry: Entry, name: str) -> None:
        with self.lock:
            entry.names.append(name)

    def feed(self, entry: Entry, part: str, data: bytes) -> None:
        """Bytes that came later. They are recorded again even when the list was emptied in between."""
        with self.lock:
            kept = entry.parts.setdefault(part, bytearray())
            room = max(0, KEPT_BYTES - len(kept))
            kept += data[:room]
            if part == "body" and len(data) > room:
                # Clients name the model last.
                tail = entry.parts.setdefault("tail", bytearray())
                tail += data[room:]
                del tail[:-TAIL_BYTES]
            if entry.epoch != self.epoch:
                entry.epoch = self.epoch
                self.entries.append(entry)

    def take(self, entry: Entry, part: str, count: int) -> bytes:
        """Remove bytes from the front of a part, because they are now known to belong elsewhere."""
        with self.lock:
            kept = entry.parts[part]
            taken = bytes(kept[:count])
            del kept[:count]
        return taken

    def clear(self) -> None:
        with self.lock:
            self.entries.clear()
            self.epoch += 1

    def listed(self) -> list[Entry]:
        with self.lock:
            return list(self.entries)

    def shown(self, entry: Entry) -> dict[str, Any]:
        """As JSON: every part as text and in base64."""
        with self.lock:
            facts = dict(entry.facts)
            parts = {name: bytes(content) for name, content in entry.parts.items()}
            names = list(entry.names)
        shown: dict[str, Any] = {"number": entry.number, "kind": entry.kind, "names": names, **facts}
        for name, content in parts.items():
            if name == "headers":
                shown["headers"] = header_pairs(content)
            else:
                shown[name] = content.decode(errors="replace")
                shown[f"{name}_base64"] = base64.b64encode(content).decode()
        return shown

    def forms(self, entry: Entry) -> list[tuple[str, bytes]]:
        """Every part as it came and in everything it decodes to, each with the way there, as `body>gzip>json`."""
        with self.lock:
            parts = {name: bytes(content) for name, content in entry.parts.items()}
            key = (tuple((name, len(content)) for name, content in parts.items()), len(entry.names))
            if entry.cache is not None and entry.cache[0] == key:
                return entry.cache[1]
            names = list(entry.names)
        found = [form for name, content in parts.items() for form in decoded_forms(name, content)]
        for name in names:
            # `names` is searched in lower case; a label cannot hold more than 63 letters, so also without the dots.
            found.append(("names", f"{name}\n{name.replace('.', '')}".lower().encode()))
        entry.cache = (key, found)
        return found


def header_pairs(block: bytes) -> list[list[str]]:
    pairs = (line.partition(b":") for line in block.splitlines() if line.strip())
    return [[name.decode("latin-1"), value.strip().decode("latin-1")] for name, _, value in pairs]


_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{10,}")
_JSON_ESCAPE = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+|\\.", re.DOTALL)
_JSON_SHORT = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"f": b"\f"}
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def decoded_forms(label: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes themselves and all they decode to, up to four steps deep. What was there already is left out."""
    seen = {data}
    level = [(label, data)]
    for depth in range(4):
        yield from level
        deeper = []
        for path, form in level:
            for step, result, final in _decodings(form, depth == 0):
                if len(result) < 4 or result in seen:
                    continue
                seen.add(result)
                if final:
                    yield f"{path}>{step}", result
                else:
                    deeper.append((f"{path}>{step}", result))
        level = deeper
    yield from level


def _decodings(data: bytes, first: bool) -> Iterator[tuple[str, bytes, bool]]:
    """One step: its name, what it gives, and whether that is the end of this way."""
    if b"%" in data:
        yield "percent", unquote_to_bytes(data), False
    if first and b"+" in data and b"=" in data and b" " not in data:
        yield "plus", unquote_to_bytes(data.replace(b"+", b" ")), False
    if b"\\" in data:
        yield "json", _JSON_ESCAPE.sub(_unescaped, data), False
    yield from ((step, inflated, False) for step, inflated in _inflated(data, first))
    unwrapped = data.replace(b"\r", b"").replace(b"\n", b"")
    pieces = []
    texts = []
    for run in _BASE64_RUN.findall(unwrapped):
        letters = run.translate(_URL_SAFE)
        # The run may begin before the encoded text does: `/v1/` and `base64/` are letters of base64 too.
        for skipped in range(4):
            whole = letters[skipped : skipped + (len(letters) - skipped) // 4 * 4]
            tail = letters[skipped + len(whole) :]
            piece = binascii.a2b_base64(whole + (tail + b"=" * (4 - len(tail)) if len(tail) > 1 else b""))
            pieces.append(piece)
            # Three of four are noise. It is searched, but leads nowhere.
            if piece.decode(errors="replace").count("\ufffd") * 8 <= len(piece):
                texts.append(piece)
            yield from (("base64-inflated", inflated, False) for _, inflated in _inflated(piece, False))
    if texts:
        yield "base64", b"\n".join(texts), False
    if len(texts) < len(pieces):
        yield "base64-bytes", b"\n".join(pieces), True


def _unescaped(match: re.Match[bytes]) -> bytes:
    text: bytes = match.group()
    if text.startswith(b"\\u") and len(text) >= 6:
        units = b"".join(int(text[i + 2 : i + 6], 16).to_bytes(2, "big") for i in range(0, len(text), 6))
        return units.decode("utf-16-be", errors="replace").encode()
    return _JSON_SHORT.get(text[1:], text[1:])


def _inflated(data: bytes, bare: bool) -> Iterator[tuple[str, bytes]]:
    starts = [(match.start(), 31) for match in re.finditer(rb"\x1f\x8b\x08", data)][:50]
    if len(data) > 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0:
        starts.append((0, 15))
    if bare and not data[:64].isascii():
        starts.append((0, -15))
    for start, bits in starts:
        engine = zlib.decompressobj(bits)
        result = b""
        try:
            # In small steps: what came before a break is worth reading too.
            for at in range(start, len(data), 1024):
                result += engine.decompress(data[at : at + 1024], INFLATED_BYTES)
                if engine.eof or len(result) > INFLATED_BYTES:
                    break
        except zlib.error:
            pass
        if result:
            yield {31: "gzip", 15: "zlib", -15: "deflate"}[bits], result


class Finder:
    """Looks for many needles at once: only those whose rarest few bytes are there at all are looked for as a whole."""

    def __init__(self, needles: Iterable[str]) -> None:
        exact = {needle: needle.encode(errors="surrogateescape") for needle in needles if needle}
        self.exact = _Table(exact)
        self.folded = _Table({needle: needle.lower().encode(errors="surrogateescape") for needle in exact})

    def find(self, label: str, content: bytes) -> set[str]:
        return (self.folded if label == "names" else self.exact).find(content)


class _Table:
    """`grams`: per width, a needle's rarest bytes as a number, since numbers are what a memoryview reads quickly."""

    WIDTHS: tuple[tuple[int, Literal["Q", "I"]], ...] = ((8, "Q"), (4, "I"))

    def __init__(self, needles: dict[str, bytes]) -> None:
        self.needles = list(needles.items())
        self.grams: dict[tuple[int, Literal["Q", "I"]], dict[int, list[tuple[str, bytes]]]] = {}
        self.short = [(needle, content) for needle, content in self.needles if len(content) < 4]
        for width, code in self.WIDTHS:
            fitting = [n for n in self.needles if len(n[1]) >= width and (width == 8 or len(n[1]) < 8)]
            if not fitting:
                continue
            parts = {needle: [c[i : i + width] for i in range(len(c) - width + 1)] for needle, c in fitting}
            counts = Counter(part for some in parts.values() for part in set(some))
            table = self.grams.setdefault((width, code), {})
            for needle, content in fitting:
                rarest = min(parts[needle], key=counts.__getitem__)
                table.setdefault(int.from_bytes(rarest, sys.byteorder), []).append((needle, content))

    def find(self, data: bytes) -> set[str]:
        if len(self.needles) <= 64:
            return {needle for needle, content in self.needles if content in data}
        found = {needle for needle, content in self.short if content in data}
        for (width, code), table in self.grams.items():
            there: set[int] = set()
            for at in range(min(width, len(data))):
                whole = (len(data) - at) // width * width
                there |= table.keys() & memoryview(data)[at : at + whole].cast(code).tolist()
            found.update(needle for gram in there for needle, content in table[gram] if content in data)
        return found


# ---------------------------------------------------------------------------------------------------------------------
# What the providers say


@dataclass
class Answer:
    """`events`: what is streamed, one write each; else `body`. `cut`: leave before the end."""

    status: int = 200
    body: bytes = b""
    events: list[bytes] | None = None
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass
class Asked:
    """A request that a model is to answer."""

    api: str
    model: str
    body: dict[str, Any]
    path: str
    stream: bool = False
    behaviour: str = "ok"

    @property
    def words(self) -> list[str]:
        return ["from ", "cloud ", self.model]

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def blocked(self) -> bool:
        return self.behaviour == "blocked"

    def tool(self) -> tuple[str, dict[str, Any]] | None:
        """The call to make: of the first tool, when told to call tools, unless its result is already there."""
        tools = self.body.get("tools") or []
        if self.behaviour != "tools" or not tools or self._has_result():
            return None
        tool = tools[0]
        if "functionDeclarations" in tool or "function_declarations" in tool:
            tool = (tool.get("functionDeclarations") or tool["function_declarations"])[0]
        tool = tool.get("function") or tool.get("toolSpec") or tool
        schema = tool.get("parameters") or tool.get("parametersJsonSchema") or tool.get("input_schema")
        schema = schema or tool.get("inputSchema", {}).get("json") or {}
        samples: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}
        return tool.get("name", "tool"), {
            name: samples.get(str((kind or {}).get("type", "string")).lower(), self.text)
            for name, kind in (schema.get("properties") or {}).items()
        }

    def _has_result(self) -> bool:
        said = self.body.get("messages") or self.body.get("contents") or self.body.get("input") or []
        last = said[-1] if isinstance(said, list) and said else {}
        if not isinstance(last, dict):
            return False
        if last.get("role") == "tool" or last.get("type") == "function_call_output":
            return True
        parts = last.get("content") or last.get("parts") or []
        return isinstance(parts, list) and any(
            isinstance(part, dict)
            and (
                part.get("type") == "tool_result" or {"functionResponse", "function_response", "toolResult"} & set(part)
            )
            for part in parts
        )


def dumped(content: Any) -> bytes:
    return json.dumps(content).encode()


def plain(content: Any) -> Answer:
    return Answer(body=dumped(content))


def data_event(content: Any) -> bytes:
    return b"data: " + dumped(content) + b"\n\n"


def named_event(content: dict[str, Any]) -> bytes:
    return b"event: " + str(content["type"]).encode() + b"\n" + data_event(content)


def streamed(events: list[bytes]) -> Answer:
    return Answer(events=events, kind="text/event-stream")


def openai_chat(asked: Asked) -> Answer:
    tool = asked.tool()
    calls = [
        {"id": "call_1", "type": "function", "function": {"name": tool[0], "arguments": json.dumps(tool[1])}}
    ] if tool else None  # fmt: skip
    finish = "tool_calls" if calls else "content_filter" if asked.blocked else "stop"
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    whole: dict[str, Any] = {"id": "chatcmpl-cloud", "created": int(time.time()), "model": asked.model}
    if not asked.stream:
        message: dict[str, Any] = {"role": "assistant", "content": None if calls else asked.text}
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        whole |= {"object": "chat.completion", "service_tier": "default"}
        return plain(whole | {"choices": [choice], "usage": usage})
    whole["object"] = "chat.completion.chunk"
    deltas: list[dict[str, Any]]
    if tool:
        name, arguments = tool[0], json.dumps(tool[1])
        first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
        rest = {"index": 0, "function": {"arguments": arguments}}
        deltas = [{"role": "assistant", "content": None, "tool_calls": [first]}, {"tool_calls": [rest]}]
    else:
        deltas = [{"content": word} for word in asked.words]
        deltas[0]["role"] = "assistant"
    chunks = [whole | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append(whole | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if (asked.body.get("stream_options") or {}).get("include_usage"):
        chunks.append(whole | {"choices": [], "usage": usage})
    return streamed([*map(data_event, chunks), b"data: [DONE]\n\n"])


def openai_text(asked: Asked) -> Answer:
    finish = "content_filter" if asked.blocked else "stop"
    whole = {"id": "cmpl-cloud", "object": "text_completion", "created": int(time.time()), "model": asked.model}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    if not asked.stream:
        choice = {"index": 0, "text": asked.text, "finish_reason": finish, "logprobs": None}
        return plain(whole | {"choices": [choice], "usage": usage})
    parts: list[tuple[str, str | None]] = [(word, None) for word in asked.words]
    chunks = [
        whole | {"choices": [{"index": 0, "text": word, "finish_reason": end, "logprobs": None}]}
        for word, end in [*parts, ("", finish)]
    ]
    return streamed([*map(data_event, chunks), b"data: [DONE]\n\n"])


def _vector(asked: Asked, size: Any) -> list[float]:
    return [0.25 + 0.125 * (i % 4) for i in range(int(size or 8))]


def openai_embeddings(asked: Asked) -> Answer:
    given = asked.body.get("input", "")
    # A list of numbers is one text of tokens.
    count = len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1
    vector: Any = _vector(asked, asked.body.get("dimensions"))
    if asked.body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    data = [{"object": "embedding", "index": i, "embedding": vector} for i in range(count)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return plain({"object": "list", "model": asked.model, "data": data, "usage": usage, "cloud": asked.text})


def openai_responses(asked: Asked) -> Answer:
    tool = asked.tool()
    part: dict[str, Any] = {"type": "output_text", "text": asked.text, "annotations": []}
    item: dict[str, Any] = {"type": "message", "id": "msg_cloud", "role": "assistant", "content": [part]}
    if tool:
        item = {"type": "function_call", "id": "fc_cloud", "call_id": "call_1", "name": tool[0]}
        item["arguments"] = json.dumps(tool[1])
    item["status"] = "completed"
    usage: dict[str, Any] = {
        "input_tokens": 3, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5,
    }  # fmt: skip
    began: dict[str, Any] = {
        "id": "resp_cloud", "object": "response", "created_at": int(time.time()), "model": asked.model,
        "status": "in_progress", "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
        "output": [], "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "top_p": 1.0,
        "tools": asked.body.get("tools") or [], "max_output_tokens": None, "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None}, "text": {"format": {"type": "text"}},
        "truncation": "disabled", "usage": None, "user": None, "store": False,
    }  # fmt: skip
    done = began | {"status": "completed", "output": [item], "usage": usage}
    if asked.blocked:
        done |= {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    if not asked.stream:
        return plain(done)
    at: dict[str, Any] = {"item_id": item["id"], "output_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": began},
        {"type": "response.in_progress", "response": began},
    ]
    empty: dict[str, Any] = {"arguments": ""} if tool else {"content": []}
    opened = item | {"status": "in_progress"} | empty
    events.append({"type": "response.output_item.added", "output_index": 0, "item": opened})
    if tool:
        events.append({"type": "response.function_call_arguments.delta", **at, "delta": item["arguments"]})
        events.append({"type": "response.function_call_arguments.done", **at, "arguments": item["arguments"]})
    else:
        at["content_index"] = 0
        events.append({"type": "response.content_part.added", **at, "part": part | {"text": ""}})
        events += [{"type": "response.output_text.delta", **at, "delta": word} for word in asked.words]
        events.append({"type": "response.output_text.done", **at, "text": asked.text})
        events.append({"type": "response.content_part.done", **at, "part": part})
    events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    events.append({"type": f"response.{done['status']}", "response": done})
    return streamed([named_event(event | {"sequence_number": i}) for i, event in enumerate(events)])


def openai_models(asked: Asked) -> Answer:
    data = [{"id": "cloud", "object": "model", "created": 1, "owned_by": "cloud"}]
    gemini = [{"name": "models/cloud", "supportedGenerationMethods": ["generateContent", "embedContent"]}]
    return plain({"object": "list", "data": data, "models": gemini, "has_more": False})


def openai_moderations(asked: Asked) -> Answer:
    names: tuple[str, ...] = (
        "sexual",
        "hate",
        "harassment",
        "self-harm",
        "sexual/minors",
        "hate/threatening",
        "violence/graphic",
    )
    names += ("self-harm/intent", "self-harm/instructions", "harassment/threatening", "violence", "illicit")
    names += ("illicit/violent",)
    result: dict[str, Any] = {
        "flagged": False,
        "categories": dict.fromkeys(names, False),
        "category_scores": dict.fromkeys(names, 0.0),
    }
    result["category_applied_input_types"] = {name: ["text"] for name in names}
    count = len(asked.body["input"]) if isinstance(asked.body.get("input"), list) else 1
    return plain({"id": asked.text, "model": asked.model, "results": [result] * count})


def openai_images(asked: Asked) -> Answer:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    url = asked.body.get("response_format") == "url"
    image = {"url": "https://images.invalid/cloud.png"} if url else {"b64_json": pixel}
    return plain({"created": int(time.time()), "data": [image | {"revised_prompt": asked.text}]})


def rerank(asked: Asked) -> Answer:
    documents = asked.body.get("documents") or []
    count = min(asked.body.get("top_n") or len(documents), len(documents))
    results: list[dict[str, Any]] = [{"index": i, "relevance_score": round(0.9 / (i + 1), 4)} for i in range(count)]
    if asked.body.get("return_documents"):
        for result, document in zip(results, documents, strict=False):
            result["document"] = document if isinstance(document, dict) else {"text": document}
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    usage = {"total_tokens": 3, "prompt_tokens": 3}
    return plain({"id": asked.text, "model": asked.model, "results": results, "meta": meta, "usage": usage})


def openai_speech(asked: Asked) -> Answer:
    return Answer(body=asked.text.encode(), kind="audio/mpeg")


def anthropic_messages(asked: Asked) -> Answer:
    tool = asked.tool()
    stop = "tool_use" if tool else "refusal" if asked.blocked else "end_turn"
    usage = {"input_tokens": 3, "output_tokens": 2, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    block: dict[str, Any] = {"type": "text", "text": asked.text}
    if tool:
        block = {"type": "tool_use", "id": "toolu_cloud", "name": tool[0], "input": tool[1]}
    whole: dict[str, Any] = {
        "id": "msg_cloud",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [block],
    }
    whole |= {"stop_reason": stop, "stop_sequence": None, "usage": usage}
    if not asked.stream:
        return plain(whole)
    began = whole | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    empty: dict[str, Any] = {"input": {}} if tool else {"text": ""}
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": word} for word in asked.words]
    if tool:
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(tool[1])}]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": began},
        {"type": "content_block_start", "index": 0, "content_block": block | empty},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    return streamed([named_event(event) for event in events])


def anthropic_count(asked: Asked) -> Answer:
    return plain({"input_tokens": 3, "cloud": asked.text})


def gemini_generate(asked: Asked) -> Answer:
    tool = asked.tool()
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    whole: dict[str, Any] = {"usageMetadata": usage, "modelVersion": asked.model, "responseId": "cloud"}
    if asked.blocked:
        pieces = [whole | {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": asked.text}}]
    else:
        parts: list[dict[str, Any]] = (
            [{"text": word} for word in asked.words] if asked.stream else [{"text": asked.text}]
        )
        if tool:
            parts = [{"functionCall": {"name": tool[0], "args": tool[1]}}]
        pieces = [
            whole | {"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}}]} for part in parts
        ]
        pieces[-1]["candidates"][0]["finishReason"] = "STOP"
    if not asked.stream:
        return plain(pieces[0])
    if "alt=sse" in asked.path:
        return streamed([data_event(piece) for piece in pieces])
    return Answer(events=[(b"," if i else b"[") + dumped(piece) for i, piece in enumerate(pieces)] + [b"]"])


def gemini_count(asked: Asked) -> Answer:
    return plain(
        {"totalTokens": 3, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3}], "cloud": asked.text}
    )


def gemini_embed(asked: Asked) -> Answer:
    return plain({"embedding": {"values": _vector(asked, asked.body.get("outputDimensionality"))}, "cloud": asked.text})


def gemini_embed_many(asked: Asked) -> Answer:
    requests = asked.body.get("requests") or [{}]
    vectors = [{"values": _vector(asked, request.get("outputDimensionality"))} for request in requests]
    return plain({"embeddings": vectors, "cloud": asked.text})


def bedrock_converse(asked: Asked) -> Answer:
    tool_config = asked.body.get("toolConfig") or {}
    asked.body.setdefault("tools", tool_config.get("tools"))
    tool = asked.tool()
    block: dict[str, Any] = {"text": asked.text}
    if tool:
        block = {"toolUse": {"toolUseId": "tooluse_cloud", "name": tool[0], "input": tool[1]}}
    stop = "tool_use" if tool else "content_filtered" if asked.blocked else "end_turn"
    if asked.stream:
        events = [amazon_event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": asked.text}})]
        events.append(amazon_event("messageStop", {"stopReason": stop}))
        return Answer(events=events, kind="application/vnd.amazon.eventstream")
    return plain(
        {
            "output": {"message": {"role": "assistant", "content": [block]}},
            "stopReason": stop,
            "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
            "metrics": {"latencyMs": 1},
        }
    )


def amazon_event(kind: str, content: Any) -> bytes:
    """An event in Amazon's binary framing: lengths, named words, the content, and checksums."""
    words = ((":event-type", kind), (":content-type", "application/json"), (":message-type", "event"))
    named = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in words
    )
    payload = dumped(content)
    prelude = struct.pack(">II", len(named) + len(payload) + 16, len(named))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + named + payload
    return message + struct.pack(">I", zlib.crc32(message))


# How a path ends, longest first: which provider's dialect its errors have, and what it answers.
SUFFIXES: list[tuple[str, str, Callable[[Asked], Answer]]] = [
    ("/messages/count_tokens", "anthropic", anthropic_count),
    ("/messages", "anthropic", anthropic_messages),
    ("/chat/completions", "openai", openai_chat),
    ("/completions", "openai", openai_text),
    ("/embeddings", "openai", openai_embeddings),
    ("/responses", "openai", openai_responses),
    ("/models", "openai", openai_models),
    ("/moderations", "openai", openai_moderations),
    ("/images/generations", "openai", openai_images),
    ("/rerank", "openai", rerank),
    ("/audio/speech", "openai", openai_speech),
]
GEMINI: dict[str, Callable[[Asked], Answer]] = {
    "generateContent": gemini_generate,
    "streamGenerateContent": gemini_generate,
    "countTokens": gemini_count,
    "embedContent": gemini_embed,
    "batchEmbedContents": gemini_embed_many,
}
_GEMINI_PATH = re.compile(r"/models/([^/]+):(\w+)$")
_BEDROCK_PATH = re.compile(r"/model/([^/]+)/(converse|converse-stream|invoke)$")
_DEPLOYMENT = re.compile(r"/deployments/([^/]+)/")

# Per dialect and behaviour: the status, the provider's word for it, and its message.
ERRORS: dict[str, dict[str, tuple[int, str, str]]] = {
    "openai": {
        "context": (400, "context_length_exceeded", "This model's maximum context length is 10 tokens. However, your messages resulted in 11 tokens."),
        "content": (400, "content_policy_violation", "Your request was rejected as a result of our safety system."),
        "429": (429, "rate_limit_exceeded", "Rate limit reached for requests."),
        "401": (401, "invalid_api_key", "Incorrect API key provided."),
        "500": (500, "server_error", "The server had an error while processing your request."),
    },
    "anthropic": {
        "context": (400, "invalid_request_error", "prompt is too long: 11 tokens > 10 maximum"),
        "content": (400, "invalid_request_error", "Output blocked by content filtering policy"),
        "429": (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
        "401": (401, "authentication_error", "invalid x-api-key"),
        "500": (500, "api_error", "Internal server error"),
    },
    "gemini": {
        "context": (400, "INVALID_ARGUMENT", "The input token count (11) exceeds the maximum number of tokens allowed (10)."),
        "content": (400, "INVALID_ARGUMENT", "The response was blocked."),
        "429": (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
        "401": (401, "UNAUTHENTICATED", "API key not valid. Please pass a valid API key."),
        "500": (500, "INTERNAL", "An internal error has occurred."),
    },
    "bedrock": {
        "context": (400, "ValidationException", "Input is too long for requested model."),
        "content": (400, "ValidationException", "Output blocked by content filtering policy"),
        "429": (429, "ThrottlingException", "Too many requests, please wait before trying again."),
        "401": (401, "UnrecognizedClientException", "The security token included in the request is invalid."),
        "500": (500, "InternalServerException", "The system encountered an unexpected error."),
    },
}  # fmt: skip


def error_answer(dialect: str, behaviour: str, model: str) -> Answer:
    """An error as this provider words it. It says where it is from, as every answer does."""
    known = ERRORS[dialect].get(behaviour)
    status, word, message = known or (int(behaviour), "error", f"told to say {behaviour}")
    message += f" (from cloud {model})"
    if dialect == "anthropic":
        return Answer(status, dumped({"type": "error", "error": {"type": word, "message": message}}))
    if dialect == "gemini":
        return Answer(status, dumped({"error": {"code": status, "message": message, "status": word}}))
    if dialect == "bedrock":
        return Answer(status, dumped({"message": message}), headers={"x-amzn-errortype": word})
    family = {429: "rate_limit_error", 400: "invalid_request_error", 401: "invalid_request_error"}
    error = {"message": message, "type": family.get(status, "server_error"), "param": None, "code": word}
    return Answer(status, dumped({"error": error}))


def understood(method: str, target: str, body: bytes) -> tuple[str, Asked, Callable[[Asked], Answer] | None]:
    """Which provider's dialect this request is in, what it asks, and what answers it: None for a path of no API."""
    try:
        content = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        # Too long to have been kept as a whole, perhaps; who is asked is known all the same.
        named = re.search(rb'"model"\s*:\s*"([^"\\]*)"', body)
        content = {"model": named[1].decode(errors="replace") if named else ""}
        content["stream"] = re.search(rb'"stream"\s*:\s*true', body) is not None
    if not isinstance(content, dict):
        content = {}
    raw_path = urlsplit(target).path
    path = unquote(raw_path).rstrip("/")
    if found := _GEMINI_PATH.search(path):
        asked = Asked(found[2], found[1], content, target, found[2].startswith("stream"))
        return "gemini", asked, GEMINI.get(found[2])
    if found := _BEDROCK_PATH.search(raw_path):
        asked = Asked(found[2], unquote(found[1]), content, target, found[2].endswith("-stream"))
        return "bedrock", asked, anthropic_messages if found[2] == "invoke" else bedrock_converse
    deployment = _DEPLOYMENT.search(path)
    model = str(content.get("model") or (deployment[1] if deployment else ""))
    for suffix, dialect, answer in SUFFIXES:
        if path.endswith(suffix):
            streams = content.get("stream") is True
            return dialect, Asked(suffix, model, content, target, streams), answer
    return "openai", Asked("", model, content, target), None


def answered(dialect: str, asked: Asked, good: Callable[[Asked], Answer] | None) -> Answer | None:
    """What to send, as the model was told to behave. None: close without a word."""
    behaviour = asked.behaviour
    if behaviour.startswith("slow:"):
        time.sleep(float(behaviour.removeprefix("slow:")))
    if behaviour == "refuse":
        return None
    if good is None:
        error = {"message": f"no such path: {urlsplit(asked.path).path}", "type": "invalid_request_error", "code": 404}
        return Answer(404, dumped({"error": error}))
    if behaviour in ERRORS[dialect] or behaviour.isdecimal():
        return error_answer(dialect, behaviour, asked.model)
    answer = good(asked)
    if behaviour == "badjson":
        broken = b'{"id": "' + asked.text.encode() + b'", "choices": [{'
        if answer.events is None:
            answer.body = broken
        else:
            answer.events = [answer.events[0].split(b"data: ")[0] + b"data: " + broken + b"\n\n"]
    elif behaviour == "cut":
        answer.cut = True
        if answer.events is None:
            return answer
        # After the second piece of text, or else the second event.
        second = (i + 1 for i, event in enumerate(answer.events) if b'"cloud "' in event)
        answer.events = answer.events[: next(second, 2)]
    return answer


# ---------------------------------------------------------------------------------------------------------------------
# The cloud's own ports


class Cloud:
    """What the ports share: the records, and how each model is to behave."""

    def __init__(self, certificate: str = "", key: str = "", address: str = "") -> None:
        self.records = Records()
        self.behaviours: dict[str, str] = {}
        self.address = address
        self.handshake = threading.local()
        self.tls: ssl.SSLContext | None = None
        if certificate:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(certificate, key or None)
            self.tls.set_alpn_protocols(["http/1.1"])
            self.tls.sni_callback = self._asked_name

    def _asked_name(self, _socket: object, name: str | None, _context: ssl.SSLContext) -> None:
        self.handshake.name = name

    def behaviour(self, model: str) -> str:
        behaviours = self.behaviours
        return behaviours.get(model) or behaviours.get("*") or "ok"

    def serve(self, port: int) -> int:
        """Listen and return at once. Returns the port, which is another when 0 was asked for."""
        listener = socket.create_server(("", port), backlog=256)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return int(listener.getsockname()[1])

    def _accept(self, listener: socket.socket) -> None:
        port = listener.getsockname()[1]
        while True:
            try:
                connection, peer = listener.accept()
            except OSError as error:
                if listener.fileno() < 0:
                    return
                sys.stderr.write(f"cloud: accept: {error}\n")
                time.sleep(0.05)
                continue
            facts = {"peer": f"{peer[0]}:{peer[1]}", "port": port, "tls": False, "sni": None, "error": None}
            entry = self.records.add("connection", facts, raw=b"")
            threading.Thread(target=self._connection, args=(connection, entry), daemon=True).start()

    def _connection(self, connection: socket.socket, entry: Entry) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(HANDSHAKE_SECONDS)
            hello = connection.recv(16384, socket.MSG_PEEK)
            if self.tls is not None and hello[:1] == b"\x16":
                connection = self._secured(connection, entry, hello, self.tls)
            connection.settimeout(IDLE_SECONDS)
            Conversation(self, connection, entry).run()
        except (OSError, EOFError) as error:
            self.records.note(entry, error=f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001  a mistake of ours must not look like silence of the client
            self.records.note(entry, error=f"{type(error).__name__}: {error}")
            sys.stderr.write(f"cloud: {type(error).__name__}: {error}\n")
        finally:
            connection.close()

    def _secured(self, connection: socket.socket, entry: Entry, hello: bytes, tls: ssl.SSLContext) -> socket.socket:
        self.handshake.name = None
        secured = None
        self.records.note(entry, tls=True)
        try:
            secured = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            secured.do_handshake()
        except OSError:
            # What there is of it: the greeting, with the name in it.
            self.records.feed(entry, "raw", hello)
            if secured is not None:
                secured.close()
            raise
        finally:
            name = self.handshake.name
            if name:
                self.records.note(entry, sni=name)
                self.records.named(entry, name)
        self.records.note(entry, version=secured.version(), cipher=(secured.cipher() or ("",))[0])
        return secured


_REASONS = {int(status): status.phrase for status in http.HTTPStatus}
_REQUEST_LINE = re.compile(rb"[A-Z]{3,20} \S+ HTTP/1\.[01]$")


class Conversation:
    """One connection. What came and is not yet known to be a request is the connection's own `raw` part."""

    def __init__(self, cloud: Cloud, connection: socket.socket, entry: Entry) -> None:
        self.cloud = cloud
        self.records = cloud.records
        self.connection = connection
        self.entry = entry

    @property
    def raw(self) -> bytearray:
        return self.entry.parts["raw"]

    def _more(self) -> bool:
        """False when the client has left."""
        data = self.connection.recv(65536)
        self.records.feed(self.entry, "raw", data) if data else None
        return bool(data)

    def run(self) -> None:
        while True:
            line = self._line(begins=True)
            if line is None:
                return
            if not _REQUEST_LINE.match(line.rstrip(b"\r\n")):
                self._not_http()
                return
            if not self._request(line):
                return

    def _line(self, begins: bool = False) -> bytes | None:
        """The next line, left where it is; what cannot begin a request is not waited for. None: the client has left."""
        while True:
            while self.raw[:2] == b"\r\n":
                self.records.take(self.entry, "raw", 2)
            end = self.raw.find(b"\n")
            if end >= 0:
                return bytes(self.raw[: end + 1])
            if len(self.raw) > HEAD_BYTES or (begins and len(self.raw) >= 8 and not self.raw[:1].isalpha()):
                return bytes(self.raw[:HEAD_BYTES])
            if not self._more():
                return None

    def _not_http(self) -> None:
        self.records.note(self.entry, error="not HTTP/1")
        self.connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.connection.settimeout(2)
        while len(self.raw) < KEPT_BYTES and self._more():
            pass

    def _request(self, line: bytes) -> bool:
        """Read, record and answer one request. False when the connection is over."""
        while True:
            end = re.search(rb"\r?\n\r?\n", self.raw)
            if end:
                break
            if len(self.raw) > HEAD_BYTES:
                self._not_http()
                return False
            if not self._more():
                return False
        head = self.records.take(self.entry, "raw", end.end())
        method, target, version = line.rstrip(b"\r\n").decode("latin-1").split(" ")
        block = head[len(line) :].rstrip(b"\r\n")
        headers = {name.lower(): value for name, value in header_pairs(block)}
        about = {name: self.entry.facts.get(name) for name in ("peer", "port", "tls", "sni")}
        facts = about | {"connection": self.entry.number, "method": method, "version": version, "complete": False}
        names = [name for name in (headers.get("host"), self.entry.facts.get("sni")) if name]
        facts["host"] = headers.get("host")
        request = self.records.add("request", facts, names, path=target.encode("latin-1"), headers=block)
        self.records.feed(request, "body", b"")
        if headers.get("expect", "").lower() == "100-continue":
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = self._body(request, headers)
        if length is None:
            return False
        body = bytes(request.parts["body"] + request.parts.get("tail", b""))
        dialect, asked, good = understood(method, target, body)
        asked.behaviour = self.cloud.behaviour(asked.model)
        told = {"model": asked.model, "api": asked.api, "behaviour": asked.behaviour}
        self.records.note(request, complete=True, body_length=length, **told)
        answer = answered(dialect, asked, good)
        self.records.note(request, answered=answer.status if answer else None)
        if answer is None:
            return False
        keep = headers.get("connection", "").lower() != "close" and version == "HTTP/1.1" and not answer.cut
        self._send(answer, asked, keep, method == "HEAD", version == "HTTP/1.1")
        return keep

    def _move(self, request: Entry, count: int, part: str = "body") -> bool:
        """Take the next bytes of the connection to the request. False when fewer came."""
        while count > 0:
            if not self.raw and not self._more():
                return False
            data = self.records.take(self.entry, "raw", count)
            self.records.feed(request, part, data)
            count -= len(data)
        return True

    def _body(self, request: Entry, headers: dict[str, str]) -> int | None:
        """Returns the length of the body, recorded or not; None when it did not all come."""
        if "chunked" not in headers.get("transfer-encoding", "").lower():
            length = headers.get("content-length", "0")
            if not length.isdecimal():
                self._not_http()
                return None
            return int(length) if self._move(request, int(length)) else None
        total = 0
        while True:
            line = self._line()
            size = re.match(rb"\s*([0-9A-Fa-f]{1,8})\s*(?:;|$)", line.rstrip(b"\r\n")) if line else None
            if line is None or size is None:
                self._not_http()
                return None
            # What a chunk's line may say besides its size is kept too.
            self._move(request, len(line), "framing")
            count = int(size[1], 16)
            if count == 0:
                break
            if not self._move(request, count):
                return None
            total += count
        while True:
            end = self.raw.find(b"\n")
            if end < 0:
                if not self._more():
                    return None
                continue
            last = not self.raw[:end].strip()
            self._move(request, end + 1, "framing")
            if last:
                return total

    def _send(self, answer: Answer, asked: Asked, keep: bool, head_only: bool, chunked: bool) -> None:
        reason = _REASONS.get(answer.status, "Answer")
        label = re.sub(r"[^\x20-\x7e]", "?", asked.text)
        headers = {"content-type": answer.kind, "x-cloud": label, "x-request-id": "req_cloud", **answer.headers}
        headers["connection"] = "keep-alive" if keep else "close"
        if answer.events is None:
            headers["content-length"] = str(len(answer.body))
        elif chunked:
            headers["transfer-encoding"] = "chunked"
        else:
            headers["connection"] = "close"
        head = f"HTTP/1.1 {answer.status} {reason}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
        if head_only:
            self.connection.sendall(head.encode())
        elif answer.events is None:
            sent = answer.body[: len(answer.body) // 2] if answer.cut else answer.body
            self.connection.sendall(head.encode() + sent)
        else:
            self.connection.sendall(head.encode())
            for event in answer.events:
                self.connection.sendall(b"%x\r\n%b\r\n" % (len(event), event) if chunked else event)
            if chunked and not answer.cut:
                self.connection.sendall(b"0\r\n\r\n")


# ---------------------------------------------------------------------------------------------------------------------
# Names


class Names(socketserver.BaseRequestHandler):
    """Answers A questions with our own address, and records what was asked."""

    cloud: Cloud

    def handle(self) -> None:
        question, server = self.request
        labels: list[str] = []
        end = 12
        try:
            while question[end]:
                labels.append(question[end + 1 : end + 1 + question[end]].decode("latin-1"))
                end += question[end] + 1
            (kind,) = struct.unpack(">H", question[end + 1 : end + 3])
        except (IndexError, struct.error):
            self._record("", 0, question)
            return
        name = ".".join(labels)
        self._record(name, kind, question)
        missing = name.lower() == "invalid" or name.lower().endswith(".invalid")
        count = 1 if kind == 1 and not missing else 0
        flags = b"\x85\x83" if missing else b"\x85\x80"
        answer = question[:2] + flags + struct.pack(">HHHH", 1, count, 0, 0) + question[12 : end + 5]
        if count:
            answer += b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4" + self._own_address().packed
        server.sendto(answer, self.client_address)

    def _record(self, name: str, kind: int, question: bytes) -> None:
        facts = {"peer": f"{self.client_address[0]}:{self.client_address[1]}", "name": name, "type": kind}
        self.cloud.records.add("dns", facts, [name], raw=question)

    def _own_address(self) -> ipaddress.IPv4Address:
        if self.cloud.address:
            return ipaddress.IPv4Address(self.cloud.address)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect(self.client_address)
            return ipaddress.IPv4Address(way.getsockname()[0])


def serve_names(cloud: Cloud, port: int) -> int:
    handler = type("BoundNames", (Names,), {"cloud": cloud})
    server = socketserver.ThreadingUDPServer(("", port), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


# ---------------------------------------------------------------------------------------------------------------------
# Control


class Control(http.server.BaseHTTPRequestHandler):
    """The port of the tests. Nothing of it is recorded."""

    protocol_version = "HTTP/1.1"
    cloud: Cloud

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, content: Any, status: int = 200) -> None:
        body = dumped(content)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        records = self.cloud.records
        if url.path == "/recorded":
            self._answer([records.shown(entry) for entry in records.listed()])
        elif url.path == "/behaviours":
            self._answer(self.cloud.behaviours)
        elif url.path == "/contains":
            needles = parse_qs(url.query, keep_blank_values=True).get("needle", [])
            where = list(self._where(Finder(needles)))
            self._answer({"hits": len({(hit["needle"], hit["number"]) for hit in where}), "where": where})
        elif url.path == "/health":
            self._answer({"ready": True})
        else:
            self._answer({"error": "no such path"}, 404)

    def _where(self, finder: Finder) -> Iterator[dict[str, Any]]:
        for entry in self.cloud.records.listed():
            for label, content in self.cloud.records.forms(entry):
                for needle in finder.find(label, content):
                    about = {name: entry.facts.get(name) for name in ("method", "host", "sni", "name", "model")}
                    yield {"needle": needle, "number": entry.number, "kind": entry.kind, "form": label} | about

    def do_POST(self) -> None:
        if urlsplit(self.path).path != "/search":
            self._answer({"error": "no such path"}, 404)
            return
        needles = self._body()
        if not isinstance(needles, list) or not all(isinstance(needle, str) and needle for needle in needles):
            self._answer({"error": "a list of texts is needed, none of them empty"}, 400)
            return
        finder = Finder(needles)
        hits = dict.fromkeys(needles, 0)
        for entry in self.cloud.records.listed():
            forms = self.cloud.records.forms(entry)
            for needle in set().union(*(finder.find(label, content) for label, content in forms)):
                hits[needle] += 1
        self._answer(hits)

    def do_PUT(self) -> None:
        if urlsplit(self.path).path != "/behaviours":
            self._answer({"error": "no such path"}, 404)
            return
        given = self._body()
        wrong = [name for name, told in given.items() if not _BEHAVIOUR.fullmatch(told)]
        if wrong:
            self._answer({"error": f"unknown behaviour of: {', '.join(wrong)}"}, 400)
            return
        self.cloud.behaviours = given
        self._answer(given)

    def do_DELETE(self) -> None:
        self.cloud.records.clear()
        self._answer({})


class ControlServer(socketserver.ThreadingTCPServer):
    """Not http.server's own: that one asks for its own name, a question that we would record."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


_BEHAVIOUR = re.compile(r"ok|[1-5]\d\d|slow:\d+(\.\d+)?|refuse|context|content|blocked|badjson|cut|tools")


def serve_control(cloud: Cloud, port: int) -> int:
    handler = type("BoundControl", (Control,), {"cloud": cloud})
    server = ControlServer(("", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def main() -> None:
    """Serve until the process is ended."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    given = os.environ.get
    cloud = Cloud(given("CLOUD_CERT", ""), given("CLOUD_KEY", ""), given("CLOUD_ADDRESS", ""))
    ports = [cloud.serve(int(port)) for port in given("CLOUD_PORT", "8443").split(",")]
    names = int(given("CLOUD_DNS_PORT", "5353"))
    if names:
        serve_names(cloud, names)
    control = serve_control(cloud, int(given("CLOUD_CONTROL_PORT", "8080")))
    sys.stdout.write(f"cloud: ready on {ports}, control on {control}, names on {names}\n")
    sys.stdout.flush()
    ended.wait()


if __name__ == "__main__":
    main()
