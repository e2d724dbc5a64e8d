"""Formats a request's line in the request log, as docs/request-log.md describes it. Pure."""

import math
import time
from functools import lru_cache
from typing import Any

from io3ops_gateway.request.record import Attempt, RequestRecord
from io3ops_shared.request_log.schema import VERSION

# Our names of Ollama's timings.
TIMINGS = (
    ("load_ms", "load_duration"),
    ("prompt_ms", "prompt_eval_duration"),
    ("eval_ms", "eval_duration"),
    ("runtime_ms", "total_duration"),
)


def line(record: RequestRecord) -> dict[str, Any]:
    """Return the line of a request that has ended. Unknown, empty and usual values are left out."""
    timing, decision, caller = record.timing, record.decision, record.caller
    entry: dict[str, Any] = {"v": VERSION, "time": timestamp(timing.wall), "id": record.id}
    if decision.mode:
        entry["mode"] = decision.mode
    if decision.data_class:
        entry["data_class"] = decision.data_class
    if decision.data_class_from not in ("", "default"):
        entry["data_class_from"] = decision.data_class_from
    if caller.key:
        entry["key"], entry["key_id"] = caller.key, caller.key_id
    if caller.client:
        entry["client"] = caller.client
    if record.outcome:
        entry["outcome"] = record.outcome
    if record.status:
        entry["status"] = record.status
    if record.error:
        entry["error"] = record.error
    entry["path"] = record.path
    if record.stream:
        entry["stream"] = True
    entry["ms"] = _ms(timing.ended - timing.begun)
    if timing.body:
        entry["body_ms"] = _ms(timing.body - timing.begun)
    if timing.queued >= 0.0001:
        entry["queue_ms"] = _ms(timing.queued)
    if record.stream and timing.first:
        entry["first_ms"] = _ms(timing.first - timing.begun)
    if record.bytes_in:
        entry["bytes_in"] = record.bytes_in
    if record.bytes_out:
        entry["bytes_out"] = record.bytes_out
    last = record.attempts[-1] if record.attempts else None
    if last and last.deployment.window:
        entry["window"] = last.deployment.window
    if record.truncated:
        entry["truncated"] = True
    if record.override:
        entry["override"] = True
    if record.recorded:
        entry["recorded"] = True
    if record.usage.cost:
        entry["cost_usd"] = round(record.usage.cost, 8)
    if speed := _tokens_per_second(record, last):
        entry["tokens_per_second"] = speed
    if gen_ai := _gen_ai(record, last):
        entry["gen_ai"] = gen_ai
    if record.attempts:
        entry["attempts"] = [_attempt(attempt, record) for attempt in record.attempts]
    return entry


def _tokens_per_second(record: RequestRecord, last: Attempt | None) -> float:
    """Return the speed of the generation; 0 when it is unknown, or when Ollama's own timing says it more exactly."""
    first, ended = record.timing.first, record.timing.ended
    if last is None or not record.usage.completion or "eval_duration" in last.timings or not 0 < first < ended:
        return 0.0
    return round(record.usage.completion / (ended - (first if record.stream else last.begun)), 1)


def _gen_ai(record: RequestRecord, last: Attempt | None) -> dict[str, Any]:
    """Return the fields that have a name in OpenTelemetry's conventions for generative AI."""
    operation = record.decision.operation
    entry: dict[str, Any] = {"operation": {"name": operation}} if operation else {}
    response: dict[str, Any] = {}
    if last and last.deployment.model and 200 <= record.status < 400:
        response["model"] = last.deployment.model
    if record.usage.finish_reason and not record.outcome:
        # With an outcome the reason is wrong: LiteLLM calls a stream finished before it is known that the client left.
        response["finish_reasons"] = [record.usage.finish_reason]
    if response:
        entry["response"] = response
    usage: dict[str, Any] = {}
    if record.usage.prompt is not None:
        usage["input_tokens"] = record.usage.prompt
    if record.usage.completion is not None:
        usage["output_tokens"] = record.usage.completion
    if record.usage.cached:
        usage["cache_read"] = {"input_tokens": record.usage.cached}
    if usage:
        entry["usage"] = usage
    return entry


def _attempt(attempt: Attempt, record: RequestRecord) -> dict[str, Any]:
    deployment = attempt.deployment
    entry: dict[str, Any] = {"deployment": deployment.name}
    if deployment.provider != "local":
        entry["provider"] = deployment.provider
    if not deployment.local:
        entry["cloud"] = True
    entry["at"] = _ms(attempt.begun - record.timing.begun)
    entry["ms"] = _ms((attempt.ended or record.timing.ended) - attempt.begun)
    if attempt.status not in (0, 200):
        entry["status"] = attempt.status
    if attempt.error:
        entry["error"] = attempt.error
    if attempt.timings:
        for name, ollamas in TIMINGS:
            if ollamas in attempt.timings:
                entry[name] = _ms(attempt.timings[ollamas] / 1e9)
    return entry


def _ms(seconds: float) -> float:
    """Return milliseconds: two decimals below 10 ms, else one."""
    # `round` takes three times as long.
    return int(seconds * 1e5 + 0.5) / 100 if seconds < 0.01 else int(seconds * 1e4 + 0.5) / 10


def timestamp(seconds: float) -> str:
    """Return a Unix time as UTC in ISO 8601, with milliseconds."""
    whole = math.floor(seconds)
    return f"{_second(whole)}.{min(999, int((seconds - whole) * 1000)):03d}Z"


@lru_cache(maxsize=4)
def _second(whole: int) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    except (OverflowError, ValueError, OSError):
        # The machine's clock is broken.
        return "1970-01-01T00:00:00"
