"""The files of the request log: the one that is written, full ones beside it, and the lock of whoever renames or removes them.

Everything is done by a descriptor of the folder, which another user may own: no path is followed twice. Touches that folder.
"""

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from io3ops_shared.log_files.file_follower import numbered

CURRENT = "requests.jsonl"
# Its number goes on from file to file, so it says which came first, whatever the clock said.
FULL = re.compile(r"requests-[0-9]{8}T[0-9]{6}Z-([0-9]{1,18})\.jsonl")
LOCK = ".lock"
# NONBLOCK: a FIFO in the place of the lock must not block.
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class FullFile(NamedTuple):
    """`size` in bytes, `modified` in seconds since 1970."""

    name: str
    size: int
    modified: float


def number(name: str) -> int:
    """Return the number of a full file; ValueError for another name."""
    found = FULL.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is not a full request log")
    return int(found[1])


def full_name(now: float, names: Iterable[str]) -> str:
    """Return the name of the next full file in a folder with these names: no number is used twice. Pure."""
    highest = max((int(match[1]) for match in map(FULL.fullmatch, names) if match), default=0)
    return f"requests-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{highest + 1:04d}.jsonl"


def older_files(folder: Path) -> list[Path]:
    """Return the full files, the newest first."""
    return [path for _, path in reversed(numbered(folder, FULL))]


def open_folder(folder: Path, *, follow: bool = False) -> int:
    """Return a descriptor of a folder; a symlink in its place is refused unless `follow`. Raises OSError."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))


def open_lock(folder: int) -> int:
    """Return a descriptor of the lock file in an open folder; made when there is none. Raises OSError."""
    return os.open(LOCK, _LOCK_FLAGS, 0o600, dir_fd=folder)


def full_files(folder: int) -> list[FullFile]:
    """Return the full files in an open folder, in no order. What else has such a name, a link or a folder, is not the gateway's."""
    found = []
    for name in filter(FULL.fullmatch, _names(folder)):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                found.append(FullFile(name, status.st_size, status.st_mtime))
    return found


def rename_current(folder: int, now: float) -> None:
    """Give the current file in an open folder the next full name. The caller has the lock. Raises OSError."""
    os.rename(CURRENT, full_name(now, _names(folder)), src_dir_fd=folder, dst_dir_fd=folder)


def remove(folder: int, names: Iterable[str]) -> None:
    """Remove files from an open folder; one that is gone already is no error. Raises OSError."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def status_of(folder: int, name: str) -> os.stat_result | None:
    """Return the status of a regular file in an open folder; None when there is none."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]
