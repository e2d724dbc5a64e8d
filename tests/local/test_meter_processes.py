"""Limits over real processes: forked workers that want the same place at the same time, and some that are killed on the way."""

from __future__ import annotations

import mmap
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from io3ops_gateway.errors import Refusal
from io3ops_gateway.limits.rate_limits import PARALLEL, Ledger, RateLimiter

WORKERS = 4


def _say(pipe: int, value: int) -> None:
    os.write(pipe, value.to_bytes(4, "big"))


class Worker:
    """A forked process that runs `job(meter, say)`; what it says arrives here."""

    def __init__(self, ledger: Ledger, number: int, job: Callable[[RateLimiter, Callable[[int], None]], None]) -> None:
        self._heard, says = os.pipe()
        self.number = number
        self.pid = os.fork()
        if self.pid == 0:
            # Whatever happens, no test hangs and nothing of pytest runs twice.
            signal.alarm(30)
            with suppress(BaseException):
                meter = RateLimiter(ledger, worker=number, clock=time.monotonic)
                job(meter, partial(_say, says))
                os._exit(0)
            os._exit(1)
        os.close(says)

    def says(self, seconds: float = 20) -> int | None:
        """The next number, or None when there is none within this time."""
        ready, _, _ = select.select([self._heard], [], [], seconds)
        return int.from_bytes(os.read(self._heard, 4), "big") if ready else None

    def end(self, *, kill: bool = False) -> None:
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        assert os.waitpid(self.pid, 0)[1] == (signal.SIGKILL if kill else 0)
        os.close(self._heard)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@contextmanager
def at_once(ledger: Ledger, job: Callable[[RateLimiter, Callable[[int], None]], None]) -> Iterator[list[Worker]]:
    """Workers that all begin when the block begins, and end with it."""
    wait, go = os.pipe()

    def begun(meter: RateLimiter, say: Callable[[int], None]) -> None:
        os.close(go)
        os.read(wait, 1)
        job(meter, say)

    workers = [Worker(ledger, number, begun) for number in range(WORKERS)]
    os.close(wait)
    os.close(go)
    yield workers
    for worker in workers:
        worker.end()


def fill(meter: RateLimiter, limits: dict[str, int]) -> int:
    """Enter until refused; how often that was."""
    for entered in range(1_000_000):
        try:
            meter.enter(("mode m", limits), ("key k", {"parallel": 1_000_000}))
        except Refusal:
            return entered
    return -1


@pytest.mark.parametrize("which", ["requests_per_minute", "parallel"])
def test_exactly_as_many_as_the_limit_says_are_let_in(ledger: Ledger, which: str) -> None:
    with at_once(ledger, lambda meter, say: say(fill(meter, {which: 10_000}))) as workers:
        entered = [worker.says() or 0 for worker in workers]
    assert sum(entered) == 10_000
    assert sum(1 for n in entered if n > 100) > 1, f"nobody contended: {entered}"


def test_never_more_at_a_time_than_may_be_parallel(ledger: Ledger) -> None:
    inside = mmap.mmap(-1, WORKERS)

    def job(meter: RateLimiter, say: Callable[[int], None]) -> None:
        most = entered = 0
        number = meter._mine - PARALLEL
        until = time.monotonic() + 1
        while time.monotonic() < until:
            try:
                meter.enter(("mode m", {"parallel": 2}))
            except Refusal:
                continue
            inside[number] = 1
            most, entered = max(most, sum(inside[:])), entered + 1
            inside[number] = 0
            meter.leave("mode m")
        say(most)
        say(entered)

    with at_once(ledger, job) as workers:
        most, entered = zip(*((worker.says(), worker.says()) for worker in workers), strict=True)
    assert max(most) == 2 and min(entered) > 100, (most, entered)
    assert fill(RateLimiter(ledger, worker=WORKERS, clock=time.monotonic), {"parallel": 2}) == 2, "all came back"


def test_tokens_of_all_workers_are_added_up(ledger: Ledger) -> None:
    def job(meter: RateLimiter, _say: Callable[[int], None]) -> None:
        for _ in range(2000):
            meter.used(1, "mode m")

    with at_once(ledger, job):
        pass
    meter = RateLimiter(ledger, worker=0, clock=time.monotonic)
    meter.enter(("mode m", {"tokens_per_minute": 2000 * WORKERS + 1}))
    with pytest.raises(Refusal, match="tokens"):
        meter.enter(("mode m", {"tokens_per_minute": 2000 * WORKERS}))


def test_a_new_generation_goes_on_where_the_old_one_was(ledger: Ledger) -> None:
    for number, expected in ((0, 5), (1, 0)):
        worker = Worker(ledger, number, lambda meter, say: say(fill(meter, {"requests_per_minute": 5})))
        assert worker.says() == expected
        worker.end()
        ledger.forget(number)


def test_the_places_of_a_killed_worker_come_back(ledger: Ledger) -> None:
    def hold(meter: RateLimiter, say: Callable[[int], None]) -> None:
        for _ in range(3):
            meter.enter(("mode m", {"parallel": 4}))
        say(3)
        time.sleep(60)

    held = Worker(ledger, 0, hold)
    assert held.says() == 3
    meter = RateLimiter(ledger, worker=1, clock=time.monotonic)
    assert fill(meter, {"parallel": 4}) == 1
    held.end(kill=True)
    assert fill(meter, {"parallel": 4}) == 0, "until the parent has seen it"
    ledger.forget(0)
    assert fill(meter, {"parallel": 4}) == 3


def test_a_worker_killed_while_it_counts_stops_nobody(ledger: Ledger) -> None:
    def stay(_meter: RateLimiter, say: Callable[[int], None]) -> None:
        with ledger:
            say(1)
            time.sleep(60)

    inside = Worker(ledger, 0, stay)
    assert inside.says() == 1
    waits = Worker(ledger, 1, lambda meter, say: say(fill(meter, {"parallel": 2})))
    ledger.forget(2)
    assert waits.says(0.3) is None, "the lock keeps it out"
    inside.end(kill=True)
    assert waits.says(5) == 2
    waits.end()


def test_workers_killed_anywhere_leave_nothing_wrong(ledger: Ledger) -> None:
    limits = {"parallel": 3, "requests_per_minute": 10_000_000}

    def run(meter: RateLimiter, say: Callable[[int], None]) -> None:
        say(1)
        while True:
            with suppress(Refusal):
                # Names of its own, too: the kill also meets the making of a row.
                names = meter.enter(("mode m", limits), (f"key {random.randrange(400)}", {"parallel": 1}))
                meter.used(1, *names)
                meter.leave(*names)

    for _ in range(25):
        workers = [Worker(ledger, number, run) for number in range(2)]
        assert all(worker.says() == 1 for worker in workers)
        time.sleep(random.uniform(0, 0.02))
        for worker in workers:
            worker.end(kill=True)
            ledger.forget(worker.number)
    assert fill(RateLimiter(ledger, worker=5, clock=time.monotonic), {"parallel": 3}) == 3
