"""Counts running and waiting requests and lost log lines over all workers. Touches memory that the gateway's processes share.

The parent makes a `Counters` and forks. Each worker writes only its own column, so a change is one plain store of 64 bits without a lock.
Totals are a snapshot: they may include one worker before and another after a change. `rate_limits` has the limits.
"""

import mmap
import time

from io3ops_gateway.limits.rate_limits import WORKERS

# The cells of a column, of 64 bits each. A column is as wide as a cache line, so that workers do not contend for one.
RUNNING, WAITING, LOST, LOST_AT, WIDTH = 0, 1, 2, 3, 8


class Counters:
    """Four counters for each live worker, of all generations."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, WORKERS * WIDTH * 8)).cast("q")

    def worker(self, index: int) -> "WorkerCounters":
        """Return one worker's counters. `index`: a number that no other live process has."""
        return WorkerCounters(self._cells, _column(index))

    def forget(self, index: int) -> None:
        """Clear the requests of a worker that has ended, so that another may take its number. Its lost lines stay counted."""
        begin = _column(index)
        self._cells[begin + RUNNING] = self._cells[begin + WAITING] = 0

    def totals(self) -> dict[str, int]:
        """Return the running and waiting requests of all workers; when log lines were lost since the start, also their number and how
        many seconds ago the last one was."""
        found = {"running": sum(self._cells[RUNNING::WIDTH]), "waiting": sum(self._cells[WAITING::WIDTH])}
        if lost := sum(self._cells[LOST::WIDTH]):
            # All processes share this clock.
            found |= {"lost": lost, "lost_ago": int(time.monotonic()) - max(self._cells[LOST_AT::WIDTH])}
        return found


class WorkerCounters:
    """One worker's counters. Call `running` and `waiting` in the event loop's thread, `lost` with the log's lock held."""

    __slots__ = ("_cells", "_lost", "_lost_at", "_running", "_waiting")

    def __init__(self, cells: "memoryview[int]", begin: int) -> None:
        self._cells = cells
        self._running, self._waiting, self._lost, self._lost_at = (begin + c for c in (RUNNING, WAITING, LOST, LOST_AT))

    def running(self, change: int) -> None:
        """Add 1 when a request starts to run, -1 when it ends for any reason."""
        self._cells[self._running] += change

    def waiting(self, change: int) -> None:
        """Add 1 when a request starts to wait for a place, -1 when it stops waiting."""
        self._cells[self._waiting] += change

    def lost(self, count: int = 1) -> None:
        """Count lines of the request log that could not be written."""
        self._cells[self._lost] += count
        self._cells[self._lost_at] = int(time.monotonic())


def _column(index: int) -> int:
    if not 0 <= index < WORKERS:
        raise ValueError(f"worker {index} is not one of {WORKERS}")
    return index * WIDTH
