"""Responses in the place of a provider's while a worker warms up: `ok`, in the format of every API at once. Pure.

LiteLLM gets one where it would have sent the request. So the provider's client, libraries and parser are ready, and nothing has left.
"""

import binascii
import struct
from typing import Any

import httpx

OK: dict[str, Any] = {
    # OpenAI: chat, completions, embeddings, images, moderations.
    "id": "warmup", "object": "chat.completion", "created": 0, "model": "warmup",
    "choices": [{"index": 0, "finish_reason": "stop", "text": "ok", "message": {"role": "assistant", "content": "ok"}}],
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5], "b64_json": ""}],
    "results": [],
    # Anthropic
    "type": "message", "role": "assistant", "content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn",
    # Gemini
    "candidates": [{"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [{"text": "ok"}]}}],
    "predictions": [{"bytesBase64Encoded": ""}],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
    # Bedrock
    "output": {"message": {"role": "assistant", "content": [{"text": "ok"}]}}, "stopReason": "end_turn", "metrics": {"latencyMs": 1},
    "embedding": [0.5], "inputTextTokenCount": 1, "images": [""],
    # Ollama
    "message": {"role": "assistant", "content": "ok"}, "done": True, "done_reason": "stop", "embeddings": [[0.5]],
    "prompt_eval_count": 1, "eval_count": 1,
    "usage": {
        "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "input_tokens": 1, "output_tokens": 1,
        "inputTokens": 1, "outputTokens": 1, "totalTokens": 2,
    },
}  # fmt: skip
# For APIs that use a field of `OK` with another meaning, by the end of the path.
EXCEPTIONS: dict[str, dict[str, Any]] = {
    "/responses": {
        "object": "response", "created_at": 0, "status": "completed",
        "output": [
            {"type": "message", "id": "warmup", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "ok", "annotations": []}]}
        ],
    },
    ":batchEmbedContents": {"embeddings": [{"values": [0.5]}]},
}  # fmt: skip


def respond(request: httpx.Request, *, stream: bool) -> httpx.Response:
    """Return the response to a request that is not sent."""
    path = request.url.path
    if not stream:
        fields = next((fields for end, fields in EXCEPTIONS.items() if path.endswith(end)), {})
        return httpx.Response(200, json=OK | fields, request=request)
    # LiteLLM takes an empty stream for a response without text, except from Bedrock.
    event = _event("messageStop", b'{"stopReason": "end_turn"}') if path.endswith("-stream") else b""
    return httpx.Response(200, content=event, request=request)


def _event(kind: str, payload: bytes) -> bytes:
    """Return one event in the binary framing of AWS: lengths, named headers, payload, checksums."""
    fields = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        struct.pack(f">B{len(name)}sBH{len(value)}s", len(name), name.encode(), 7, len(value), value.encode())
        for name, value in fields.items()
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", binascii.crc32(message))
