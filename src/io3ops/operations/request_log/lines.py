"""The request log's lines (docs/request-log.md), for whoever shows them: read with care, and one readable line each. Pure.

A client chose some of what stands in them, so a field is taken only when it is of its kind, and made printable.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from io3ops.console import printable

Record = Mapping[str, Any]
# What is shown of an id that is longer; the head of one made by the gateway is only its time.
SHORT = 8
# Attempts in one line.
MOST = 6


def parse(line: bytes) -> dict[str, Any] | None:
    """A record, None for a torn line. After a crash a whole one may stand behind the beginning of another."""
    for begin in dict.fromkeys((0, max(0, line.rfind(b'{"v":')))):
        try:
            found = json.loads(line[begin:])
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and ended(found) is not None:
            return found
    return None


def began(record: Record) -> float | None:
    """Seconds since 1970."""
    try:
        return datetime.fromisoformat(str(record.get("time"))).timestamp()
    except (ValueError, OverflowError):
        return None


def ended(record: Record) -> float | None:
    """When the line was written, so that it stands beside what the other layers wrote then."""
    begin = began(record)
    return None if begin is None else begin + number(record, "ms") / 1000


def number(record: Record, *path: str) -> float:
    """A field that is a number, else 0."""
    found = _field(record, path)
    # As text it may be too large for a float, which would raise.
    usable = isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < 1e15
    return float(found) if usable and math.isfinite(found) else 0.0


def word(record: Record, *path: str, most: int = 60) -> str:
    """A field that is text, printable and without the ends' spaces, else ''."""
    found = _field(record, path)
    return printable(found, most).strip() if isinstance(found, str) else ""


def short(identity: str) -> str:
    return identity if len(identity) <= SHORT + 4 else f"…{identity[-SHORT:]}"


def outcome(record: Record) -> str:
    return word(record, "outcome", most=20) or "ok"


def text(record: Record) -> str:
    """Who asked for what, how it ended, how long it took, and what was tried."""
    status = number(record, "status")
    parts = [short(word(record, "id", most=128)) or "-", word(record, "mode") or "-"]
    parts.append(f"{status:.0f} {outcome(record)}" if status else outcome(record))
    if error := word(record, "error"):
        parts.append(error)
    parts.append(f"{number(record, 'ms'):,.0f} ms")
    usage = ("gen_ai", "usage")
    tokens = [number(record, *usage, name) for name in ("input_tokens", "output_tokens")]
    if any(tokens):
        parts.append(f"{tokens[0]:,.0f}→{tokens[1]:,.0f} tokens")
    if tried := attempts(record):
        parts.append(tried)
    return "  ".join(parts)


def attempts(record: Record) -> str:
    """`executor.1.smollm2✗ConnectError → executor.2.gpt-small✓`"""
    made = record.get("attempts")
    made = [a for a in made if isinstance(a, dict)] if isinstance(made, list) else []
    shown = [f"{word(a, 'deployment') or '-'}{_how(a)}" for a in made[:MOST]]
    return " → ".join([*shown, *([f"{len(made) - MOST} more"] if len(made) > MOST else [])])


def _how(attempt: Record) -> str:
    status = number(attempt, "status")
    error = word(attempt, "error", most=40) or (f"{status:.0f}" if status >= 400 else "")
    return f"✗{error}" if error else "✓"


def _field(record: Record, path: tuple[str, ...]) -> Any:
    found: Any = record
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
