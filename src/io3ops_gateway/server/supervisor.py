"""The first process: it has imported LiteLLM once, forks the workers, and replaces them without losing a connection.

Touches: its children, the listening sockets, signals, and a private copy of each generation's configuration in /tmp. It serves no request
and starts no thread, so that it can fork at any time. One loop waits for signals, `control_socket` and what `worker_processes` say; what follows from
them is decided by `rollout` and carried out here. The listening sockets are the parent's for life: connections that wait in their
queues wait for whoever serves next.
"""

import math
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from io3ops_gateway.errors import ConfigError, GatewayError, StartError, one_line
from io3ops_gateway.server import rollout, startup_checks, worker_processes
from io3ops_gateway.server.control_socket import ControlSocket, refuse, reply
from io3ops_gateway.server.rollout import INDEXES, KILL, Generation, Generations, Job, Worker
from io3ops_gateway.server.sockets import bind
from io3ops_shared import digests

HINT = "`io3ops logs gateway` shows more"


@dataclass(kw_only=True, eq=False)
class Supervisor:
    """`work` never returns: it is what a forked child does. `forget(index)`: that worker has ended. `count`: of workers, for a configuration;
    `room`: for how many of all generations there is memory; `load`: what `status` says of the requests that run and wait, and of the files."""

    config: Path
    control: Path
    first: socket.socket
    stop_seconds: float
    work: Callable[[Job], NoReturn]
    count: Callable[[dict[str, Any]], int]
    forget: Callable[[int], None]
    room: int = INDEXES
    load: Callable[[], dict[str, Any]] = dict
    folder: Path = Path("/tmp")

    def __post_init__(self) -> None:
        self._listeners = [self.first]
        self._generations = Generations(self.room, time.monotonic)
        self._number = 0
        self._selector = selectors.DefaultSelector()
        self._signals, self._wake = socket.socketpair()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, and until every worker has ended after it.

        Raises:
            GatewayError: the first generation did not start, or its workers end again and again.
        """
        self._listen_to_signals()
        commands = ControlSocket(self.control, self._selector, self._obey)
        try:
            self._begin(self.config.read_bytes(), try_modes=False)
            while self._generations.workers() or self._generations.stopping == math.inf:
                self._wait(commands)
        except BaseException:
            worker_processes.order([(worker, KILL) for worker in self._generations.workers()])
            raise
        finally:
            commands.close()
            for generation in self._generations.all():
                generation.config.unlink(missing_ok=True)

    def _wait(self, commands: ControlSocket) -> None:
        end = min(commands.deadline(), self._generations.deadline())
        for key, _ in self._selector.select(None if end == math.inf else max(0.0, end - time.monotonic())):
            # Another one of this round may have ended it.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
                self._settle()
        commands.hang_up_late(time.monotonic())
        worker_processes.order(self._generations.late())
        if (late := self._generations.late_start()) is not None:
            what = f"it was not ready within {rollout.START_SECONDS:g} s"
            self._failed(late, StartError(what, HINT), 70)
        self._settle()

    # What comes in: signals, commands, and what workers say.

    def _listen_to_signals(self) -> None:
        for end in (self._signals, self._wake):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._selector.register(self._signals, selectors.EVENT_READ, self._on_signals)

    def _on_signals(self) -> None:
        found = set(self._signals.recv(4096))
        if {signal.SIGTERM, signal.SIGINT} & found:
            # The workers keep to the time themselves; a second more is for one that hangs.
            worker_processes.order(self._generations.stop(self.stop_seconds + 1))
        if signal.SIGCHLD in found:
            self._reap()
        if signal.SIGHUP in found and self._generations.stopping == math.inf:
            self._try_begin(self.config, None)

    def _obey(self, asker: socket.socket, asked: dict[str, Any]) -> None:
        command = asked["command"]
        if command == "status":
            reply(asker, self._generations.status() | self.load())
        elif command == "reload":
            self._try_begin(asked.get("config"), asker, try_modes=asked.get("try_modes") is True)
        else:
            refuse(asker, f"there is no command {command!r}", "reload or status")

    def _on_worker(self, generation: Generation, worker: Worker) -> None:
        events = worker_processes.hear(worker)
        if events is None:
            # It has ended, or will: what is to be done then is done when the kernel says so.
            self._selector.unregister(worker.channel)
        for said in events or []:
            if said["event"] == "ready":
                self._ready(generation, worker)
            elif said["event"] == "left":
                worker.left()
            else:
                self._failed(generation, GatewayError(said["what"], said["hint"]), said["code"])

    # A generation's start.

    def _try_begin(self, config: object, asker: socket.socket | None, *, try_modes: bool = False) -> None:
        try:
            if self._generations.stopping < math.inf or self._generations.next is not None:
                raise StartError("another change is under way", "try again in a moment")
            # What is no text stays none: the parser says so.
            text = (
                config.read_bytes() if isinstance(config, Path) else str(config or "").encode("utf-8", "surrogatepass")
            )
            self._begin(text, try_modes=try_modes, asker=asker)
        except (GatewayError, OSError) as error:
            self._not_taken(error, asker)

    def _begin(self, text: bytes, *, try_modes: bool, asker: socket.socket | None = None) -> None:
        self._number += 1
        path = self.folder / f"io3ops-generation-{self._number}.yaml"
        count = self._prepare(path, text)
        generation = self._generations.next = Generation(
            number=self._number, config=path, digest=digests.of_config(text), count=count, asker=asker
        )
        try:
            for slot in range(count):
                self._fork(generation, slot, try_modes=try_modes and slot == 0)
        except GatewayError:
            # Whoever asked is told by the caller.
            generation.asker = None
            worker_processes.order(self._generations.give_up(generation))
            raise

    def _prepare(self, path: Path, text: bytes) -> int:
        """How many workers the configuration wants; there is a copy of it then, room, and a listener for each."""
        try:
            # Its own copy: a worker that must be replaced later starts with what was tried, not with what is on the disk by then.
            try:
                path.touch(0o600)
                path.write_bytes(text)
            except OSError as error:
                raise ConfigError(f"{path} cannot be written: {error.strerror}", "give /tmp more space") from error
            count = self.count(startup_checks.parse_config(text, "the new litellm.yaml"))
            self._generations.check_room(count)
            while len(self._listeners) < count:
                host, port = self._listeners[0].getsockname()[:2]
                self._listeners.append(bind(host, port))
            return count
        except Exception as error:
            path.unlink(missing_ok=True)
            if isinstance(error, GatewayError):
                raise
            # Whatever stands in a file, the parent lives on.
            what = f"the new litellm.yaml cannot be used: {one_line(error)}"
            raise ConfigError(what, "run `io3ops render-config`") from error

    def _fork(self, generation: Generation, slot: int, *, try_modes: bool = False) -> None:
        index = self._generations.free_index()

        def live(channel: socket.socket) -> NoReturn:
            self._leave_parent()
            job = Job(
                generation=generation.number,
                index=index,
                config=generation.config,
                digest=generation.digest,
                listeners=tuple(self._listeners[slot :: generation.count]),
                channel=channel,
                try_modes=try_modes,
            )
            self.work(job)

        pid, channel = worker_processes.fork(live)
        worker = self._generations.add(generation, pid=pid, slot=slot, index=index, channel=channel)
        self._selector.register(channel, selectors.EVENT_READ, lambda: self._on_worker(generation, worker))

    def _leave_parent(self) -> None:
        """In the child: what is the parent's alone."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._wake.close()
        for generation in self._generations.all():
            if generation.asker is not None:
                generation.asker.close()

    def _ready(self, generation: Generation, worker: Worker) -> None:
        before = self._generations.current
        worker_processes.order(self._generations.ready(generation, worker))
        if before is not None and self._generations.current is not before:
            worker_processes.tell(
                f"generation {generation.number} serves; generation {before.number} finishes its requests"
            )

    def _failed(self, generation: Generation, error: GatewayError, code: int) -> None:
        if self._generations.current is None:
            error.exit_code = code
            raise error
        # Else it was a replacement for a worker that had ended; `_reap` sees it end and decides.
        if generation is self._generations.next:
            asker, generation.asker = generation.asker, None
            self._not_taken(error, asker)
            worker_processes.order(self._generations.give_up(generation))

    def _not_taken(self, error: GatewayError | OSError, asker: socket.socket | None) -> None:
        worker_processes.tell(f"the new configuration is not taken: {error}; the gateway serves on")
        if asker is not None:
            refuse(asker, str(getattr(error, "what", error)), str(getattr(error, "hint", "")))

    def _settle(self) -> None:
        """After whatever happened: clear away generations without workers, and tell whoever asked for a change that it is made."""
        over = self._generations.over()
        for generation in over:
            generation.config.unlink(missing_ok=True)
        for generation in [*over, *self._generations.changed()]:
            asker, generation.asker = generation.asker, None
            if asker is not None:
                reply(asker, self._generations.status())

    def _reap(self) -> None:
        """Every child that has ended: forget it, and give its place to another if it was serving."""
        for pid, why in worker_processes.ended():
            for generation in self._generations.all():
                for worker in [w for w in generation.workers if w.pid == pid]:
                    generation.workers.remove(worker)
                    self._ended(generation, worker, why)

    def _ended(self, generation: Generation, worker: Worker, why: str) -> None:
        self.forget(worker.index)
        if worker.channel.fileno() in self._selector.get_map():
            # What it said last may not have been read yet.
            self._on_worker(generation, worker)
        if worker.channel.fileno() in self._selector.get_map():
            self._selector.unregister(worker.channel)
        worker.channel.close()
        if self._generations.stopping < math.inf or worker.state in ("leaving", "finishing"):
            return
        if generation is self._generations.next:
            self._failed(generation, StartError(f"a worker {why} while it started", HINT), 70)
        elif generation is self._generations.current:
            if not self._generations.may_replace(worker):
                raise StartError(f"workers end again and again: the last one {why}", HINT)
            worker_processes.tell(f"worker {worker.pid} {why}; another takes its place")
            self._fork(generation, worker.slot)
