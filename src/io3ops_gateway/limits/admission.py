"""How many requests one worker serves at once, how many more may wait for a place, and for how long. Touches nothing.

asyncio's semaphore keeps the order and survives waiters that are cancelled, also in the moment in which they are handed a place (read and
tested on Python 3.11 and 3.13). It has no end of the queue, no clock and no word for whoever has to come back later: those are here.
"""

import asyncio
import time
from collections.abc import Callable

from io3ops_gateway.errors import Refusal
from io3ops_gateway.limits.counters import WorkerCounters

# Seconds that a client is told to stay away, at least and at most.
SOON, LATE = 1.0, 30.0
# How much one new gap between two ends changes the mean.
WEIGHT = 0.2


class Admission:
    """`async with` it around a request: `running` at once, `waiting` more in the order of their coming, each for `seconds`. `counters`: shows both.

    Raises:
        Refusal: 503, nobody else may wait, or the wait is over; with the time in which those that wait will be served.
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
        # While somebody waits, every end frees a place that is wanted: the gaps between those say how quick we are.
        self._gap, self._last = SOON, 0.0

    @property
    def running(self) -> int:
        """Requests that have a place."""
        return self._running

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        return self._waiting

    async def __aenter__(self) -> None:
        if self._places.locked():
            await self._wait()
        else:
            # Does not suspend.
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
            raise self._busy(f"the gateway is busy: {self._running} requests run and {self._waiting} wait")
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
        # Nothing has ended for longer than usual: then that is the gap now.
        gap = max(self._gap, self._clock() - self._last) if self._waiting else self._gap
        return Refusal(503, "busy", message, min(max(SOON, self._waiting * gap), LATE))
