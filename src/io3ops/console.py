"""The only printer. Results go to stdout, everything else to stderr, as terminal, plain lines or JSON."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from io3ops.errors import Io3opsError

Progress = Callable[[int, int], None]
# What a terminal obeys: colours, the cursor (CSI), titles and the clipboard (OSC and the like).
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-9:;<=>?]*[ -/]*[@-~]|(?:\x1b[\]P^_X]|[\x9d\x90\x9e\x9f\x98])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
)
BAR = 40


class Console:
    """mode `tty`: colours and bars; `plain`: one line per event; `json`: one JSON object per event."""

    def __init__(
        self,
        mode: str,
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
        """Columns of the terminal; 80 where there is none."""
        return self._width()

    # -- results

    def result(self, command: str, data: dict[str, Any], text: str, ok: bool = True) -> None:
        """The outcome of a command: `text` for people, `data` in a versioned envelope for programs."""
        if self.mode == "json":
            self._out.write(
                json.dumps({"schema": 1, "command": command, "ok": ok, "data": data}, ensure_ascii=False) + "\n"
            )
        elif text:
            self._out.write(text.rstrip("\n") + "\n")
        self._out.flush()

    def lines(self, rows: Iterable[Iterable[tuple[str, str]]]) -> None:
        """A result that comes line by line: its parts as (text, style), in colours when stdout is a terminal."""
        colours = self.mode == "tty" and self._out.isatty()
        for row in rows:
            parts = (f"\x1b[{style}m{text}\x1b[0m" if colours and style else text for text, style in row)
            self._out.write("".join(parts) + "\n")
        self._out.flush()

    def error(self, command: str, error: Io3opsError) -> None:
        if self.mode == "json":
            found = {
                "code": error.code,
                "layer": error.layer,
                "message": error.message,
                "details": error.details,
                "hint": error.hint,
            }
            self._out.write(
                json.dumps({"schema": 1, "command": command, "ok": False, "error": found}, ensure_ascii=False) + "\n"
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
        """Announce a step with its cause, then how long it took; a failure is marked and passed on."""
        started = self._clock()
        step = Step(self, name)
        if self.mode == "json":
            self._event("step", name=name, cause=cause)
        else:
            self._line(f"{self._paint('▸', '36') if self.mode == 'tty' else '>'} {name:<8} {cause}")
        try:
            yield step
        except BaseException as error:
            self._close_bar()
            self._done(name, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", started, ok=False)
            raise
        self._close_bar()
        self._done(name, step.outcome, started, ok=True)

    def skip(self, name: str, cause: str) -> None:
        """A step that had nothing to do, and why."""
        if self.mode == "json":
            self._event("skip", name=name, cause=cause)
        else:
            self._line(self._paint(f"{'✓' if self.mode == 'tty' else '='} {name:<8} {cause}", "2"))

    def note(self, text: str) -> None:
        if self.mode == "json":
            self._event("note", text=text)
        else:
            self._line(f"  {text}")

    def progress(self, label: str, done: int, total: int, unit: str = "MB") -> None:
        if self.mode == "json":
            if self._throttled(label, done, total, 1.0):
                self._event("progress", label=label, done=done, total=total, unit="bytes" if unit == "MB" else unit)
            return
        if self._bar is None or self._bar.label != label:
            self._close_bar()
            self._bar = _Bar(label)
        scale = 10**6 if unit == "MB" else 1
        amount = f"{done / scale:,.0f}" + (f" of {total / scale:,.0f}" if total else "") + f" {unit}"
        if self.mode == "tty":
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
        """The newest line of a long job: in place on a terminal, every few seconds elsewhere."""
        if self._bar is None or self._bar.label != label:
            self._close_bar()
            self._bar = _Bar(label)
        # Progress of apt and the like rewrites its line: only the newest version counts.
        newest = printable(line.rstrip("\r").rsplit("\r", 1)[-1])
        if self.mode == "tty" and self._bar.due(self._clock(), 0.1):
            self._err.write(f"\r\x1b[2K{self._paint(self._fitting(f'  {label}: {newest}'), '2')}")
            self._err.flush()
            self._bar.shown = True
        elif self.mode == "plain" and self._bar.due(self._clock(), 10.0):
            self._line(f"  {label}: {newest[:100]}")

    def _fitting(self, text: str) -> str:
        """Cut to the terminal: a line that wraps could not be taken back."""
        return text[: self._width() - 1]

    # -- inside

    def _done(self, name: str, outcome: str, started: float, *, ok: bool) -> None:
        seconds = self._clock() - started
        if self.mode == "json":
            self._event("done", name=name, outcome=outcome, ok=ok, seconds=round(seconds, 3))
        else:
            mark = (
                (self._paint("✓", "32") if ok else self._paint("✗", "31"))
                if self.mode == "tty"
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
        return f"\x1b[{style}m{text}\x1b[0m" if self.mode == "tty" else text


class Step:
    """A running step: set `outcome` to say more than `done`."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self.name = name
        self.outcome = "done"

    def progress(self, label: str) -> Progress:
        return lambda done, total: self._console.progress(label, done, total)

    def activity(self, label: str) -> Callable[[str], None]:
        return lambda line: self._console.activity(label, line) if line.strip() else None

    def note(self, text: str) -> None:
        self._console.note(text)


class _Bar:
    def __init__(self, label: str) -> None:
        self.label = label
        self.shown = False
        self._last = 0.0

    def due(self, now: float, every: float) -> bool:
        if self._last == 0.0 and every >= 5.0:
            # A job that is over in a moment needs no line about its progress.
            self._last = now
            return False
        if now - self._last < every:
            return False
        self._last = now
        return True


def printable(text: str, most: int = 2000) -> str:
    """One line of at most so many characters, whoever wrote it: it must not move the cursor or recolour the terminal."""
    # Programs colour their lines even when nobody watches. What is far too long is not looked at.
    text = _SEQUENCE.sub("", text[: 4 * most])
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def choose_mode(*, as_json: bool, err: TextIO, no_color: bool, term: str) -> str:
    """Decided once per run."""
    if as_json:
        return "json"
    return "tty" if err.isatty() and not no_color and term != "dumb" else "plain"
