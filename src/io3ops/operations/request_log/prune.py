"""`io3ops logs prune`: remove full request logs now, without waiting until the gateway fills the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from io3ops.adapters import files
from io3ops.errors import AlreadyRunning
from io3ops.settings import Settings
from io3ops_shared.request_log import files as log_files
from io3ops_shared.request_log.files import CURRENT, LOCK
from io3ops_shared.request_log.prune import prunable

# The gateway holds the lock while it removes a few files.
PATIENCE = 10.0


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """Names of the removed files, oldest first, and how many bytes they had."""

    removed: tuple[str, ...]
    freed: int


def prune(settings: Settings, *, keep_days: float, budget_mb: float, everything: bool = False) -> Pruned:
    """Remove the files older than `keep_days`, then the oldest until all files are within the budget.

    The current file stays. With `everything` it goes too, and the gateway begins a new one.
    Raises NotWritable, or AlreadyRunning when the gateway does not release its lock.
    """
    folder = settings.logs
    if not folder.is_dir():
        return Pruned(removed=(), freed=0)
    with _locked(folder) as opened:
        try:
            if everything and log_files.status_of(opened, CURRENT):
                # Under another name first: a worker that writes at this moment still has a whole file.
                log_files.rename_current(opened, time.time())
            found = log_files.full_files(opened)
            current = log_files.status_of(opened, CURRENT)
            budget = int(budget_mb * 10**6) - (current.st_size if current else 0)
            if everything:
                removed = sorted((file.name for file in found), key=log_files.number)
            else:
                removed = prunable(found, time.time(), keep_days=keep_days, budget=budget, trust_clock=True)
            log_files.remove(opened, removed)
        except OSError as error:
            raise files.not_writable(folder, error) from None
    return Pruned(removed=tuple(removed), freed=sum(file.size for file in found if file.name in removed))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the gateway's lock; the value is a descriptor of the folder."""
    with contextlib.ExitStack() as opened:
        try:
            # The path is the user's own choice, so it may lead through a symlink; what is in the folder is the gateway's.
            inside = log_files.open_folder(folder, follow=True)
            opened.callback(os.close, inside)
            lock = log_files.open_lock(inside)
            opened.callback(os.close, lock)
        except OSError as error:
            raise files.not_writable(folder / LOCK, error) from None
        # Made by root, the gateway could not open it. By its descriptor: the gateway's user could put a link to any file in its place.
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
        yield inside
