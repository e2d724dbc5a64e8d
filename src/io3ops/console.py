"""The only module that prints: results to stdout, everything else to stderr, for a terminal, as plain lines or as JSON."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any, TextIO

from io3ops.errors import Io3opsError

Progress = Callable[[int, int], None]
# Control sequences of terminals: colours and the cursor (CSI), titles and the clipboard (OSC and similar).
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-9:;<=>?]*[ -/]*[@-~]|(?:\x1b[\]P^_X]|[\x9d\x90\x9e\x9f\x98])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
)
# Width of a drawn bar.
BAR = 40


class Mode(StrEnum):
    """How a run prints: TTY with colours and bars, PLAIN one line per event, JSON one object per event."""

    TTY = "tty"
    PLAIN = "plain"
    JSON = "json"


class Console:
    """Prints in one mode. `clock` and `width` are replaced in tests."""

    def __init__(
        self,
        mode: Mode,
        out: TextIO = sys.stdout,
        err: TextIO = sys.stderr,
        clock: Callable[[], float] = time.monotonic,
        width: Callable[[], int] = lambda: shutil.get_terminal_size().columns,
    ) -> None:
        self.mode = mode
        self._out = out
        self._err = err
        self._clock = clock
        self._width = width
        self._bar: _Bar | None = None

    @property
    def width(self) -> int:
        """Columns of the terminal; 80 without one."""
        return self._width()

    # -- results

    def result(self, command: str, data: dict[str, Any], text: str, ok: bool = True) -> None:
        """Print the result of a command: `text` for people, `data` in a versioned envelope for programs."""
        if self.mode is Mode.JSON:
            self._out.write(
                json.dumps({"schema": 1, "command": command, "ok": ok, "data": data}, ensure_ascii=False) + "\n"
            )
        elif text:
            self._out.write(text.rstrip("\n") + "\n")
        self._out.flush()

    def lines(self, rows: Iterable[Iterable[tuple[str, str]]]) -> None:
        """Print a result line by line, each as parts (text, style); the styles apply when stdout is a terminal."""
        colours = self.mode is Mode.TTY and self._out.isatty()
        for row in rows:
            parts = (f"\x1b[{style}m{text}\x1b[0m" if colours and style else text for text, style in row)
            self._out.write("".join(parts) + "\n")
        self._out.flush()

    def error(self, command: str, error: Io3opsError) -> None:
        """Print an error: on stderr for people, on stdout in the envelope for programs."""
        if self.mode is Mode.JSON:
            fields = {
                "code": error.code,
                "layer": error.layer,
                "message": error.message,
                "details": error.details,
                "hint": error.hint,
            }
            self._out.write(
                json.dumps({"schema": 1, "command": command, "ok": False, "error": fields}, ensure_ascii=False) + "\n"
            )
            self._out.flush()
            return
        lines = [f"{self._paint('error', '31;1')} {error.code} [{error.layer}] {error.message}"]
        lines += [f"  | {line}" for line in error.details.splitlines()]
        if error.hint:
            lines += ["", f"{self._paint('hint:', '36')} {error.hint}"]
        self._line("\n".join(lines))

    # -- progress

    @contextlib.contextmanager
    def step(self, name: str, cause: str) -> Iterator[Step]:
        """Announce a step with its cause, and print its outcome and duration at the end. Errors pass through."""
        started = self._clock()
        step = Step(self, name)
        if self.mode is Mode.JSON:
            self._event("step", name=name, cause=cause)
        else:
            self._line(f"{self._paint('▸', '36') if self.mode is Mode.TTY else '>'} {name:<8} {cause}")
        try:
            yield step
        except BaseException as error:
            self._close_bar()
            self._done(name, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", started, ok=False)
            raise
        self._close_bar()
        self._done(name, step.outcome, started, ok=True)

    def skip(self, name: str, cause: str) -> None:
        """Print that a step has nothing to do, and why."""
        if self.mode is Mode.JSON:
            self._event("skip", name=name, cause=cause)
        else:
            self._line(self._paint(f"{'✓' if self.mode is Mode.TTY else '='} {name:<8} {cause}", "2"))

    def note(self, text: str) -> None:
        """Print a remark."""
        if self.mode is Mode.JSON:
            self._event("note", text=text)
        else:
            self._line(f"  {text}")

    def progress(self, label: str, done: int, total: int, unit: str = "MB") -> None:
        """Show progress: a bar on a terminal, a line every few seconds elsewhere. `total`: 0 when unknown."""
        if self.mode is Mode.JSON:
            if self._throttled(label, done, total, 1.0):
                self._event("progress", label=label, done=done, total=total, unit="bytes" if unit == "MB" else unit)
            return
        if self._bar is None or self._bar.label != label:
            self._close_bar()
            self._bar = _Bar(label)
        scale = 10**6 if unit == "MB" else 1
        amount = f"{done / scale:,.0f}" + (f" of {total / scale:,.0f}" if total else "") + f" {unit}"
        if self.mode is Mode.TTY:
            if self._bar.due(self._clock(), 0.1) or (total and done >= total):
                width = 24
                filled = min(width, int(width * done / total)) if total else 0
                bar = "█" * filled + "░" * (width - filled) if total else "·" * width
                self._err.write(f"\r\x1b[2K{self._fitting(f'  {label} {bar} {amount}')}")
                self._err.flush()
                self._bar.shown = True
        elif self._bar.due(self._clock(), 5.0):
            self._line(f"  {label}: {amount}")

    def activity(self, label: str, line: str) -> None:
        """Show the newest line of a long job: in place on a terminal, every few seconds elsewhere."""
        if self._bar is None or self._bar.label != label:
            self._close_bar()
            self._bar = _Bar(label)
        # Programs such as apt rewrite their progress line; show the newest version.
        newest = printable(line.rstrip("\r").rsplit("\r", 1)[-1])
        if self.mode is Mode.TTY and self._bar.due(self._clock(), 0.1):
            self._err.write(f"\r\x1b[2K{self._paint(self._fitting(f'  {label}: {newest}'), '2')}")
            self._err.flush()
            self._bar.shown = True
        elif self.mode is Mode.PLAIN and self._bar.due(self._clock(), 10.0):
            self._line(f"  {label}: {newest[:100]}")

    def _fitting(self, text: str) -> str:
        """Cut a line to the terminal's width: a wrapped line cannot be erased."""
        return text[: self._width() - 1]

    # -- inside

    def _done(self, name: str, outcome: str, started: float, *, ok: bool) -> None:
        seconds = self._clock() - started
        if self.mode is Mode.JSON:
            self._event("done", name=name, outcome=outcome, ok=ok, seconds=round(seconds, 3))
        else:
            mark = (
                (self._paint("✓", "32") if ok else self._paint("✗", "31"))
                if self.mode is Mode.TTY
                else ("=" if ok else "!")
            )
            self._line(f"{mark} {name:<8} {outcome} {self._paint(f'({seconds:.1f} s)', '2')}")

    def _throttled(self, label: str, done: int, total: int, every: float) -> bool:
        if self._bar is None or self._bar.label != label:
            self._bar = _Bar(label)
        return self._bar.due(self._clock(), every) or bool(total and done >= total)

    def _event(self, kind: str, **fields: Any) -> None:
        self._err.write(json.dumps({"event": kind, **fields}, ensure_ascii=False) + "\n")
        self._err.flush()

    def _close_bar(self) -> None:
        if self._bar is not None and self._bar.shown:
            self._err.write("\r\x1b[2K")
        self._bar = None

    def _line(self, text: str) -> None:
        if self._bar is not None and self._bar.shown:
            self._err.write("\r\x1b[2K")
        self._err.write(text + "\n")
        self._err.flush()

    def _paint(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self.mode is Mode.TTY else text


class Step:
    """A running step. Set `outcome` to print more than `done`."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self.name = name
        self.outcome = "done"

    def progress(self, label: str) -> Progress:
        """Return a function that shows (done, total) bytes."""
        return lambda done, total: self._console.progress(label, done, total)

    def activity(self, label: str) -> Callable[[str], None]:
        """Return a function that shows the newest line of a job."""
        return lambda line: self._console.activity(label, line) if line.strip() else None

    def note(self, text: str) -> None:
        """Print a remark."""
        self._console.note(text)


class _Bar:
    """A line of progress, and when it was last printed."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.shown = False
        self._last = 0.0

    def due(self, now: float, every: float) -> bool:
        """Return whether to print again, at most once in `every` seconds."""
        if self._last == 0.0 and every >= 5.0:
            # A short job needs no line about its progress.
            self._last = now
            return False
        if now - self._last < every:
            return False
        self._last = now
        return True


def printable(text: str, most: int = 2000) -> str:
    """Return foreign text as one line of at most `most` characters that cannot move the cursor or recolour the terminal."""
    # Limit the text first: searching a very long one for sequences is slow.
    text = _SEQUENCE.sub("", text[: 4 * most])
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def choose_mode(*, as_json: bool, err: TextIO, no_color: bool, term: str) -> Mode:
    """Choose the mode of a run."""
    if as_json:
        return Mode.JSON
    return Mode.TTY if err.isatty() and not no_color and term != "dumb" else Mode.PLAIN
