"""`io3ops logs`: every layer's lines as one, by time; then, when asked, what comes."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterable

from io3ops.operations.logs.lines import Line, Window, Wish
from io3ops.operations.logs.sources import Note, Source, sources
from io3ops.tools import Tools

# As long as a line waits for one of another layer that belongs before it.
HOLD = 0.2
Show = Callable[[Iterable[Line]], None]


def logs(tools: Tools, wish: Wish, show: Show, note: Note, *, follow: bool) -> None:
    """Show what is there; with `follow` go on until Ctrl-C. Raises the engine's error when it is needed and does not answer."""
    found = sources(tools, wish.layers, note)
    try:
        lines = sorted((line for source in found for line in source.past(wish)), key=lambda line: line.time)
        show(lines[max(0, len(lines) - wish.tail) :] if wish.tail is not None else lines)
        if follow:
            with contextlib.suppress(KeyboardInterrupt):
                _follow(found, wish, show)
    finally:
        for source in found:
            source.close()


def _follow(found: list[Source], wish: Wish, show: Show) -> None:
    heard: queue.SimpleQueue[Line] = queue.SimpleQueue()
    for source in found:
        source.follow(heard.put)
    window = Window(HOLD, time.monotonic)
    while True:
        with contextlib.suppress(queue.Empty):
            line = heard.get(timeout=window.wait())
            if not wish.id or wish.wants(line):
                window.add(line)
        if ready := window.ready():
            show(ready)
