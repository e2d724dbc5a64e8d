"""The tables of `io3ops top`, as plain text and for the live view. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from io3ops.console import printable
from io3ops.operations.logs import lines as log_lines
from io3ops.operations.request_log import lines as request_lines
from io3ops.operations.top.numbers import MINUTE, Model, Rate, Snapshot

RIGHT = "right"
HALF_DAY, YEAR = 43_200, 31_536_000
# Styles of a row.
GOOD, BAD, QUIET = "", "red", "dim"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table. `columns`: name and alignment of each; `styles`: one for each row; `note`: a line below the rows."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...] = ()
    styles: tuple[str, ...] = ()
    note: str = ""

    def cut(self, rows: int) -> Section:
        return replace(self, rows=self.rows[:rows], styles=self.styles[:rows])

    @property
    def height(self) -> int:
        return 1 + len(self.rows) + bool(self.note)


def head(snapshot: Snapshot) -> str:
    return f"io3ops top  {snapshot.project}  {log_lines.clock(snapshot.time, '%Y-%m-%d %H:%M:%S', milliseconds=False)}"


def sections(snapshot: Snapshot) -> list[Section]:
    return [_layers(snapshot), _models(snapshot), _rates(snapshot), _failures(snapshot)]


def fit(sections: list[Section], height: int) -> list[Section]:
    """Return the tables cut to a terminal of so many lines: the longest loses a row until all fit, with an empty line before each."""
    kept = list(sections)
    while sum(s.height + 1 for s in kept) + 1 > height and any(s.rows for s in kept):
        longest = max(range(len(kept)), key=lambda i: len(kept[i].rows))
        kept[longest] = kept[longest].cut(len(kept[longest].rows) - 1)
    return kept


def text(snapshot: Snapshot) -> str:
    lines = [head(snapshot)]
    for section in sections(snapshot):
        table = [tuple(name for name, _ in section.columns), *section.rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(section.columns))]
        lines.append("")
        for row in table:
            parts = zip(row, widths, section.columns, strict=True)
            lines.append("  ".join(f"{c:>{w}}" if side == RIGHT else f"{c:<{w}}" for c, w, (_, side) in parts).rstrip())
        if section.note:
            lines.append(section.note)
    return "\n".join(lines)


def _layers(snapshot: Snapshot) -> Section:
    rows, styles = [], []
    for layer in snapshot.layers:
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
    return Section(
        columns=columns, rows=tuple(rows), styles=tuple(styles), note=snapshot.problems.get("containers", "")
    )


def _models(snapshot: Snapshot) -> Section:
    rows = tuple(
        (printable(m.name, 50), _size(m.memory), _where(m), _until(m.until, snapshot.time)) for m in snapshot.models
    )
    note = snapshot.problems.get("models", "") or ("" if rows else "none")
    columns = (("loaded model", ""), ("memory", RIGHT), ("on", ""), ("until", ""))
    return Section(columns=columns, rows=rows, styles=(GOOD,) * len(rows), note=note)


def _rates(snapshot: Snapshot) -> Section:
    rates = [*([snapshot.total] if snapshot.total else []), *snapshot.modes]
    columns = (
        ("last minute", ""), ("req/s", RIGHT), ("err/s", RIGHT), ("refused/s", RIGHT), ("p50 ms", RIGHT), ("p95 ms", RIGHT), ("tokens/s", RIGHT)
    )  # fmt: skip
    flight = "-" if snapshot.running is None else f"{snapshot.running:,}"
    waiting = "-" if snapshot.waiting is None else f"{snapshot.waiting:,}"
    problem = snapshot.problems.get("requests") or snapshot.problems.get("gateway")
    note = f"in flight {flight}, waiting {waiting}" + (f"; {problem}" if problem else "")
    styles = tuple(BAD if r.failed else GOOD for r in rates)
    return Section(columns=columns, rows=tuple(map(_rate, rates)), styles=styles, note=note)


def _rate(rate: Rate) -> tuple[str, ...]:
    per_second = [f"{n / MINUTE:,.2f}" for n in (rate.requests, rate.failed, rate.refused)]
    times = ["-" if ms is None else f"{ms:,.0f}" for ms in (rate.p50, rate.p95)]
    return (printable(rate.mode, 24) or "-", *per_second, *times, f"{rate.tokens / MINUTE:,.1f}")


def _failures(snapshot: Snapshot) -> Section:
    rows = tuple(
        (
            log_lines.clock(f.time),
            *(printable(part, 40) or "-" for part in (f.mode, f.outcome, f.error, request_lines.short(f.id))),
        )
        for f in snapshot.failures
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
    """Return when a model is unloaded. Ollama writes a year around 2300 for `never`."""
    when = log_lines.stamp(text)
    if when is None:
        return "-"
    if when > now + YEAR:
        return "always"
    return log_lines.clock(when, "%H:%M:%S" if when < now + HALF_DAY else "%m-%d %H:%M:%S", milliseconds=False)
