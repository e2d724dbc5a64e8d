"""Saves the prompts and responses of the modes that `io3ops record` names. Reads the control file, appends to the content file.

The control file is read again when it changes. A file that is not understood asks for nothing.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from io3ops_gateway.request_log.append_file import LineFile
from io3ops_gateway.request_log.background_writer import LogWriter, say
from io3ops_shared import recording_file
from io3ops_shared.names import PUBLIC
from io3ops_shared.recording_file import CONTENT, RecordedMode

FIELDS = ("time", "id", "mode", "data_class")
# Bytes of the content file, and of one text in it.
MOST, MOST_TEXT = 100_000_000, 1_000_000
LOOK_EVERY = 1.0
# io3ops writes no larger control file.
_MOST_CONTROL = 1_000_000


class ContentRecorder:
    """Decides which requests' content to keep, and writes it. For one thread of each process.

    `control`: the file that asks for content; `folder`: the content file's folder.
    """

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
        self._stamp: tuple[int, int, int, int] | None = None
        self._modes: Mapping[str, RecordedMode] = {}
        self._file = LineFile(folder, CONTENT, look_every=0)
        self._full = False
        self._writer = LogWriter("recorded content", self._put, ticks=ticks)

    @property
    def lost(self) -> int:
        """Entries that this process could not write."""
        return self._writer.lost

    def wants(self, mode: str, data_class: str, allow_internal: bool) -> bool:
        """Return whether to keep a request's content. `allow_internal`: the table's `record_internal` of the mode."""
        if self._ticks() >= self._look_at:
            self._look()
        recorded = self._modes.get(mode)
        if recorded is None or self._full or not recorded.active(self._clock()):
            return False
        return data_class == PUBLIC or (recorded.internal and allow_internal)

    def keep(self, entry: Mapping[str, Any]) -> bool:
        """Append one entry: `time`, `id`, `mode`, `data_class`, and `request` and `answer` as bytes or text. False: it is not kept.

        Checks the control file again: after `io3ops record off`, a request that still ran is not kept.
        """
        self._look()
        # `wants` decided about the data class when the request began. The rest may have changed.
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
            # Recording must not fail a response.
            return False
        if self._file.size() + len(data) > MOST:
            say(f"gateway: {CONTENT} is full ({MOST // 10**6} MB); no more content is kept until it is removed")
            self._full = True
            return False
        return self._writer.write(data)

    def close(self, seconds: float = 1.0) -> bool:
        """Wait for queued entries, like `RequestLog.close`."""
        return self._writer.close(seconds)

    def _put(self, lines: bytes) -> None:
        # An entry that a slow disk delayed must not appear after `io3ops record off --delete`.
        self._look()
        if self._modes:
            self._file.append(lines)

    def _look(self) -> None:
        """Read the control file if it changed."""
        self._look_at = self._ticks() + LOOK_EVERY
        if self._full:
            # Wait for room for a whole entry, or the same complaint would be repeated.
            self._full = self._file.size() > MOST - 4 * MOST_TEXT
        try:
            status = os.stat(self._control)
            stamp = status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
            if stamp != self._stamp:
                self._modes = recorded_modes(self._control.read_bytes()) if status.st_size <= _MOST_CONTROL else {}
            self._stamp = stamp
        except OSError:
            self._modes, self._stamp = {}, None


def recorded_modes(data: bytes) -> dict[str, RecordedMode]:
    """Return the modes that a control file asks for; {} when any of it is not understood. Pure."""
    try:
        return recording_file.parse(data)
    except ValueError:
        return {}


def cut(text: object) -> tuple[str, bool]:
    """Return a text, or the bytes of one, cut to the length that is kept, and whether it was longer. Pure."""
    data = text if isinstance(text, bytes) else str(text).encode("utf-8", "replace")
    # Drop half a character at the end too.
    errors = "ignore" if len(data) > MOST_TEXT else "replace"
    return data[:MOST_TEXT].decode("utf-8", errors), len(data) > MOST_TEXT
