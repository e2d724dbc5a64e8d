"""`io3ops logs`: print the lines of every layer in the order of their times; with `-f`, follow them."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterable

from io3ops.operations.logs.lines import Line, Selection, Window
from io3ops.operations.logs.sources import Note, Source, sources
from io3ops.tools import Tools

# How long a line waits for lines of other layers that belong before it.
HOLD = 0.2
Show = Callable[[Iterable[Line]], None]


def logs(tools: Tools, selection: Selection, show: Show, note: Note, *, follow: bool) -> None:
    """Show the lines that exist; with `follow`, also new ones until Ctrl-C. Raises the engine's error when it is needed and does not answer."""
    opened = sources(tools, selection.layers, note)
    try:
        lines = sorted((line for source in opened for line in source.past(selection)), key=lambda line: line.time)
        show(lines[max(0, len(lines) - selection.tail) :] if selection.tail is not None else lines)
        if follow:
            with contextlib.suppress(KeyboardInterrupt):
                _follow(opened, selection, show)
    finally:
        for source in opened:
            source.close()


def _follow(opened: list[Source], selection: Selection, show: Show) -> None:
    arrived: queue.SimpleQueue[Line] = queue.SimpleQueue()
    for source in opened:
        source.follow(arrived.put)
    window = Window(HOLD, time.monotonic)
    while True:
        with contextlib.suppress(queue.Empty):
            line = arrived.get(timeout=window.wait())
            if not selection.id or selection.includes(line):
                window.add(line)
        if ready := window.ready():
            show(ready)
