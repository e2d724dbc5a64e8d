"""Appends lines to one file that other processes append to, and users move or delete. Touches that file.

Each append is one `write` on a descriptor that appends, which the kernel keeps in one piece beside those of other processes. Nothing is
flushed to the disk: a killed gateway loses nothing that was written, a machine without power the last seconds.
"""

import errno
import os
import stat
import time
from pathlib import Path

from io3ops_shared.request_log.files import open_folder

NEWLINE = b"\n"
# Two microseconds, for some tens of lines together.
LOOK_EVERY = 0.05
# NONBLOCK: a FIFO or a lease must not hold up whoever opens; of regular files it changes nothing.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# Half of another worker's write looks like a torn line, for a microsecond. Taken for one, it costs an empty line.
_LOOKS = 5


class LineFile:
    """A file of lines, 0600, opened when first needed and again whenever its name leads to another file."""

    def __init__(self, folder: Path, name: str, look_every: float = LOOK_EVERY) -> None:
        self.folder = folder
        self.name = name
        self._path = str(folder / name)
        self._descriptor = -1
        self._identity = (0, 0)
        # Whether the file may end in the middle of a line: a new line must not stand behind that piece.
        self._torn = False
        self._look_every, self._look_at = look_every, float("-inf")
        # At the last look, and what this process has written since.
        self._size = 0
        # Of the file as it was found at the last look: when somebody wrote to it; 0: it is new.
        self.modified = 0.0

    def append(self, lines: bytes) -> int:
        """Write `lines`, which lack their last newline; the file's size after that, as far as it is known.

        Raises:
            OSError: not all was written, or nothing; what was may stand there as a torn line.
        """
        now = time.monotonic()
        if now >= self._look_at or self._torn:
            # A rotation by another process, and a user's `rm`, show nowhere else. Between two looks lines go to the file that was
            # there: after a rotation they are as good there, and after an `rm` they go where the others went.
            self._look_at = now + self._look_every
            self._size = self._look()
        if self._descriptor < 0:
            self._size = self._open()
        data = lines + NEWLINE
        if self._torn and self._ends_torn():
            data = NEWLINE + data
        self._torn = True
        written = os.write(self._descriptor, data)
        if written != len(data):
            # A full disk takes what fits, without an error.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False
        self._size += written
        return self._size

    def size(self) -> int:
        """Bytes under the file's name now; 0 when there is nothing."""
        try:
            return os.lstat(self._path).st_size
        except OSError:
            return 0

    @property
    def identity(self) -> tuple[int, int]:
        """Device and number of the file that is open."""
        return self._identity

    def look(self) -> None:
        """Look with the next line whether the name still leads to this file."""
        self._look_at = float("-inf")

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _look(self) -> int:
        try:
            found = os.lstat(self._path)
        except OSError:
            # Whatever it is: opening it says so.
            self.close()
            self.modified = 0.0
            return 0
        if (found.st_dev, found.st_ino) != self._identity:
            self.close()
        self.modified = found.st_mtime if found.st_size else 0.0
        return found.st_size

    def _ends_torn(self) -> bool:
        for _ in range(_LOOKS):
            size = os.fstat(self._descriptor).st_size
            if not size or os.pread(self._descriptor, 1, size - 1) == NEWLINE:
                return False
        return True

    def _open(self) -> int:
        folder = open_folder(self.folder)
        try:
            if not _regular(self.name, folder):
                raise _odd()
            descriptor = os.open(self.name, _FLAGS, 0o600, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            found = os.fstat(descriptor)
            # Again: it may have been put there meanwhile.
            if not stat.S_ISREG(found.st_mode):
                raise _odd()
            if found.st_mode & 0o077:
                os.fchmod(descriptor, 0o600)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self._identity = descriptor, (found.st_dev, found.st_ino)
        # Unknown: whoever wrote before may have been killed.
        self._torn = True
        return found.st_size


def _regular(name: str, folder: int) -> bool:
    """Asked before opening: that alone can start something on a device."""
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return True


def _odd() -> OSError:
    return OSError(errno.EINVAL, "it is not a regular file")
