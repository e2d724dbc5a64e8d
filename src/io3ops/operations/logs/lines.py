"""Lines of all layers: which ones to show, in which order, and how. Pure."""

from __future__ import annotations

import heapq
import json
import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from io3ops.console import printable
from io3ops.operations.request_log import lines as request_lines
from io3ops_shared.request_log.record import Record, parse
from io3ops_shared.request_log.schema import HARMLESS

CONTAINERS = ("gateway", "runtime", "egress", "observer", "outlet", "loader")
LAYERS = (*CONTAINERS, "engine", "requests")
COLOURS = {
    "gateway": "36",
    "runtime": "35",
    "egress": "33",
    "observer": "34",
    "outlet": "33",
    "loader": "34",
    "engine": "2",
    "requests": "32",
}
WIDTH = max(map(len, LAYERS))
DIM, RED = "2", "31"
# Characters of one line in JSON.
LONGEST = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line. `time`: seconds since 1970; `record`: None for a line that is not of the request log."""

    time: float
    layer: str
    text: str
    record: Record | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which lines to show. `id`: of one request, '' for all. `since`: seconds since 1970. `tail`: how many of the last lines, None for all."""

    layers: tuple[str, ...] = LAYERS
    id: str = ""
    since: float = 0.0
    tail: int | None = 200

    def includes(self, line: Line) -> bool:
        return line.time >= self.since and (not self.id or holds(line, self.id))


def holds(line: Line, identity: str) -> bool:
    """Return whether a line belongs to the request with this id. The end of an id, as shown, is enough."""
    if line.record is not None:
        whole = line.record.id
        return whole == identity or (len(identity) >= request_lines.SHORT and whole.endswith(identity))
    # A longer id that contains this one is another request's.
    before = "" if len(identity) >= request_lines.SHORT else "(?<![A-Za-z0-9])"
    return re.search(f"{before}{re.escape(identity)}(?![A-Za-z0-9])", line.text) is not None


def request_line(raw: bytes) -> Line | None:
    """Return a line of the request log, at the time when the request ended; None when it holds no record."""
    record = parse(raw)
    when = None if record is None else record.ended
    if record is None or when is None:
        return None
    return Line(time=when, layer="requests", text=request_lines.text(record), record=record)


def daemon_line(raw: bytes, before: float) -> Line:
    """Return a line of dockerd's log. A line without a time gets `before`, the time of the line before it."""
    text = raw.decode("utf-8", "replace")
    match = re.match(r'time="?([^" ]{1,40})"? ', text)
    when = stamp(match[1]) if match else None
    if match is None or when is None:
        return Line(time=before, layer="engine", text=text)
    return Line(time=when, layer="engine", text=text[match.end() :])


def journal_line(raw: bytes) -> Line | None:
    """Return an entry of journald, as `journalctl -o json` prints it; None when it is none."""
    try:
        entry = json.loads(raw)
        when = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
        message = entry.get("MESSAGE")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    if isinstance(message, list):
        # journald prints text that is not UTF-8 as numbers.
        message = bytes(b for b in message if isinstance(b, int) and 0 <= b < 256).decode("utf-8", "replace")
    line = daemon_line(str(message or "").encode("utf-8", "replace"), when)
    return Line(time=when, layer="engine", text=line.text)


def cursor(raw: bytes) -> str:
    """Return journald's name for the position of an entry; '' when it has none."""
    try:
        return str(json.loads(raw)["__CURSOR"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def stamp(text: str) -> float | None:
    """Return an ISO time as seconds since 1970; None when it is not a time."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def cells(line: Line) -> list[tuple[str, str]]:
    """Return the parts of a line for a terminal, as (text, style)."""
    bad = line.record is not None and line.record.outcome not in HARMLESS
    return [
        (clock(line.time), DIM),
        (" ", ""),
        (f"{line.layer:<{WIDTH}}", COLOURS.get(line.layer, "")),
        (" ", ""),
        (printable(line.text).rstrip(), RED if bad else ""),
    ]


def clock(time: float, form: str = "%m-%d %H:%M:%S", *, milliseconds: bool = True) -> str:
    """Return a time by this machine's clock and zone; `-` when it cannot be shown."""
    try:
        # Truncated, not rounded, like the times in other logs.
        local = datetime.fromtimestamp(time)
        return local.strftime(form) + (f".{local.microsecond // 1000:03}" if milliseconds else "")
    except (ValueError, OverflowError, OSError):
        return "-"


def as_json(line: Line) -> str:
    """Return a line as JSON for programs. ASCII only: its text may come from a client, and it may be printed on a terminal."""
    if line.record is not None:
        return json.dumps(line.record.raw)
    try:
        time = datetime.fromtimestamp(line.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        time = ""
    return json.dumps({"time": time, "layer": line.layer, "text": line.text[:LONGEST]})


class Window:
    """Holds lines from several threads back for a moment, and gives them out in the order of their times."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._heap: list[tuple[float, int, Line]] = []
        # When each line may leave, in the order of arrival.
        self._due: deque[tuple[float, float]] = deque()
        self._count = 0

    def add(self, line: Line) -> None:
        # The number keeps lines with the same time in the order of arrival.
        self._count += 1
        heapq.heappush(self._heap, (line.time, self._count, line))
        self._due.append((self._clock() + self._seconds, line.time))

    def ready(self) -> list[Line]:
        """Return the lines that were held long enough, and all that belong before them."""
        until = -math.inf
        while self._due and self._due[0][0] <= self._clock():
            until = max(until, self._due.popleft()[1])
        ready = []
        while self._heap and self._heap[0][0] <= until:
            ready.append(heapq.heappop(self._heap)[2])
        return ready

    def wait(self) -> float | None:
        """Return the seconds until a line is ready; None when none is held."""
        return max(0.0, self._due[0][0] - self._clock()) if self._due else None
