"""Turns a line of the request log into values that may be counted and sent: bounded numbers, names of the table, no text of a client. Pure."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from io3ops_observer import words as w
from io3ops_observer.words import Words, known
from io3ops_shared import names
from io3ops_shared.request_log import record as request_log
from io3ops_shared.request_log.schema import FINISH_REASONS, OPERATIONS, Outcome, RequestPath

MOST_ATTEMPTS, MOST_FINISHES = 64, 16
DATA_CLASSES, OUTCOMES, PATHS = frozenset(names.DATA_CLASSES), frozenset(Outcome), frozenset(RequestPath)
_DAY_MS = 86_400_000.0
_TOKENS = 100_000_000
_EARLIEST, _LATEST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One attempt at one deployment; times in milliseconds, 0 when unknown. `error`: `none`, or a class of failure."""

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
    """One request. `begin`: nanoseconds since 1970, 0 when the clock was wrong; `trace`: 32 hexadecimal digits."""

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
        """`local` or `cloud`: where the response came from, in whole or in part; `none` without one."""
        last = self.attempts[-1] if self.attempts else None
        if last is None or not (last.answered or self.outcome == Outcome.CUT):
            return w.NONE
        return "cloud" if last.cloud else "local"

    @property
    def fell_back(self) -> bool:
        """Whether another deployment than the first was tried."""
        return len({a.deployment for a in self.attempts}) > 1 or len(set(map(_place, self.attempts))) > 1


def _place(attempt: Attempt) -> tuple[str, bool]:
    # Deployments that this table does not have are all called `other`.
    return attempt.provider, attempt.cloud


def parse(line: bytes, words: Words) -> Record | None:
    """Return the record in a line; None when there is none: torn, of another version, or not ours."""
    found = request_log.parse(line)
    return None if found is None else bounded(found, words)


def bounded(found: request_log.Record, words: Words) -> Record:
    """Return the record with each number in bounds and each text one of a fixed list or a name of the table."""
    return Record(
        begin=_nanoseconds(found.time),
        trace=trace_id(found.id),
        mode=known(found.mode, words.modes),
        data_class=known(found.data_class, DATA_CLASSES),
        outcome=known(found.outcome, OUTCOMES),
        status=known(str(found.status or ""), w.STATUSES),
        error=_word(found.error),
        path=known(found.path, PATHS),
        operation=known(found.operation, OPERATIONS),
        model=known(found.model, words.models),
        finishes=tuple(known(reason, FINISH_REASONS) for reason in found.finish_reasons[:MOST_FINISHES]),
        stream=found.stream,
        truncated=found.truncated,
        override=found.override,
        ms=_number(found.ms, _DAY_MS),
        body_ms=_number(found.body_ms, _DAY_MS),
        queue_ms=_number(found.queue_ms, _DAY_MS),
        first_ms=_number(found.first_ms, _DAY_MS),
        input_tokens=int(_number(found.input_tokens, _TOKENS)),
        output_tokens=int(_number(found.output_tokens, _TOKENS)),
        cached_tokens=int(_number(found.cached_tokens, _TOKENS)),
        cost=_number(found.cost_usd, 1e6),
        tokens_per_second=_number(found.tokens_per_second, 1e6),
        attempts=tuple(_attempt(attempt, words) for attempt in found.attempts[:MOST_ATTEMPTS]),
    )


def _attempt(found: request_log.Attempt, words: Words) -> Attempt:
    name = known(found.deployment, frozenset(words.deployments))
    there = words.deployments.get(name)
    return Attempt(
        deployment=name,
        provider=there.provider if there else known(found.provider, words.providers),
        model=there.model if there else w.OTHER,
        kind=there.kind if there else w.OTHER,
        cloud=found.cloud,
        at=_number(found.at, _DAY_MS),
        ms=_number(found.ms, _DAY_MS),
        error=_failure(found.error),
        status=int(_number(found.status, 999)),
        load_ms=_number(found.load_ms, _DAY_MS),
        prompt_ms=_number(found.prompt_ms, _DAY_MS),
        eval_ms=_number(found.eval_ms, _DAY_MS),
    )


def trace_id(identity: str) -> str:
    """Return the request's id where it is 32 hexadecimal digits, else the first 32 of its SHA-256: a client's own words do not leave."""
    # All zeros is no trace id in OpenTelemetry.
    if re.fullmatch(r"[0-9a-f]{32}", identity) and identity.strip("0"):
        return identity
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _failure(error: str) -> str:
    return error if error.startswith("http_") and error[5:] in w.STATUSES else known(error, w.ERRORS)


def _word(error: str) -> str:
    """Return the gateway's word for what failed; '' where there is none."""
    return error if not error or re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,47}", error) else w.OTHER


def _number(value: float | None, highest: float) -> float:
    """Return a number up to `highest`; 0 for a larger or unknown one."""
    return float(value) if value is not None and value <= highest else 0.0


def _nanoseconds(time: str) -> int:
    """Return a time as nanoseconds since 1970; 0 when no collector could place it."""
    moment = datetime.fromisoformat(time)
    if moment.tzinfo is None or not _EARLIEST <= moment <= _LATEST:
        return 0
    # In whole microseconds: a float of nanoseconds would be off by hundreds.
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
