"""An upstream that does as it is told, per model: Ollama's API and the OpenAI one, recording every call.

Behaviours: ok, 500, 429, 400, 401, 404, context (too long a prompt), content (refused content), slow:SECONDS, hang (until the next
`reset`), drip:SECONDS (of a stream: its parts take so long), badjson, cut (in the middle of an answer), redirect (to a cloud).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.clone import PATIENCE
from tests.fake_ollama import Cut

ERRORS: dict[str, tuple[int, dict[str, Any]]] = {
    "context": (
        400,
        {
            "message": "This model's maximum context length is 10 tokens",
            "code": "context_length_exceeded",
            "type": "invalid_request_error",
        },
    ),
    "content": (
        400,
        {
            "message": "Your request was rejected as a result of our safety system",
            "code": "content_policy_violation",
            "type": "invalid_request_error",
        },
    ),
}


@dataclass
class FakeUpstream:
    """`models`: what it claims to hold. `calls`: (model, body) of every request that a model was to answer."""

    models: tuple[str, ...]
    behaviours: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    _reset: threading.Event = field(default_factory=threading.Event)

    def sequence(self) -> list[str]:
        return [model for model, _ in self.calls]

    def reset(self, **behaviours: str) -> None:
        self.behaviours = behaviours
        self.calls.clear()
        hung, self._reset = self._reset, threading.Event()
        hung.set()

    def answer(self, _method: str, path: str, body: bytes) -> tuple[int, Any] | tuple[int, bytes, dict[str, str]]:
        if path == "/api/version":
            return 200, {"version": "0.0.0-fake"}
        if path in ("/api/tags", "/api/ps"):
            return 200, {
                "models": [
                    {"name": f"{m}:latest", "digest": "d" * 64, "size": 1, "context_length": 0} for m in self.models
                ]
            }
        asked = json.loads(body or b"{}")
        model = asked.get("model", "").removesuffix(":latest")
        if path == "/api/generate" or (path == "/api/embed" and not asked.get("input")):
            return 200, {"model": model, "response": "", "done": True, "embeddings": []}
        self.calls.append((model, asked))
        behaviour = self.behaviours.get(model, "ok")
        if behaviour.startswith("slow:"):
            time.sleep(float(behaviour.removeprefix("slow:")))
        elif behaviour == "hang":
            self._reset.wait(2 * PATIENCE)
        elif behaviour.startswith("drip:"):
            if asked.get("stream"):
                return 200, self._drip(model, float(behaviour.removeprefix("drip:")))
        elif behaviour == "redirect":
            return 307, b"", {"Location": "https://api.openai.com/v1/chat/completions"}
        elif behaviour == "badjson":
            return 200, b'{"this is": no JSON'
        elif behaviour == "cut":
            good = self._good(path, model, asked)
            data = good if isinstance(good, bytes) else json.dumps(good).encode()
            return 200, Cut(data[: len(data) * 2 // 3])
        elif behaviour != "ok":
            status, error = ERRORS.get(
                behaviour, (int(behaviour) if behaviour.isdecimal() else 500, {"message": f"told to say {behaviour}"})
            )
            return status, {"error": error if path.startswith("/v1") else error["message"]}
        return 200, self._good(path, model, asked)

    @staticmethod
    def _drip(model: str, seconds: float) -> Iterator[bytes]:
        part = {"model": model, "created_at": "2026-01-01T00:00:00Z", "done": False}
        for word in ("from ", model, *[" on"] * round(seconds / 0.1)):
            yield json.dumps(part | {"message": {"role": "assistant", "content": word}}).encode() + b"\n"
            time.sleep(0.1 * (word == " on"))
        end = {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2}
        yield json.dumps(part | end | {"message": {"role": "assistant", "content": ""}}).encode() + b"\n"

    def _good(self, path: str, model: str, asked: dict[str, Any]) -> Any:
        if path == "/v1/chat/completions":
            message = {"role": "assistant", "content": f"from {model}"}
            return {
                "id": "x", "object": "chat.completion", "created": 1, "model": model,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            }  # fmt: skip
        if path == "/api/embed":
            return {"model": model, "embeddings": [[0.1, 0.2]], "prompt_eval_count": 1}
        done = {
            "model": model, "created_at": "2026-01-01T00:00:00Z", "done": True, "done_reason": "stop",
            "prompt_eval_count": 3, "eval_count": 2, "total_duration": 1, "eval_duration": 1,
        }  # fmt: skip
        if asked.get("stream"):
            part = {"model": model, "created_at": "2026-01-01T00:00:00Z", "done": False}
            lines = [part | {"message": {"role": "assistant", "content": w}} for w in ("from ", model)]
            end = done | {"message": {"role": "assistant", "content": ""}}
            return b"".join(json.dumps(line).encode() + b"\n" for line in (*lines, end))
        return done | {"message": {"role": "assistant", "content": f"from {model}"}}
