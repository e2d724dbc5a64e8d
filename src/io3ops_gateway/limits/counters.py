"""How many requests run and wait now, and how many lines of the log were lost, over all workers. Touches memory that the gateway's processes share.

The parent makes a `Counters` and forks; each worker writes its own column and nobody else's, so a change is one plain store of 64 bits and
there is no lock. Whoever adds up may see one worker before and another after a change: it is a view, not a limit (`rate_limits` has those).
"""

import mmap
import time

from io3ops_gateway.limits.rate_limits import WORKERS

# A column, in cells of 64 bits: as wide as a line of the processors' caches, so workers never take one from each other.
RUNNING, WAITING, LOST, LOST_AT, WIDTH = 0, 1, 2, 3, 8


class Counters:
    """Four counters for each worker of all generations that still run."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, WORKERS * WIDTH * 8)).cast("q")

    def worker(self, index: int) -> "WorkerCounters":
        """One worker's counters; `index`: a number that no other live process has."""
        return WorkerCounters(self._cells, _column(index))

    def forget(self, index: int) -> None:
        """A worker has died or ended: what it still counted is over; what it has lost stays so. Only then may another take its number."""
        begin = _column(index)
        self._cells[begin + RUNNING] = self._cells[begin + WAITING] = 0

    def totals(self) -> dict[str, int]:
        """Requests that run, and that wait for a place, in all workers; lines of the log that were lost since the start, and
        how many seconds ago the last one was."""
        found = {"running": sum(self._cells[RUNNING::WIDTH]), "waiting": sum(self._cells[WAITING::WIDTH])}
        if lost := sum(self._cells[LOST::WIDTH]):
            # A clock that all processes share.
            found |= {"lost": lost, "lost_ago": int(time.monotonic()) - max(self._cells[LOST_AT::WIDTH])}
        return found


class WorkerCounters:
    """One worker's counters. `running` and `waiting` are for its event loop's thread, `lost` for whoever has the log's lock."""

    __slots__ = ("_cells", "_lost", "_lost_at", "_running", "_waiting")

    def __init__(self, cells: "memoryview[int]", begin: int) -> None:
        self._cells = cells
        self._running, self._waiting, self._lost, self._lost_at = (begin + c for c in (RUNNING, WAITING, LOST, LOST_AT))

    def running(self, change: int) -> None:
        """+1 when a request begins to run, -1 when it has ended, however it did."""
        self._cells[self._running] += change

    def waiting(self, change: int) -> None:
        """+1 when a request has to wait for a place, -1 when it does so no more."""
        self._cells[self._waiting] += change

    def lost(self, count: int = 1) -> None:
        """So many lines of the request log could not be written."""
        self._cells[self._lost] += count
        self._cells[self._lost_at] = int(time.monotonic())


def _column(index: int) -> int:
    if not 0 <= index < WORKERS:
        raise ValueError(f"worker {index} is not one of {WORKERS}")
    return index * WIDTH
