"""The line of the request log: docs/request-log.md. Pure."""

import math
import time
from functools import lru_cache
from typing import Any

from io3ops_gateway.request.record import Attempt, RequestRecord
from io3ops_shared.request_log.schema import VERSION

TIMINGS = (
    ("load_ms", "load_duration"),
    ("prompt_ms", "prompt_eval_duration"),
    ("eval_ms", "eval_duration"),
    ("runtime_ms", "total_duration"),
)


def line(record: RequestRecord) -> dict[str, Any]:
    """A request that has ended. Everything that is not known is left out."""
    end = record.timing.ended
    found: dict[str, Any] = {"v": VERSION, "time": stamp(record.timing.wall), "id": record.id}
    if record.decision.mode:
        found["mode"] = record.decision.mode
    if record.decision.data_class:
        found["data_class"] = record.decision.data_class
    if record.decision.data_class_from not in ("", "default"):
        found["data_class_from"] = record.decision.data_class_from
    if record.caller.key:
        found["key"], found["key_id"] = record.caller.key, record.caller.key_id
    if record.caller.client:
        found["client"] = record.caller.client
    if record.outcome:
        found["outcome"] = record.outcome
    if record.status:
        found["status"] = record.status
    if record.error:
        found["error"] = record.error
    found["path"] = record.path
    if record.stream:
        found["stream"] = True
    found["ms"] = _ms(end - record.timing.begun)
    if record.timing.body:
        found["body_ms"] = _ms(record.timing.body - record.timing.begun)
    if record.timing.queued >= 0.0001:
        found["queue_ms"] = _ms(record.timing.queued)
    if record.stream and record.timing.first:
        found["first_ms"] = _ms(record.timing.first - record.timing.begun)
    if record.bytes_in:
        found["bytes_in"] = record.bytes_in
    if record.bytes_out:
        found["bytes_out"] = record.bytes_out
    last = record.attempts[-1] if record.attempts else None
    if last and last.deployment.window:
        found["window"] = last.deployment.window
    if record.truncated:
        found["truncated"] = True
    if record.override:
        found["override"] = True
    if record.recorded:
        found["recorded"] = True
    if record.usage.cost:
        found["cost_usd"] = round(record.usage.cost, 8)
    if (
        last
        and record.usage.completion
        and record.timing.first
        and "eval_duration" not in last.timings
        and end > record.timing.first
    ):
        found["tokens_per_second"] = round(
            record.usage.completion / (end - (record.timing.first if record.stream else last.begun)), 1
        )
    if told := _told(record, last):
        found["gen_ai"] = told
    if record.attempts:
        found["attempts"] = [_attempt(attempt, record) for attempt in record.attempts]
    return found


def _told(record: RequestRecord, last: Attempt | None) -> dict[str, Any]:
    """In the words of OpenTelemetry's conventions for generative AI."""
    found: dict[str, Any] = {"operation": {"name": record.decision.operation}} if record.decision.operation else {}
    answer: dict[str, Any] = {}
    if last and last.deployment.model and 200 <= record.status < 400:
        answer["model"] = last.deployment.model
    if record.usage.finish_reason and not record.outcome:
        # LiteLLM calls a stream finished, before anybody knows that its client has left.
        answer["finish_reasons"] = [record.usage.finish_reason]
    if answer:
        found["response"] = answer
    usage: dict[str, Any] = {}
    if record.usage.prompt is not None:
        usage["input_tokens"] = record.usage.prompt
    if record.usage.completion is not None:
        usage["output_tokens"] = record.usage.completion
    if record.usage.cached:
        usage["cache_read"] = {"input_tokens": record.usage.cached}
    if usage:
        found["usage"] = usage
    return found


def _attempt(attempt: Attempt, record: RequestRecord) -> dict[str, Any]:
    deployment = attempt.deployment
    found: dict[str, Any] = {"deployment": deployment.name}
    if deployment.provider != "local":
        found["provider"] = deployment.provider
    if not deployment.local:
        found["cloud"] = True
    found["at"] = _ms(attempt.begun - record.timing.begun)
    found["ms"] = _ms((attempt.ended or record.timing.ended) - attempt.begun)
    if attempt.status not in (0, 200):
        found["status"] = attempt.status
    if attempt.error:
        found["error"] = attempt.error
    if attempt.timings:
        for name, theirs in TIMINGS:
            if theirs in attempt.timings:
                found[name] = _ms(attempt.timings[theirs] / 1e9)
    return found


def _ms(seconds: float) -> float:
    """Milliseconds, as exact as it says something."""
    # Not `round`, which takes three times as long.
    return int(seconds * 1e5 + 0.5) / 100 if seconds < 0.01 else int(seconds * 1e4 + 0.5) / 10


def stamp(seconds: float) -> str:
    """UTC in ISO 8601, with milliseconds."""
    whole = math.floor(seconds)
    return f"{_second(whole)}.{min(999, int((seconds - whole) * 1000)):03d}Z"


@lru_cache(maxsize=4)
def _second(whole: int) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    except (OverflowError, ValueError, OSError):
        # A clock that has lost its mind.
        return "1970-01-01T00:00:00"
