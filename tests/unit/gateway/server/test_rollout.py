"""Decisions about generations of workers, with a clock that tests move and without processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from io3ops_gateway.errors import StartError
from io3ops_gateway.server import rollout
from io3ops_gateway.server.rollout import DRAIN, GO, KILL, STOP, Generation, Generations, Worker


class Life:
    """Generations, and their clock."""

    def __init__(self, room: int = 64) -> None:
        self.now = 100.0
        self.all = Generations(room, lambda: self.now)
        self.pids = iter(range(1, 1000))

    def begin(self, count: int = 1) -> Generation:
        number = len(self.all.all()) + 1
        made = Generation(number=number, config=Path(f"/{number}"), digest=f"d{number}", count=count)
        self.all.next = made
        for slot in range(count):
            self.add(made, slot)
        return made

    def add(self, generation: Generation, slot: int = 0) -> Worker:
        known: Any = {"channel": None}
        return self.all.add(generation, pid=next(self.pids), slot=slot, index=self.all.free_index(), **known)

    def serve(self, count: int = 1) -> Generation:
        made = self.begin(count)
        for worker in made.workers:
            self.all.ready(made, worker)
        return made


def told(orders: list[tuple[Worker, bytes]]) -> list[tuple[int, bytes]]:
    return [(worker.pid, word) for worker, word in orders]


def states(generation: Generation) -> list[str]:
    return [worker.state for worker in generation.workers]


def test_a_generation_takes_over_when_its_last_worker_is_ready() -> None:
    life = Life()
    first, second = life.serve(2), life.begin(2)
    assert states(first) == ["serving", "serving"]
    one, other = second.workers
    assert life.all.ready(second, one) == [] and life.all.current is first
    assert told(life.all.ready(second, other)) == [(3, GO), (4, GO), (1, DRAIN), (2, DRAIN)]
    assert (life.all.current, life.all.next, life.all.old) == (second, None, [first])
    assert life.all.ready(second, other) == [], "reported twice"


def test_a_change_is_complete_when_no_worker_is_leaving_any_more() -> None:
    life = Life()
    first, second = life.serve(2), life.serve()
    assert life.all.changed() == []
    first.workers[0].confirm_left()
    assert life.all.changed() == []
    first.workers.pop()
    third = life.begin()
    assert life.all.changed() == [first, second] and third is life.all.next
    assert life.all.over() == []
    first.workers.clear()
    assert life.all.over() == [first] and life.all.old == []


def test_a_replacement_serves_at_once_and_is_killed_by_a_change_while_it_starts() -> None:
    life = Life()
    first = life.serve()
    quick, slow = life.add(first), life.add(first)
    assert told(life.all.ready(first, quick)) == [(2, GO)]
    second = life.begin()
    assert told(life.all.ready(second, second.workers[0])) == [(4, GO), (1, DRAIN), (2, DRAIN), (3, KILL)]
    assert slow.state == "leaving"
    assert life.all.ready(first, slow) == [], "it was ready just before its end"


def test_a_generation_that_is_given_up_is_killed() -> None:
    life = Life()
    first, second = life.serve(), life.begin(2)
    assert told(life.all.give_up(second)) == [(2, KILL), (3, KILL)]
    assert (life.all.current, life.all.next, life.all.old) == (first, None, [second])


def test_each_state_has_its_deadline() -> None:
    life = Life()
    first = life.serve()
    assert life.all.deadline() == float("inf")
    hanging, second = life.add(first), life.begin()
    assert life.all.deadline() == 160
    life.now = 159.9
    assert life.all.late() == [] and life.all.late_start() is None
    life.now = 160
    assert told(life.all.late()) == [(hanging.pid, KILL)] and hanging.state == "starting", (
        "its end counts as unexpected"
    )
    assert life.all.late() == [], "once"
    assert life.all.late_start() is second
    life.all.ready(second, second.workers[0])
    assert life.all.deadline() == 170 and life.all.late_start() is None
    life.now = 170
    assert life.all.late() == [] and first.workers[0].state == "finishing", "it is busy, and will leave"


def test_at_the_containers_end_a_worker_that_hangs_is_killed_repeatedly() -> None:
    life = Life()
    life.serve()
    life.begin()
    assert told(life.all.stop(5)) == [(1, STOP), (2, KILL)] and life.all.stop(5) == []
    assert life.all.deadline() == 105
    life.now = 105
    assert told(life.all.late()) == [(1, KILL), (2, KILL)] and life.all.late() == []
    life.now = 110
    assert told(life.all.late()) == [(1, KILL), (2, KILL)]


def test_a_worker_is_replaced_a_few_times_and_anew_after_it_was_stable() -> None:
    life = Life()
    (worker,) = life.serve().workers
    assert [life.all.may_replace(worker) for _ in range(4)] == [True] * 4
    life.now += rollout.STABLE_SECONDS + 1
    assert life.all.may_replace(worker)
    life.now -= 5
    assert [life.all.may_replace(worker) for _ in range(5)] == [True] * 4 + [False]


def test_there_is_room_for_one_change_in_any_case_and_for_more_with_memory() -> None:
    life = Life(room=3)
    life.serve(2)
    life.all.check_room(2)
    life.serve(2)
    with pytest.raises(StartError, match="there is memory for no more"):
        life.all.check_room(2)


def test_a_worker_gets_the_lowest_free_index() -> None:
    life = Life()
    first = life.serve(3)
    del first.workers[1]
    assert life.all.free_index() == 1
    for _ in range(62):
        life.add(first)
    with pytest.raises(StartError, match="too many workers"):
        life.all.free_index()


def test_the_status_names_the_serving_generation_and_all_workers() -> None:
    life = Life()
    assert life.all.status() == {"generation": 0, "config": "", "workers": []}
    life.serve()
    life.now += 1.26
    life.begin()
    said = life.all.status()
    assert (said["generation"], said["config"]) == (1, "d1")
    assert said["workers"] == [
        {"generation": 1, "slot": 0, "pid": 1, "state": "serving", "seconds": 1.3},
        {"generation": 2, "slot": 0, "pid": 2, "state": "starting", "seconds": 0.0},
    ]
