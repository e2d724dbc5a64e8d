"""A file that grows, and is renamed and begun anew by whoever writes it: what stands in it, and what comes. Reads only."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

BLOCK = 1 << 16
# Of one line; what is longer is not a line that any of our writers makes, and not kept in memory.
LONGEST = 1 << 20


class _Part:
    """An open file from a position on."""

    def __init__(self, path: Path) -> None:
        # A container may write there: neither a link to another file of this machine nor a pipe that holds us up.
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            os.close(self.descriptor)
            raise OSError(f"{path} is no file")
        self.position = 0
        self._rest = b""

    def lines(self) -> list[bytes]:
        """The whole lines since the last time. One without an end waits for it."""
        found: list[bytes] = []
        if os.fstat(self.descriptor).st_size < self.position:
            # It was emptied in its place.
            self.position, self._rest = 0, b""
        while part := os.pread(self.descriptor, BLOCK, self.position):
            self.position += len(part)
            *whole, self._rest = (self._rest + part).split(b"\n")
            found += whole
            if len(self._rest) > LONGEST:
                self._rest = b""
        return found

    def is_file(self, found: os.stat_result) -> bool:
        return os.path.samestat(os.fstat(self.descriptor), found)

    def close(self) -> None:
        os.close(self.descriptor)


class Growing:
    """`before`: the lines that stood there when this was made; `new`: those since, over any renaming. `older`: how the renamed files
    are called, a pattern. Raises OSError when the file is there and may not be read; one that is not there yet is waited for."""

    def __init__(self, path: Path, older: str = "") -> None:
        self._path = path
        self._older = older
        # The newest last. The one before it stays open: a writer may still have it when it has its new name.
        self._open: list[_Part] = []
        self._end = 0
        with contextlib.suppress(FileNotFoundError):
            part = _Part(path)
            self._open.append(part)
            self._end = part.position = _whole(part.descriptor)
        self._known = {p.name for p in self._renamed()}

    def before(self) -> Iterator[bytes]:
        """The last line first."""
        own = self._open[0] if self._open else None
        if own:
            yield from _backwards(own.descriptor, self._end)
        for path in reversed(self._renamed()):
            # It may be removed meanwhile.
            with contextlib.suppress(OSError):
                part = _Part(path)
                try:
                    if path.name in self._known and not (own and own.is_file(os.fstat(part.descriptor))):
                        yield from _backwards(part.descriptor, os.fstat(part.descriptor).st_size)
                finally:
                    part.close()

    def new(self) -> list[bytes]:
        found = [line for part in self._open for line in part.lines()]
        try:
            now = os.stat(self._path)
            if self._open and self._open[-1].is_file(now):
                return found
            newest = _Part(self._path)
        except OSError:
            return found
        # Once more: it may have been written to between the first look and its new name.
        found += [line for part in self._open for line in part.lines()]
        found += self._between()
        for part in self._open[:-1]:
            part.close()
        self._open = [*self._open[-1:], newest]
        return found + newest.lines()

    def close(self) -> None:
        for part in self._open:
            part.close()
        self._open = []

    def _between(self) -> list[bytes]:
        """What stands in files that were begun and renamed since the last look."""
        found: list[bytes] = []
        renamed = self._renamed()
        for path in renamed:
            if path.name not in self._known:
                with contextlib.suppress(OSError):
                    part = _Part(path)
                    if not any(o.is_file(os.fstat(part.descriptor)) for o in self._open):
                        found += part.lines()
                    part.close()
        self._known = {p.name for p in renamed}
        return found

    def _renamed(self) -> list[Path]:
        """The oldest first."""
        found = []
        for path in self._path.parent.glob(self._older) if self._older else ():
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, path.name, path))
        return [path for *_, path in sorted(found)]


def _whole(descriptor: int) -> int:
    """Where the last whole line ends."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        begin = max(0, end - BLOCK)
        at = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if at >= 0:
            return begin + at + 1
        end = begin
    return 0


def _backwards(descriptor: int, end: int) -> Iterator[bytes]:
    rest = b""
    while end > 0:
        begin = max(0, end - BLOCK)
        rest, *lines = (os.pread(descriptor, end - begin, begin) + rest).split(b"\n")
        yield from (line for line in reversed(lines) if line)
        if len(rest) > LONGEST:
            rest = b""
        end = begin
    if rest:
        yield rest
