"""A traced request as text and as data: what is known of it, the waterfall of its parts, one line of advice. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from io3ops.operations.request_log.records import shown
from io3ops.operations.trace.trace import Part, PartKind, Waterfall
from io3ops_shared.request_log.record import Record

# Colours of the bars.
STYLES = {
    PartKind.BODY: "36", PartKind.WAIT: "35", PartKind.GATEWAY: "36", PartKind.ATTEMPT: "32", PartKind.FAILED: "31", PartKind.LOAD: "33",
    PartKind.PROMPT: "34", PartKind.GENERATION: "32", PartKind.REST: "2",
}  # fmt: skip
LONGEST_NAME = 34


def data(record: Record, trace: Waterfall, advice: str) -> dict[str, Any]:
    """Return the trace for programs; every text is printable and short."""
    fields = {k: v for k, v in asdict(record).items() if k != "raw"}
    return {
        "request": _harmless(fields),
        "waterfall": _harmless(asdict(trace)),
        "advice": advice,
    }


def _harmless(value: Any) -> Any:
    if isinstance(value, str):
        return shown(value, 200)
    if isinstance(value, dict):
        return {k: _harmless(v) for k, v in value.items()}
    return [_harmless(v) for v in value] if isinstance(value, (list, tuple)) else value


def text(record: Record, trace: Waterfall, advice: str, width: int, *, colour: bool) -> str:
    """Return the trace for a terminal. Only `colour` adds escape sequences."""
    parts = [head(record, width), waterfall(trace, width, colour=colour)]
    if advice:
        parts.append(f"→ {advice}")
    return "\n\n".join(parts)


# -- the head


def head(record: Record, width: int) -> str:
    """Return what is known of the request, one line each."""
    tokens = [
        f"{n:,} {w}"
        for n, w in ((record.input_tokens, "in"), (record.output_tokens, "out"), (record.cached_tokens, "cached"))
        if n is not None
    ]
    marks = [
        w
        for there, w in ((record.truncated, "truncated"), (record.override, "override"), (record.recorded, "recorded"))
        if there
    ]
    outcome = [str(record.status) if record.status is not None else "", record.outcome, record.error]
    rows = [
        ("request", record.id),
        ("time", record.time),
        ("mode", record.mode),
        ("class", f"{record.data_class} (from {record.data_class_from or 'the default'})" if record.data_class else ""),
        ("key", f"{record.key} ({record.key_id})" if record.key and record.key_id else record.key or record.key_id),
        ("client", record.client),
        ("outcome", " ".join(o for o in outcome if o)),
        ("path", f"{record.path}{', streamed' if record.stream else ''}"),
        ("model", record.model),
        ("tokens", ", ".join(tokens) + (f"; window {record.window:,}" if record.window else "") if tokens else ""),
        ("finish", ", ".join(record.finish_reasons)),
        ("cost", f"${record.cost_usd:.6f}" if record.cost_usd else ""),
        ("marks", ", ".join(marks)),
    ]
    return "\n".join(f"{name:<8} {shown(value, max(width - 9, 8))}" for name, value in rows if value)


# -- the picture


def waterfall(trace: Waterfall, width: int, *, colour: bool) -> str:
    """Return one row for each part on a common axis: name, bar, milliseconds, share."""
    rows = [row for part in trace.parts for row in (part, *part.inner)]
    inner = {id(p) for part in trace.parts for p in part.inner}
    names = [("  " if id(p) in inner else "") + p.name + (f"  {p.note}" if p.note else "") for p in rows]
    figures = len(f"{trace.total:,.1f}")
    wide = min(max([len("first byte"), *map(len, names)]), max(LONGEST_NAME, width // 3), max(width - figures - 24, 12))
    room = max(width - wide - figures - 11, 8)
    lines = [
        _row(name, wide, _bar(part, trace.total, room), room, part.ms, trace.total, STYLES[part.kind] if colour else "")
        for name, part in zip(names, rows, strict=True)
    ]
    if trace.first is not None:
        at = min(int(trace.first / trace.total * room), room - 1) if trace.total else 0
        lines.append(_row("first byte", wide, " " * at + "▲", room, trace.first, trace.total, "1" if colour else ""))
    lines.append(_row("in all", wide, "", room, trace.total, trace.total, ""))
    notes = []
    if trace.cut > 0.05:
        notes.append(f"the parts add up to {trace.cut:.1f} ms more than the whole, and were cut")
    if not trace.measured:
        notes.append("the log does not say how long it took in all: the total is the sum of its parts")
    return "\n".join([*lines, *notes])


def _row(name: str, wide: int, bar: str, room: int, ms: float, total: float, style: str) -> str:
    share = f"{100 * ms / total:.0f} %" if total else "-"
    drawn = f"\x1b[{style}m{bar:<{room}}\x1b[0m" if style else f"{bar:<{room}}"
    return f"{shown(name, wide):<{wide}} {drawn} {ms:>{len(f'{total:,.1f}')},.1f} ms {share:>5}"


def _bar(part: Part, total: float, room: int) -> str:
    """Return the bar of a part; a thin line for less than half a cell."""
    if not total:
        return ""
    begin, end = round(part.at / total * room), round(part.end / total * room)
    return " " * begin + "█" * (end - begin) if end > begin else " " * min(begin, room - 1) + "▏"
