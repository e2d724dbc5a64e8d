"""Lines of all layers: which are wanted, in which order they are shown, and how. Pure."""

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
# Of one line, for programs.
LONGEST = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """`time`: seconds since 1970; `record`: of the request log."""

    time: float
    layer: str
    text: str
    record: Record | None = None


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be shown. `since`: seconds since 1970, 0: from the beginning. `tail`: the last so many, None: all."""

    layers: tuple[str, ...] = LAYERS
    id: str = ""
    since: float = 0.0
    tail: int | None = 200

    def wants(self, line: Line) -> bool:
        return line.time >= self.since and (not self.id or holds(line, self.id))


def holds(line: Line, identity: str) -> bool:
    """Whether a line belongs to the request `identity`, or to one whose id ends so, as it is shown."""
    if line.record is not None:
        whole = line.record.id
        return whole == identity or (len(identity) >= request_lines.SHORT and whole.endswith(identity))
    # Its neighbours in a longer id are others' ids.
    before = "" if len(identity) >= request_lines.SHORT else "(?<![A-Za-z0-9])"
    return re.search(f"{before}{re.escape(identity)}(?![A-Za-z0-9])", line.text) is not None


def request_line(raw: bytes) -> Line | None:
    record = parse(raw)
    when = None if record is None else record.ended
    if record is None or when is None:
        return None
    return Line(time=when, layer="requests", text=request_lines.text(record), record=record)


def daemon_line(raw: bytes, before: float) -> Line:
    """A line of dockerd's own; one without a time has that of the line before it."""
    text = raw.decode("utf-8", "replace")
    found = re.match(r'time="?([^" ]{1,40})"? ', text)
    when = stamp(found[1]) if found else None
    if found is None or when is None:
        return Line(time=before, layer="engine", text=text)
    return Line(time=when, layer="engine", text=text[found.end() :])


def journal_line(raw: bytes) -> Line | None:
    """An entry of journald's, as `journalctl -o json` prints it."""
    try:
        entry = json.loads(raw)
        when = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
        said = entry.get("MESSAGE")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    if isinstance(said, list):
        # What is not UTF-8 comes as numbers.
        said = bytes(b for b in said if isinstance(b, int) and 0 <= b < 256).decode("utf-8", "replace")
    line = daemon_line(str(said or "").encode("utf-8", "replace"), when)
    return Line(time=when, layer="engine", text=line.text)


def cursor(raw: bytes) -> str:
    """Journald's own name for the place of an entry."""
    try:
        return str(json.loads(raw)["__CURSOR"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def stamp(text: str) -> float | None:
    """A time as engines and we write it, in seconds since 1970."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def cells(line: Line) -> list[tuple[str, str]]:
    """The parts of a line on a terminal, as (text, style)."""
    bad = line.record is not None and request_lines.outcome(line.record) not in ("ok", "client_left")
    return [
        (clock(line.time), DIM),
        (" ", ""),
        (f"{line.layer:<{WIDTH}}", COLOURS.get(line.layer, "")),
        (" ", ""),
        (printable(line.text).rstrip(), RED if bad else ""),
    ]


def clock(time: float, form: str = "%m-%d %H:%M:%S", *, milliseconds: bool = True) -> str:
    """This machine's own time."""
    try:
        # Cut, not rounded: as everybody else writes it.
        found = datetime.fromtimestamp(time)
        return found.strftime(form) + (f".{found.microsecond // 1000:03}" if milliseconds else "")
    except (ValueError, OverflowError, OSError):
        return "-"


def as_json(line: Line) -> str:
    """For programs; ASCII, because what stands in it is anybody's, and a terminal may be what reads it."""
    if line.record is not None:
        return json.dumps(line.record.raw)
    try:
        time = datetime.fromtimestamp(line.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        time = ""
    return json.dumps({"time": time, "layer": line.layer, "text": line.text[:LONGEST]})


class Window:
    """Lines that come from several threads, held back for a moment so that they leave in the order of their times."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._heap: list[tuple[float, int, Line]] = []
        # When each may leave, in the order in which they came.
        self._due: deque[tuple[float, float]] = deque()
        self._count = 0

    def add(self, line: Line) -> None:
        # The number keeps lines of one time in the order in which they came.
        self._count += 1
        heapq.heappush(self._heap, (line.time, self._count, line))
        self._due.append((self._clock() + self._seconds, line.time))

    def ready(self) -> list[Line]:
        """Those whose moment is over, and all that belong before them."""
        until = -math.inf
        while self._due and self._due[0][0] <= self._clock():
            until = max(until, self._due.popleft()[1])
        found = []
        while self._heap and self._heap[0][0] <= until:
            found.append(heapq.heappop(self._heap)[2])
        return found

    def wait(self) -> float | None:
        """Seconds until something is ready; None: nothing is held."""
        return max(0.0, self._due[0][0] - self._clock()) if self._due else None
