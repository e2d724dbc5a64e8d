"""The live view of `io3ops top`, drawn by rich. Besides `console` the only module that prints; only `top` imports it.

Changes the terminal's screen, keyboard mode and cursor, and restores them however the view ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from io3ops.operations.top import text as top_text
from io3ops.operations.top.numbers import Snapshot
from io3ops.operations.top.text import RIGHT, Section

EVERY = 1.0
QUIT = b"qQ\x03\x04"


def watch(look: Callable[[], Snapshot]) -> None:
    """Draw the snapshot that `look` returns, every second, until q or Ctrl-C."""
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    live = Live(console=console, screen=True, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), _endings(), _keys() as quits, live:
        while True:
            live.update(picture(look(), console.height), refresh=True)
            if quits(EVERY):
                return


def picture(seen: Snapshot, height: int) -> RenderableType:
    """Render a snapshot within the terminal's height."""
    parts: list[RenderableType] = [_line(f"{top_text.head(seen)}  q quits", "bold")]
    for section in top_text.fit(top_text.sections(seen), height):
        parts += [Text(""), _table(section)]
        if section.note:
            parts.append(_line(section.note, "yellow"))
    return Group(*parts)


def _table(section: Section) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold cyan")
    for name, side in section.columns:
        table.add_column(Text(name), justify="right" if side == RIGHT else "left", no_wrap=True, overflow="ellipsis")
    for row, style in zip(section.rows, section.styles, strict=True):
        # Use Text, because rich would interpret a str as markup.
        table.add_row(*(Text(cell) for cell in row), style=style)
    return table


def _line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits for some seconds and returns whether a key ended the view."""
    if not sys.stdin.isatty():
        never = threading.Event()
        yield never.wait
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def quits(seconds: float) -> bool:
        if not select.select([descriptor], [], [], seconds)[0]:
            return False
        pressed = os.read(descriptor, 1024)
        # No bytes: the terminal was closed.
        return not pressed or any(key in QUIT for key in pressed)

    try:
        tty.setcbreak(descriptor)
        yield quits
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _endings() -> Iterator[None]:
    """Let signals end the view in order, so that the terminal is restored."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    wanted: dict[int, Any] = {signal.SIGTERM: leave, signal.SIGHUP: leave, signal.SIGTSTP: signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
