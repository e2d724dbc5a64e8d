"""Renders a bench report as sentences, a table, a picture and data. Pure: without colours, whatever the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from io3ops.console import BAR
from io3ops.operations.bench.numbers import FEWEST, Report, Row, Spread


def data(report: Report) -> dict[str, Any]:
    """Return the report for programs."""
    fields = asdict(report) | {"errors": [{"error": what, "count": count} for what, count in report.errors]}
    return fields | {"in_words": [sentence(r) for r in report.rows if r.headline]}


def text(report: Report, *, plot: bool) -> str:
    """Render the report for people; `plot` adds the picture."""
    parts = [table(report.rows), picture(report.rows) if plot else "", "\n".join(_words(report))]
    return "\n\n".join(p for p in parts if p)


def _words(report: Report) -> list[str]:
    lines = [sentence(r) for r in report.rows if r.headline]
    failed = sum(count for _, count in report.errors)
    lines.append(
        f"errors: {failed} of {report.requests} requests" if failed else f"errors: none in {report.requests} requests"
    )
    lines += [f"  {count} × {what}" for what, count in report.errors]
    if report.cut:
        lines.append(
            f"the time ({report.seconds:.0f} s) ended before the last round: raise `--seconds` for more rounds"
        )
    return lines + [f"note: {n}" for n in report.notes]


# -- the table


def table(rows: Sequence[Row]) -> str:
    """Render the medians with the middle half, and the difference of the pairs with its 95 % range."""
    if not rows:
        return ""
    lines: list[tuple[str, ...]] = [("", "direct", "through the gateway", "difference of the pairs", "")]
    case = ""
    for row in rows:
        if row.case != case:
            case = row.case
            lines.append((f"{case} ({row.gateway.count} round{'s' if row.gateway.count > 1 else ''})", "", "", "", ""))
        verdict = "" if row.verdict == "measured" else row.verdict
        lines.append(
            (f"  {row.measure}, {row.unit}", _spread(row.direct), _spread(row.gateway), _difference(row), verdict)
        )
    wide = [max(len(line[n]) for line in lines if line[1]) for n in range(4)]
    shown = ("  ".join(c.ljust(w) for c, w in zip(line, (*wide, 0), strict=True)).rstrip() for line in lines)
    legend = "medians (middle half); for differences the median (95 % confidence range)"
    return "\n".join([*shown, "", legend])


def _spread(values: Spread | None) -> str:
    return f"{_plain(values.median)} ({_plain(values.low)} to {_plain(values.high)})" if values else "-"


def _difference(row: Row) -> str:
    delta = row.difference
    if delta is None:
        return "-"
    if delta.low is None or delta.high is None:
        return _signed(delta.median)
    return f"{_signed(delta.median)} ({_signed(delta.low)} to {_signed(delta.high)})"


# -- the picture


def picture(rows: Iterable[Row]) -> str:
    """Draw bars of the main measures, and the differences around zero."""
    leading = [r for r in rows if r.headline]
    lines = []
    for row in leading:
        lines.append(f"{row.case}: {row.measure}, {row.unit}")
        ways = [(name, values) for name, values in (("direct", row.direct), ("gateway", row.gateway)) if values]
        top = max(values.high for _, values in ways)
        lines += [f"  {name:<8}{bar(values, top):<{BAR}}  {_plain(values.median)}" for name, values in ways]
    known = [r for r in leading if r.unit == "ms" and r.difference and r.difference.low is not None]
    if lines:
        lines += ["", "█ up to the middle half, ▒ the middle half, │ the median"]
    return "\n".join([*lines, *(["", *_around_zero(known)] if known else [])])


def bar(values: Spread, top: float) -> str:
    """Draw a bar up to the end of the middle half; `top` is the whole width."""
    low, middle, high = (round(v / top * BAR) if top else 0 for v in (values.low, values.median, values.high))
    drawn = "█" * low + "▒" * (high - low)
    at = min(max(middle - 1, 0), BAR - 1)
    return f"{drawn[:at]}│{drawn[at + 1 :]}"


def _around_zero(rows: Sequence[Row]) -> list[str]:
    deltas = [(r.case, r.difference) for r in rows if r.difference]
    least = min(0.0, *(d.low or 0.0 for _, d in deltas))
    most = max(0.0, *(d.high or 0.0 for _, d in deltas))
    width = (most - least) or 1.0

    def place(value: float) -> int:
        return round((value - least) / width * (BAR - 1))

    wide = max(len(case) for case, _ in deltas)
    lines = [f"{'added by the gateway, ms':<{wide}}  {_plain(least)}{_plain(most):>{BAR - len(_plain(least))}}"]
    for case, one in deltas:
        cells = [" "] * BAR
        start, end, zero = place(one.low or 0.0), place(one.high or 0.0), place(0.0)
        cells[start : end + 1] = "─" * (end + 1 - start)
        cells[zero] = "┼" if start <= zero <= end else "┊"
        cells[place(one.median)] = "●"
        lines.append(f"{case:<{wide}}  {''.join(cells)}  {_signed(one.median)}")
    return [*lines, "┊ ┼ no difference, ─ 95 % confidence range, ● median of the pairs"]


# -- in words


def sentence(row: Row) -> str:
    """Describe one measure in one sentence."""
    names = {"answer": "an answer", "first token": "the first token", "requests": "the rate of requests"}
    delta, what = row.difference, names.get(row.measure, row.measure)
    if delta is None:
        return f"{row.case}: {what} {_plain(row.gateway.median)} {row.unit} through the gateway; there is nothing to compare it with"
    if delta.low is None or delta.high is None:
        return f"{row.case}: {delta.pairs} pairs are too few to tell a difference from noise ({FEWEST} are needed)"
    bounds = f"{_signed(delta.low)} to {_signed(delta.high)} {row.unit}"
    if row.verdict == "below the noise":
        return (
            f"{row.case}: the difference ({_signed(delta.median)} {row.unit}) is within the noise of the pairs "
            f"({bounds}): not measurable here"
        )
    assert row.direct is not None
    share = 100 * abs(delta.median) / row.direct.median if row.direct.median else 0.0
    less, more = ("is lower", "is higher") if row.unit == "per s" else ("comes sooner", "comes later")
    change = f"{more if delta.median > 0 else less} by {_plain(abs(delta.median))} {row.unit} ({share:.0f} %)"
    return f"{row.case}: {what} {change} through the gateway (95 % confidence: {bounds})"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else '-'}{_plain(abs(value))}"
