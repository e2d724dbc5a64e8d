"""The request log, line by line as it is written, from its end on: through renames, torn lines and shortened files. Touches its folder."""

import errno
import io
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NAME = "requests.jsonl"
OLDER = "requests-*.jsonl"
# The content that `io3ops record` keeps lies elsewhere in the folder, and has no such name. NONBLOCK: a FIFO must not hold this up.
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A worker that had the file open may write to it after another one renamed it.
GRACE = 10.0
CHUNK = 1 << 18
# Far longer than any line of the gateway's: what it is, it is not a record.
LONGEST = 1 << 20

Key = tuple[int, int]


class _File:
    """One file and how far it was read."""

    def __init__(self, opened: io.FileIO, *, at_end: bool) -> None:
        status = os.fstat(opened.fileno())
        self.key: Key = (status.st_dev, status.st_ino)
        self.position = status.st_size if at_end else 0
        self.renamed_at = 0.0
        self._opened = opened
        self._rest = b""
        self._too_long = False
        opened.seek(self.position)

    def lines(self) -> Iterator[bytes]:
        """The whole lines that are new."""
        if os.fstat(self._opened.fileno()).st_size < self.position:
            # Somebody emptied it: what was read is gone, what comes begins at the front.
            self._opened.seek(0)
            self.position, self._rest, self._too_long = 0, b"", False
        while chunk := self._opened.read(CHUNK):
            self.position += len(chunk)
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            for line in whole:
                if self._too_long:
                    self._too_long = False
                    line = b"-"
                if line:
                    yield line
            if len(self._rest) > LONGEST:
                self._rest, self._too_long = b"", True

    def unread(self) -> int:
        return max(0, os.fstat(self._opened.fileno()).st_size - self.position)

    def close(self) -> None:
        self._opened.close()


class Follower:
    """What is in the log when this starts was counted by somebody else, or by nobody: it begins at the end."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._renamed: list[_File] = []
        self._known = set(self._older())
        self._current = self._open(folder / NAME, at_end=True)
        self._caught_up = clock()

    def lines(self) -> Iterator[bytes]:
        """Everything new; an older file's before a newer one's. Raises OSError when the folder cannot be read."""
        self._turn()
        for file in (*self._renamed, *((self._current,) if self._current else ())):
            yield from file.lines()
        self._caught_up = self._clock()

    def unread(self) -> int:
        """Bytes that were written and not read."""
        files = [*self._renamed, *([self._current] if self._current else [])]
        try:
            return sum(file.unread() for file in files)
        except (OSError, ValueError):
            # Asked by another thread: one was closed meanwhile.
            return 0

    def lag(self) -> float:
        """Seconds since everything was read."""
        return self._clock() - self._caught_up

    def close(self) -> None:
        for file in (*self._renamed, *((self._current,) if self._current else ())):
            file.close()

    def _turn(self) -> None:
        """Notice that the file was renamed and begun anew, once or several times since the last look."""
        now = self._clock()
        for file in [f for f in self._renamed if now - f.renamed_at > GRACE]:
            self._renamed.remove(file)
            file.close()
        path = self._folder / NAME
        try:
            status = path.stat()
            key = (status.st_dev, status.st_ino)
        except FileNotFoundError:
            key = None
        if self._current is not None and key == self._current.key:
            return
        if self._current is not None:
            self._keep(self._current, now)
            self._current = None
        if key is not None:
            self._current = self._open(path)
        # After the file was opened: one that was renamed between the two is found now or is the one that is open.
        older = self._older()
        opened = {file.key for file in (*self._renamed, *((self._current,) if self._current else ()))}
        for found, between in older.items():
            if found not in self._known and found not in opened and (missed := self._open(between)):
                self._keep(missed, now)
        self._known = set(older)

    def _keep(self, file: _File, now: float) -> None:
        file.renamed_at = now
        self._renamed.append(file)

    def _older(self) -> dict[Key, Path]:
        """The renamed files, the oldest first: by their numbers, for the clock may have jumped."""
        found = []
        for path in self._folder.glob(OLDER):
            try:
                status = path.lstat()
            except FileNotFoundError:
                # Removed by age meanwhile.
                continue
            number = path.stem.rpartition("-")[2]
            if number.isdecimal() and number.isascii():
                found.append((int(number), path.name, (status.st_dev, status.st_ino), path))
        return {key: path for _, _, key, path in sorted(found)}

    def _open(self, path: Path, *, at_end: bool = False) -> _File | None:
        try:
            descriptor = os.open(path, FLAGS)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is not a regular file")
        return _File(io.FileIO(descriptor), at_end=at_end)
