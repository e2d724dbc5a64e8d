"""The request log's files: one that is written, and full ones beside it, of which the oldest are removed. Touches one folder.

Several workers write at the same time; docs/request-log.md says what a line holds. Files are whole by rename; no line is flushed to the disk.
"""

import contextlib
import fcntl
import math
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from io3ops_gateway.request_log.append_file import LOOK_EVERY, LineFile, open_folder
from io3ops_gateway.request_log.background_writer import LogWriter

NAME = "requests.jsonl"
LOCK = ".lock"
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
ROTATED = re.compile(r"requests-\d{8}T\d{6}Z-\d{4,}\.jsonl")
DAY = 86_400.0
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
        self._file = LineFile(folder, NAME, look_every)
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
            lock = os.open(LOCK, _LOCK_FLAGS, 0o600, dir_fd=folder)
            # Not waited for: who has it does the same, and the next line finds the new file.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._file.identity != _identity(NAME, folder):
                return
            os.rename(NAME, full_name(self._clock(), _names(folder)), src_dir_fd=folder, dst_dir_fd=folder)
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
                for name in prunable(_rotated(folder), now, keep_days, self._budget - self._rotate):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
        finally:
            os.close(lock)
            os.close(folder)


def prunable(files: Iterable[tuple[str, int, float]], now: float, keep_days: float, budget: int) -> list[str]:
    """Which full files (name, size, mtime) are removed, oldest first. Pure.

    The newest stays: it was full a moment ago, and a clock or a budget that has no room for it is wrong.
    By age no more than half go at one time. A machine that starts with its clock years ahead cannot be told from one that was off
    for years: the second gets there with a few rotations more, the first loses half of its files and not all. What is dated in
    the future is not old. By size no clock is asked: the names' numbers say which came first.
    """
    oldest = sorted(files, key=lambda file: number(file[0]))
    aged = [name for name, _, mtime in oldest[:-1] if now - mtime > keep_days * DAY]
    gone = set(aged[: len(oldest) // 2])
    left = sum(size for name, size, _ in oldest if name not in gone)
    for name, size, _ in oldest[:-1]:
        if left > budget and name not in gone:
            gone.add(name)
            left -= size
    return [name for name, _, _ in oldest if name in gone]


def full_name(now: float, names: Iterable[str]) -> str:
    """The name of the next full file in a folder with these. Numbers go on from the highest, so none is used twice. Pure."""
    highest = max((number(name) for name in names if ROTATED.fullmatch(name)), default=0)
    return f"requests-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{highest + 1:04d}.jsonl"


def number(name: str) -> int:
    """The number of a full file."""
    return int(name.removesuffix(".jsonl").rpartition("-")[2])


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _rotated(folder: int) -> list[tuple[str, int, float]]:
    found = []
    for name in filter(ROTATED.fullmatch, _names(folder)):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                found.append((name, status.st_size, status.st_mtime))
    return found


def _identity(name: str, folder: int) -> tuple[int, int] | None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
