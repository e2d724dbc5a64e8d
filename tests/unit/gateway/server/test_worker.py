"""A worker on uvicorn's real server and lifespan: when its start is complete, how a failure reads, how it leaves."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import time
import types
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.server.wire import Wire

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.errors import ConfigError, StartError
from io3ops_gateway.server import mode_checks, warmup, worker
from io3ops_gateway.server.http_protocol import LimitedHttp
from io3ops_gateway.server.rollout import Job
from io3ops_gateway.server.worker import Server, Service, WorkerApp

STARTED = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}
READY = {"event": "ready"}


class Edge:
    """The edge around LiteLLM's app, as far as a worker sees it. `answers`: LiteLLM's to its lifespan."""

    longest = 600.0

    def __init__(self, *answers: Message) -> None:
        self.answers = answers or (STARTED, STOPPED)
        self.scopes: list[str] = []
        self.ended = self.closed = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scopes.append(scope["type"])
        for answer in self.answers:
            await receive()
            await send(answer)

    def end(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True


class Proxy:
    """`loaded.LoadedProxy`; `fails`: LiteLLM did not take over what the file says."""

    def __init__(self, steps: list[str], fails: str = "") -> None:
        self.steps = steps
        self.fails = fails

    def finish_start(self) -> None:
        self.steps.append("LiteLLM checked")
        if self.fails:
            raise StartError(self.fails, "mend it")


def a_service(edge: Any, proxy: Any) -> Service:
    return Service(edge, proxy)


def a_job(channel: Any, *, try_modes: bool = False) -> Job:
    return Job(
        generation=1, index=0, config=Path("/c.yaml"), digest="d", listeners=(), channel=channel, try_modes=try_modes
    )


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a start has done, in order. The process keeps its garbage collector and its logger as they are."""
    done: list[str] = []

    async def warm_up(_edge: Any) -> None:
        done.append("warm")

    async def warm_providers(_edge: Any) -> None:
        done.append("providers warm")

    async def try_modes(_edge: Any) -> None:
        done.append("modes tried")

    monkeypatch.setattr(warmup, "warm_up", warm_up)
    monkeypatch.setattr(warmup, "warm_providers", warm_providers)
    monkeypatch.setattr(mode_checks, "check_modes", try_modes)
    for name in ("collect", "freeze", "set_threshold"):
        monkeypatch.setattr(gc, name, lambda *_: None)
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "disabled", False)
    return done


# -- the process


class Ended(Exception):
    """The process would have ended."""


class Process:
    """A worker's `main`, run to the end of its process. `parent`: the parent's end of its channel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: list[str]) -> None:
        self.steps = steps
        self.parent, self.channel = socket.socketpair()
        self.environment: dict[str, str] = {}
        monkeypatch.setattr(os, "environ", self.environment)

        def leave(code: int) -> None:
            raise Ended(code)

        monkeypatch.setattr(os, "_exit", leave)

    def run(self, build: Callable[[Job], Any], *commands: bytes, try_modes: bool = False) -> tuple[int, list[Any]]:
        """Return (its exit code, what it told the parent). `commands`: the parent's, sent before the worker listens."""
        self.parent.sendall(b"".join(commands))
        with pytest.raises(Ended) as caught:
            worker.main(a_job(self.channel, try_modes=try_modes), build, 4, lambda: self.steps.append("log redacted"))
        self.channel.close()
        told = b""
        while part := self.parent.recv(4096):
            told += part
        return caught.value.args[0], [json.loads(line) for line in told.splitlines()]


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch, steps: list[str]) -> Iterator[Process]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    made = Process(monkeypatch, steps)
    yield made
    made.parent.close()
    made.channel.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_worker_serves_when_it_is_warm_and_the_parent_says_go(process: Process) -> None:
    """The log is redacted before the first request of a client; at the end the request log is written out."""
    edge = Edge()
    code, told = process.run(lambda _job: a_service(edge, Proxy(process.steps)), b"go\n", b"stop\n")
    assert (code, told) == (0, [READY])
    assert process.steps == ["LiteLLM checked", "warm", "providers warm", "log redacted"]
    assert edge.scopes == ["lifespan"] and edge.ended and edge.closed
    assert process.environment["CONFIG_FILE_PATH"] == "/c.yaml", "LiteLLM reads its own generation's file"


def test_modes_are_tried_before_the_worker_is_ready(process: Process) -> None:
    process.run(lambda _job: a_service(Edge(), Proxy(process.steps)), b"stop\n", try_modes=True)
    assert process.steps == ["LiteLLM checked", "warm", "providers warm", "modes tried", "log redacted"]


@pytest.mark.parametrize("commands", [(b"stop\n",), (b"go\nstop\n",), (b"go\n", b"drain\n"), (b"g", b"o\ndrain\n")])
def test_a_worker_that_is_told_to_leave_while_it_starts_ends_in_good_order(
    process: Process, commands: tuple[bytes, ...]
) -> None:
    code, told = process.run(lambda _job: a_service(Edge(), Proxy(process.steps)), *commands)
    left = [{"event": "left"}] if b"drain\n" in b"".join(commands) else []
    assert (code, told) == (0, [READY, *left])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Traceback:\n  File x\nImportError: no\n", "LiteLLM did not start: ImportError: no"),
        ("", "LiteLLM did not start: no reason given"),
        ("\n", "LiteLLM did not start: no reason given"),
        (None, "LiteLLM did not start: no reason given"),
    ],
)
def test_litellms_failed_start_is_one_line(
    process: Process, caplog: pytest.LogCaptureFixture, message: str | None, reason: str
) -> None:
    """The last line of its traceback, told once: uvicorn's own line is not logged."""
    failed = {"type": "lifespan.startup.failed"} | ({} if message is None else {"message": message})
    code, told = process.run(lambda _job: a_service(Edge(failed), Proxy(process.steps)))
    assert code == 70 and [event["what"] for event in told] == [reason]
    assert "render-config" in told[0]["hint"] and process.steps == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_litellm_that_did_not_take_over_what_the_file_says_does_not_serve(process: Process) -> None:
    """It is not reported as ready, nor warmed up."""
    service = a_service(Edge(), Proxy(process.steps, fails="LiteLLM does not hold what the file says: near.1.a"))
    code, told = process.run(lambda _job: service)
    assert code == 70 and [event["what"] for event in told] == ["LiteLLM does not hold what the file says: near.1.a"]
    assert process.steps == ["LiteLLM checked"]


def test_an_app_that_fails_in_its_lifespan_is_a_failed_start_too(process: Process) -> None:
    class Broken(Edge):
        async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
            raise ValueError("no lifespan")

    code, told = process.run(lambda _job: a_service(Broken(), Proxy(process.steps)))
    assert code == 70 and [event["what"] for event in told] == ["LiteLLM did not start"]


def test_a_reason_of_ours_is_told_with_its_exit_code(process: Process) -> None:
    def build(_job: Job) -> Any:
        raise ConfigError("the policy is broken", "mend it")

    event = {"event": "failed", "what": "the policy is broken", "hint": "mend it", "code": 78}
    assert process.run(build) == (78, [event])


@pytest.mark.parametrize(("error", "reason"), [(ValueError("two\nlines"), "a worker failed: ValueError: two lines"), (SystemExit(1), "LiteLLM did not start")])  # fmt: skip
def test_an_unexpected_failure_is_one_line(process: Process, error: BaseException, reason: str) -> None:
    def build(_job: Job) -> Any:
        raise error

    code, told = process.run(build)
    assert code == 70 and [event["what"] for event in told] == [reason]


def test_a_worker_whose_parent_is_gone_ends_with_its_own_exit_code(process: Process) -> None:
    def build(_job: Job) -> Any:
        process.parent.close()
        raise ConfigError("the policy is broken", "mend it")

    with pytest.raises(Ended, match="78"):
        worker.main(a_job(process.channel), build, 4, lambda: None)


# -- the server


class Channel:
    """The worker's end of its channel. `words`: what the parent says next; `told`: what it was told."""

    def __init__(self) -> None:
        self.words: list[bytes | BaseException] = []
        self.told = b""

    def send(self, data: bytes) -> int:
        self.told += data
        return len(data)

    def recv(self, _size: int) -> bytes:
        word = self.words.pop(0) if self.words else b""
        if isinstance(word, BaseException):
            raise word
        return word


class Serving:
    """A worker's server, one connection to it, and its parent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.edge = Edge()
        self.channel = Channel()
        self.readers: list[Any] = [self.channel]
        self.server = Server(a_service(self.edge, Proxy([])), a_job(self.channel), 4, lambda: None)
        # Signals and time belong to the test.
        self.wire = Wire(self.server.server_state)
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(self.wire.loop, "remove_reader", self.readers.remove)

    def hear(self, *words: bytes | BaseException) -> None:
        """Let the parent say something."""

        async def read() -> None:
            self.server._read_commands()

        for word in words:
            self.channel.words = [word]
            self.run(read())
        self.wire.settle()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.wire.loop.run_until_complete(work)

    @property
    def goes(self) -> bool:
        """Whether the start may end."""
        return self.server._go.is_set()

    @property
    def ends(self) -> bool:
        """Whether the server would end now."""
        return bool(self.run(self.server.on_tick(1)))


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    made = Serving(monkeypatch)
    yield made
    made.wire.end()


def test_the_server_names_itself_to_nobody_and_logs_no_request(serving: Serving) -> None:
    config = serving.server.config
    assert isinstance(config.app, WorkerApp) and config.app is serving.server.app
    assert config.access_log is False and config.server_header is False and config.log_config is None
    assert config.lifespan == "on" and config.ws == "none" and config.http is LimitedHttp
    # A moment for requests that are told that no time is left.
    assert config.timeout_graceful_shutdown is not None and 0 < config.timeout_graceful_shutdown <= 2


def test_a_request_goes_to_the_edge_as_it_is() -> None:
    edge = Edge()
    scope: Message = {"type": "http"}

    async def never() -> None:
        raise AssertionError

    async def receive() -> Message:
        return {}

    async def send(_message: Message) -> None: ...

    app = WorkerApp(a_service(edge, Proxy([])), lambda: None, never, try_modes=False)
    asyncio.run(app(scope, receive, send))
    assert edge.scopes == ["http"]


def test_a_worker_waits_for_the_parents_word(serving: Serving) -> None:
    serving.hear(b"g")
    assert not serving.goes
    serving.hear(b"o\n")
    assert serving.goes and not serving.server.server_state.leaving and not serving.ends


@pytest.mark.parametrize("word", [BlockingIOError(), b"hello\n"], ids=["nothing yet", "unknown"])
def test_anything_but_a_known_word_changes_nothing(serving: Serving, word: bytes | BaseException) -> None:
    serving.hear(word)
    assert serving.readers and not serving.goes and not serving.server.server_state.leaving


def test_a_drained_worker_finishes_what_it_has(serving: Serving) -> None:
    """It may take as long as the longest mode, and a while longer; then it ends all the same."""
    serving.wire.app.may_respond.clear()
    serving.wire.receive(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    serving.hear(b"go\n", b"drain\n")
    assert serving.server.server_state.leaving and serving.wire.open
    assert serving.channel.told == b'{"event": "left"}\n', "the parent waits for that"
    serving.now += serving.edge.longest + worker.GRACE_SECONDS - 1
    assert not serving.ends
    serving.now += 2
    assert serving.ends


def test_a_worker_that_leaves_closes_idle_connections_soon(serving: Serving) -> None:
    serving.wire.receive(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    serving.hear(b"go\n", b"drain\n")
    serving.wire.wait(worker.IDLE_SECONDS - 1)
    assert serving.wire.open and not serving.ends
    serving.wire.wait(2)
    assert not serving.wire.open and serving.ends, "and ends with its last connection"


def test_a_worker_that_leaves_waits_for_a_request_whose_client_has_left(serving: Serving) -> None:
    serving.wire.app.may_respond.clear()
    serving.wire.receive(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    serving.hear(b"go\n", b"drain\n")
    serving.wire.lose()
    assert not serving.ends
    serving.wire.app.may_respond.set()
    serving.wire.settle()
    assert serving.ends


def test_the_end_of_the_container_shortens_a_drain_and_a_drain_never_prolongs_it(serving: Serving) -> None:
    serving.hear(b"go\n", b"drain\n", b"stop\n")
    assert not serving.wire.open, "an idle connection is closed at once"
    serving.server.server_state.tasks.add(serving.wire.loop.create_task(asyncio.sleep(1)))
    serving.hear(b"drain\n")
    assert not serving.ends
    serving.now += 4.1
    assert serving.ends


@pytest.mark.parametrize("end", [b"", ConnectionResetError(), OSError(9, os.strerror(9))])
def test_a_worker_without_a_parent_leaves(serving: Serving, end: bytes | Exception) -> None:
    serving.hear(end)
    assert not serving.readers, "and does not read an end again and again"
    assert serving.goes and serving.server.server_state.leaving and not serving.wire.open


@pytest.mark.parametrize("leaves_first", [True, False])
def test_a_worker_that_is_told_to_leave_accepts_no_connection_any_more(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, leaves_first: bool
) -> None:
    """Also when it hears before there are listeners to close: they are closed as soon as they are open."""
    closed: list[str] = []

    async def create_server(_protocol: Any, **_options: Any) -> Any:
        return types.SimpleNamespace(close=lambda: closed.append("closed"))

    async def started() -> None: ...

    lifespan: Any = types.SimpleNamespace(startup=started, should_exit=False, state={})
    serving.server.lifespan = lifespan
    monkeypatch.setattr(serving.wire.loop, "create_server", create_server)
    listeners: Any = ["a socket", "another"]
    if leaves_first:
        serving.hear(b"go\ndrain\n")
    serving.server.config.load()
    serving.run(serving.server.startup(listeners))
    assert serving.server.started
    if not leaves_first:
        assert closed == []
        serving.hear(b"go\ndrain\n")
    assert closed == ["closed", "closed"]


def test_clients_that_still_wait_are_told_before_their_connections_close(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_at_the_end: list[bool] = []
    monkeypatch.setattr(serving.edge, "end", lambda: open_at_the_end.append(serving.wire.open))

    async def shutdown() -> None: ...

    lifespan: Any = types.SimpleNamespace(shutdown=shutdown)
    serving.server.lifespan = lifespan
    closes = serving.wire.loop.create_task(serving.server.shutdown())
    serving.wire.settle()
    serving.wire.wait(1)
    assert closes.done() and open_at_the_end == [True] and not serving.wire.open


def test_ctrl_c_is_ignored_and_sigterm_leaves_the_worker_its_time(serving: Serving) -> None:
    """Ctrl-C in a terminal reaches every process of the container, and only the parent may act on it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with serving.server.capture_signals():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            handler = signal.getsignal(signal.SIGTERM)
            assert callable(handler)
            handler(signal.SIGTERM, None)
    finally:
        for number, action in before.items():
            signal.signal(number, action)
    assert serving.server.server_state.leaving
    serving.now += 4.1
    assert serving.ends and time.monotonic() == serving.now
