"""The first process: it has imported LiteLLM once, forks the workers, and replaces them without losing a connection.

Touches: its children, the listening sockets, the control socket, and a private copy of each generation's configuration in /tmp. It
serves no request and starts no thread, so that it can fork at any time.

A *generation* is all workers with one configuration. A new one starts, warms up and is tried while the old one serves; when all of
its workers are ready they begin to accept, and the old ones finish what they have. When one of them fails, the new one
ends and nothing else happens. The listening sockets are the parent's for life: connections that wait in their queues wait for
whoever serves next.
"""

import errno
import json
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from io3ops_gateway import inputs
from io3ops_gateway.errors import ConfigError, GatewayError, PortError, StartError

# A start that takes longer hangs: LiteLLM's takes a tenth of a second, a call to each mode's model some seconds.
START_SECONDS = 60.0
# A worker that ends this often in a row without ever having served for a while will not serve: the container starts anew.
LIVES, WHILE = 5, 10.0
# A worker that was told to leave says in a moment that it accepts nobody any more; whoever asked for the change waits for that.
LEAVE_SECONDS = 10.0
# A command's longest line: a rendered file of a thousand modes has three megabytes.
COMMAND_BYTES = 64_000_000
COMMAND_SECONDS = 10.0
# Columns of the meter; far more than workers of all generations that finish at the same time.
INDEXES = 64


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


@dataclass(kw_only=True, slots=True)
class Generation:
    """All workers with one configuration; `asker` waits for how its start ends."""

    number: int
    config: Path
    digest: str
    count: int
    asker: socket.socket | None = None
    workers: list[Worker] = field(default_factory=list)


def bind(host: str, port: int, *, shared: bool = True) -> socket.socket:
    """A bound socket that does not listen yet: until the gateway is ready, connections are refused.

    Raises:
        PortError: taken, not allowed, or not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if not shared:
            # Without this first try a second gateway would share the port with the first, unseen.
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        # One queue for each worker: a shared one would give a burst of connections to whoever wakes first.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        hint = "stop what listens there or set IO3_HOST and IO3_PORT"
        raise PortError(f"cannot listen on {host}:{port}: {error.strerror or error}", hint) from error
    return listener


class Supervisor:
    """`work` never returns: it is what a forked child does. `forget(index)`: that worker has ended. `count`: of workers, for a configuration;
    `room`: for how many of all generations there is memory."""

    def __init__(
        self,
        *,
        config: Path,
        control: Path,
        first: socket.socket,
        stop_seconds: float,
        work: Callable[[Job], NoReturn],
        count: Callable[[dict[str, Any]], int],
        forget: Callable[[int], None],
        room: int = INDEXES,
        folder: Path = Path("/tmp"),
    ) -> None:
        self._config = config
        self._control_path = control
        self._listeners = [first]
        self._stop_seconds = stop_seconds
        self._work = work
        self._count = count
        self._forget = forget
        self._room = min(room, INDEXES)
        self._folder = folder
        self._selector = selectors.DefaultSelector()
        self._current: Generation | None = None
        self._next: Generation | None = None
        self._old: list[Generation] = []
        self._asking: dict[socket.socket, tuple[float, bytearray]] = {}
        self._number = 0
        self._lives = LIVES
        self._stopping = 0.0
        self._signals, self._wake = socket.socketpair()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, and until every worker has ended after it.

        Raises:
            GatewayError: the first generation did not start, or its workers end again and again.
        """
        self._listen_to_signals()
        control = self._listen_to_commands()
        try:
            self._begin(self._config.read_bytes(), try_modes=False)
            while not (self._stopping and not self._workers()):
                for key, _ in self._selector.select(self._patience()):
                    # Another one of this round may have ended it.
                    if self._selector.get_map().get(key.fd) is key:
                        key.data()
                self._look_at_clock()
        except BaseException:
            for worker in self._workers():
                os.kill(worker.pid, signal.SIGKILL)
            raise
        finally:
            control.close()
            self._control_path.unlink(missing_ok=True)
            for generation in self._generations():
                generation.config.unlink(missing_ok=True)

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
            self._stop()
        if signal.SIGCHLD in found:
            self._reap()
        if signal.SIGHUP in found and not self._stopping:
            self._try_begin(self._config, None)

    def _listen_to_commands(self) -> socket.socket:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._control_path.unlink(missing_ok=True)
            control.bind(str(self._control_path))
        except OSError as error:
            what = f"the control socket {self._control_path} cannot be made: {error.strerror}"
            raise StartError(what, "give the container a writable /tmp") from error
        finally:
            os.umask(before)
        control.listen(8)
        control.setblocking(False)
        self._selector.register(control, selectors.EVENT_READ, lambda: self._on_asker(control))
        return control

    def _on_asker(self, control: socket.socket) -> None:
        try:
            asker, _ = control.accept()
        except OSError:
            return
        asker.setblocking(False)
        self._asking[asker] = (time.monotonic() + COMMAND_SECONDS, bytearray())
        self._selector.register(asker, selectors.EVENT_READ, lambda: self._on_command(asker))

    def _on_command(self, asker: socket.socket) -> None:
        heard = self._asking[asker][1]
        try:
            part = asker.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        heard += part
        if not part or len(heard) > COMMAND_BYTES:
            self._hang_up(asker)
        elif heard.endswith(b"\n"):
            self._selector.unregister(asker)
            del self._asking[asker]
            self._obey(asker, bytes(heard))

    def _obey(self, asker: socket.socket, line: bytes) -> None:
        try:
            asked = json.loads(line)
            command = asked["command"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return _reply(asker, {"ok": False, "what": "this is no command", "hint": ""})
        if command == "status":
            _reply(asker, {"ok": True, **self._status()})
        elif command == "reload":
            self._try_begin(asked.get("config"), asker, try_modes=asked.get("try_modes") is True)
        else:
            _reply(asker, {"ok": False, "what": f"there is no command {command!r}", "hint": "reload or status"})

    def _hang_up(self, asker: socket.socket) -> None:
        self._selector.unregister(asker)
        del self._asking[asker]
        asker.close()

    def _on_worker(self, generation: Generation, worker: Worker) -> None:
        try:
            part = worker.channel.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            # It has ended, or will: what is to be done then is done when the kernel says so.
            self._selector.unregister(worker.channel)
            return
        *lines, worker.heard = (worker.heard + part).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if said["event"] == "ready":
                self._ready(generation, worker)
            elif said["event"] == "left":
                self._left(worker)
            else:
                self._failed(generation, GatewayError(said["what"], said["hint"]), said["code"])

    # Generations.

    def _try_begin(self, config: object, asker: socket.socket | None, *, try_modes: bool = False) -> None:
        try:
            if self._stopping or self._next is not None:
                raise StartError("another change is under way", "try again in a moment")
            # What is no text stays none: the parser says so.
            text = (
                config.read_bytes() if isinstance(config, Path) else str(config or "").encode("utf-8", "surrogatepass")
            )
            self._begin(text, try_modes=try_modes, asker=asker)
        except (GatewayError, OSError) as error:
            _tell(f"the new configuration is not taken: {error}; the gateway serves on")
            if asker is not None:
                _reply(asker, {"ok": False, "what": str(getattr(error, "what", error)), "hint": _hint(error)})

    def _begin(self, text: bytes, *, try_modes: bool, asker: socket.socket | None = None) -> None:
        self._number += 1
        # Its own copy: a worker that must be replaced later starts with what was tried, not with what is on the disk by then.
        path = self._folder / f"io3ops-generation-{self._number}.yaml"
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(text)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise ConfigError(f"{path} cannot be written: {error.strerror}", "give /tmp more space") from error
        try:
            count = self._count(inputs.parse_config(text, "the new litellm.yaml"))
            if len(self._workers()) + count > max(self._room, 2 * count):
                # One more would have the kernel end one that serves.
                what = "workers before this one still finish their requests, and there is memory for no more"
                raise StartError(what, "apply again when those answers are complete")
            while len(self._listeners) < count:
                host, port = self._listeners[0].getsockname()[:2]
                self._listeners.append(bind(host, port))
        except Exception as error:
            path.unlink(missing_ok=True)
            if isinstance(error, GatewayError):
                raise
            # Whatever stands in a file, the parent lives on.
            what = f"the new litellm.yaml cannot be used: {' '.join(f'{type(error).__name__}: {error}'.split())}"
            raise ConfigError(what, "run `io3ops render-config`") from error
        generation = self._next = Generation(
            number=self._number, config=path, digest=inputs.digest(text), count=count, asker=asker
        )
        try:
            for slot in range(count):
                self._fork(generation, slot, try_modes=try_modes and slot == 0)
        except GatewayError:
            # Whoever asked is told by the caller.
            generation.asker = None
            self._abandon(generation)
            raise

    def _fork(self, generation: Generation, slot: int, *, try_modes: bool = False) -> None:
        used = {worker.index for worker in self._workers()}
        index = next((i for i in range(INDEXES) if i not in used), None)
        if index is None:
            raise StartError("too many workers still finish their requests", "try again in a moment")
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            ours, theirs = socket.socketpair()
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                theirs.close()
                raise
        except OSError as error:
            raise StartError(f"a worker cannot be started: {error.strerror}", "try again in a moment") from error
        if not pid:
            try:
                self._leave_parent(ours)
                job = Job(
                    generation=generation.number,
                    index=index,
                    config=generation.config,
                    digest=generation.digest,
                    listeners=tuple(self._listeners[slot :: generation.count]),
                    channel=theirs,
                    try_modes=try_modes,
                )
                self._work(job)
            except BaseException as error:
                _tell(f"a worker failed: {' '.join(f'{type(error).__name__}: {error}'.split())}")
            finally:
                # Whatever happens there, a child must never come back into the parent's loop.
                os._exit(70)
        theirs.close()
        ours.setblocking(False)
        now = time.monotonic()
        worker = Worker(pid=pid, slot=slot, index=index, channel=ours, born=now, deadline=now + START_SECONDS)
        generation.workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_worker(generation, worker))

    def _leave_parent(self, ours: socket.socket) -> None:
        """In the child: what is the parent's alone."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
        ours.close()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._wake.close()
        for generation in self._generations():
            if generation.asker is not None:
                generation.asker.close()

    def _ready(self, generation: Generation, worker: Worker) -> None:
        worker.deadline = math.inf
        if worker.state != "starting":
            return
        worker.state = "ready"
        if generation is self._current:
            self._go(worker)
        elif generation is self._next and all(w.state == "ready" for w in generation.workers):
            self._switch(generation)

    def _switch(self, generation: Generation) -> None:
        """All of them are ready: they take over, and those before finish what they have."""
        before, self._current, self._next = self._current, generation, None
        for worker in generation.workers:
            self._go(worker)
        if before is not None:
            self._old.append(before)
            for worker in before.workers:
                self._leave(worker, b"drain\n")
            self._let_go(before)
            _tell(f"generation {generation.number} serves; generation {before.number} finishes its requests")
        self._report()

    def _left(self, worker: Worker) -> None:
        worker.state, worker.deadline = "finishing", math.inf
        self._report()

    def _report(self) -> None:
        """Tell whoever asked for a change that it is made: no new connection meets the configuration before."""
        if any(w.state == "leaving" for g in self._old for w in g.workers):
            return
        for generation in self._generations():
            if generation is not self._next:
                self._answer(generation, {"ok": True, **self._status()})

    def _go(self, worker: Worker) -> None:
        worker.state = "serving"
        _say(worker, b"go\n")

    def _leave(self, worker: Worker, word: bytes) -> None:
        """Have a worker leave; one that does not serve yet has nothing to finish."""
        if worker.state in ("starting", "ready"):
            self._kill(worker)
        else:
            worker.state, worker.deadline = "leaving", time.monotonic() + LEAVE_SECONDS
            _say(worker, word)

    def _kill(self, worker: Worker) -> None:
        worker.state, worker.deadline = "leaving", math.inf
        os.kill(worker.pid, signal.SIGKILL)

    def _failed(self, generation: Generation, error: GatewayError, code: int) -> None:
        if self._current is None:
            error.exit_code = code
            raise error
        if generation is not self._next:
            # A replacement for a worker that had ended; `_reap` sees it end and decides.
            return
        _tell(f"the new configuration is not taken: {error}; the gateway serves on")
        self._answer(generation, {"ok": False, "what": error.what, "hint": error.hint})
        self._abandon(generation)

    def _abandon(self, generation: Generation) -> None:
        """End a generation that never served."""
        self._next = None
        self._old.append(generation)
        for worker in generation.workers:
            self._kill(worker)
        self._let_go(generation)

    def _let_go(self, generation: Generation) -> None:
        """Forget a generation whose last worker has ended."""
        if generation in self._old and not generation.workers:
            self._old.remove(generation)
            generation.config.unlink(missing_ok=True)
            self._answer(generation, {"ok": True, **self._status()})

    def _answer(self, generation: Generation, said: dict[str, Any]) -> None:
        asker, generation.asker = generation.asker, None
        if asker is not None:
            _reply(asker, said)

    def _reap(self) -> None:
        """Every child that has ended: forget it, and give its place to another if it was serving."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for generation in self._generations():
                for worker in [w for w in generation.workers if w.pid == pid]:
                    generation.workers.remove(worker)
                    self._ended(generation, worker, status)

    def _ended(self, generation: Generation, worker: Worker, status: int) -> None:
        self._forget(worker.index)
        if worker.channel.fileno() in self._selector.get_map():
            # What it said last may not have been read yet.
            self._on_worker(generation, worker)
        if worker.channel.fileno() in self._selector.get_map():
            self._selector.unregister(worker.channel)
        worker.channel.close()
        self._let_go(generation)
        self._report()
        if self._stopping or worker.state in ("leaving", "finishing"):
            return
        why = _why(status)
        if generation is self._next:
            self._failed(
                generation, StartError(f"a worker {why} while it started", "`io3ops logs gateway` shows more"), 70
            )
        elif generation is self._current:
            self._replace(generation, worker, why)

    def _replace(self, generation: Generation, worker: Worker, why: str) -> None:
        served = worker.state == "serving" and time.monotonic() - worker.born > WHILE
        self._lives = LIVES if served else self._lives - 1
        if not self._lives:
            raise StartError(f"workers end again and again: the last one {why}", "`io3ops logs gateway` shows more")
        _tell(f"worker {worker.pid} {why}; another takes its place")
        self._fork(generation, worker.slot)

    # Time.

    def _patience(self) -> float | None:
        ends = [when for when, _ in self._asking.values()]
        ends += [worker.deadline for worker in self._workers() if worker.deadline < math.inf]
        ends += [self._stopping] if self._stopping else []
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        for asker in [asker for asker, (when, _) in self._asking.items() if when <= now]:
            self._hang_up(asker)
        for generation in self._generations():
            if any(worker.deadline <= now for worker in generation.workers):
                self._late(generation, now)
        if self._stopping and self._stopping <= now:
            for worker in self._workers():
                os.kill(worker.pid, signal.SIGKILL)
            self._stopping = now + 5

    def _late(self, generation: Generation, now: float) -> None:
        if generation is self._next:
            what = f"it was not ready within {START_SECONDS:g} s"
            return self._failed(generation, StartError(what, "`io3ops logs gateway` shows more"), 70)
        for worker in generation.workers:
            if worker.deadline <= now and worker.state == "leaving":
                # It is busy; it will leave.
                self._left(worker)
            elif worker.deadline <= now:
                # One that took another's place: when its end is noticed, the next one does.
                worker.deadline = math.inf
                os.kill(worker.pid, signal.SIGKILL)

    def _stop(self) -> None:
        if not self._stopping:
            # The workers keep to the time themselves; this is for one that hangs.
            self._stopping = time.monotonic() + self._stop_seconds + 1
            for worker in self._workers():
                self._leave(worker, b"stop\n")

    def _generations(self) -> list[Generation]:
        return [*self._old, *(g for g in (self._current, self._next) if g is not None)]

    def _workers(self) -> list[Worker]:
        return [worker for generation in self._generations() for worker in generation.workers]

    def _status(self) -> dict[str, Any]:
        now = time.monotonic()
        return {
            "generation": self._current.number if self._current else 0,
            "config": self._current.digest if self._current else "",
            "workers": [
                {
                    "generation": g.number,
                    "slot": w.slot,
                    "pid": w.pid,
                    "state": w.state,
                    "seconds": round(now - w.born, 1),
                }
                for g in self._generations()
                for w in g.workers
            ],
        }


def _why(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        # Not each of them has a name.
        return f"was ended by signal {signal.strsignal(number) or number}"
    return f"ended with exit code {os.waitstatus_to_exitcode(status)}"


def _hint(error: Exception) -> str:
    return str(getattr(error, "hint", ""))


def _say(worker: Worker, word: bytes) -> None:
    try:
        worker.channel.send(word)
    except OSError as error:
        # It has ended; the kernel tells in a moment.
        if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF):
            raise


def _reply(asker: socket.socket, said: dict[str, Any]) -> None:
    try:
        asker.settimeout(1)
        asker.sendall(json.dumps(said).encode() + b"\n")
    except OSError:
        # Whoever asked has left.
        pass
    finally:
        asker.close()


def _tell(line: str) -> None:
    print(f"gateway: {line}", file=sys.stderr, flush=True)
