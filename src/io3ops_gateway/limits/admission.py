"""Limits how many requests a worker serves at once, and how many may wait for a place and for how long. Touches nothing.

Built on asyncio's semaphore, which keeps the order and survives cancelled waiters, even at the moment in which they get a place (read and
tested on Python 3.11 and 3.13). This module adds the queue's length, the timeout, and the estimate for `Retry-After`.
"""

import asyncio
import time
from collections.abc import Callable

from io3ops_gateway.errors import Refusal
from io3ops_gateway.limits.counters import WorkerCounters

# Shortest and longest `Retry-After`, in seconds.
SOON, LATE = 1.0, 30.0
# Weight of the newest gap between two ends in the moving average.
WEIGHT = 0.2


class Admission:
    """A context manager around a request: up to `running` at once, and `waiting` more in order, each for up to `seconds`. `counters`: shares both
    numbers.

    Raises:
        Refusal: 503, the queue is full or the wait timed out; with the time after which the queue is likely served.
    """

    def __init__(
        self,
        running: int,
        waiting: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        counters: WorkerCounters | None = None,
    ) -> None:
        self._counters = counters
        self._places = asyncio.Semaphore(running)
        self._most_waiting = waiting
        self._seconds = seconds
        self._clock = clock
        self._running = self._waiting = 0
        # While requests wait, each end starts one of them, so the gaps between ends tell how fast the queue moves.
        self._gap, self._last = SOON, 0.0

    @property
    def running(self) -> int:
        """Return how many requests run."""
        return self._running

    @property
    def waiting(self) -> int:
        """Return how many requests wait."""
        return self._waiting

    async def __aenter__(self) -> None:
        if self._places.locked():
            await self._wait()
        else:
            # Never suspends, because a place is free.
            await self._places.acquire()
        self._run(1)

    async def __aexit__(self, *_: object) -> None:
        self._run(-1)
        if self._waiting:
            now = self._clock()
            self._gap += WEIGHT * (now - self._last - self._gap)
            self._last = now
        self._places.release()

    async def _wait(self) -> None:
        if self._waiting >= self._most_waiting:
            raise self._busy(
                f"the gateway is busy: {self._running} requests are running and {self._waiting} are waiting"
            )
        if not self._waiting:
            self._last = self._clock()
        self._queue(1)
        try:
            async with asyncio.timeout(self._seconds):
                await self._places.acquire()
        except TimeoutError:
            raise self._busy(f"the gateway is busy: no place became free in {self._seconds:g} s") from None
        finally:
            self._queue(-1)

    def _run(self, change: int) -> None:
        self._running += change
        if self._counters is not None:
            self._counters.running(change)

    def _queue(self, change: int) -> None:
        self._waiting += change
        if self._counters is not None:
            self._counters.waiting(change)

    def _busy(self, message: str) -> Refusal:
        # When nothing has ended for longer than usual, that is the current gap.
        gap = max(self._gap, self._clock() - self._last) if self._waiting else self._gap
        return Refusal(503, "busy", message, min(max(SOON, self._waiting * gap), LATE))
