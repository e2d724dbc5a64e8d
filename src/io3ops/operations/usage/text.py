"""`io3ops usage` for people, as CSV and as data. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from io3ops.operations.request_log.records import shown
from io3ops.operations.usage.plot import latencies, timeline
from io3ops.operations.usage.table import MOST_ROWS, local, tables
from io3ops.operations.usage.usage import Row, Usage

COUNTS = (
    "requests", "errors", "refused", "fallbacks", "input_tokens", "output_tokens", "cached_tokens", "local", "cloud", "cost_usd", "truncated",
)  # fmt: skip


def data(found: Usage) -> dict[str, Any]:
    """The same for programs; times in milliseconds."""
    return {
        "since": _utc(found.since),
        "until": _utc(found.until),
        "by": list(found.by),
        "groups": [_named(found.by, row) for row in found.rows],
        "total": {k: v for k, v in asdict(found.total).items() if k != "group"},
        "unreadable_lines": found.unreadable,
        "timeline": {
            "step_seconds": found.step,
            "buckets": [{"begin": _utc(b.begin), "requests": b.requests, "failed": b.failed} for b in found.timeline],
        }
        if found.timeline
        else None,
    }


def text(found: Usage, width: int, *, plot: bool) -> str:
    """Everything for people, in lines of at most `width`."""
    span = f"{local(found.since)} to {local(found.until)}"
    if not found.total.requests:
        return "\n".join([f"no requests from {span}", *_notes(found)])
    parts = [span, *tables(found, width)]
    if plot:
        parts += [p for p in (timeline(found.timeline, found.step, width), latencies(found, width)) if p]
    return "\n\n".join([*parts, "\n".join(_notes(found))]).rstrip()


def _notes(found: Usage) -> list[str]:
    lines = []
    if found.total.requests:
        lines.append(
            "times: p50/p95/p99 of all but refused requests; first: the first byte of streamed ones; tokens/s: median"
        )
    if len(found.rows) > MOST_ROWS:
        lines.append(f"the {MOST_ROWS} groups with the most requests of {len(found.rows):,}; --json and --csv have all")
    if found.unreadable:
        lines.append(
            f"{found.unreadable:,} {'line' if found.unreadable == 1 else 'lines'} of the log cannot be read and are not counted"
        )
    return lines


# -- CSV


def comma_separated(found: Usage) -> str:
    """RFC 4180, a header and one line for each group; the total is no line, so that columns may be added up."""
    out = io.StringIO()
    writer = csv.writer(out)
    percentiles = [f"{name}_{p}" for name in ("ms", "first_ms") for p in ("p50", "p95", "p99")]
    writer.writerow([*found.by, *COUNTS, *percentiles, "tokens_per_second"])
    for row in found.rows:
        times = [getattr(t, p) if t else "" for t in (row.ms, row.first_ms) for p in ("p50", "p95", "p99")]
        speed = "" if row.tokens_per_second is None else row.tokens_per_second
        writer.writerow([*map(_harmless, row.group), *(getattr(row, name) for name in COUNTS), *times, speed])
    return out.getvalue()


def _harmless(name: str) -> str:
    """A client's name that a spreadsheet would compute is text there too."""
    made = shown(name, 200)
    return f"'{made}" if made.startswith(("=", "+", "-", "@")) else made


def _named(by: Sequence[str], row: Row) -> dict[str, Any]:
    found = asdict(row)
    return {"group": dict(zip(by, (shown(g, 200) or None for g in found.pop("group")), strict=True)), **found}


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}Z"
