"""Counts of running and waiting requests, shared by forked workers."""

from __future__ import annotations

import os

import pytest

from io3ops_gateway.limits.counters import Counters
from io3ops_gateway.limits.rate_limits import WORKERS


def test_the_totals_are_over_all_workers() -> None:
    counters = Counters()
    first, last = counters.worker(0), counters.worker(WORKERS - 1)
    assert counters.totals() == {"running": 0, "waiting": 0}
    first.running(+1)
    first.running(+1)
    first.waiting(+1)
    last.running(+1)
    assert counters.totals() == {"running": 3, "waiting": 1}
    first.waiting(-1)
    first.running(-1)
    assert counters.totals() == {"running": 2, "waiting": 0}


def test_an_ended_worker_counts_no_more_and_its_neighbours_still_do() -> None:
    counters = Counters()
    for index in (3, 4, 5):
        counters.worker(index).running(+1)
        counters.worker(index).waiting(+2)
    counters.forget(4)
    assert counters.totals() == {"running": 2, "waiting": 4}
    counters.worker(4).running(+1)
    assert counters.totals()["running"] == 3, "another that takes its number begins at nothing"


@pytest.mark.parametrize("index", [-1, WORKERS])
def test_an_invalid_worker_number_is_refused(index: int) -> None:
    for take in (Counters().worker, Counters().forget):
        with pytest.raises(ValueError, match=f"worker {index} is not one of {WORKERS}"):
            take(index)


def test_a_forked_workers_counts_reach_its_parent_and_outlive_it() -> None:
    counters = Counters()
    pid = os.fork()
    if pid == 0:
        mine = counters.worker(7)
        mine.running(+1)
        mine.waiting(+1)
        # Killed with both still counted, as far as the parent can tell.
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert counters.totals() == {"running": 1, "waiting": 1}
    counters.forget(7)
    assert counters.totals() == {"running": 0, "waiting": 0}


def test_a_lost_line_is_counted_for_all_and_outlives_its_worker() -> None:
    counters = Counters()
    counters.worker(2).lost()
    counters.worker(9).lost()
    counters.forget(2)
    found = counters.totals()
    assert found["lost"] == 2 and 0 <= found["lost_ago"] < 60
