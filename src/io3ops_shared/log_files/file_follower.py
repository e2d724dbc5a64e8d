"""Follows one file of lines, as `tail -F` does, while another process writes, renames and truncates it. Touches its folder, and only reads."""

import contextlib
import errno
import io
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from io3ops_shared.log_files import backwards

# Another container writes the folder: a symlink must not lead to another file, and a FIFO must not block. NONBLOCK changes nothing
# for a regular file.
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A process that had the file open may still write to it after another one renamed it.
GRACE = 10.0
BLOCK = 1 << 18
# A longer line is none of any writer's here, and is not kept in memory.
LONGEST_LINE = 1 << 20
# Stands in the place of such a line, so that its reader can count it.
OVERLONG = b"(a line of more than 1 MB was left out)"


class Follower:
    """Yields what is appended to a file from now on, and what it held before.

    `path`: the file, which need not exist yet; `renamed`: matches the names that it gets in its folder when it is full, whose group 1
    is a number that rises; None: it is never renamed. Raises OSError for what may not be read, or is no regular file.
    """

    def __init__(
        self, path: Path, renamed: re.Pattern[str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._renamed = renamed
        self._clock = clock
        # Files that have another name by now, the newest last.
        self._retired: list[_File] = []
        self._current = self._first = _open(path)
        self._end = self._first.skip() if self._first else 0
        # Listed after the file was opened: one that was renamed in between is the one that is open.
        found = self._full_files()
        self._before = [full for _, full in found]
        self._highest = found[-1][0] if found else -1
        self._caught_up = clock()

    def before(self) -> Iterator[bytes]:
        """Yield the lines that were there at the start, the last one first. Call it before `lines`."""
        if self._first:
            yield from self._first.backwards(self._end)
        for path in reversed(self._before):
            # It may be removed meanwhile.
            with contextlib.suppress(OSError):
                file = _open(path)
                if file is None:
                    continue
                try:
                    # It was renamed between its opening and the listing.
                    if self._first is None or file.identity != self._first.identity:
                        yield from file.backwards(file.size())
                finally:
                    file.close()

    def lines(self) -> Iterator[bytes]:
        """Yield every whole line that is new; an older file's before a newer one's."""
        self._turn()
        for file in self._files():
            yield from file.lines()
        self._caught_up = self._clock()

    def unread(self) -> int:
        """Return how many bytes were written and not read. May be called by another thread."""
        try:
            return sum(file.unread() for file in self._files())
        except (OSError, ValueError):
            # The other thread has closed one meanwhile.
            return 0

    def lag(self) -> float:
        """Return how many seconds ago everything was read."""
        return self._clock() - self._caught_up

    def close(self) -> None:
        for file in self._files():
            file.close()
        self._retired, self._current = [], None

    def _files(self) -> list["_File"]:
        return [*self._retired, *([self._current] if self._current else [])]

    def _turn(self) -> None:
        """Notice that the file was renamed and begun anew, once or several times since the last look."""
        now = self._clock()
        for file in [file for file in self._retired if now - file.retired_at > GRACE]:
            self._retired.remove(file)
            file.close()
        try:
            identity = _identity(self._path.stat())
        except FileNotFoundError:
            identity = None
        if self._current is not None and identity == self._current.identity:
            return
        if self._current is not None:
            self._retire(self._current, now)
            self._current = None
        if identity is not None:
            self._current = _open(self._path)
        # Listed after the file was opened: one that was renamed in between is in the list, or is the one that is open.
        found = self._full_files()
        for number, path in found:
            if number > self._highest:
                # It may be removed meanwhile, or be a folder of somebody's.
                with contextlib.suppress(OSError):
                    self._retire_missed(path, now)
        self._highest = found[-1][0] if found else -1

    def _retire_missed(self, path: Path, now: float) -> None:
        """Keep a file that was begun and renamed between two looks."""
        file = _open(path)
        if file is None:
            return
        if any(file.identity == known.identity for known in self._files()):
            file.close()
        else:
            self._retire(file, now)

    def _full_files(self) -> list[tuple[int, Path]]:
        return numbered(self._path.parent, self._renamed) if self._renamed else []

    def _retire(self, file: "_File", now: float) -> None:
        file.retired_at = now
        self._retired.append(file)


class _File:
    """An open file, and how far it was read."""

    def __init__(self, opened: io.FileIO) -> None:
        self._opened = opened
        self.identity = _identity(os.fstat(opened.fileno()))
        self.position = 0
        self.retired_at = 0.0
        self._rest = b""
        self._overlong = False

    def size(self) -> int:
        return os.fstat(self._opened.fileno()).st_size

    def unread(self) -> int:
        return max(0, self.size() - self.position)

    def skip(self) -> int:
        """Go to where the last whole line ends, and return that position."""
        end = self.size()
        while end > 0:
            begin = max(0, end - BLOCK)
            at = os.pread(self._opened.fileno(), end - begin, begin).rfind(b"\n")
            if at >= 0:
                self.position = begin + at + 1
                break
            end = begin
        return self.position

    def lines(self) -> Iterator[bytes]:
        """Yield the whole lines since the last time; a line without an end waits for it."""
        if self.size() < self.position:
            # It was truncated: what comes now begins at the front.
            self.position, self._rest, self._overlong = 0, b"", False
        while block := os.pread(self._opened.fileno(), BLOCK, self.position):
            self.position += len(block)
            *whole, self._rest = (self._rest + block).split(b"\n")
            for line in whole:
                if self._overlong:
                    self._overlong = False
                    yield OVERLONG
                elif line:
                    yield line
            if len(self._rest) > LONGEST_LINE:
                self._rest, self._overlong = b"", True

    def backwards(self, end: int) -> Iterator[bytes]:
        with open(os.dup(self._opened.fileno()), "rb") as copy:
            yield from backwards.lines(copy, end=end)

    def close(self) -> None:
        self._opened.close()


def numbered(folder: Path, names: re.Pattern[str]) -> list[tuple[int, Path]]:
    """Return the folder's files with such names and their numbers, the oldest first: by number, because clocks jump."""
    matches = ((names.fullmatch(path.name), path) for path in folder.glob("*"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _open(path: Path) -> _File | None:
    """Open a regular file. None: it is not there. Raises OSError."""
    try:
        descriptor = os.open(path, FLAGS)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return _File(io.FileIO(descriptor))
