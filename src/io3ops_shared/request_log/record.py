"""The one reader of the request log: a line becomes a `Record`. Pure.

Lenient, because a newer gateway writes fields and words that this release does not know: a value of the wrong type counts as missing,
a line without a record is None, and nothing raises. A client chose some of the texts, so whoever shows one makes it printable first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from io3ops_shared.request_log.schema import BEGIN, VERSION, Outcome

# The gateway's lines are far shorter.
LONGEST_LINE = 1 << 20
# No clock and no counter gets this far; a larger number is a mistake.
LARGEST_NUMBER = 1e15


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at one deployment. `at`, `ms` and the timings in milliseconds; None: the log does not say. `status` None: 200, or
    no answer came."""

    deployment: str = ""
    provider: str = "local"
    cloud: bool = False
    at: float | None = None
    ms: float | None = None
    status: int | None = None
    error: str = ""
    load_ms: float | None = None
    prompt_ms: float | None = None
    eval_ms: float | None = None
    runtime_ms: float | None = None

    @property
    def failed(self) -> bool:
        return bool(self.error) or (self.status is not None and self.status >= 400)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One request. '' and None: the log does not say. `time`: when it began, as written; `outcome`: an `Outcome`, or a newer
    gateway's word; `raw`: the whole object, for programs."""

    time: str
    id: str = ""
    mode: str = ""
    data_class: str = ""
    data_class_from: str = ""
    key: str = ""
    key_id: str = ""
    client: str = ""
    outcome: str = Outcome.OK
    status: int | None = None
    error: str = ""
    path: str = ""
    stream: bool = False
    ms: float | None = None
    body_ms: float | None = None
    queue_ms: float | None = None
    first_ms: float | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    window: int | None = None
    truncated: bool = False
    override: bool = False
    recorded: bool = False
    cost_usd: float | None = None
    tokens_per_second: float | None = None
    operation: str = ""
    model: str = ""
    finish_reasons: tuple[str, ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    attempts: tuple[Attempt, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def began(self) -> float | None:
        """Seconds since 1970; None when `time` is not a time."""
        return seconds_of(self.time)

    @property
    def ended(self) -> float | None:
        """When the line was written, in seconds since 1970."""
        began = self.began
        return None if began is None else began + (self.ms or 0.0) / 1000

    @property
    def failed(self) -> bool:
        return self.outcome != Outcome.OK

    @property
    def served_by(self) -> Attempt | None:
        """The attempt that answered: the last one, unless it failed."""
        return self.attempts[-1] if self.attempts and not self.attempts[-1].failed else None

    @property
    def fell_back(self) -> bool:
        """Whether more than one deployment was tried; a second try of the same one is a retry."""
        return len({attempt.deployment for attempt in self.attempts}) > 1


# Fields whose name in the line and in `Record` is the same, by type.
TEXTS = ("id", "mode", "data_class", "data_class_from", "key", "key_id", "client", "error", "path")
NUMBERS = ("ms", "body_ms", "queue_ms", "first_ms", "cost_usd", "tokens_per_second")
COUNTS = ("status", "bytes_in", "bytes_out", "window")
FLAGS = ("stream", "truncated", "override", "recorded")
TIMINGS = ("at", "ms", "load_ms", "prompt_ms", "eval_ms", "runtime_ms")


def parse(line: bytes) -> Record | None:
    """Return the record of a line; None when it holds none.

    After a crash a whole record may stand behind the beginning of another in one line; then the last one counts.
    """
    line = line.strip()
    found = _object(line)
    if found is None and (joined := line.rfind(BEGIN)) > 0:
        found = _object(line[joined:])
    return None if found is None else record(found)


def record(found: Mapping[str, Any]) -> Record | None:
    """Return the record of a parsed line; None for another version, or without a time."""
    version, time = found.get("v"), _text(found.get("time"))
    if version != VERSION or isinstance(version, bool) or seconds_of(time) is None:
        return None
    gen_ai = _map(found.get("gen_ai"))
    usage, response = _map(gen_ai.get("usage")), _map(gen_ai.get("response"))
    plain: dict[str, Any] = {name: _text(found.get(name)) for name in TEXTS}
    plain |= {name: _number(found.get(name)) for name in NUMBERS}
    plain |= {name: _count(found.get(name)) for name in COUNTS}
    plain |= {name: found.get(name) is True for name in FLAGS}
    return Record(
        **plain,
        time=time,
        outcome=_text(found.get("outcome")) or Outcome.OK,
        operation=_text(_map(gen_ai.get("operation")).get("name")),
        model=_text(response.get("model")),
        finish_reasons=tuple(reason for reason in map(_text, _list(response.get("finish_reasons"))) if reason),
        input_tokens=_count(usage.get("input_tokens")),
        output_tokens=_count(usage.get("output_tokens")),
        cached_tokens=_count(_map(usage.get("cache_read")).get("input_tokens")),
        attempts=tuple(_attempt(attempt) for attempt in _list(found.get("attempts")) if isinstance(attempt, dict)),
        raw=found,
    )


def seconds_of(time: str) -> float | None:
    """Return an ISO time as seconds since 1970; without a zone it is UTC, as the gateway writes it. None when it is no time."""
    try:
        found = datetime.fromisoformat(time)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _attempt(found: Mapping[str, Any]) -> Attempt:
    timings: dict[str, Any] = {name: _number(found.get(name)) for name in TIMINGS}
    return Attempt(
        **timings,
        deployment=_text(found.get("deployment")),
        provider=_text(found.get("provider")) or "local",
        cloud=found.get("cloud") is True,
        status=_count(found.get("status")),
        error=_text(found.get("error")),
    )


def _object(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{") or len(line) > LONGEST_LINE:
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    """Return an amount or a duration: finite and not below zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if 0 <= found <= LARGEST_NUMBER else None


def _count(value: Any) -> int | None:
    found = _number(value)
    return None if found is None else int(found)


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
