"""A line of the request log -> what may be counted and sent: numbers in bounds, names of the table, nothing a client chose. Pure."""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from io3ops_observer import words as w
from io3ops_observer.words import Words, known

# A second line behind a torn one begins so; it cannot stand inside a value, where the quotes would be escaped.
BEGIN = b'{"v":'
MOST_ATTEMPTS = 64
_DAY_MS = 86_400_000.0
_TOKENS = 100_000_000
_EARLIEST, _LATEST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try at one deployment; times in milliseconds, 0 where not known. `error`: `none`, or a class of failure."""

    deployment: str
    provider: str
    model: str
    kind: str
    cloud: bool
    at: float
    ms: float
    error: str
    status: int
    load_ms: float
    prompt_ms: float
    eval_ms: float

    @property
    def answered(self) -> bool:
        return self.error == w.NONE


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One request. `begin`: nanoseconds since 1970, 0 where the clock said nonsense; `trace`: 32 hexadecimal digits."""

    begin: int
    trace: str
    mode: str
    data_class: str
    outcome: str
    status: str
    error: str
    path: str
    operation: str
    model: str
    finishes: tuple[str, ...]
    stream: bool
    truncated: bool
    override: bool
    ms: float
    body_ms: float
    queue_ms: float
    first_ms: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: float
    tokens_per_second: float
    attempts: tuple[Attempt, ...]

    @property
    def served(self) -> str:
        """`local` or `cloud`: who answered, in whole or in part; `none`."""
        last = self.attempts[-1] if self.attempts else None
        if last is None or not (last.answered or self.outcome == "cut"):
            return w.NONE
        return "cloud" if last.cloud else "local"

    @property
    def fell_back(self) -> bool:
        """Whether another deployment than the first was asked."""
        return len({a.deployment for a in self.attempts}) > 1 or len(set(map(_place, self.attempts))) > 1


def _place(attempt: Attempt) -> tuple[str, bool]:
    # Names that this table does not have are all called the same.
    return attempt.provider, attempt.cloud


def parse(line: bytes, words: Words) -> Record | None:
    """The record in a line; None when there is none: torn, of another version, or not ours."""
    found = _loaded(line)
    if found is None and (at := line.rfind(BEGIN)) > 0:
        found = _loaded(line[at:])
    if not isinstance(found, dict) or found.get("v") != 1 or isinstance(found["v"], bool):
        return None
    return _record(found, words)


def _loaded(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _record(found: dict[str, Any], words: Words) -> Record:
    gen_ai = found.get("gen_ai")
    operation, response, usage = (_mapping(gen_ai, name) for name in ("operation", "response", "usage"))
    finishes = response.get("finish_reasons")
    attempts = found.get("attempts")
    listed = attempts[:MOST_ATTEMPTS] if isinstance(attempts, list) else []
    return Record(
        begin=_nanoseconds(found.get("time")),
        trace=trace_id(found.get("id")),
        mode=known(found.get("mode"), words.modes),
        data_class=known(found.get("data_class"), w.DATA_CLASSES),
        outcome=known(found.get("outcome"), w.OUTCOMES, "ok"),
        status=_status_word(found.get("status")),
        error=_word(found.get("error")),
        path=known(found.get("path"), w.PATHS),
        operation=known(operation.get("name"), w.OPERATIONS),
        model=known(response.get("model"), words.models),
        finishes=tuple(known(f, w.FINISHES) for f in finishes[:16]) if isinstance(finishes, list) else (),
        stream=found.get("stream") is True,
        truncated=found.get("truncated") is True,
        override=found.get("override") is True,
        ms=_number(found.get("ms"), _DAY_MS),
        body_ms=_number(found.get("body_ms"), _DAY_MS),
        queue_ms=_number(found.get("queue_ms"), _DAY_MS),
        first_ms=_number(found.get("first_ms"), _DAY_MS),
        input_tokens=int(_number(usage.get("input_tokens"), _TOKENS)),
        output_tokens=int(_number(usage.get("output_tokens"), _TOKENS)),
        cached_tokens=int(_number(_mapping(usage, "cache_read").get("input_tokens"), _TOKENS)),
        cost=_number(found.get("cost_usd"), 1e6),
        tokens_per_second=_number(found.get("tokens_per_second"), 1e6),
        attempts=tuple(_attempt(a, words) for a in listed if isinstance(a, dict)),
    )


def _attempt(found: dict[str, Any], words: Words) -> Attempt:
    name = known(found.get("deployment"), frozenset(words.deployments))
    there = words.deployments.get(name)
    return Attempt(
        deployment=name,
        provider=there.provider if there else known(found.get("provider", "local"), words.providers),
        model=there.model if there else w.OTHER,
        kind=there.kind if there else w.OTHER,
        cloud=found.get("cloud") is True,
        at=_number(found.get("at"), _DAY_MS),
        ms=_number(found.get("ms"), _DAY_MS),
        error=_failure(found.get("error")),
        status=int(_number(found.get("status"), 999)),
        load_ms=_number(found.get("load_ms"), _DAY_MS),
        prompt_ms=_number(found.get("prompt_ms"), _DAY_MS),
        eval_ms=_number(found.get("eval_ms"), _DAY_MS),
    )


def trace_id(value: object) -> str:
    """The request's id where it is 32 hexadecimal digits, else the first 32 of its SHA-256; so a client's own words do not leave."""
    text = value if isinstance(value, str) else ""
    # All zeros is no trace id in OpenTelemetry.
    if re.fullmatch(r"[0-9a-f]{32}", text) and text.strip("0"):
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _failure(value: object) -> str:
    if isinstance(value, str) and value.startswith("http_") and value[5:] in w.STATUSES:
        return value
    return known(value, w.ERRORS)


def _status_word(value: object) -> str:
    return known(str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1000 else value, w.STATUSES)  # fmt: skip


def _word(value: object) -> str:
    """A word of the gateway's for what failed; '' where there is none."""
    if value is None:
        return ""
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,47}", value) else w.OTHER


def _mapping(found: object, name: str) -> dict[str, Any]:
    inner = found.get(name) if isinstance(found, dict) else None
    return inner if isinstance(inner, dict) else {}


def _number(value: object, highest: float) -> float:
    """A number from 0 to `highest`; whatever else it is, 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    try:
        number = float(value)
    except OverflowError:
        return 0.0
    return number if math.isfinite(number) and 0 <= number <= highest else 0.0


def _nanoseconds(value: object) -> int:
    if not isinstance(value, str) or len(value) > 40:
        return 0
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return 0
    if moment.tzinfo is None or not _EARLIEST <= moment <= _LATEST:
        return 0
    # Whole microseconds: a float of nanoseconds would be off by hundreds.
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
