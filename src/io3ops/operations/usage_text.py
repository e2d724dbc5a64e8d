"""`io3ops usage` as a table that fits the terminal, as a picture, as CSV and as data. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from io3ops.operations.bench_text import BAR
from io3ops.operations.request_records import shown
from io3ops.operations.usage import Bucket, Row, Times, Usage

# A client may give itself any name, each time another one.
MOST_ROWS = 40
HEIGHT = 8
EIGHTHS = " ▁▂▃▄▅▆▇█"
COUNTS = (
    "requests", "errors", "refused", "fallbacks", "input_tokens", "output_tokens", "cached_tokens", "local", "cloud", "cost_usd", "truncated",
)  # fmt: skip
Column = tuple[str, Callable[[Row], str]]


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
    span = f"{_local(found.since)} to {_local(found.until)}"
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


# -- the table


def tables(found: Usage, width: int) -> list[str]:
    """One table where it fits, else more, one below the other; columns without anything in them are left out."""
    total = found.total
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
        (True, ("time", lambda r: _times(r.ms))),
        (total.first_ms, ("first", lambda r: _times(r.first_ms))),
        (
            total.tokens_per_second,
            ("tokens/s", lambda r: f"{r.tokens_per_second:,.0f}" if r.tokens_per_second else "-"),
        ),
    ]
    rows = [*_chosen(found), total]
    labels = _labels([found.by, *(row.group for row in rows)], width)
    columns = [[name, *(get(row) for row in rows)] for there, (name, get) in possible if there]
    made = [list(labels)]
    for column in columns:
        wider = _beside(made[-1], column)
        if len(wider[0]) <= width or len(made[-1][0]) == len(labels[0]):
            made[-1] = wider
        else:
            made.append(_beside(labels, column))
    return ["\n".join(line[:width].rstrip() for line in part) for part in made]


def _beside(lines: Sequence[str], cells: Sequence[str]) -> list[str]:
    wide = max(map(len, cells))
    return [f"{line}  {cell:>{wide}}" for line, cell in zip(lines, cells, strict=True)]


def _labels(groups: Sequence[Sequence[str]], width: int) -> list[str]:
    """The groups' names in columns of their own, together no more than half of the terminal; the last line is the total's."""
    most = max(width // 2 // len(groups[0]) - 2, 8)
    cells = [[shown(part, most) or "-" for part in group] for group in groups[:-1]]
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{c:<{w}}" for c, w in zip(line, wide, strict=True)) for line in cells]
    return [*lines, f"{'all':<{len(lines[0])}}"]


def _chosen(found: Usage) -> list[Row]:
    """The rows that are shown, in their order."""
    if len(found.rows) <= MOST_ROWS:
        return list(found.rows)
    most = sorted(found.rows, key=lambda r: -r.requests)[:MOST_ROWS]
    kept = {row.group for row in most}
    return [row for row in found.rows if row.group in kept]


# -- the picture


def timeline(buckets: Sequence[Bucket], step: int, width: int) -> str:
    """Requests over time, as columns; a mark below those with failed or refused ones."""
    if not buckets:
        return ""
    top = max(b.requests for b in buckets)
    margin = len(f"{top:,}") + 1
    # Newest last: where the terminal is too narrow, the oldest are left out.
    kept = buckets[-max(width - margin - 1, 1) :]
    lines = []
    for level in range(HEIGHT, 0, -1):
        filled = (max(0, min(8, round(8 * (HEIGHT * b.requests / top - level + 1)))) for b in kept)
        drawn = "".join(
            EIGHTHS[max(f, 1) if level == 1 and b.requests else f] for f, b in zip(filled, kept, strict=True)
        )
        lines.append(f"{(f'{top:,}' if level == HEIGHT else ''):>{margin - 1}} {drawn}".rstrip())
    if any(b.failed for b in kept):
        lines.append(" " * margin + "".join("×" if b.failed else " " for b in kept).rstrip())
    begin, end = _local(kept[0].begin), _local(kept[-1].begin)
    lines.append(
        " " * margin + (f"{begin}{end:>{len(kept) - len(begin)}}" if len(kept) > len(begin) + len(end) else begin)
    )
    mark = "; × with failed or refused ones" if any(b.failed for b in kept) else ""
    return "\n".join([f"requests in each {_step(step)}{mark}", *(line[:width] for line in lines)])


def latencies(found: Usage, width: int) -> str:
    """Bars of the percentiles, by group."""
    chosen = [row for row in _chosen(found) if row.ms]
    if not chosen:
        return ""
    labels = _labels([row.group for row in (*chosen, found.total)], width)[:-1]
    rows = [(label, row.ms) for label, row in zip(labels, chosen, strict=True) if row.ms]
    wide = len(labels[0])
    values = [_times(times) for _, times in rows]
    room = max(10, min(BAR, width - wide - max(map(len, values)) - 4))
    top = max(times.p99 for _, times in rows)
    lines = [
        f"{label}  {_bar(times, top, room):<{room}}  {value}"
        for (label, times), value in zip(rows, values, strict=True)
    ]
    return "\n".join(
        ["time, p50/p95/p99", *(line[:width] for line in lines), "█ up to the median, ▒ up to p95, ░ up to p99"]
    )


def _bar(times: Times, top: float, room: int) -> str:
    low, high, highest = (round(v / top * room) if top else 0 for v in (times.p50, times.p95, times.p99))
    return "█" * low + "▒" * (high - low) + "░" * (highest - high)


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


# -- numbers in words


def _named(by: Sequence[str], row: Row) -> dict[str, Any]:
    found = asdict(row)
    return {"group": dict(zip(by, (shown(g, 200) or None for g in found.pop("group")), strict=True)), **found}


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


def duration(ms: float) -> str:
    """Three digits at most, and the unit."""
    if ms < 999.5:
        return f"{ms:.0f} ms" if ms >= 9.95 else f"{ms:.1f} ms"
    return f"{ms / 1000:.1f} s" if ms < 99_950 else f"{ms / 60_000:.1f} min"


def _times(found: Times | None) -> str:
    return "/".join(duration(v) for v in (found.p50, found.p95, found.p99)) if found else "-"


def _step(seconds: int) -> str:
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return unit if seconds == size else f"{seconds // size} {unit}s"
    return f"{seconds} seconds"


def _local(at: Any) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M}"


def _utc(at: Any) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}Z"
