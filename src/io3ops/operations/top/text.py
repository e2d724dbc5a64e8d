"""How `io3ops top` says it: the same few tables as plain text, and as what the live view draws. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from io3ops.console import printable
from io3ops.operations.logs import lines as log_lines
from io3ops.operations.request_log import lines as request_lines
from io3ops.operations.top.numbers import MINUTE, Model, Rate, Snapshot

RIGHT = "right"
HALF_DAY, YEAR = 43_200, 31_536_000
# How a row looks.
GOOD, BAD, QUIET = "", "red", "dim"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table. `columns`: name and side; `note`: said beside or instead of rows; `styles`: one for each row."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...] = ()
    styles: tuple[str, ...] = ()
    note: str = ""

    def cut(self, rows: int) -> Section:
        return replace(self, rows=self.rows[:rows], styles=self.styles[:rows])

    @property
    def height(self) -> int:
        return 1 + len(self.rows) + bool(self.note)


def head(seen: Snapshot) -> str:
    return f"io3ops top  {seen.project}  {log_lines.clock(seen.time, '%Y-%m-%d %H:%M:%S', milliseconds=False)}"


def sections(seen: Snapshot) -> list[Section]:
    return [_layers(seen), _models(seen), _rates(seen), _failures(seen)]


def fit(found: list[Section], height: int) -> list[Section]:
    """Cut to a terminal of so many lines: the longest gives a row until all fit, with an empty line before each."""
    found = list(found)
    while sum(s.height + 1 for s in found) + 1 > height and any(s.rows for s in found):
        longest = max(range(len(found)), key=lambda i: len(found[i].rows))
        found[longest] = found[longest].cut(len(found[longest].rows) - 1)
    return found


def text(seen: Snapshot) -> str:
    lines = [head(seen)]
    for section in sections(seen):
        table = [tuple(name for name, _ in section.columns), *section.rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(section.columns))]
        lines.append("")
        for row in table:
            parts = zip(row, widths, section.columns, strict=True)
            lines.append("  ".join(f"{c:>{w}}" if side == RIGHT else f"{c:<{w}}" for c, w, (_, side) in parts).rstrip())
        if section.note:
            lines.append(section.note)
    return "\n".join(lines)


def _layers(seen: Snapshot) -> Section:
    rows, styles = [], []
    for layer in seen.layers:
        rows.append(
            (
                layer.name,
                layer.state,
                layer.health or "-",
                "-" if layer.cpu is None else f"{layer.cpu:.1f}",
                "-" if layer.memory is None else _size(layer.memory),
                "-" if layer.limit is None else _size(layer.limit),
            )
        )
        sick = layer.state != "running" or layer.health == "unhealthy"
        styles.append(BAD if sick else GOOD)
    columns = (("layer", ""), ("state", ""), ("health", ""), ("CPU %", RIGHT), ("memory", RIGHT), ("limit", RIGHT))
    return Section(columns=columns, rows=tuple(rows), styles=tuple(styles), note=seen.problems.get("containers", ""))


def _models(seen: Snapshot) -> Section:
    rows = tuple((printable(m.name, 50), _size(m.memory), _where(m), _until(m.until, seen.time)) for m in seen.models)
    note = seen.problems.get("models", "") or ("" if rows else "none")
    columns = (("loaded model", ""), ("memory", RIGHT), ("on", ""), ("until", ""))
    return Section(columns=columns, rows=rows, styles=(GOOD,) * len(rows), note=note)


def _rates(seen: Snapshot) -> Section:
    found = [*([seen.total] if seen.total else []), *seen.modes]
    columns = (
        ("last minute", ""), ("req/s", RIGHT), ("err/s", RIGHT), ("refused/s", RIGHT), ("p50 ms", RIGHT), ("p95 ms", RIGHT), ("tokens/s", RIGHT)
    )  # fmt: skip
    flight = "-" if seen.running is None else f"{seen.running:,}"
    waiting = "-" if seen.waiting is None else f"{seen.waiting:,}"
    problem = seen.problems.get("requests") or seen.problems.get("gateway")
    note = f"in flight {flight}, waiting {waiting}" + (f"; {problem}" if problem else "")
    styles = tuple(BAD if r.failed else GOOD for r in found)
    return Section(columns=columns, rows=tuple(map(_rate, found)), styles=styles, note=note)


def _rate(rate: Rate) -> tuple[str, ...]:
    per_second = [f"{n / MINUTE:,.2f}" for n in (rate.requests, rate.failed, rate.refused)]
    times = ["-" if ms is None else f"{ms:,.0f}" for ms in (rate.p50, rate.p95)]
    return (printable(rate.mode, 24) or "-", *per_second, *times, f"{rate.tokens / MINUTE:,.1f}")


def _failures(seen: Snapshot) -> Section:
    rows = tuple(
        (
            log_lines.clock(f.time),
            *(printable(part, 40) or "-" for part in (f.mode, f.outcome, f.error, request_lines.short(f.id))),
        )
        for f in seen.failures
    )
    columns = (("last errors", ""), ("mode", ""), ("outcome", ""), ("error", ""), ("id", ""))
    return Section(columns=columns, rows=rows, styles=(GOOD,) * len(rows), note="" if rows else "none")


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def _where(model: Model) -> str:
    if not model.vram or not model.memory:
        return "CPU"
    return "GPU" if model.vram >= model.memory else f"{model.vram / model.memory:.0%} GPU"


def _until(text: str, now: float) -> str:
    """Ollama writes the year 2300 or so for `always`."""
    when = log_lines.stamp(text)
    if when is None:
        return "-"
    if when > now + YEAR:
        return "always"
    return log_lines.clock(when, "%H:%M:%S" if when < now + HALF_DAY else "%m-%d %H:%M:%S", milliseconds=False)
