"""Generations of workers and the decisions about them: which take over, which must leave, which are late, and what each is told.

A *generation* is all workers with one configuration. A new one starts, warms up and is tried while the old one serves. When all of its
workers are ready they begin to accept connections, and the old ones finish theirs. When one of them fails, the new generation ends and
nothing else happens. Touches nothing: it keeps states and returns orders, which `supervisor` carries out.
"""

import math
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from io3ops_gateway.errors import StartError

# A start that takes longer hangs: LiteLLM's takes a tenth of a second, and a call to each mode's model some seconds.
START_SECONDS = 60.0
# Workers that end this often in a row, each within the time below, will never serve: the container starts anew.
RESTARTS, STABLE_SECONDS = 5, 10.0
# A worker that was told to leave confirms at once that it accepts nothing more. The requester of a change waits for this long at most.
LEAVE_SECONDS = 10.0
# Columns in the shared memory of `limits`: far more than workers of all generations that finish at the same time.
INDEXES = 64
# Commands to a worker. A worker that is killed gets none.
GO, DRAIN, STOP, KILL = b"go\n", b"drain\n", b"stop\n", b""


class State(StrEnum):
    """Where a worker is between its fork and its end. A `FINISHING` one accepts nothing more; a `LEAVING` one has not confirmed that yet."""

    STARTING = "starting"
    READY = "ready"
    SERVING = "serving"
    LEAVING = "leaving"
    FINISHING = "finishing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a forked child gets. `index`: its column in the shared memory of `limits`. `try_modes`: call each mode's model before serving."""

    generation: int
    index: int
    config: Path
    digest: str
    listeners: tuple[socket.socket, ...]
    channel: socket.socket
    try_modes: bool


@dataclass(kw_only=True, slots=True)
class Worker:
    """One child. `deadline`: when it must be ready, or have confirmed that it leaves. `unread`: the beginning of an event on its channel."""

    pid: int
    slot: int
    index: int
    channel: socket.socket
    born: float
    deadline: float
    state: State = State.STARTING
    unread: bytes = b""

    def confirm_left(self) -> None:
        """It accepts nothing more, and may take its time to finish."""
        self.state, self.deadline = State.FINISHING, math.inf


@dataclass(kw_only=True, slots=True)
class Generation:
    """All workers with one configuration. `requester`: the connection that waits for the outcome of its start."""

    number: int
    config: Path
    digest: str
    count: int
    requester: socket.socket | None = None
    workers: list[Worker] = field(default_factory=list)


Order = tuple[Worker, bytes]


class Generations:
    """`current` serves, `next` starts, and the `old` ones finish or were given up.

    `room`: for how many workers there is memory. `stopping`: when the container's end takes too long; infinite until it ends.
    """

    def __init__(self, room: int, clock: Callable[[], float]) -> None:
        self.current: Generation | None = None
        self.next: Generation | None = None
        self.old: list[Generation] = []
        self.stopping = math.inf
        self._room = min(room, INDEXES)
        self._clock = clock
        self._restarts = RESTARTS

    def all(self) -> list[Generation]:
        return [*self.old, *(g for g in (self.current, self.next) if g is not None)]

    def workers(self) -> list[Worker]:
        return [worker for generation in self.all() for worker in generation.workers]

    def check_room(self, count: int) -> None:
        """Make sure that there is memory for `count` more workers: otherwise the kernel would kill one that serves.

        Raises:
            StartError: there is none.
        """
        if len(self.workers()) + count > max(self._room, 2 * count):
            what = "workers of earlier configurations still finish their requests, and there is memory for no more"
            raise StartError(what, "apply again when those answers are complete")

    def free_index(self) -> int:
        """Return the lowest column of the shared memory that no worker uses.

        Raises:
            StartError: there is none.
        """
        used = {worker.index for worker in self.workers()}
        index = next((i for i in range(INDEXES) if i not in used), None)
        if index is None:
            raise StartError("too many workers still finish their requests", "try again in a moment")
        return index

    def add(self, generation: Generation, **worker: Any) -> Worker:
        """Add a worker that was just forked."""
        now = self._clock()
        generation.workers.append(Worker(born=now, deadline=now + START_SECONDS, **worker))
        return generation.workers[-1]

    def ready(self, generation: Generation, worker: Worker) -> list[Order]:
        """Note that a worker is ready. When all of the next generation are, they take over and the others finish."""
        worker.deadline = math.inf
        if worker.state is not State.STARTING:
            return []
        worker.state = State.READY
        if generation is self.current:
            return [_go(worker)]
        if generation is not self.next or any(w.state is not State.READY for w in generation.workers):
            return []
        previous, self.current, self.next = self.current, generation, None
        orders = [_go(w) for w in generation.workers]
        if previous is not None:
            self.old.append(previous)
            orders += [self._leave(w, DRAIN) for w in previous.workers]
        return orders

    def give_up(self, generation: Generation) -> list[Order]:
        """End a generation that never served."""
        self.next = None
        self.old.append(generation)
        return [_kill(worker) for worker in generation.workers]

    def may_replace(self, worker: Worker) -> bool:
        """Whether another worker may take the place of one that has ended."""
        stable = worker.state is State.SERVING and self._clock() - worker.born > STABLE_SECONDS
        self._restarts = RESTARTS if stable else self._restarts - 1
        return self._restarts > 0

    def stop(self, seconds: float) -> list[Order]:
        """End all workers within `seconds`."""
        if self.stopping < math.inf:
            return []
        self.stopping = self._clock() + seconds
        return [self._leave(worker, STOP) for worker in self.workers()]

    def _leave(self, worker: Worker, command: bytes) -> Order:
        if worker.state in (State.STARTING, State.READY):
            # It has nothing to finish.
            return _kill(worker)
        worker.state, worker.deadline = State.LEAVING, self._clock() + LEAVE_SECONDS
        return worker, command

    def deadline(self) -> float:
        """Return when `late` or `late_start` may next have something to say."""
        return min([self.stopping, *(worker.deadline for worker in self.workers())])

    def late(self) -> list[Order]:
        """Kill workers past their deadline: a replacement that hangs and, when the container ends, all of them."""
        now = self._clock()
        orders: list[Order] = []
        for worker in [w for g in self.all() if g is not self.next for w in g.workers if w.deadline <= now]:
            if worker.state is State.LEAVING:
                # It is too busy to confirm, and will leave.
                worker.confirm_left()
            else:
                # Its end will be noticed, and the next replacement started.
                worker.deadline = math.inf
                orders.append((worker, KILL))
        if self.stopping <= now:
            self.stopping = now + 5
            orders += [(worker, KILL) for worker in self.workers()]
        return orders

    def late_start(self) -> Generation | None:
        """Return the next generation when one of its workers hangs."""
        late = self.next is not None and any(worker.deadline <= self._clock() for worker in self.next.workers)
        return self.next if late else None

    def over(self) -> list[Generation]:
        """Remove and return the old generations whose last worker has ended."""
        over = [generation for generation in self.old if not generation.workers]
        self.old = [generation for generation in self.old if generation.workers]
        return over

    def changed(self) -> list[Generation]:
        """Return the generations whose change is complete: no new connection meets an earlier configuration any more."""
        if any(worker.state is State.LEAVING for generation in self.old for worker in generation.workers):
            return []
        return [generation for generation in self.all() if generation is not self.next]

    def status(self) -> dict[str, Any]:
        """Return which generation serves, and every worker, as JSON values."""
        now = self._clock()
        workers = [
            {"generation": g.number, "slot": w.slot, "pid": w.pid, "state": w.state, "seconds": round(now - w.born, 1)}
            for g in self.all()
            for w in g.workers
        ]
        number, config = (self.current.number, self.current.digest) if self.current else (0, "")
        return {"generation": number, "config": config, "workers": workers}


def _go(worker: Worker) -> Order:
    worker.state = State.SERVING
    return worker, GO


def _kill(worker: Worker) -> Order:
    worker.state, worker.deadline = State.LEAVING, math.inf
    return worker, KILL
