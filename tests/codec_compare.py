"""What a client sees of an answer, without what differs from request to request."""

from __future__ import annotations

import json
import re
from typing import Any

from io3ops_gateway.codec.base import Call, TruncatedResponse, UnrecognisedResponse

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def seen(data: bytes) -> Any:
    """An answer or a stream, parsed; ids and times are replaced by their format."""
    if not data.startswith(b"data: "):
        return _same(json.loads(data))
    frames = data.decode().split("\n\n")
    assert frames.pop() == "" and all(frame.startswith("data: ") for frame in frames), data
    return [frame if frame == "data: [DONE]" else _same(json.loads(frame[6:])) for frame in frames]


def said(call: Call, data: bytes, size: int = 0) -> bytes | None:
    """What the codec makes of an upstream's answer, in pieces of `size` bytes; None: left to LiteLLM."""
    if not call.stream:
        return call.answer(data)
    pieces = [data[at : at + size] for at in range(0, len(data), size)] if size else [data]
    events: list[bytes] = []
    try:
        for piece in pieces:
            events += call.events(piece)
        events += call.end()
    except UnrecognisedResponse:
        assert not call.begun
        return None
    except TruncatedResponse:
        return b"".join(events) or None
    return b"".join(events)


def _same(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _same(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_same(inner) for inner in value]
    if name == "id" and isinstance(value, str):
        return UUID.sub("UUID", value)
    if name == "created":
        assert isinstance(value, int) and value > 0
        return "NOW" if value > 1_000_000_000 else value
    return value
