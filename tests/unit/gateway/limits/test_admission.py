"""Admission: requests run, wait in order or are refused, and no place is lost when clients disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io3ops_gateway.errors import Refusal
from io3ops_gateway.limits.admission import Admission


class FakeTime(asyncio.SelectorEventLoop):
    """A loop whose clock the test moves."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Scene:
    """Requests at one door, by the number of their coming. `started`: in the order in which they got a place."""

    def __init__(self, loop: FakeTime, running: int, waiting: int, seconds: float = 10) -> None:
        self.loop = loop
        self.door = Admission(running, waiting, seconds, clock=loop.time)
        self.limit, self.most_waiting = running, waiting
        self.tasks: list[asyncio.Task[None]] = []
        self.ends: list[asyncio.Event] = []
        self.started: list[int] = []
        self.ended: list[int] = []
        self.refused: dict[int, Refusal] = {}

    def arrive(self) -> int:
        self.ends.append(asyncio.Event())
        self.tasks.append(self.loop.create_task(self._request(len(self.tasks))))
        return len(self.tasks) - 1

    async def _request(self, number: int) -> None:
        waiting, now = self.door.waiting, self.loop.now
        try:
            async with self.door:
                self.started.append(number)
                try:
                    assert self.door.running == len(self.started) - len(self.ended) <= self.limit
                    await self.ends[number].wait()
                finally:
                    self.ended.append(number)
        except Refusal as refusal:
            assert (refusal.status, refusal.code) == (503, "busy") and 1 <= refusal.retry_after <= 30
            assert waiting == self.most_waiting or self.loop.now >= now + 10, "sent away without a reason"
            self.refused[number] = refusal

    def running(self) -> list[int]:
        return [number for number in self.started if number not in self.ended]

    async def settle(self) -> None:
        for _ in range(2 * len(self.tasks) + 5):
            await asyncio.sleep(0)


def play(story: Callable[[Scene], Awaitable[None]], running: int = 2, waiting: int = 2, seconds: float = 10) -> Scene:
    loop = FakeTime()
    try:
        scene = Scene(loop, running, waiting, seconds)
        loop.run_until_complete(story(scene))
        for task in scene.tasks:
            if task.done() and not task.cancelled():
                task.result()
        return scene
    finally:
        loop.close()


async def leave_all(scene: Scene) -> None:
    for task in scene.tasks:
        task.cancel()
    await scene.settle()
    assert all(task.done() for task in scene.tasks)


def test_requests_run_wait_in_order_or_are_refused() -> None:
    async def story(scene: Scene) -> None:
        for _ in range(6):
            scene.arrive()
        await scene.settle()
        assert (scene.running(), scene.door.running, scene.door.waiting) == ([0, 1], 2, 2)
        assert sorted(scene.refused) == [4, 5]
        assert scene.refused[4].message == "the gateway is busy: 2 requests are running and 2 are waiting"
        scene.ends[1].set()
        await scene.settle()
        assert scene.running() == [0, 2]
        scene.arrive()
        await scene.settle()
        for end in scene.ends:
            end.set()
        await scene.settle()
        assert scene.started == [0, 1, 2, 3, 6]
        assert (scene.door.running, scene.door.waiting) == (0, 0)

    play(story)


def test_a_wait_times_out() -> None:
    async def story(scene: Scene) -> None:
        for _ in range(3):
            scene.arrive()
        await scene.settle()
        scene.loop.now += 9.9
        await scene.settle()
        assert not scene.refused
        scene.loop.now += 0.2
        await scene.settle()
        assert scene.refused[2].message == "the gateway is busy: no place became free in 10 s"
        assert (scene.door.running, scene.door.waiting) == (2, 0)
        await leave_all(scene)

    play(story)


@pytest.mark.parametrize("first", ["the place becomes free", "the client leaves"])
def test_a_place_given_to_a_cancelled_waiter_goes_to_the_next(first: str) -> None:
    async def story(scene: Scene) -> None:
        async with scene.door:
            for _ in range(3):
                scene.arrive()
            await scene.settle()
            if first == "the client leaves":
                scene.tasks[0].cancel()
        if first != "the client leaves":
            scene.tasks[0].cancel()
        await scene.settle()
        assert (scene.started, scene.door.running, scene.door.waiting) == ([1], 1, 1)
        await leave_all(scene)

    play(story, running=1, waiting=3)


def test_a_request_that_fails_gives_its_place_back() -> None:
    async def story(scene: Scene) -> None:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                async with scene.door:
                    raise ZeroDivisionError
        assert scene.door.running == 0

    play(story, running=1, waiting=0)


def test_a_free_place_costs_no_task_no_future_and_no_turn_of_the_loop() -> None:
    async def story(scene: Scene) -> None:
        with (
            mock.patch.object(scene.loop, "create_task") as tasks,
            mock.patch.object(scene.loop, "create_future") as futures,
        ):
            entering = scene.door.__aenter__()
            with pytest.raises(StopIteration):
                entering.send(None)
            leaving = scene.door.__aexit__()
            with pytest.raises(StopIteration):
                leaving.send(None)
        assert not tasks.called and not futures.called

    play(story)  # fmt: skip


@pytest.mark.parametrize(("each", "expected"), [(0.01, (1, 1)), (1.0, (3, 4)), (3.0, (8, 13)), (60.0, (30, 30))])
def test_a_refusal_tells_how_long_the_queue_takes(each: float, expected: tuple[float, float]) -> None:
    """From how quickly places became free while somebody waited; idle hours before do not count."""

    async def story(scene: Scene) -> None:
        alone = scene.arrive()
        await scene.settle()
        scene.loop.now += 10_000
        scene.ends[alone].set()
        await scene.settle()
        for number in range(1, 25):
            while len(scene.tasks) < number + 5:
                scene.arrive()
                await scene.settle()
            scene.loop.now += each
            scene.ends[number].set()
            await scene.settle()
        await scene.settle()
        scene.arrive()
        late = scene.arrive()
        await scene.settle()
        low, high = expected
        assert low <= scene.refused[late].retry_after <= high
        await leave_all(scene)

    play(story, running=1, waiting=4, seconds=1000)


def test_a_stuck_queue_reports_a_long_wait() -> None:
    async def story(scene: Scene) -> None:
        scene.arrive()
        scene.arrive()
        await scene.settle()
        scene.loop.now += 9
        late = scene.arrive()
        await scene.settle()
        assert scene.refused[late].retry_after == 9
        await leave_all(scene)

    play(story, running=1, waiting=1)


STEPS = st.lists(
    st.one_of(
        st.just(("arrive", 0)),
        st.tuples(st.sampled_from(["finish", "leave", "miss"]), st.integers(0, 30)),
        st.tuples(st.just("turns"), st.integers(1, 3)),
        st.tuples(st.just("pass"), st.sampled_from([1, 5, 11])),
        st.just(("settle", 0)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.integers(0, 4), STEPS)
def test_no_place_is_ever_lost_or_taken_twice(running: int, waiting: int, steps: list[Any]) -> None:
    async def story(scene: Scene) -> None:
        for what, which in steps:
            alive = [n for n, task in enumerate(scene.tasks) if not task.done()]
            waits = [n for n in alive if n not in scene.started]
            if what == "arrive":
                scene.arrive()
            elif what in ("finish", "miss") and scene.running():
                scene.ends[scene.running()[which % len(scene.running())]].set()
                if what == "miss" and waits:
                    # The turn in which the place is handed over, and the next one leaves before it knows.
                    await asyncio.sleep(0)
                    scene.tasks[waits[0]].cancel()
            elif what == "leave" and alive:
                scene.tasks[alive[which % len(alive)]].cancel()
            elif what == "pass":
                scene.loop.now += which
            for _ in range(which if what == "turns" else 0):
                await asyncio.sleep(0)
            assert scene.door.running <= running and scene.door.waiting <= waiting
            if what == "settle":
                await scene.settle()
                assert scene.door.running == len(scene.running())
                assert scene.door.running + scene.door.waiting == sum(not task.done() for task in scene.tasks)
                assert not scene.door.waiting or scene.door.running == running, "waits before a free place"
        await leave_all(scene)
        assert scene.started == sorted(scene.started), "somebody was overtaken"
        first = len(scene.tasks)
        for _ in range(running):
            scene.arrive()
        await scene.settle()
        assert scene.running() == list(range(first, first + running)), "a place was lost"
        await leave_all(scene)

    play(story, running, waiting)
