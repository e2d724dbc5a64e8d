"""`io3ops usage --plot`: requests over time and durations by group, drawn with characters. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from io3ops.console import BAR
from io3ops.operations.usage.table import chosen, labels_of, local, times_of
from io3ops.operations.usage.usage import Bucket, Times, Usage

HEIGHT = 8
EIGHTHS = " ▁▂▃▄▅▆▇█"


def timeline(buckets: Sequence[Bucket], step: int, width: int) -> str:
    """Return requests over time as columns, with a mark below those that have failed or refused requests."""
    if not buckets:
        return ""
    top = max(b.requests for b in buckets)
    margin = len(f"{top:,}") + 1
    # In a narrow terminal the oldest columns are left out.
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
    begin, end = local(kept[0].begin), local(kept[-1].begin)
    lines.append(
        " " * margin + (f"{begin}{end:>{len(kept) - len(begin)}}" if len(kept) > len(begin) + len(end) else begin)
    )
    mark = "; × marks failed or refused ones" if any(b.failed for b in kept) else ""
    return "\n".join([f"requests in each {_step(step)}{mark}", *(line[:width] for line in lines)])


def latencies(usage: Usage, width: int) -> str:
    """Return the percentiles of each group as bars."""
    timed = [row for row in chosen(usage) if row.ms]
    if not timed:
        return ""
    labels = labels_of([row.group for row in (*timed, usage.total)], width)[:-1]
    rows = [(label, row.ms) for label, row in zip(labels, timed, strict=True) if row.ms]
    wide = len(labels[0])
    values = [times_of(times) for _, times in rows]
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


def _step(seconds: int) -> str:
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return unit if seconds == size else f"{seconds // size} {unit}s"
    return f"{seconds} seconds"
