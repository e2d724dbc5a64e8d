"""`io3ops trace`: one request of the log, taken apart on one time axis whose parts add up to the whole."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from io3ops.errors import Io3opsError, RequestUnknown
from io3ops.operations.request_log import records as request_records
from io3ops.operations.table import config
from io3ops.settings import Settings
from io3ops_shared.request_log.record import Attempt, Record

# A shorter beginning of an id is refused: the next request may well share it.
SHORTEST = 8


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of the axis, in milliseconds. `kind`: body, wait, gateway, attempt, failed, load, prompt, generation or rest.

    `inner`: what an attempt was made of; it adds up to the attempt, or is empty where the log does not say.
    """

    name: str
    kind: str
    at: float
    ms: float
    note: str = ""
    inner: tuple[Part, ...] = ()

    @property
    def end(self) -> float:
        return self.at + self.ms


@dataclass(frozen=True, kw_only=True)
class Waterfall:
    """`parts` stand one after the other and are `total` together. `cut`: milliseconds by which the log's times exceed it.

    `first`: when the first byte was sent. `measured`: the log has the total; else it is what the parts come to.
    """

    total: float
    parts: tuple[Part, ...]
    first: float | None
    cut: float
    measured: bool


# -- pure


def waterfall(record: Record) -> Waterfall:
    """Places what is known one after the other, gives the gateway what lies between, and cuts what exceeds the whole."""
    ends = [(a.at or 0.0) + (a.ms or 0.0) for a in record.attempts]
    before = (record.body_ms or 0.0) + (record.queue_ms or 0.0)
    total = record.ms if record.ms is not None else max([before, record.first_ms or 0.0, *ends])
    line = _Line(total)
    line.add("body from the client", "body", line.at, record.body_ms or 0.0)
    line.add("waiting for a place", "wait", line.at, record.queue_ms or 0.0)
    for number, attempt in enumerate(record.attempts, 1):
        line.add_attempt(number, attempt)
    line.fill("gateway, at the end" if record.attempts else "gateway", total)
    return Waterfall(
        total=total, parts=tuple(line.parts), first=_first(record, total), cut=line.cut, measured=record.ms is not None
    )


def _first(record: Record, total: float) -> float | None:
    return min(record.first_ms, total) if record.stream and record.first_ms is not None else None


class _Line:
    """The axis while it is filled from the left."""

    def __init__(self, total: float) -> None:
        self.total = total
        self.at = 0.0
        self.cut = 0.0
        self.parts: list[Part] = []

    def add(self, name: str, kind: str, at: float, ms: float, note: str = "", inner: tuple[Part, ...] = ()) -> None:
        """What would begin before the last part ended, or end after the whole, is cut."""
        start = min(max(at, self.at), self.total)
        end = min(max(at + ms, start), self.total)
        self.cut += max(0.0, ms - (end - start))
        if ms > 0 or kind in ("attempt", "failed"):
            self.parts.append(Part(name=name, kind=kind, at=start, ms=end - start, note=note, inner=inner))
        self.at = end

    def fill(self, name: str, until: float) -> None:
        """What nothing else explains is the gateway's own work."""
        if until > self.at:
            self.parts.append(Part(name=name, kind="gateway", at=self.at, ms=until - self.at))
            self.at = until

    def add_attempt(self, number: int, attempt: Attempt) -> None:
        at = self.at if attempt.at is None else attempt.at
        self.fill("gateway", min(max(at, self.at), self.total))
        begun, before = self.at, self.cut
        name = f"{number} {attempt.deployment or 'attempt'}"
        note = attempt.error or (f"http {attempt.status}" if attempt.status not in (None, 200) else "")
        self.add(name, "failed" if attempt.failed else "attempt", at, attempt.ms or 0.0, note)
        inner = _Line(self.at)
        inner.at = begun
        _inside(inner, attempt)
        # What was cut off the attempt itself is also missing inside: said once.
        self.cut = max(self.cut, before + inner.cut)
        self.parts[-1] = Part(**{**vars(self.parts[-1]), "inner": tuple(inner.parts)})


def _inside(line: _Line, attempt: Attempt) -> None:
    """Ollama's own timings, in the order in which it works; nothing for a server that does not say them."""
    own = (
        ("load the model", "load", attempt.load_ms),
        ("read the prompt", "prompt", attempt.prompt_ms),
        ("generate", "generation", attempt.eval_ms),
    )
    if attempt.runtime_ms is None and all(ms is None for _, _, ms in own):
        return
    known = sum(ms or 0.0 for _, _, ms in own)
    outside = (attempt.ms or 0.0) - max(attempt.runtime_ms or 0.0, known)
    line.add("runtime's queue and other", "rest", line.at, max(outside, 0.0))
    for name, kind, ms in own:
        line.add(name, kind, line.at, ms or 0.0)
    if line.total > line.at:
        line.add("runtime's own work", "rest", line.at, line.total - line.at)


# -- on the disk


def find(folder: Path, wanted: str) -> Record:
    """The newest request with this id, or the only one whose id begins so. Raises LogMissing or RequestUnknown."""
    begun: dict[str, Record] = {}
    for record in _records(folder, wanted.encode("utf-8", "replace")):
        if record.id == wanted:
            return record
        if record.id.startswith(wanted) and len(begun) < 4:
            begun.setdefault(record.id, record)
    said = request_records.shown(wanted, 40)
    if not begun:
        raise RequestUnknown(
            f"no request in the log has the id {said}",
            hint="answers say theirs in x-request-id; old files may be gone (`logs:` in the table)",
        )
    if len(wanted) < SHORTEST or len(begun) > 1:
        ids = ", ".join(request_records.shown(i, 40) for i in list(begun)[:3])
        raise RequestUnknown(
            f"{said} is the beginning of an id, but not of one alone: {ids}",
            hint=f"give more of it, {SHORTEST} at least",
        )
    return next(iter(begun.values()))


def last(folder: Path, *, failed: bool, mode: str) -> Record:
    """The request that ended last, of all, of those that failed, of this mode. Raises LogMissing or RequestUnknown."""
    needle = b'"outcome"' if failed else json.dumps(mode).encode() if mode.isascii() and mode else b""
    for record in _records(folder, needle):
        if (record.failed or not failed) and (record.mode == mode or not mode):
            return record
    kind = f"{'failed ' if failed else ''}request{f' of mode {request_records.shown(mode, 40)}' if mode else ''}"
    raise RequestUnknown(f"no {kind} is in the log", hint="`io3ops usage --since 7d --by outcome` counts them")


def _records(folder: Path, needle: bytes) -> Iterator[Record]:
    request_records.require(folder)
    return request_records.newest_records(folder, needle)


def keep_alive(settings: Settings, record: Record) -> str:
    """What the table says of the model that served; '' when it cannot be known any more."""
    served = record.attempts[-1].deployment if record.attempts else ""
    with contextlib.suppress(Io3opsError):
        plan = config.load(settings).plan
        for mode in plan.modes:
            for deployment in plan.chain(mode):
                if deployment.id == served or (mode == record.mode and deployment.model == record.model):
                    return _kept(deployment.keep_alive)
    return ""


def _kept(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and not seconds % size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:g} s"
