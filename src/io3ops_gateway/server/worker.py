"""What a forked child does: LiteLLM's start with one configuration, a rehearsal, and then serving until it is told to leave.

Touches its listening sockets, its channel to the parent, and this process. It says `ready` or why not, and accepts connections only after
the parent's `go`. `drain`: another generation serves now; whoever is connected is served to the end. `stop`: the container ends.
"""

import asyncio
import gc
import importlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import uvicorn

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.edge.app import Edge
from io3ops_gateway.errors import GatewayError, StartError, one_line
from io3ops_gateway.litellm_proxy import trim
from io3ops_gateway.server import warmup
from io3ops_gateway.server.http_protocol import LimitedHttp
from io3ops_gateway.server.rollout import Job

# Longer than clients keep a connection: whoever closes first must be the client, or a request crosses the close.
KEEP_ALIVE_SECONDS = 75
# In a generation that is leaving: the next request closes the connection in good order; who has none is not waited for.
IDLE_SECONDS = 5
# Beyond the longest total time that a mode gives a request until its answer begins: an answer may be long.
GRACE_SECONDS = 3600.0
HINT = "correct runtime/routing.yaml and run `io3ops render-config`"


def main(job: Job, build: Callable[[Job], Edge], stop_seconds: float, when_ready: Callable[[], None]) -> NoReturn:
    """Run one worker; the process ends with it. `build`: makes the edge; `when_ready`: called once before the first request."""
    code = 0
    try:
        os.environ["IO3_CONFIG"] = os.environ["CONFIG_FILE_PATH"] = str(job.config)
        edge = build(job)
        start = Start(edge, job, when_ready)
        server = Server(start, stop_seconds)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=list(job.listeners)))
        edge.close()
    except SystemExit:
        # uvicorn leaves this way when the app's start fails; the reason is in what we watched.
        code = _tell(job, start.failure or StartError("LiteLLM did not start", HINT))
    except GatewayError as error:
        code = _tell(job, error)
    except BaseException as error:
        code = _tell(job, StartError(f"a worker failed: {one_line(error)}", HINT))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `sys.exit`: LiteLLM's threads and exit handlers would wait, and add lines of their own.
    os._exit(code)


def _tell(job: Job, error: GatewayError) -> int:
    said = {"event": "failed", "what": error.what, "hint": error.hint, "code": error.exit_code}
    try:
        job.channel.setblocking(True)
        job.channel.sendall(json.dumps(said).encode() + b"\n")
    except OSError:
        # Nobody is left to be told.
        pass
    return error.exit_code


class Start:
    """The edge, whose start is over only when LiteLLM holds what the file says, has been rehearsed, and the parent says go."""

    def __init__(self, edge: Edge, job: Job, when_ready: Callable[[], None]) -> None:
        self.edge = edge
        self.job = job
        self.failure: GatewayError | None = None
        self.server: Server | None = None
        self._when_ready = when_ready

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.edge(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            try:
                if message["type"] == "lifespan.startup.failed":
                    lines = str(message.get("message", "")).strip().splitlines()
                    raise StartError(f"LiteLLM did not start: {lines[-1] if lines else 'no reason given'}", HINT)
                if message["type"] == "lifespan.startup.complete":
                    await self._complete()
            except GatewayError as error:
                self.failure = error
                message = {"type": "lifespan.startup.failed"}
                # Its own line after ours says nothing new.
                logging.getLogger("uvicorn.error").disabled = True
            await send(message)

        await self.edge(scope, receive, watched)

    async def _complete(self) -> None:
        trim.after(sys.modules["io3ops_gateway.litellm_proxy.hooks"].policy)
        check_held(self.edge)
        await warmup.warm_up(self.edge)
        await warmup.warm_providers(self.edge)
        if self.job.try_modes:
            await warmup.try_modes(self.edge)
        self._when_ready()
        # What lives now lives for ever; collections look at what comes, and less often than for a program that makes cycles.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 100)
        assert self.server is not None
        await self.server.wait_for_go(self.job)


def check_held(edge: Edge) -> None:
    """LiteLLM will call the policy, and routes what the file says: it drops what it cannot read without a word.

    Raises:
        StartError: it does not.
    """
    hooks = sys.modules["io3ops_gateway.litellm_proxy.hooks"].policy
    if not any(callback is hooks for callback in sys.modules["litellm"].callbacks):
        raise StartError("LiteLLM has not taken the policy's hooks over", HINT)
    router = sys.modules["litellm.proxy.proxy_server"].llm_router
    held: dict[str, set[str]] = {}
    for entry in (router.get_model_list() or ()) if router is not None else ():
        held.setdefault(entry["model_name"], set()).add(entry["model_info"]["id"])
    planned = {group: set(ids) for group, ids in edge.policy.members.items()}
    if held != planned:
        missing = sorted(set[str]().union(*planned.values()) - set[str]().union(*held.values()))
        raise StartError(f"LiteLLM does not hold what the file says: {', '.join(missing) or 'the groups differ'}", HINT)


class Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn's server, which can leave in good order."""

    def __init__(self, start: Start, stop_seconds: float) -> None:
        config = uvicorn.Config(
            start,
            loop="uvloop",
            http=LimitedHttp,
            # Nothing is served over websockets, and their handshake has limits of its own: none.
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            # At the end: whoever was told that there is no time left.
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self._edge = start.edge
        self._stop_seconds = stop_seconds
        self._until = 0.0
        self._heard = b""
        self._go = asyncio.Event()
        self.server_state.leaving = False
        start.server = self

    async def wait_for_go(self, job: Job) -> None:
        """Say that all is ready, and wait until the parent wants this worker to serve."""
        job.channel.setblocking(False)
        asyncio.get_running_loop().add_reader(job.channel, self._on_word, job)
        job.channel.send(b'{"event": "ready"}\n')
        await self._go.wait()

    def _on_word(self, job: Job) -> None:
        try:
            part = job.channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            # The parent has ended, and with it whoever could be told anything.
            asyncio.get_running_loop().remove_reader(job.channel)
            self.leave(self._stop_seconds, idle=0)
            self._go.set()
        *words, self._heard = (self._heard + part).split(b"\n")
        for word in words:
            if word == b"go":
                self._go.set()
            elif word == b"drain":
                self.leave(self._edge.longest + GRACE_SECONDS, idle=IDLE_SECONDS)
                self._go.set()
                # Room for a line is always there: hardly anything is ever said.
                job.channel.send(b'{"event": "left"}\n')
            elif word == b"stop":
                self.leave(self._stop_seconds, idle=0)
                self._go.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The parent has the signals; what it wants comes over the channel. Ctrl-C in a terminal reaches every process.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self.leave(self._stop_seconds, idle=0))
        yield

    def leave(self, seconds: float, *, idle: float) -> None:
        """Accept nothing more, serve who is connected to the end, for `seconds` at most; close who asks nothing after `idle`."""
        until = time.monotonic() + seconds
        self._until = min(self._until, until) if self._until else until
        self.server_state.leaving = True
        for server in getattr(self, "servers", ()):
            server.close()
        for connection in list(self.server_state.connections):
            connection.leave(idle)

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        if self.server_state.leaving:
            # It was told to leave before it had opened what it would have had to close.
            for server in self.servers:
                server.close()

    async def on_tick(self, counter: int) -> bool:
        await super().on_tick(counter)
        if not self._until:
            return False
        done = not self.server_state.connections and not self.server_state.tasks
        return done or time.monotonic() > self._until

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        self._edge.end()
        await super().shutdown(sockets)


def build_edge(job: Job, make: Callable[..., Edge]) -> Edge:
    """The edge around LiteLLM's app, with the policy of the job's configuration.

    Raises:
        ConfigError: the policy cannot be read.
        StartError: LiteLLM or the hooks cannot be imported, so the image is broken.
    """
    try:
        # Read as the plugin is imported: only now, because each generation has its own.
        hooks = importlib.import_module("io3ops_gateway.litellm_proxy.hooks").policy
        return make(importlib.import_module("litellm.proxy.proxy_server").app, hooks, job)
    except GatewayError:
        raise
    except Exception as error:
        what = f"LiteLLM cannot be imported: {one_line(error)}"
        raise StartError(what, "build the gateway image again") from error
