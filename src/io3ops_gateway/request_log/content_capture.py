"""What `io3ops record` asked for: prompts and answers of some modes, for a while. Reads one file, appends to another.

The file that asks is read again when it changes. What in it is not understood asks for nothing.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from io3ops_gateway.request_log.append_file import LineFile
from io3ops_gateway.request_log.background_writer import LogWriter, say
from io3ops_shared.names import PUBLIC

NAME = "content.jsonl"
FIELDS = ("time", "id", "mode", "data_class")
# Longest that a wish counts for: also after a clock was set back.
LONGEST = 24 * 3600.0
MOST, MOST_TEXT = 100_000_000, 1_000_000
LOOK_EVERY = 1.0
# A file that asks for more was not written by io3ops.
_MOST_CONTROL = 1_000_000


@dataclass(frozen=True, slots=True)
class Wish:
    """`until`: Unix time; `internal`: internal prompts too, where the table allows it."""

    until: float
    internal: bool


class ContentRecorder:
    """`control`: the file that asks; `folder`: where the content goes. For one thread of each process."""

    def __init__(
        self,
        control: Path,
        folder: Path,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._control = control
        self._clock = clock
        self._ticks = ticks
        self._look_at = float("-inf")
        self._seen: tuple[int, int, int, int] | None = None
        self._wishes: Mapping[str, Wish] = {}
        self._file = LineFile(folder, NAME, look_every=0)
        self._full = False
        self._writer = LogWriter("recorded content", self._put, ticks=ticks)

    @property
    def lost(self) -> int:
        """Entries that this process could not write."""
        return self._writer.lost

    def wants(self, mode: str, data_class: str, allow_internal: bool) -> bool:
        """Whether a request's content is asked for. `allow_internal`: the table's `record_internal` of the mode."""
        if self._ticks() >= self._look_at:
            self._look()
        wish = self._wishes.get(mode)
        if wish is None or self._full or not 0 < wish.until - self._clock() <= LONGEST:
            return False
        return data_class == PUBLIC or (wish.internal and allow_internal)

    def keep(self, entry: Mapping[str, Any]) -> bool:
        """Append one entry: `time`, `id`, `mode`, `data_class`, and `request` and `answer` as bytes or text. False: it is not kept.

        Asks again whether the mode is recorded: what `io3ops record off` ended while the request ran is not kept.
        """
        self._look()
        # The class was decided by `wants`; the rest may have changed.
        if not self.wants(entry["mode"], PUBLIC, True):
            return False
        request, answer = cut(entry.get("request", "")), cut(entry.get("answer", ""))
        line = {"v": 1} | {name: entry[name] for name in FIELDS if name in entry}
        line |= {"request": request[0], "answer": answer[0]}
        if request[1] or answer[1]:
            line["cut"] = True
        try:
            data = orjson.dumps(line)
        except TypeError:
            # A record must not fail the answer that it is of.
            return False
        if self._file.size() + len(data) > MOST:
            say(f"gateway: {NAME} is full ({MOST // 10**6} MB); no more content is kept until it is removed")
            self._full = True
            return False
        return self._writer.write(data)

    def close(self, seconds: float = 1.0) -> bool:
        """As `RequestLog.close`."""
        return self._writer.close(seconds)

    def _put(self, lines: bytes) -> None:
        # What a slow disk held up must not come back after `io3ops record off --delete`.
        self._look()
        if self._wishes:
            self._file.append(lines)

    def _look(self) -> None:
        self._look_at = self._ticks() + LOOK_EVERY
        if self._full:
            # Room for a whole entry again, or it would be said again and again.
            self._full = self._file.size() > MOST - 4 * MOST_TEXT
        try:
            found = os.stat(self._control)
            stamp = found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
            if stamp != self._seen:
                self._wishes = wishes(self._control.read_bytes()) if found.st_size <= _MOST_CONTROL else {}
            self._seen = stamp
        except OSError:
            self._wishes, self._seen = {}, None


def wishes(data: bytes) -> dict[str, Wish]:
    """The modes that a file asks for; {} when any of it is not understood. Pure."""
    try:
        listed = orjson.loads(data)
        if type(listed["version"]) is not int or listed["version"] != 1:
            return {}
        return {mode: _wish(entry) for mode, entry in listed["modes"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def cut(text: object) -> tuple[str, bool]:
    """A text, or the bytes of one, no longer than is kept, and whether it was longer. Pure."""
    data = text if isinstance(text, bytes) else str(text).encode("utf-8", "replace")
    # Half a character at the end goes too.
    errors = "ignore" if len(data) > MOST_TEXT else "replace"
    return data[:MOST_TEXT].decode("utf-8", errors), len(data) > MOST_TEXT


def _wish(entry: Mapping[str, Any]) -> Wish:
    until, internal = entry["until"], entry.get("internal", True)
    if type(until) not in (int, float) or not math.isfinite(until) or type(internal) is not bool:
        raise ValueError("not a wish")
    if entry.keys() - {"until", "internal"}:
        raise ValueError("asks for something unknown")
    return Wish(until, internal)
