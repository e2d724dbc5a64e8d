"""`io3ops trace`: one request of the log as parts on a time axis, which add up to the whole."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from io3ops.errors import Io3opsError, RequestUnknown
from io3ops.operations.request_log import records as request_records
from io3ops.operations.table import config
from io3ops.settings import Settings
from io3ops_shared.request_log.record import Attempt, Record

# A shorter beginning of an id is refused: the next request may have the same.
SHORTEST = 8


class PartKind(StrEnum):
    """What a part of a request's time was spent on."""

    # Reading the request's body.
    BODY = "body"
    # Waiting for a place in the gateway.
    WAIT = "wait"
    # The gateway's own work: everything that no other part explains.
    GATEWAY = "gateway"
    # An attempt that answered.
    ATTEMPT = "attempt"
    # An attempt that failed.
    FAILED = "failed"
    # Within an attempt, by Ollama's own timings.
    LOAD = "load"
    PROMPT = "prompt"
    GENERATION = "generation"
    # Within an attempt: the runtime's queue and its other work.
    REST = "rest"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of the axis, in milliseconds. `inner`: the parts of an attempt, which add up to it; () where the log does not say."""

    name: str
    kind: PartKind
    at: float
    ms: float
    note: str = ""
    inner: tuple[Part, ...] = ()

    @property
    def end(self) -> float:
        return self.at + self.ms


@dataclass(frozen=True, kw_only=True)
class Waterfall:
    """The parts of a request, one after the other, which add up to `total`.

    `first`: when the first byte was sent. `cut`: by how many milliseconds the log's times exceed the total. `measured`: whether the log
    has the total; else it is the sum of the parts.
    """

    total: float
    parts: tuple[Part, ...]
    first: float | None
    cut: float
    measured: bool


# -- pure


def waterfall(record: Record) -> Waterfall:
    """Return the parts of a request: what the log says, one after the other. Gaps are the gateway's; what exceeds the whole is cut."""
    ends = [(a.at or 0.0) + (a.ms or 0.0) for a in record.attempts]
    before = (record.body_ms or 0.0) + (record.queue_ms or 0.0)
    total = record.ms if record.ms is not None else max([before, record.first_ms or 0.0, *ends])
    line = _Line(total)
    line.add("body from the client", PartKind.BODY, line.at, record.body_ms or 0.0)
    line.add("waiting for a place", PartKind.WAIT, line.at, record.queue_ms or 0.0)
    for number, attempt in enumerate(record.attempts, 1):
        line.add_attempt(number, attempt)
    line.fill("gateway, at the end" if record.attempts else "gateway", total)
    return Waterfall(
        total=total, parts=tuple(line.parts), first=_first(record, total), cut=line.cut, measured=record.ms is not None
    )


def _first(record: Record, total: float) -> float | None:
    return min(record.first_ms, total) if record.stream and record.first_ms is not None else None


class _Line:
    """The time axis while it is filled from the left. `at`: where it is filled to; `cut`: how much did not fit."""

    def __init__(self, total: float) -> None:
        self.total = total
        self.at = 0.0
        self.cut = 0.0
        self.parts: list[Part] = []

    def add(
        self, name: str, kind: PartKind, at: float, ms: float, note: str = "", inner: tuple[Part, ...] = ()
    ) -> None:
        """Add a part. What begins before the last part ended, or ends after the whole, is cut."""
        start = min(max(at, self.at), self.total)
        end = min(max(at + ms, start), self.total)
        self.cut += max(0.0, ms - (end - start))
        if ms > 0 or kind in (PartKind.ATTEMPT, PartKind.FAILED):
            self.parts.append(Part(name=name, kind=kind, at=start, ms=end - start, note=note, inner=inner))
        self.at = end

    def fill(self, name: str, until: float) -> None:
        """Add the gateway's own work up to `until`."""
        if until > self.at:
            self.parts.append(Part(name=name, kind=PartKind.GATEWAY, at=self.at, ms=until - self.at))
            self.at = until

    def add_attempt(self, number: int, attempt: Attempt) -> None:
        """Add an attempt with its inner parts, after the gateway's work before it."""
        at = self.at if attempt.at is None else attempt.at
        self.fill("gateway", min(max(at, self.at), self.total))
        begun, before = self.at, self.cut
        name = f"{number} {attempt.deployment or 'attempt'}"
        note = attempt.error or (f"http {attempt.status}" if attempt.status not in (None, 200) else "")
        self.add(name, PartKind.FAILED if attempt.failed else PartKind.ATTEMPT, at, attempt.ms or 0.0, note)
        inner = _Line(self.at)
        inner.at = begun
        _inside(inner, attempt)
        # What was cut off the attempt is missing inside too. Count it once.
        self.cut = max(self.cut, before + inner.cut)
        self.parts[-1] = Part(**{**vars(self.parts[-1]), "inner": tuple(inner.parts)})


def _inside(line: _Line, attempt: Attempt) -> None:
    """Add Ollama's own timings, in the order of its work; nothing for a server that reports none."""
    own = (
        ("load the model", PartKind.LOAD, attempt.load_ms),
        ("read the prompt", PartKind.PROMPT, attempt.prompt_ms),
        ("generate", PartKind.GENERATION, attempt.eval_ms),
    )
    if attempt.runtime_ms is None and all(ms is None for _, _, ms in own):
        return
    known = sum(ms or 0.0 for _, _, ms in own)
    outside = (attempt.ms or 0.0) - max(attempt.runtime_ms or 0.0, known)
    line.add("runtime's queue and other", PartKind.REST, line.at, max(outside, 0.0))
    for name, kind, ms in own:
        line.add(name, kind, line.at, ms or 0.0)
    if line.total > line.at:
        line.add("runtime's own work", PartKind.REST, line.at, line.total - line.at)


# -- on the disk


def find(folder: Path, wanted: str) -> Record:
    """Return the newest request with this id, or the only one whose id begins like this. Raises LogMissing or RequestUnknown."""
    begun: dict[str, Record] = {}
    for record in _records(folder, wanted.encode("utf-8", "replace")):
        if record.id == wanted:
            return record
        if record.id.startswith(wanted) and len(begun) < 4:
            begun.setdefault(record.id, record)
    quoted = request_records.shown(wanted, 40)
    if not begun:
        raise RequestUnknown(
            f"no request in the log has the id {quoted}",
            hint="a response has its id in x-request-id; old files may have been removed (`logs:` in the table)",
        )
    if len(wanted) < SHORTEST or len(begun) > 1:
        ids = ", ".join(request_records.shown(i, 40) for i in list(begun)[:3])
        raise RequestUnknown(
            f"{quoted} is the beginning of more than one id, or too short: {ids}",
            hint=f"give more of the id, at least {SHORTEST} characters",
        )
    return next(iter(begun.values()))


def last(folder: Path, *, failed: bool, mode: str) -> Record:
    """Return the request that ended last: of all, of the failed ones, or of a mode. Raises LogMissing or RequestUnknown."""
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
    """Return the table's `keep_alive` of the model that served; '' when the table no longer has it."""
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
