"""What `io3ops top` says, as data: what was seen of each layer, and the rates of the request log's last minute. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from io3ops.adapters.container_view import Load
from io3ops.operations.request_log import lines as request_lines
from io3ops_shared.request_log.record import Record

MINUTE = 60.0
# How an end is counted: nobody is to blame for a client that left.
FAILED = ("error", "timeout", "cut", "stopping")
LAST = 8


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A container. `cpu`: percent of one core; it and the memory, in bytes, are None when they are not known."""

    name: str
    state: str
    health: str = ""
    cpu: float | None = None
    memory: int | None = None
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that is loaded. In bytes; `until` as the runtime writes it."""

    name: str
    memory: int
    vram: int
    until: str


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Of a mode in the last minute: counts, milliseconds, and tokens that were generated."""

    mode: str
    requests: int
    failed: int
    refused: int
    p50: float | None
    p95: float | None
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Failure:
    time: float
    id: str
    mode: str
    outcome: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """`running`, `waiting`: requests, None when the gateway does not say. `problems`: of a part (containers, models, gateway, requests),
    why it could not be asked; the others are as good as ever."""

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
    """What is kept of a request for a minute."""

    time: float
    mode: str
    outcome: str
    ms: float
    tokens: float


def ended(record: Record, time: float) -> Ended:
    return Ended(
        time=time,
        mode=request_lines.word(record.mode, 40),
        outcome=request_lines.outcome(record),
        ms=record.ms or 0.0,
        tokens=record.output_tokens or 0,
    )


def failure(record: Record, time: float) -> Failure | None:
    """A request that did not end well, to be shown among the last ones."""
    outcome = request_lines.outcome(record)
    if outcome in ("ok", "client_left"):
        return None
    return Failure(
        time=time,
        id=request_lines.word(record.id, 128),
        mode=request_lines.word(record.mode, 40),
        outcome=outcome,
        error=request_lines.word(record.error),
    )


def rates(found: Iterable[Ended], now: float) -> tuple[Rate, tuple[Rate, ...]]:
    """All together, and by mode, the busiest first. A clock that was put back lets some wait in the future: they count now."""
    recent = [e for e in found if now - MINUTE < e.time < now + MINUTE]
    by_mode: dict[str, list[Ended]] = {}
    for one in recent:
        by_mode.setdefault(one.mode, []).append(one)
    modes = sorted((_rate(mode, some) for mode, some in by_mode.items()), key=lambda r: (-r.requests, r.mode))
    return _rate("all", recent), tuple(modes)


def _rate(mode: str, found: list[Ended]) -> Rate:
    # A refusal takes no time: it would make slow modes look quick.
    times = sorted(e.ms for e in found if e.outcome != "refused")
    return Rate(
        mode=mode,
        requests=len(found),
        failed=sum(e.outcome in FAILED for e in found),
        refused=sum(e.outcome == "refused" for e in found),
        p50=rank(times, 0.5),
        p95=rank(times, 0.95),
        tokens=round(sum(e.tokens for e in found)),
    )


def rank(ordered: list[float], share: float) -> float | None:
    """The least of them that so many are not above."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def cpu(before: Load | None, now: Load) -> float | None:
    """Percent of one core between two looks, as `docker stats` counts."""
    if before is None or now.machine <= before.machine or now.cpu < before.cpu:
        return None
    return (now.cpu - before.cpu) / (now.machine - before.machine) * now.cores * 100
