"""Lines of the request log for tests, like those in docs/request-log.md, and the names of their table."""

from __future__ import annotations

import copy
import json
from typing import Any

from io3ops_observer.record import Record, parse
from io3ops_observer.words import Words
from io3ops_shared.label_names import Deployment

WORDS = Words(
    modes=frozenset({"executor", "embed"}),
    deployments={
        "executor.1.smollm2": Deployment(provider="local", kind="ollama", model="smollm2"),
        "executor.2.gpt-small": Deployment(provider="openai", kind="openai", model="gpt-small"),
    },
    models=frozenset({"smollm2", "gpt-small"}),
    providers=frozenset({"local", "openai"}),
)
SECRET = "sk-of-a-client-1234"
STREAMED: dict[str, Any] = {
    "v": 1, "time": "2026-11-24T18:10:03.123Z", "id": "0193603c5e2b7cc19d0a3b7f2c11a004", "mode": "executor", "data_class": "internal",
    "key": SECRET, "key_id": "9f86d081", "client": f"OpenAI/Python {SECRET}", "status": 200, "path": "lane", "stream": True, "ms": 512.4,
    "body_ms": 0.2, "first_ms": 31.2, "bytes_in": 212, "bytes_out": 9210, "window": 4096,
    "gen_ai": {"operation": {"name": "chat"}, "response": {"model": "smollm2", "finish_reasons": ["stop"]},
               "usage": {"input_tokens": 31, "output_tokens": 47}},
    "attempts": [{"deployment": "executor.1.smollm2", "at": 0.6, "ms": 511.5, "load_ms": 11.1, "prompt_ms": 18.2, "eval_ms": 479.0,
                  "runtime_ms": 510.0}],
}  # fmt: skip
FELL_BACK: dict[str, Any] = {
    "v": 1, "time": "2026-11-24T18:12:40.020Z", "id": SECRET, "mode": "executor", "data_class": "public", "data_class_from": "request",
    "key": "ci", "status": 200, "path": "full", "ms": 903.1, "body_ms": 0.1, "queue_ms": 1.5, "first_ms": 902.8, "cost_usd": 0.25,
    "tokens_per_second": 13.4,
    "gen_ai": {"operation": {"name": "chat"}, "response": {"model": "gpt-small", "finish_reasons": ["stop"]},
               "usage": {"input_tokens": 20, "output_tokens": 12}},
    "attempts": [{"deployment": "executor.1.smollm2", "at": 2.5, "ms": 1.1, "error": "ConnectError"},
                 {"deployment": "executor.2.gpt-small", "provider": "openai", "cloud": True, "at": 6.2, "ms": 894.7}],
}  # fmt: skip
REFUSED: dict[str, Any] = {
    "v": 1, "time": "2026-11-24T18:13:00.500Z", "id": "0193603f0d2471b3a1e4d2f9b6c8e011", "client": SECRET, "outcome": "refused",
    "status": 401, "error": "invalid_api_key", "path": "edge", "ms": 0.2, "bytes_out": 131, "gen_ai": {"operation": {"name": "chat"}},
}  # fmt: skip


def line(record: dict[str, Any], **changed: Any) -> bytes:
    """Return the line as the gateway writes it. `changed` replaces top-level fields."""
    return json.dumps(copy.deepcopy(record) | changed, separators=(",", ":")).encode()


def made(record: dict[str, Any], **changed: Any) -> Record:
    found = parse(line(record, **changed), WORDS)
    assert found is not None
    return found
