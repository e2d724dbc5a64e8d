"""The output of `io3ops usage`: as text, as CSV and as data for JSON. Pure."""

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


def data(usage: Usage) -> dict[str, Any]:
    """Return the numbers for programs; times in milliseconds."""
    return {
        "since": _utc(usage.since),
        "until": _utc(usage.until),
        "by": list(usage.by),
        "groups": [_named(usage.by, row) for row in usage.rows],
        "total": {k: v for k, v in asdict(usage.total).items() if k != "group"},
        "unreadable_lines": usage.unreadable,
        "timeline": {
            "step_seconds": usage.step,
            "buckets": [{"begin": _utc(b.begin), "requests": b.requests, "failed": b.failed} for b in usage.timeline],
        }
        if usage.timeline
        else None,
    }


def text(usage: Usage, width: int, *, plot: bool) -> str:
    """Return tables, plots and notes in lines of at most `width`."""
    span = f"{local(usage.since)} to {local(usage.until)}"
    if not usage.total.requests:
        return "\n".join([f"no requests from {span}", *_notes(usage)])
    parts = [span, *tables(usage, width)]
    if plot:
        parts += [p for p in (timeline(usage.timeline, usage.step, width), latencies(usage, width)) if p]
    return "\n\n".join([*parts, "\n".join(_notes(usage))]).rstrip()


def _notes(usage: Usage) -> list[str]:
    lines = []
    if usage.total.requests:
        lines.append(
            "times: p50/p95/p99 of all requests but refused ones; first: until the first byte of streamed ones; tokens/s: median"
        )
    if len(usage.rows) > MOST_ROWS:
        lines.append(
            f"shown are the {MOST_ROWS} groups with the most requests, of {len(usage.rows):,}; --json and --csv have all"
        )
    if usage.unreadable:
        lines.append(
            f"{usage.unreadable:,} {'line' if usage.unreadable == 1 else 'lines'} of the log cannot be read and are not counted"
        )
    return lines


# -- CSV


def comma_separated(usage: Usage) -> str:
    """Return CSV (RFC 4180): a header and one line for each group. There is no line for the total, so columns can be added up."""
    out = io.StringIO()
    writer = csv.writer(out)
    percentiles = [f"{name}_{p}" for name in ("ms", "first_ms") for p in ("p50", "p95", "p99")]
    writer.writerow([*usage.by, *COUNTS, *percentiles, "tokens_per_second"])
    for row in usage.rows:
        times = [getattr(t, p) if t else "" for t in (row.ms, row.first_ms) for p in ("p50", "p95", "p99")]
        speed = "" if row.tokens_per_second is None else row.tokens_per_second
        writer.writerow([*map(_harmless, row.group), *(getattr(row, name) for name in COUNTS), *times, speed])
    return out.getvalue()


def _harmless(name: str) -> str:
    """Return a client's name so that a spreadsheet takes it for text, not for a formula."""
    made = shown(name, 200)
    return f"'{made}" if made.startswith(("=", "+", "-", "@")) else made


def _named(by: Sequence[str], row: Row) -> dict[str, Any]:
    found = asdict(row)
    return {"group": dict(zip(by, (shown(g, 200) or None for g in found.pop("group")), strict=True)), **found}


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}Z"
