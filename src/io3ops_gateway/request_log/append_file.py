"""Appends lines to a log file of mode 0600 that several processes write, and that users move or delete. Touches that file.

Each append is one `write` to a descriptor opened with O_APPEND, so the kernel keeps the lines of several processes apart. Nothing is
flushed to disk: a killed gateway loses no line that it wrote, a power failure loses the last seconds.
"""

import errno
import os
import stat
import time
from pathlib import Path

from io3ops_shared.request_log.files import open_folder

NEWLINE = b"\n"
# A check takes 2 µs, which is shared by all lines of this interval.
LOOK_EVERY = 0.05
# NONBLOCK: a FIFO or a lease must not block the gateway. It changes nothing for regular files.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# While another worker writes, its line looks torn for a microsecond. Mistaking it for a torn one costs an empty line.
_LOOKS = 5


class LineFile:
    """A file of lines with mode 0600. Opened with the first line, and again whenever its name leads to another file."""

    def __init__(self, folder: Path, name: str, look_every: float = LOOK_EVERY) -> None:
        self.folder = folder
        self.name = name
        self._path = str(folder / name)
        self._descriptor = -1
        self._identity = (0, 0)
        # Whether the file may end in the middle of a line. The next line must not continue that piece.
        self._torn = False
        self._look_every, self._look_at = look_every, float("-inf")
        # The size at the last check, plus what this process has written since.
        self._size = 0
        # When the file was last modified, as found at the last check; 0 for a new file.
        self.modified = 0.0

    def append(self, lines: bytes) -> int:
        """Write `lines`, which lack their last newline. Return the file's size afterwards, as far as it is known.

        Raises:
            OSError: not everything was written, or nothing. A part may be left as a torn line.
        """
        now = time.monotonic()
        if now >= self._look_at or self._torn:
            # Nothing else reveals a rotation by another process, or a user's `rm`. Lines written between two checks go to the old
            # file: after a rotation they are safe there, after an `rm` they are lost with the others.
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
            # A full disk accepts a part without an error.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False
        self._size += written
        return self._size

    def size(self) -> int:
        """Return the bytes in the file that has the name now; 0 when there is none."""
        try:
            return os.lstat(self._path).st_size
        except OSError:
            return 0

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the open file."""
        return self._identity

    def look(self) -> None:
        """Check with the next line whether the name still leads to this file."""
        self._look_at = float("-inf")

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _look(self) -> int:
        try:
            status = os.lstat(self._path)
        except OSError:
            # Opening the file reports the reason.
            self.close()
            self.modified = 0.0
            return 0
        if (status.st_dev, status.st_ino) != self._identity:
            self.close()
        self.modified = status.st_mtime if status.st_size else 0.0
        return status.st_size

    def _ends_torn(self) -> bool:
        for _ in range(_LOOKS):
            size = os.fstat(self._descriptor).st_size
            if not size or os.pread(self._descriptor, 1, size - 1) == NEWLINE:
                return False
        return True

    def _open(self) -> int:
        folder = open_folder(self.folder)
        try:
            if not _may_be_opened(self.name, folder):
                raise _not_regular()
            descriptor = os.open(self.name, _FLAGS, 0o600, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            status = os.fstat(descriptor)
            # Checked again: the file may have been replaced meanwhile.
            if not stat.S_ISREG(status.st_mode):
                raise _not_regular()
            if status.st_mode & 0o077:
                os.fchmod(descriptor, 0o600)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self._identity = descriptor, (status.st_dev, status.st_ino)
        # Unknown: the last writer may have been killed.
        self._torn = True
        return status.st_size


def _may_be_opened(name: str, folder: int) -> bool:
    """Return whether the name is free or a regular file's. Checked before opening, which alone can trigger something on a device."""
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return True


def _not_regular() -> OSError:
    return OSError(errno.EINVAL, "it is not a regular file")
