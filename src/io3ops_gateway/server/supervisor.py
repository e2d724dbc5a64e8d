"""The first process: it has imported LiteLLM once, forks the workers, and replaces them without losing a connection.

One loop waits for signals, commands (`control_socket`) and events of workers (`worker_processes`). `rollout` decides what follows, and this
module carries it out. The parent serves no request and starts no thread, so that it can fork at any time. It keeps the listening sockets
open for its whole life: connections in their queues wait for the next generation.

Touches: its children, the listening sockets, signals, and a private copy of each generation's configuration in /tmp.
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
from io3ops_gateway.server.rollout import INDEXES, KILL, Generation, Generations, Job, State, Worker
from io3ops_gateway.server.sockets import bind
from io3ops_shared import digests

HINT = "`io3ops logs gateway` shows more"


@dataclass(kw_only=True, eq=False)
class Supervisor:
    """Runs the workers of one gateway.

    `first`: the listening socket of the first worker. `work`: runs a worker in a forked child, and never returns. `count`: the number of
    workers for a configuration. `forget`: called with the index of a worker that has ended. `room`: for how many workers of all
    generations there is memory. `load`: what `status` adds about requests and files.
    """

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
        commands = ControlSocket(self.control, self._selector, self._on_command)
        try:
            self._begin(self.config.read_bytes(), try_modes=False)
            while self._generations.workers() or self._generations.stopping == math.inf:
                self._wait(commands)
        except BaseException:
            worker_processes.carry_out([(worker, KILL) for worker in self._generations.workers()])
            raise
        finally:
            commands.close()
            for generation in self._generations.all():
                generation.config.unlink(missing_ok=True)

    def _wait(self, commands: ControlSocket) -> None:
        end = min(commands.deadline(), self._generations.deadline())
        for key, _ in self._selector.select(None if end == math.inf else max(0.0, end - time.monotonic())):
            # An event before it in this round may have closed it.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
                self._settle()
        commands.hang_up_late(time.monotonic())
        worker_processes.carry_out(self._generations.late())
        if (late := self._generations.late_start()) is not None:
            what = f"it was not ready within {rollout.START_SECONDS:g} s"
            self._failed(late, StartError(what, HINT), 70)
        self._settle()

    # Input: signals, commands, and events of workers.

    def _listen_to_signals(self) -> None:
        for end in (self._signals, self._wake):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._selector.register(self._signals, selectors.EVENT_READ, self._on_signals)

    def _on_signals(self) -> None:
        numbers = set(self._signals.recv(4096))
        if {signal.SIGTERM, signal.SIGINT} & numbers:
            # The workers keep to the time themselves; a second more is for one that hangs.
            worker_processes.carry_out(self._generations.stop(self.stop_seconds + 1))
        if signal.SIGCHLD in numbers:
            self._reap()
        if signal.SIGHUP in numbers and self._generations.stopping == math.inf:
            self._try_begin(self.config, None)

    def _on_command(self, requester: socket.socket, command: dict[str, Any]) -> None:
        name = command["command"]
        if name == "status":
            reply(requester, self._generations.status() | self.load())
        elif name == "reload":
            self._try_begin(command.get("config"), requester, try_modes=command.get("try_modes") is True)
        else:
            refuse(requester, f"unknown command {name!r}", "reload or status")

    def _on_worker(self, generation: Generation, worker: Worker) -> None:
        events = worker_processes.read_events(worker)
        if events is None:
            # It has ended or is about to; SIGCHLD decides what follows.
            self._selector.unregister(worker.channel)
        for event in events or []:
            if event["event"] == "ready":
                self._ready(generation, worker)
            elif event["event"] == "left":
                worker.confirm_left()
            else:
                self._failed(generation, GatewayError(event["what"], event["hint"]), event["code"])

    # A generation's start.

    def _try_begin(self, config: object, requester: socket.socket | None, *, try_modes: bool = False) -> None:
        """Begin a generation with a file or a text, or report why not."""
        try:
            if self._generations.stopping < math.inf or self._generations.next is not None:
                raise StartError("another change is under way", "try again in a moment")
            # A lone surrogate is kept, so that the parser reports it.
            text = (
                config.read_bytes() if isinstance(config, Path) else str(config or "").encode("utf-8", "surrogatepass")
            )
            self._begin(text, try_modes=try_modes, requester=requester)
        except (GatewayError, OSError) as error:
            self._reject(error, requester)

    def _begin(self, text: bytes, *, try_modes: bool, requester: socket.socket | None = None) -> None:
        """Fork the workers of a new generation."""
        self._number += 1
        path = self.folder / f"io3ops-generation-{self._number}.yaml"
        count = self._prepare(path, text)
        generation = self._generations.next = Generation(
            number=self._number, config=path, digest=digests.of_config(text), count=count, requester=requester
        )
        try:
            for slot in range(count):
                self._fork(generation, slot, try_modes=try_modes and slot == 0)
        except GatewayError:
            # The caller replies.
            generation.requester = None
            worker_processes.carry_out(self._generations.give_up(generation))
            raise

    def _prepare(self, path: Path, text: bytes) -> int:
        """Write the generation's own copy of its configuration, and make room and listeners. Return its number of workers.

        Raises:
            GatewayError: the configuration cannot be used, or there is no room.
        """
        try:
            # A worker that must be replaced later starts with what was tried, whatever the file says by then.
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
            # No content of a file may end the parent.
            what = f"the new litellm.yaml cannot be used: {one_line(error)}"
            raise ConfigError(what, "run `io3ops render-config`") from error

    def _fork(self, generation: Generation, slot: int, *, try_modes: bool = False) -> None:
        index = self._generations.free_index()

        def run(channel: socket.socket) -> NoReturn:
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

        pid, channel = worker_processes.fork(run)
        worker = self._generations.add(generation, pid=pid, slot=slot, index=index, channel=channel)
        self._selector.register(channel, selectors.EVENT_READ, lambda: self._on_worker(generation, worker))

    def _leave_parent(self) -> None:
        """Close and reset, in the child, what belongs to the parent."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]  # only sockets are registered
        self._selector.close()
        self._wake.close()
        for generation in self._generations.all():
            if generation.requester is not None:
                generation.requester.close()

    def _ready(self, generation: Generation, worker: Worker) -> None:
        previous = self._generations.current
        worker_processes.carry_out(self._generations.ready(generation, worker))
        if previous is not None and self._generations.current is not previous:
            worker_processes.log(
                f"generation {generation.number} serves; generation {previous.number} finishes its requests"
            )

    def _failed(self, generation: Generation, error: GatewayError, code: int) -> None:
        if self._generations.current is None:
            error.exit_code = code
            raise error
        # A replacement that fails to start is not reported: `_reap` sees it end and decides.
        if generation is self._generations.next:
            requester, generation.requester = generation.requester, None
            self._reject(error, requester)
            worker_processes.carry_out(self._generations.give_up(generation))

    def _reject(self, error: GatewayError | OSError, requester: socket.socket | None) -> None:
        """Report, to the log and the requester, that a new configuration does not take over."""
        worker_processes.log(f"the new configuration is rejected: {error}; the current one keeps serving")
        if requester is not None:
            refuse(requester, str(getattr(error, "what", error)), str(getattr(error, "hint", "")))

    def _settle(self) -> None:
        """Clear away generations without workers, and reply to the requester of each change that is complete. Runs after every event."""
        over = self._generations.over()
        for generation in over:
            generation.config.unlink(missing_ok=True)
        for generation in [*over, *self._generations.changed()]:
            requester, generation.requester = generation.requester, None
            if requester is not None:
                reply(requester, self._generations.status())

    def _reap(self) -> None:
        """Remove every child that has ended, and replace one that was serving."""
        for pid, reason in worker_processes.ended():
            for generation in self._generations.all():
                for worker in [w for w in generation.workers if w.pid == pid]:
                    generation.workers.remove(worker)
                    self._ended(generation, worker, reason)

    def _ended(self, generation: Generation, worker: Worker, reason: str) -> None:
        self.forget(worker.index)
        if worker.channel.fileno() in self._selector.get_map():
            # Its last event may still be unread.
            self._on_worker(generation, worker)
        if worker.channel.fileno() in self._selector.get_map():
            self._selector.unregister(worker.channel)
        worker.channel.close()
        if self._generations.stopping < math.inf or worker.state in (State.LEAVING, State.FINISHING):
            return
        if generation is self._generations.next:
            self._failed(generation, StartError(f"a worker {reason} while it started", HINT), 70)
        elif generation is self._generations.current:
            if not self._generations.may_replace(worker):
                raise StartError(f"workers end again and again: the last one {reason}", HINT)
            worker_processes.log(f"worker {worker.pid} {reason}; another takes its place")
            self._fork(generation, worker.slot)
