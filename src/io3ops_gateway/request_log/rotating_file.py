"""The request log's files: the current one, and full ones of which the oldest are removed. Touches one folder.

Several workers write at the same time. docs/request-log.md describes a line. A rename makes a full file, so it is never half there; no
line is flushed to disk.
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

# Two clocks may drift apart by this much without one of them having jumped.
HOUR = 3600.0


def ticks() -> float:
    """Return the seconds of a clock that never jumps, and goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class RequestLog:
    """Writes lines, renames a full file and removes old ones.

    `keep_days`, `budget` (bytes of the whole folder): how much is kept. `rotate` (bytes): when a file is full. `clock` may jump: it only
    names full files and tells their age. `ticks` must not.
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
        """Write a line, without its newline. False: it is lost. Never raises; for one thread of each process."""
        return self._writer.write(line)

    def close(self, seconds: float = 1.0) -> bool:
        """Wait for lines that a slow disk delays. False: some still wait, after so many seconds. Called before the process ends."""
        return self._writer.close(seconds)

    def _put(self, lines: bytes) -> None:
        if self._too_large:
            self._turn()
            self._too_large = False
        size = self._file.append(lines)
        # A new day begins a new file: with little to write, old lines would otherwise be kept for ever.
        older = self._file.modified and self._file.modified // DAY != self._clock() // DAY
        if size >= self._rotate or older:
            try:
                self._turn()
            except OSError:
                # The line is written, so nothing is lost yet. But a file that cannot be renamed must not fill the disk.
                self._too_large = size > max(self._budget, self._rotate)
            finally:
                self._file.look()

    def _turn(self) -> None:
        """Rename the full file, and remove old ones. Raises OSError, also while another process does the same."""
        folder, lock = open_folder(self._file.folder), -1
        try:
            lock = files.open_lock(folder)
            # No waiting: the process that has the lock does the same, and the next line finds the new file.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._file.identity != _identity(folder):
                return
            files.rename_current(folder, self._clock())
            # A thread removes the old files, which takes long when they are large. The lock and the folder are its own from here.
            threading.Thread(target=self._prune, args=(folder, lock), name="old logs", daemon=True).start()
            folder = lock = -1
        except RuntimeError:
            # No more threads are allowed. The next rotation removes the old files.
            return
        finally:
            for descriptor in (folder, lock):
                if descriptor >= 0:
                    os.close(descriptor)

    def _prune(self, folder: int, lock: int) -> None:
        try:
            with contextlib.suppress(OSError):
                now = self._clock()
                # If the clock was set since this process began, no file is too old, and until the next start the budget alone decides.
                jumped = abs(now - self._ticks() - self._ahead) > HOUR
                keep_days = math.inf if jumped else self._keep_days
                budget = self._budget - self._rotate
                found = files.full_files(folder)
                files.remove(folder, prunable(found, now, keep_days=keep_days, budget=budget, trust_clock=False))
        finally:
            os.close(lock)
            os.close(folder)


def _identity(folder: int) -> tuple[int, int] | None:
    """Return device and inode of the current file; None when there is none."""
    status = files.status_of(folder, CURRENT)
    return None if status is None else (status.st_dev, status.st_ino)
