"""Limits that hold over all workers: requests and tokens of the last minute, and parallel requests, of each mode and key.

Touches memory and one file's lock that the gateway's processes share. The parent makes a `Ledger` and forks, so what was counted outlives every
worker and every generation of them. Names without limits are not counted and cost nothing.

A second is one cell, and 61 of them are counted: never fewer than the last 60 s, so no window of 60 s takes more than its limit,
and a request is remembered for up to a second longer than that. Nothing is stored twice (no sums), and every change is one cell: whoever is
killed in the middle of one leaves at most a request that was counted and never ran.
"""

import fcntl
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path

from io3ops_gateway.errors import Refusal

# Modes and keys with limits that were asked for within a minute, and workers of all generations that still run.
ROWS, WORKERS = 512, 64
SECONDS = 61
# A row, in cells of 64 bits: whose it is, its newest second, then what was counted.
KEY, NEWEST, REQUESTS, TOKENS, PARALLEL = 0, 1, 2, 2 + SECONDS, 2 + 2 * SECONDS
WIDTH = PARALLEL + WORKERS
COUNTED = {
    "requests_per_minute": (REQUESTS, SECONDS),
    "tokens_per_minute": (TOKENS, SECONDS),
    "parallel": (PARALLEL, WORKERS),
}
# What a cell holds for sure, whatever a provider says that it counted.
MOST = 2**62


class Ledger:
    """The counters. `with` holds them for one process at a time.

    The lock is POSIX's (`lockf`) because it belongs to a process: forked workers use the one descriptor and still keep each other out, and the
    kernel takes it back from whoever is killed. A `flock` would belong to the descriptor that they share, and a
    semaphore of a killed worker would stay taken. It does not keep threads of one process apart.
    """

    def __init__(self) -> None:
        self.cells = memoryview(mmap.mmap(-1, ROWS * WIDTH * 8)).cast("q")
        # Not memfd_create: a hardened host (vm.memfd_noexec=2) refuses that.
        self._lock, path = tempfile.mkstemp(prefix="io3ops-meter-")
        Path(path).unlink()
        weakref.finalize(self, os.close, self._lock)

    def __enter__(self) -> None:
        fcntl.lockf(self._lock, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def forget(self, worker: int) -> None:
        """A worker has died or ended: what it still held is free. Only then may another take its number.

        Needs no lock, because nobody else writes these cells: the parent never waits for a worker.
        """
        for cell in range(_column(worker), len(self.cells), WIDTH):
            self.cells[cell] = 0


class RateLimiter:
    """One worker's way to the ledger, for its event loop's thread only. `worker`: a number that no other live process has.

    `clock`: seconds that never go back and are the same in every process; on Linux `time.monotonic` counts since the boot of the machine.
    """

    def __init__(self, ledger: Ledger, *, worker: int, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._cells = ledger.cells
        self._mine = _column(worker)
        self._clock = clock
        self._known: dict[str, tuple[int, int]] = {}

    def enter(self, *who: tuple[str, Mapping[str, int]]) -> tuple[str, ...]:
        """Let one request of some (name, limits) in, or none of them. Returns the names it was counted for: those which
        have limits now, whatever a reload makes of them. Whoever is let in must `leave` these.

        Raises:
            Refusal: 429, with the seconds after which the oldest one is out of the window; 503, nothing more can be counted.
        """
        limited = [(name, limits) for name, limits in who if limits]
        if not limited:
            return ()
        cells = self._cells
        with self._ledger:
            # Read while nobody else counts: else a second could be taken for newer than one that was counted after it.
            now = self._clock()
            rows = [self._row(name, int(now)) for name, _ in limited]
            for row, (name, limits) in zip(rows, limited, strict=True):
                self._check(row, name, limits, now)
            for row in rows:
                cells[row + REQUESTS + int(now) % SECONDS] += 1
                cells[row + self._mine] += 1
        return tuple([name for name, _ in limited])

    def leave(self, *names: str) -> None:
        """One request of these names has ended, however it did."""
        for name in names:
            # Without the lock: this cell is ours, and a row in which anybody still has a request keeps its place.
            self._cells[self._known[name][1] + self._mine] -= 1

    def used(self, tokens: int, *names: str) -> None:
        """A request of these names took so many tokens, in and out together."""
        if not names:
            return
        with self._ledger:
            second = int(self._clock())
            for name in names:
                try:
                    cell = self._row(name, second) + TOKENS + second % SECONDS
                except Refusal:
                    # Its row went to another name since it left; whoever enters is refused then anyway.
                    continue
                self._cells[cell] = min(self._cells[cell] + max(tokens, 0), MOST)

    def _check(self, row: int, name: str, limits: Mapping[str, int], now: float) -> None:
        for which, (begin, length) in COUNTED.items():
            if which in limits and sum(self._cells[row + begin : row + begin + length]) >= limits[which]:
                message = f"{name} takes {limits[which]} {which.replace('_', ' ')}"
                wait = 1.0 if which == "parallel" else self._oldest(row + begin, int(now)) + SECONDS - now
                raise Refusal(429, "limit", message, max(1, wait))

    def _oldest(self, begin: int, newest: int) -> int:
        """The first second in which something was counted."""
        seconds = range(newest - SECONDS + 1, newest)
        return next((second for second in seconds if self._cells[begin + second % SECONDS]), newest)

    def _row(self, name: str, second: int) -> int:
        """Where a name's counters are, without what is too old to count."""
        cells = self._cells
        key, row = self._known.get(name) or (_key(name), -1)
        if row < 0 or cells[row] != key:
            row = self._find(key, second)
            self._known[name] = key, row
        newest = cells[row + NEWEST]
        if newest < second:
            for old in range(max(newest, second - SECONDS) + 1, second + 1):
                cells[row + REQUESTS + old % SECONDS] = cells[row + TOKENS + old % SECONDS] = 0
            # After the emptying, which can be done again.
            cells[row + NEWEST] = second
        return row

    def _find(self, key: int, second: int) -> int:
        """The row of a name, or one for it: a row is never emptied, only given to another once nothing in it counts any
        more, so whatever was put behind it is still found."""
        cells, free = self._cells, -1
        for step in range(ROWS):
            row = (key + step) % ROWS * WIDTH
            if cells[row] == key:
                return row
            if free < 0 and (not cells[row] or self._over(row, second)):
                free = row
            if not cells[row]:
                break
        if free < 0:
            message = f"over {ROWS} modes and keys with limits were used within a minute; this could not be counted"
            raise Refusal(503, "limits_full", message, SECONDS)
        cells[free] = key
        return free

    def _over(self, row: int, second: int) -> bool:
        begin = row + PARALLEL
        return second - self._cells[row + NEWEST] >= SECONDS and not any(self._cells[begin : begin + WORKERS])


def _column(worker: int) -> int:
    """Where in each row a worker counts its parallel requests."""
    if not 0 <= worker < WORKERS:
        raise ValueError(f"worker {worker} is not one of {WORKERS}")
    return PARALLEL + worker


def _key(name: str) -> int:
    """A name as one cell; 0 is nobody's."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little", signed=True) or 1
