"""The line of the request log: docs/request-log.md. Pure."""

import math
import time
from functools import lru_cache
from typing import Any

from io3ops_gateway.request.record import Attempt, Seen

TIMINGS = (
    ("load_ms", "load_duration"),
    ("prompt_ms", "prompt_eval_duration"),
    ("eval_ms", "eval_duration"),
    ("runtime_ms", "total_duration"),
)


def line(seen: Seen) -> dict[str, Any]:
    """A request that has ended. Everything that is not known is left out."""
    end = seen.ended
    found: dict[str, Any] = {"v": 1, "time": stamp(seen.time), "id": seen.id}
    if seen.mode:
        found["mode"] = seen.mode
    if seen.data_class:
        found["data_class"] = seen.data_class
    if seen.data_class_from not in ("", "default"):
        found["data_class_from"] = seen.data_class_from
    if seen.key:
        found["key"], found["key_id"] = seen.key, seen.key_id
    if seen.client:
        found["client"] = seen.client
    if seen.outcome:
        found["outcome"] = seen.outcome
    if seen.status:
        found["status"] = seen.status
    if seen.error:
        found["error"] = seen.error
    found["path"] = seen.path
    if seen.stream:
        found["stream"] = True
    found["ms"] = _ms(end - seen.begun)
    if seen.body:
        found["body_ms"] = _ms(seen.body - seen.begun)
    if seen.queued >= 0.0001:
        found["queue_ms"] = _ms(seen.queued)
    if seen.stream and seen.first:
        found["first_ms"] = _ms(seen.first - seen.begun)
    if seen.bytes_in:
        found["bytes_in"] = seen.bytes_in
    if seen.bytes_out:
        found["bytes_out"] = seen.bytes_out
    last = seen.attempts[-1] if seen.attempts else None
    if last and last.place.window:
        found["window"] = last.place.window
    if seen.truncated:
        found["truncated"] = True
    if seen.override:
        found["override"] = True
    if seen.recorded:
        found["recorded"] = True
    if seen.cost:
        found["cost_usd"] = round(seen.cost, 8)
    if last and seen.completion and seen.first and "eval_duration" not in last.timings and end > seen.first:
        found["tokens_per_second"] = round(seen.completion / (end - (seen.first if seen.stream else last.begun)), 1)
    if told := _told(seen, last):
        found["gen_ai"] = told
    if seen.attempts:
        found["attempts"] = [_attempt(attempt, seen) for attempt in seen.attempts]
    return found


def _told(seen: Seen, last: Attempt | None) -> dict[str, Any]:
    """In the words of OpenTelemetry's conventions for generative AI."""
    found: dict[str, Any] = {"operation": {"name": seen.operation}} if seen.operation else {}
    answer: dict[str, Any] = {}
    if last and last.place.model and 200 <= seen.status < 400:
        answer["model"] = last.place.model
    if seen.finish and not seen.outcome:
        # LiteLLM calls a stream finished, before anybody knows that its client has left.
        answer["finish_reasons"] = [seen.finish]
    if answer:
        found["response"] = answer
    usage: dict[str, Any] = {}
    if seen.prompt is not None:
        usage["input_tokens"] = seen.prompt
    if seen.completion is not None:
        usage["output_tokens"] = seen.completion
    if seen.cached:
        usage["cache_read"] = {"input_tokens": seen.cached}
    if usage:
        found["usage"] = usage
    return found


def _attempt(attempt: Attempt, seen: Seen) -> dict[str, Any]:
    place = attempt.place
    found: dict[str, Any] = {"deployment": place.name}
    if place.provider != "local":
        found["provider"] = place.provider
    if not place.local:
        found["cloud"] = True
    found["at"] = _ms(attempt.begun - seen.begun)
    found["ms"] = _ms((attempt.ended or seen.ended) - attempt.begun)
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
