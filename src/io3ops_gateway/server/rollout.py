"""Generations of workers and what is decided about them: who takes over, who must leave, who is late, and who is told what.

Touches nothing: it keeps states and answers with orders; `supervisor` carries them out. A *generation* is all workers with one
configuration. A new one starts, warms up and is tried while the old one serves; when all of its workers are ready they begin to accept,
and the old ones finish what they have. When one of them fails, the new one ends and nothing else happens.
"""

import math
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from io3ops_gateway.errors import StartError

# A start that takes longer hangs: LiteLLM's takes a tenth of a second, a call to each mode's model some seconds.
START_SECONDS = 60.0
# A worker that ends this often in a row without ever having served for a while will not serve: the container starts anew.
LIVES, WHILE = 5, 10.0
# A worker that was told to leave says in a moment that it accepts nobody any more; whoever asked for the change waits for that.
LEAVE_SECONDS = 10.0
# Columns of the meter; far more than workers of all generations that finish at the same time.
INDEXES = 64
# What a worker is told; who is to be killed is told nothing.
GO, DRAIN, STOP, KILL = b"go\n", b"drain\n", b"stop\n", b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a worker is told. `index`: its column in the meter; `try_modes`: call each mode's model before serving."""

    generation: int
    index: int
    config: Path
    digest: str
    listeners: tuple[socket.socket, ...]
    channel: socket.socket
    try_modes: bool


@dataclass(kw_only=True, slots=True)
class Worker:
    """One child. `state`: starting, ready, serving, leaving, or finishing: it accepts nobody any more. `deadline`: when it must be ready,
    or have left."""

    pid: int
    slot: int
    index: int
    channel: socket.socket
    born: float
    deadline: float
    state: str = "starting"
    heard: bytes = b""

    def left(self) -> None:
        self.state, self.deadline = "finishing", math.inf


@dataclass(kw_only=True, slots=True)
class Generation:
    """All workers with one configuration; `asker` waits for how its start ends."""

    number: int
    config: Path
    digest: str
    count: int
    asker: socket.socket | None = None
    workers: list[Worker] = field(default_factory=list)


Order = tuple[Worker, bytes]


class Generations:
    """`current` serves, `next` starts, the `old` ones finish or were given up. `room`: for how many workers there is memory; `stopping`:
    when the container's end has taken too long."""

    def __init__(self, room: int, clock: Callable[[], float]) -> None:
        self.current: Generation | None = None
        self.next: Generation | None = None
        self.old: list[Generation] = []
        self.stopping = math.inf
        self._room = min(room, INDEXES)
        self._clock = clock
        self._lives = LIVES

    def all(self) -> list[Generation]:
        return [*self.old, *(g for g in (self.current, self.next) if g is not None)]

    def workers(self) -> list[Worker]:
        return [worker for generation in self.all() for worker in generation.workers]

    def check_room(self, count: int) -> None:
        """Raises StartError when there is no memory for so many more: the kernel would end one that serves."""
        if len(self.workers()) + count > max(self._room, 2 * count):
            what = "workers before this one still finish their requests, and there is memory for no more"
            raise StartError(what, "apply again when those answers are complete")

    def free_index(self) -> int:
        """Raises StartError when each column of the meter is somebody's."""
        used = {worker.index for worker in self.workers()}
        index = next((i for i in range(INDEXES) if i not in used), None)
        if index is None:
            raise StartError("too many workers still finish their requests", "try again in a moment")
        return index

    def add(self, generation: Generation, **known: Any) -> Worker:
        now = self._clock()
        generation.workers.append(Worker(born=now, deadline=now + START_SECONDS, **known))
        return generation.workers[-1]

    def ready(self, generation: Generation, worker: Worker) -> list[Order]:
        """When all of the next generation are ready they take over, and those before finish what they have."""
        worker.deadline = math.inf
        if worker.state != "starting":
            return []
        worker.state = "ready"
        if generation is self.current:
            return [_go(worker)]
        if generation is not self.next or any(w.state != "ready" for w in generation.workers):
            return []
        before, self.current, self.next = self.current, generation, None
        orders = [_go(w) for w in generation.workers]
        if before is not None:
            self.old.append(before)
            orders += [self._leave(w, DRAIN) for w in before.workers]
        return orders

    def give_up(self, generation: Generation) -> list[Order]:
        """End a generation that never served."""
        self.next = None
        self.old.append(generation)
        return [_kill(worker) for worker in generation.workers]

    def may_replace(self, worker: Worker) -> bool:
        """Whether another may take the place of one that has ended."""
        served = worker.state == "serving" and self._clock() - worker.born > WHILE
        self._lives = LIVES if served else self._lives - 1
        return self._lives > 0

    def stop(self, seconds: float) -> list[Order]:
        if self.stopping < math.inf:
            return []
        self.stopping = self._clock() + seconds
        return [self._leave(worker, STOP) for worker in self.workers()]

    def _leave(self, worker: Worker, word: bytes) -> Order:
        if worker.state in ("starting", "ready"):
            # It has nothing to finish.
            return _kill(worker)
        worker.state, worker.deadline = "leaving", self._clock() + LEAVE_SECONDS
        return worker, word

    def deadline(self) -> float:
        return min([self.stopping, *(worker.deadline for worker in self.workers())])

    def late(self) -> list[Order]:
        """Who was to take another's place and hangs: when its end is noticed, the next one does. In the end all."""
        now = self._clock()
        orders: list[Order] = []
        for worker in [w for g in self.all() if g is not self.next for w in g.workers if w.deadline <= now]:
            if worker.state == "leaving":
                # It is busy; it will leave.
                worker.left()
            else:
                worker.deadline = math.inf
                orders.append((worker, KILL))
        if self.stopping <= now:
            self.stopping = now + 5
            orders += [(worker, KILL) for worker in self.workers()]
        return orders

    def late_start(self) -> Generation | None:
        late = self.next is not None and any(worker.deadline <= self._clock() for worker in self.next.workers)
        return self.next if late else None

    def over(self) -> list[Generation]:
        """The old ones whose last worker has ended; they are forgotten."""
        over = [generation for generation in self.old if not generation.workers]
        self.old = [generation for generation in self.old if generation.workers]
        return over

    def changed(self) -> list[Generation]:
        """Those whose change is made: no new connection meets the configuration before."""
        if any(worker.state == "leaving" for generation in self.old for worker in generation.workers):
            return []
        return [generation for generation in self.all() if generation is not self.next]

    def status(self) -> dict[str, Any]:
        now = self._clock()
        workers = [
            {"generation": g.number, "slot": w.slot, "pid": w.pid, "state": w.state, "seconds": round(now - w.born, 1)}
            for g in self.all()
            for w in g.workers
        ]
        number, config = (self.current.number, self.current.digest) if self.current else (0, "")
        return {"generation": number, "config": config, "workers": workers}


def _go(worker: Worker) -> Order:
    worker.state = "serving"
    return worker, GO


def _kill(worker: Worker) -> Order:
    worker.state, worker.deadline = "leaving", math.inf
    return worker, KILL
