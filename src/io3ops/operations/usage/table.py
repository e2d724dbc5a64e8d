"""The table of `io3ops usage`, fitted to the terminal, with short numbers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from io3ops.operations.request_log.records import shown
from io3ops.operations.usage.usage import Row, Times, Usage

# A client may choose a new name for each request.
MOST_ROWS = 40
Column = tuple[str, Callable[[Row], str]]


def tables(usage: Usage, width: int) -> list[str]:
    """Return one table where it fits, else several to be printed one below the other. Empty columns are left out."""
    total = usage.total
    possible: list[tuple[object, Column]] = [
        (True, ("requests", lambda r: f"{r.requests:,}")),
        (True, ("errors", lambda r: _count(r.errors))),
        (total.refused, ("refused", lambda r: _count(r.refused))),
        (total.fallbacks, ("fallbacks", lambda r: _count(r.fallbacks))),
        (total.truncated, ("truncated", lambda r: _count(r.truncated))),
        (True, ("in", lambda r: _short(r.input_tokens))),
        (True, ("out", lambda r: _short(r.output_tokens))),
        (total.cached_tokens, ("cached", lambda r: _short(r.cached_tokens))),
        (total.cloud, ("local", lambda r: _share(r.local, r.local + r.cloud))),
        (total.cloud, ("cloud", lambda r: _share(r.cloud, r.local + r.cloud))),
        (total.cost_usd, ("cost", lambda r: _cost(r.cost_usd))),
        (True, ("time", lambda r: times_of(r.ms))),
        (total.first_ms, ("first", lambda r: times_of(r.first_ms))),
        (
            total.tokens_per_second,
            ("tokens/s", lambda r: f"{r.tokens_per_second:,.0f}" if r.tokens_per_second else "-"),
        ),
    ]
    rows = [*chosen(usage), total]
    names = labels_of([usage.by, *(row.group for row in rows)], width)
    columns = [[name, *(get(row) for row in rows)] for there, (name, get) in possible if there]
    made = [list(names)]
    for column in columns:
        wider = _beside(made[-1], column)
        if len(wider[0]) <= width or len(made[-1][0]) == len(names[0]):
            made[-1] = wider
        else:
            made.append(_beside(names, column))
    return ["\n".join(line[:width].rstrip() for line in part) for part in made]


def _beside(lines: Sequence[str], cells: Sequence[str]) -> list[str]:
    wide = max(map(len, cells))
    return [f"{line}  {cell:>{wide}}" for line, cell in zip(lines, cells, strict=True)]


def labels_of(groups: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return the groups' names in columns, together at most half as wide as the terminal; the last line is the total's."""
    most = max(width // 2 // len(groups[0]) - 2, 8)
    cells = [[shown(part, most) or "-" for part in group] for group in groups[:-1]]
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{c:<{w}}" for c, w in zip(line, wide, strict=True)) for line in cells]
    return [*lines, f"{'all':<{len(lines[0])}}"]


def chosen(usage: Usage) -> list[Row]:
    """Return the rows to show, in their order: all, or those with the most requests."""
    if len(usage.rows) <= MOST_ROWS:
        return list(usage.rows)
    most = sorted(usage.rows, key=lambda r: -r.requests)[:MOST_ROWS]
    kept = {row.group for row in most}
    return [row for row in usage.rows if row.group in kept]


def duration(ms: float) -> str:
    """Return a duration with at most three digits, and its unit."""
    if ms < 999.5:
        return f"{ms:.0f} ms" if ms >= 9.95 else f"{ms:.1f} ms"
    return f"{ms / 1000:.1f} s" if ms < 99_950 else f"{ms / 60_000:.1f} min"


def times_of(times: Times | None) -> str:
    return "/".join(duration(v) for v in (times.p50, times.p95, times.p99)) if times else "-"


def local(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M}"


def _count(value: int) -> str:
    return f"{value:,}" if value else "-"


def _short(value: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if value >= size:
            return f"{value / (1000 if unit == 'k' else size):.{0 if unit == 'k' else 1}f}{unit}"
    return _count(value)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def _cost(value: float) -> str:
    return "-" if not value else f"${value:,.2f}" if value >= 1 else f"${value:.4f}" if value >= 0.0001 else "<$0.0001"
