"""The request log (docs/request-log.md): a line becomes a `Record`, files are read newest first.

Parsing is pure and lenient: values come from clients, and a newer gateway writes fields that this io3ops does not know. What has
the wrong kind is left out, what is no record is None; nothing raises.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from io3ops.errors import LogMissing

CURRENT = "requests.jsonl"
OLDER = "requests-*.jsonl"
# Every record begins so; inside a value its quotes would be escaped.
BEGIN = b'{"v":'
BLOCK = 1 << 18
# The gateway's own lines are far below; a longer one is not its.
LONGEST = 1 << 20
MOST = 1e15


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One deployment that was tried. None: the log does not say; status None: 200, or none came back."""

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
    """One request. '' and None: the log does not say. `raw`: the whole line, for programs."""

    time: str
    id: str = ""
    mode: str = ""
    data_class: str = ""
    data_class_from: str = ""
    key: str = ""
    key_id: str = ""
    client: str = ""
    outcome: str = "ok"
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
    def failed(self) -> bool:
        return self.outcome != "ok"

    @property
    def served_by(self) -> Attempt | None:
        """The attempt that answered: the last one, when it did not fail."""
        return self.attempts[-1] if self.attempts and not self.attempts[-1].failed else None

    @property
    def fell_back(self) -> bool:
        """More than one deployment was tried; a second try of the same one is a retry."""
        return len({a.deployment for a in self.attempts}) > 1


# -- pure


def parse(line: bytes) -> Record | None:
    """The record of one line, None when it holds none. Of a joined line (a crash while it was written) the last."""
    line = line.strip()
    found = _object(line)
    if found is None:
        joined = line.rfind(BEGIN)
        found = _object(line[joined:]) if joined > 0 else None
    return record(found) if found is not None else None


def record(found: Mapping[str, Any]) -> Record | None:
    """None for another version or without a time: that is no request of ours."""
    time = _text(found.get("time"))
    if found.get("v") != 1 or isinstance(found["v"], bool) or not time:
        return None
    gen_ai = _map(found.get("gen_ai"))
    usage, answer = _map(gen_ai.get("usage")), _map(gen_ai.get("response"))
    plain: dict[str, Any] = {name: _text(found.get(name)) for name in TEXTS}
    plain |= {name: _number(found.get(name)) for name in NUMBERS}
    plain |= {name: _whole(found.get(name)) for name in WHOLES}
    plain |= {name: found.get(name) is True for name in FLAGS}
    return Record(
        **plain,
        time=time,
        outcome=_text(found.get("outcome")) or "ok",
        operation=_text(_map(gen_ai.get("operation")).get("name")),
        model=_text(answer.get("model")),
        finish_reasons=tuple(_text(r) for r in _list(answer.get("finish_reasons")) if _text(r)),
        input_tokens=_whole(usage.get("input_tokens")),
        output_tokens=_whole(usage.get("output_tokens")),
        cached_tokens=_whole(_map(usage.get("cache_read")).get("input_tokens")),
        attempts=tuple(_attempt(a) for a in _list(found.get("attempts")) if isinstance(a, dict)),
        raw=found,
    )


TEXTS = ("id", "mode", "data_class", "data_class_from", "key", "key_id", "client", "error", "path")
NUMBERS = ("ms", "body_ms", "queue_ms", "first_ms", "cost_usd", "tokens_per_second")
WHOLES = ("status", "bytes_in", "bytes_out", "window")
FLAGS = ("stream", "truncated", "override", "recorded")
TIMINGS = ("at", "ms", "load_ms", "prompt_ms", "eval_ms", "runtime_ms")


def _attempt(found: Mapping[str, Any]) -> Attempt:
    timings: dict[str, Any] = {name: _number(found.get(name)) for name in TIMINGS}
    return Attempt(
        **timings,
        deployment=_text(found.get("deployment")),
        provider=_text(found.get("provider")) or "local",
        cloud=found.get("cloud") is True,
        status=_whole(found.get("status")),
        error=_text(found.get("error")),
    )


def shown(value: str, most: int = 60) -> str:
    """What a client wrote, without power over the terminal, and not longer than `most`."""
    cut = value[: most + 1]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return safe if len(safe) <= most else safe[: most - 1] + "…"


def _object(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{") or len(line) > LONGEST:
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    """Durations and amounts are never below zero; NaN and the like are no numbers, nor is what no clock or counter can say."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if 0 <= found <= MOST else None


def _whole(value: Any) -> int | None:
    found = _number(value)
    return int(found) if found is not None else None


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


# -- on the disk


def require(folder: Path) -> None:
    """Raises LogMissing when there is no log yet, or its folder may not be looked into."""
    try:
        there = (folder / CURRENT).exists() or bool(older_files(folder))
    except OSError as error:
        raise LogMissing(f"{folder} cannot be read: {error.strerror}", hint="correct its permissions") from None
    if not there:
        hint = "the gateway writes it with the first request: make up"
        raise LogMissing(f"there is no request log in {folder}", hint=hint)


def older_files(folder: Path) -> list[Path]:
    """The full files, newest first: their names carry the time at which they were full."""
    return sorted(folder.glob(OLDER), key=lambda path: _order(path.name), reverse=True)


def _order(name: str) -> tuple[str, int, str]:
    # `-10` comes after `-9`.
    stem, _, number = name.removesuffix(".jsonl").rpartition("-")
    return (stem, int(number), name) if re.fullmatch(r"[0-9]{1,18}", number) else (name, 0, name)


def newest_records(folder: Path, needle: bytes = b"") -> Iterator[Record]:
    """Every record of the log, newest first; lines that are none are passed over.

    `needle`: only lines with these bytes in them, which are looked for before anything is parsed. Raises LogMissing for a file
    that cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    for path in _newest_files(folder):
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                for line in backwards(file, needle):
                    found = parse(line)
                    if found is not None:
                        yield found
        except FileNotFoundError:
            # Pruned meanwhile.
            continue
        except OSError as error:
            raise LogMissing(f"{path} cannot be read: {error.strerror}", hint="correct its permissions") from None


def _newest_files(folder: Path) -> Iterator[Path]:
    """The older ones are listed after the current one was read: what was renamed meanwhile is not lost (nor taken twice)."""
    yield folder / CURRENT
    yield from older_files(folder)


def backwards(file: BinaryIO, needle: bytes = b"") -> Iterator[bytes]:
    """The lines of a file from the last to the first, without their ends, read in blocks. Those without `needle` are left out."""
    at = file.seek(0, os.SEEK_END)
    rest, endless = b"", False
    while at > 0:
        size = min(BLOCK, at)
        at -= size
        file.seek(at)
        block = file.read(size) + rest
        if endless:
            # The earlier part of a line that is too long to be one.
            cut = block.rfind(b"\n")
            block, endless = block[: max(cut, 0)], cut < 0
        first = block.find(b"\n") if at else -1
        if at and first < 0:
            rest, endless = (b"", True) if len(block) > LONGEST else (block, endless)
            continue
        rest, block = block[: max(first, 0)], block[first + 1 :]
        if needle in block:
            yield from (line for line in reversed(block.split(b"\n")) if line and needle in line)
