"""The request log's files: one that is written, and full ones beside it, of which the oldest are removed. Touches one folder.

Several workers write at the same time; docs/request-log.md says what a line holds. Files are whole by rename; no line is flushed to the disk.
"""

import contextlib
import fcntl
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from io3ops_gateway.request_log.append_file import LOOK_EVERY, LineFile
from io3ops_gateway.request_log.background_writer import LogWriter
from io3ops_shared.request_log import files
from io3ops_shared.request_log.files import CURRENT, open_folder
from io3ops_shared.request_log.prune import DAY, prunable

# What two clocks may drift apart without one having jumped.
HOUR = 3600.0


def ticks() -> float:
    """Seconds by a clock that never jumps, and goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class RequestLog:
    """`keep_days`, `budget` (bytes, of the whole folder): what is kept; `rotate` (bytes): a file is full.

    `clock` may jump: it only names full files and tells their age. `ticks` does not.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_days: float,
        budget: int,
        rotate: int,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = ticks,
        look_every: float = LOOK_EVERY,
        lost: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._keep_days = keep_days
        self._budget = budget
        self._rotate = rotate
        self._clock = clock
        self._ticks = ticks
        self._ahead = clock() - ticks()
        self._too_large = False
        self._file = LineFile(folder, CURRENT, look_every)
        self._writer = LogWriter("request log", self._put, ticks=ticks, lost=lost)

    @property
    def lost(self) -> int:
        """Lines that this process could not write."""
        return self._writer.lost

    def write(self, line: bytes) -> bool:
        """Write a line (without its newline); False: it is lost. Never raises; for one thread of each process."""
        return self._writer.write(line)

    def close(self, seconds: float = 1.0) -> bool:
        """Before the process ends: wait so long for lines that a slow disk held up; False when some still wait."""
        return self._writer.close(seconds)

    def _put(self, lines: bytes) -> None:
        if self._too_large:
            self._turn()
            self._too_large = False
        size = self._file.append(lines)
        # What went before was of another day: a gateway that has little to write would keep it for ever.
        older = self._file.modified and self._file.modified // DAY != self._clock() // DAY
        if size >= self._rotate or older:
            try:
                self._turn()
            except OSError:
                # The line is written, so nothing is lost yet. But what cannot be renamed must not fill the disk either.
                self._too_large = size > max(self._budget, self._rotate)
            finally:
                self._file.look()

    def _turn(self) -> None:
        """Give a full file its name, and remove old ones. Raises OSError, also when another process is at it."""
        folder, lock = open_folder(self._file.folder), -1
        try:
            lock = files.open_lock(folder)
            # Not waited for: who has it does the same, and the next line finds the new file.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._file.identity != _identity(folder):
                return
            files.rename_current(folder, self._clock())
            # Removing takes long where files are large; the lock goes with it.
            threading.Thread(target=self._prune, args=(folder, lock), name="old logs", daemon=True).start()
            folder = lock = -1
        except RuntimeError:
            # No more threads are allowed: the next rotation removes them.
            return
        finally:
            for descriptor in (folder, lock):
                if descriptor >= 0:
                    os.close(descriptor)

    def _prune(self, folder: int, lock: int) -> None:
        try:
            with contextlib.suppress(OSError):
                now = self._clock()
                # A clock that was set since this process began makes no file old, whichever way it was set. Until the next
                # start the budget alone decides.
                jumped = abs(now - self._ticks() - self._ahead) > HOUR
                keep_days = math.inf if jumped else self._keep_days
                budget = self._budget - self._rotate
                found = files.full_files(folder)
                files.remove(folder, prunable(found, now, keep_days=keep_days, budget=budget, trust_clock=False))
        finally:
            os.close(lock)
            os.close(folder)


def _identity(folder: int) -> tuple[int, int] | None:
    """Device and number of the current file, as far as it is one."""
    found = files.status_of(folder, CURRENT)
    return None if found is None else (found.st_dev, found.st_ino)
