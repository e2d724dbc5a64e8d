"""Limits requests and tokens per minute and parallel requests of each mode and key, over all workers.

Touches memory and a file lock that the gateway's processes share. The parent makes a `Ledger` and forks, so the counts outlive every worker
and every generation of workers. Names without limits are not counted and cost nothing.

Each second has a cell, and 61 of them are summed: these cover the last 60 s in full, so no window of 60 s exceeds its limit, and a request
counts for up to a second longer. No sums are stored and every change is one cell, so a worker that is killed in the middle of one leaves at
most a request that was counted and never ran.
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

# Modes and keys with limits that are used within one minute, and live workers of all generations.
ROWS, WORKERS = 512, 64
SECONDS = 61
# The cells of a row, of 64 bits each: its name's hash, its newest second, then the counts.
KEY, NEWEST, REQUESTS, TOKENS, PARALLEL = 0, 1, 2, 2 + SECONDS, 2 + 2 * SECONDS
WIDTH = PARALLEL + WORKERS
COUNTED = {
    "requests_per_minute": (REQUESTS, SECONDS),
    "tokens_per_minute": (TOKENS, SECONDS),
    "parallel": (PARALLEL, WORKERS),
}
# Upper bound of a cell, whatever token count a provider reports.
MOST = 2**62


class Ledger:
    """The shared counts. A context manager that locks them for one process at a time; it does not separate threads.

    The lock is POSIX's (`lockf`), which belongs to a process: forked workers exclude each other although they share the descriptor, and
    the kernel releases the lock of a killed worker. A `flock` would belong to the shared descriptor, and a semaphore would stay taken.
    """

    def __init__(self) -> None:
        self.cells = memoryview(mmap.mmap(-1, ROWS * WIDTH * 8)).cast("q")
        # Not memfd_create, which a hardened host (vm.memfd_noexec=2) refuses.
        self._lock, path = tempfile.mkstemp(prefix="io3ops-meter-")
        Path(path).unlink()
        weakref.finalize(self, os.close, self._lock)

    def __enter__(self) -> None:
        fcntl.lockf(self._lock, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def forget(self, worker: int) -> None:
        """Clear the parallel requests of a worker that has ended, so that another may take its number.

        Needs no lock, because no live worker writes these cells; so the parent never waits for a worker.
        """
        for cell in range(_column(worker), len(self.cells), WIDTH):
            self.cells[cell] = 0


class RateLimiter:
    """Applies the limits for one worker, in its event loop's thread only. `worker`: a number that no other live process has.

    `clock`: monotonic seconds, the same in every process; on Linux `time.monotonic` counts from the machine's boot.
    """

    def __init__(self, ledger: Ledger, *, worker: int, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._cells = ledger.cells
        self._mine = _column(worker)
        self._clock = clock
        self._known: dict[str, tuple[int, int]] = {}

    def enter(self, *who: tuple[str, Mapping[str, int]]) -> tuple[str, ...]:
        """Admit one request that counts for these (name, limits), when it is within all of them.

        Return the names for which it was counted, those with limits. The caller must `leave` exactly these, also after a reload.

        Raises:
            Refusal: 429, a limit is reached, with the seconds until the oldest request leaves the window; 503, the ledger is full.
        """
        limited = [(name, limits) for name, limits in who if limits]
        if not limited:
            return ()
        cells = self._cells
        with self._ledger:
            # Read the clock with the lock held, or another process could count a later second first.
            now = self._clock()
            rows = [self._row(name, int(now)) for name, _ in limited]
            for row, (name, limits) in zip(rows, limited, strict=True):
                self._check(row, name, limits, now)
            for row in rows:
                cells[row + REQUESTS + int(now) % SECONDS] += 1
                cells[row + self._mine] += 1
        return tuple([name for name, _ in limited])

    def leave(self, *names: str) -> None:
        """Note that one request of these names ended, for any reason."""
        for name in names:
            # Needs no lock: only this worker writes the cell, and a row with a running request is not reassigned.
            self._cells[self._known[name][1] + self._mine] -= 1

    def used(self, tokens: int, *names: str) -> None:
        """Count the tokens of one request of these names, of prompt and completion together."""
        if not names:
            return
        with self._ledger:
            second = int(self._clock())
            for name in names:
                try:
                    cell = self._row(name, second) + TOKENS + second % SECONDS
                except Refusal:
                    # The name's row was reassigned and the ledger is full, so its next request is refused anyway.
                    continue
                self._cells[cell] = min(self._cells[cell] + max(tokens, 0), MOST)

    def _check(self, row: int, name: str, limits: Mapping[str, int], now: float) -> None:
        for which, (begin, length) in COUNTED.items():
            if which in limits and sum(self._cells[row + begin : row + begin + length]) >= limits[which]:
                message = f"limit reached: {name} allows {limits[which]} {which.replace('_', ' ')}{' requests' if which == 'parallel' else ''}"
                wait = 1.0 if which == "parallel" else self._oldest(row + begin, int(now)) + SECONDS - now
                raise Refusal(429, "limit", message, max(1, wait))

    def _oldest(self, begin: int, newest: int) -> int:
        """Return the oldest second of the window with a count."""
        seconds = range(newest - SECONDS + 1, newest)
        return next((second for second in seconds if self._cells[begin + second % SECONDS]), newest)

    def _row(self, name: str, second: int) -> int:
        """Return a name's row, with the cells older than the window cleared."""
        cells = self._cells
        key, row = self._known.get(name) or (_key(name), -1)
        if row < 0 or cells[row] != key:
            row = self._find(key, second)
            self._known[name] = key, row
        newest = cells[row + NEWEST]
        if newest < second:
            for old in range(max(newest, second - SECONDS) + 1, second + 1):
                cells[row + REQUESTS + old % SECONDS] = cells[row + TOKENS + old % SECONDS] = 0
            # Last, because a worker killed before this clears the cells again.
            cells[row + NEWEST] = second
        return row

    def _find(self, key: int, second: int) -> int:
        """Return the row of a name, or assign one. A row is never emptied, only reassigned when nothing in it counts any more, so that the
        probing still finds the rows behind it."""
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
            message = f"too many limits: more than {ROWS} modes and keys with limits were used within a minute"
            raise Refusal(503, "limits_full", message, SECONDS)
        cells[free] = key
        return free

    def _over(self, row: int, second: int) -> bool:
        begin = row + PARALLEL
        return second - self._cells[row + NEWEST] >= SECONDS and not any(self._cells[begin : begin + WORKERS])


def _column(worker: int) -> int:
    """Return the cell of each row in which a worker counts its parallel requests."""
    if not 0 <= worker < WORKERS:
        raise ValueError(f"worker {worker} is not one of {WORKERS}")
    return PARALLEL + worker


def _key(name: str) -> int:
    """Return a name's hash as one cell, never 0, which marks a free row."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little", signed=True) or 1
