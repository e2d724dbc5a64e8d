"""One forked worker: LiteLLM's start with one configuration, the warm-up, and then serving until the parent tells it to leave.

It reports `ready` or why it failed, and accepts connections only after the parent's `go`. `drain`: another generation serves now, so finish
the open connections. `stop`: the container ends. Touches its listening sockets, its channel to the parent, and this process.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import uvicorn

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.edge.app import Edge
from io3ops_gateway.errors import GatewayError, StartError, one_line
from io3ops_gateway.litellm_proxy.loaded import HINT, LoadedProxy
from io3ops_gateway.server import mode_checks, warmup
from io3ops_gateway.server.http_protocol import ConnectionState, LimitedHttp
from io3ops_gateway.server.rollout import Job

# Longer than clients keep an idle connection: the client must close first, or its next request crosses the server's close.
KEEP_ALIVE_SECONDS = 75
# For an idle connection of a worker that leaves. A request within this time is served, and its response closes the connection.
IDLE_SECONDS = 5
# How much longer than any mode's total time a leaving worker serves: a stream that began in time may be long.
GRACE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Service:
    """What a worker serves: the edge, and the LiteLLM inside it."""

    edge: Edge
    proxy: LoadedProxy


def main(job: Job, build: Callable[[Job], Service], stop_seconds: float, when_ready: Callable[[], None]) -> NoReturn:
    """Run one worker; the process ends with it. `when_ready` is called once, before the first request of a client."""
    code = 0
    server: Server | None = None
    try:
        os.environ["CONFIG_FILE_PATH"] = str(job.config)
        service = build(job)
        server = Server(service, job, stop_seconds, when_ready)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=list(job.listeners)))
        service.edge.close()
    except SystemExit:
        # uvicorn exits this way when the app's start fails.
        failure = server.app.failure if server is not None else None
        code = _report(job, failure or StartError("LiteLLM did not start", HINT))
    except GatewayError as error:
        code = _report(job, error)
    except BaseException as error:  # noqa: BLE001  the parent must learn why a worker ends, whatever the reason
        code = _report(job, StartError(f"a worker failed: {one_line(error)}", HINT))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `sys.exit`: LiteLLM's threads and exit handlers would wait, and add lines of their own.
    os._exit(code)


def _report(job: Job, error: GatewayError) -> int:
    """Tell the parent why this worker failed. Return the exit code."""
    event = {"event": "failed", "what": error.what, "hint": error.hint, "code": error.exit_code}
    try:
        job.channel.setblocking(True)
        job.channel.sendall(json.dumps(event).encode() + b"\n")
    except OSError:
        # The parent has ended.
        pass
    return error.exit_code


class WorkerApp:
    """The edge as uvicorn serves it. Its start is complete only when LiteLLM holds what the file says, is warm, and the parent says `go`."""

    def __init__(
        self,
        service: Service,
        when_ready: Callable[[], None],
        wait_for_go: Callable[[], Awaitable[None]],
        *,
        try_modes: bool,
    ) -> None:
        self.failure: GatewayError | None = None
        self._edge = service.edge
        self._proxy = service.proxy
        self._when_ready = when_ready
        self._wait_for_go = wait_for_go
        self._try_modes = try_modes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._edge(scope, receive, send)
            return

        async def send_checked(message: Message) -> None:
            try:
                if message["type"] == "lifespan.startup.failed":
                    lines = str(message.get("message", "")).strip().splitlines()
                    raise StartError(f"LiteLLM did not start: {lines[-1] if lines else 'no reason given'}", HINT)
                if message["type"] == "lifespan.startup.complete":
                    await self._complete_start()
            except GatewayError as error:
                self.failure = error
                message = {"type": "lifespan.startup.failed"}
                # uvicorn's own line would only repeat that the start failed.
                logging.getLogger("uvicorn.error").disabled = True
            await send(message)

        await self._edge(scope, receive, send_checked)

    async def _complete_start(self) -> None:
        self._proxy.finish_start()
        await warmup.warm_up(self._edge)
        await warmup.warm_providers(self._edge)
        if self._try_modes:
            await mode_checks.check_modes(self._edge)
        self._when_ready()
        # Freeze start-up objects so that the garbage collector scans only new ones; it runs less often, because few cycles are made.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 100)
        await self._wait_for_go()


class Server(uvicorn.Server):
    """uvicorn's server, which obeys the parent instead of signals and can leave in good order."""

    server_state: ConnectionState

    def __init__(self, service: Service, job: Job, stop_seconds: float, when_ready: Callable[[], None]) -> None:
        self.app = WorkerApp(service, when_ready, self.wait_for_go, try_modes=job.try_modes)
        config = uvicorn.Config(
            self.app,
            loop="uvloop",
            http=LimitedHttp,
            # Nothing is served over websockets, and their handshake has no limits.
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            # At the end: for requests that were told that no time is left.
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self.server_state = ConnectionState()
        # uvicorn sets it in `startup`; the parent may say `stop` before.
        self.servers = []
        self._edge = service.edge
        self._channel = job.channel
        self._stop_seconds = stop_seconds
        # When this worker must have left, by `time.monotonic`; None while it serves.
        self._deadline: float | None = None
        self._unread = b""
        self._go = asyncio.Event()

    async def wait_for_go(self) -> None:
        """Report that all is ready, and wait until the parent wants this worker to serve."""
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._read_commands)
        self._channel.send(b'{"event": "ready"}\n')
        await self._go.wait()

    def _read_commands(self) -> None:
        try:
            part = self._channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            # The parent has ended.
            asyncio.get_running_loop().remove_reader(self._channel)
            self._obey(b"stop")
        *commands, self._unread = (self._unread + part).split(b"\n")
        for command in commands:
            self._obey(command)

    def _obey(self, command: bytes) -> None:
        if command not in (b"go", b"drain", b"stop"):
            return
        # Also a worker that must leave completes its start, so that it can end in good order.
        self._go.set()
        if command == b"stop":
            self.leave(self._stop_seconds, idle=0)
        elif command == b"drain":
            self.leave(self._edge.longest + GRACE_SECONDS, idle=IDLE_SECONDS)
            # Never blocks: a worker sends only a few lines in its life.
            self._channel.send(b'{"event": "left"}\n')

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals are the parent's, and its orders come over the channel. But Ctrl-C in a terminal reaches every process.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self.leave(self._stop_seconds, idle=0))
        yield

    def leave(self, seconds: float, *, idle: int) -> None:
        """Accept no connection any more, and finish the open ones within `seconds`; an idle one is closed after `idle` seconds."""
        deadline = time.monotonic() + seconds
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        self.server_state.leaving = True
        self._close_listeners()
        for connection in list(self.server_state.connections):
            # Every connection is one: `http=LimitedHttp`, and no websockets.
            assert isinstance(connection, LimitedHttp)
            connection.leave(idle)

    def _close_listeners(self) -> None:
        for server in self.servers:
            server.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.server_state.leaving:
            # It was told to leave before there were listeners to close.
            self._close_listeners()

    async def on_tick(self, counter: int) -> bool:
        await super().on_tick(counter)
        if self._deadline is None:
            return False
        idle = not self.server_state.connections and not self.server_state.tasks
        return idle or time.monotonic() > self._deadline

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._edge.end()
        await super().shutdown(sockets)
