"""`io3ops logs prune`: remove full request logs now, and not only when the gateway fills the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from io3ops.adapters import files
from io3ops.errors import AlreadyRunning
from io3ops.operations.request_log.records import CURRENT
from io3ops.settings import Settings

# Both as in the gateway's `request_log.rotating_file`.
FULL = re.compile(r"requests-\d{8}T\d{6}Z-\d{4,}\.jsonl")
LOCK = ".lock"
# The gateway has the lock for as long as removing some files takes.
PATIENCE = 10.0


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """Names of the removed files, oldest first, and the bytes that they had."""

    removed: tuple[str, ...]
    freed: int


def prune(settings: Settings, *, keep_days: float, budget_mb: float, everything: bool = False) -> Pruned:
    """Remove what is older, then the oldest until all files are within the budget. The one that is written stays, unless
    `everything` is to go: then the gateway begins a new one.

    Raises NotWritable, or AlreadyRunning when the gateway does not let go of its lock.
    """
    folder = settings.logs
    if not folder.is_dir():
        return Pruned(removed=(), freed=0)
    removed, freed = [], 0
    with _locked(folder):
        try:
            if everything and _look(folder / CURRENT):
                # Under another name first: a worker that writes at this moment still has a whole file.
                highest = max((_number(path.name) for path in folder.iterdir() if FULL.fullmatch(path.name)), default=0)
                stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
                (folder / CURRENT).rename(folder / f"requests-{stamp}-{highest + 1:04d}.jsonl")
            found = [
                (p.name, s.st_size, s.st_mtime) for p in folder.iterdir() if FULL.fullmatch(p.name) and (s := _look(p))
            ]
            current_size = s.st_size if (s := _look(folder / CURRENT)) else 0
            room = int(budget_mb * 10**6) - current_size
            sizes = {name: size for name, size, _ in found}
            for name in sorted(sizes, key=_number) if everything else too_much(found, time.time(), keep_days, room):
                (folder / name).unlink(missing_ok=True)
                removed.append(name)
                freed += sizes[name]
        except OSError as error:
            raise files.not_writable(folder, error) from None
    return Pruned(removed=tuple(removed), freed=freed)


def too_much(found: Iterable[tuple[str, int, float]], now: float, keep_days: float, room: int) -> list[str]:
    """Which full files (name, size, mtime) go, oldest first. Pure.

    The clock is believed, unlike in the gateway: somebody asked for this and reads what was removed.
    """
    newest_first = sorted(found, key=lambda file: _number(file[0]), reverse=True)
    gone, used = [], 0
    for name, size, mtime in newest_first:
        used += size
        if now - mtime > keep_days * 86_400 or used > room:
            gone.append(name)
    return gone[::-1]


def _number(name: str) -> int:
    # It goes on from file to file, whatever the clock said.
    return int(name.removesuffix(".jsonl").rpartition("-")[2])


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise files.not_writable(folder / LOCK, error) from None
    try:
        # Made by root, the gateway could not open it. By its descriptor: the folder is the gateway's, who could put a link to any file there.
        if os.geteuid() == 0 and (owner := files.owner(folder)):
            os.fchown(lock, *owner)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise AlreadyRunning(
                        f"the gateway is removing request logs, for more than {PATIENCE:.0f} s now",
                        hint="run the same command again; when that does not help: io3ops down, then io3ops up",
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(lock)


def _look(path: Path) -> os.stat_result | None:
    """A regular file's status; what else bears such a name is not the gateway's."""
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            return status
    return None
