"""The data that `io3ops top` shows: the state of each layer, and the rates of the request log's last minute. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from io3ops.adapters.container_view import Load
from io3ops.operations.request_log import lines as request_lines
from io3ops_shared.request_log.record import Record
from io3ops_shared.request_log.schema import FAILURES, HARMLESS, Outcome

MINUTE = 60.0
# How many of the last failed requests to show.
LAST = 8


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A container. `cpu` in percent of one core, `memory` and `limit` in bytes; None when unknown."""

    name: str
    state: str
    health: str = ""
    cpu: float | None = None
    memory: int | None = None
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """A loaded model. `memory` and `vram` in bytes; `until`: when it is unloaded, as the runtime writes it."""

    name: str
    memory: int
    vram: int
    until: str


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A mode's last minute: numbers of requests, percentiles in milliseconds, generated tokens."""

    mode: str
    requests: int
    failed: int
    refused: int
    p50: float | None
    p95: float | None
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A request that did not end well. `time`: seconds since 1970, when it ended."""

    time: float
    id: str
    mode: str
    outcome: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One look at the stack. `running`, `waiting`: numbers of requests, None when the gateway does not say. `problems`: why a part
    (containers, models, gateway, requests) could not be asked; the other parts are valid."""

    time: float
    project: str
    layers: tuple[Layer, ...] = ()
    models: tuple[Model, ...] = ()
    running: int | None = None
    waiting: int | None = None
    total: Rate | None = None
    modes: tuple[Rate, ...] = ()
    failures: tuple[Failure, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """The part of a request that is kept for a minute."""

    time: float
    mode: str
    outcome: str
    ms: float
    tokens: float


def ended(record: Record, time: float) -> Ended:
    """Return the part of a record that the rates need."""
    return Ended(
        time=time,
        mode=request_lines.word(record.mode, 40),
        outcome=request_lines.outcome(record),
        ms=record.ms or 0.0,
        tokens=record.output_tokens or 0,
    )


def failure(record: Record, time: float) -> Failure | None:
    """Return a request to show among the last failures; None when it ended well, or its client left."""
    if record.outcome in HARMLESS:
        return None
    return Failure(
        time=time,
        id=request_lines.word(record.id, 128),
        mode=request_lines.word(record.mode, 40),
        outcome=request_lines.outcome(record),
        error=request_lines.word(record.error),
    )


def rates(requests: Iterable[Ended], now: float) -> tuple[Rate, tuple[Rate, ...]]:
    """Return the rates of all requests and of each mode, the busiest first.

    Requests in the future count too: the clock was set back.
    """
    recent = [e for e in requests if now - MINUTE < e.time < now + MINUTE]
    by_mode: dict[str, list[Ended]] = {}
    for one in recent:
        by_mode.setdefault(one.mode, []).append(one)
    modes = sorted((_rate(mode, some) for mode, some in by_mode.items()), key=lambda r: (-r.requests, r.mode))
    return _rate("all", recent), tuple(modes)


def _rate(mode: str, requests: list[Ended]) -> Rate:
    # A refusal takes no time, and would make a slow mode look fast.
    times = sorted(e.ms for e in requests if e.outcome != Outcome.REFUSED)
    return Rate(
        mode=mode,
        requests=len(requests),
        failed=sum(e.outcome in FAILURES for e in requests),
        refused=sum(e.outcome == Outcome.REFUSED for e in requests),
        p50=rank(times, 0.5),
        p95=rank(times, 0.95),
        tokens=round(sum(e.tokens for e in requests)),
    )


def rank(ordered: list[float], share: float) -> float | None:
    """Return the percentile of a sorted list: the smallest value that at least this share does not exceed. None for an empty list."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def cpu(before: Load | None, now: Load) -> float | None:
    """Return the percent of one core used between two samples, as `docker stats` counts it; None when it is unknown."""
    if before is None or now.machine <= before.machine or now.cpu < before.cpu:
        return None
    return (now.cpu - before.cpu) / (now.machine - before.machine) * now.cores * 100
