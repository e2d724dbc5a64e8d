"""A worker without uvicorn and LiteLLM: when its start is over, how a failure reads, how it is told to leave."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.errors import ConfigError, StartError
from io3ops_gateway.server.rollout import Job

COMPLETE = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


class Channel:
    """The worker's end of its channel. `words`: what the parent says next; `said`: what it heard."""

    def __init__(self, *words: bytes | BaseException) -> None:
        self.words = list(words)
        self.said = b""
        self.broken = False

    def setblocking(self, _flag: bool) -> None:
        return

    def send(self, data: bytes) -> int:
        if self.broken:
            raise BrokenPipeError
        self.said += data
        return len(data)

    sendall = send

    def recv(self, _size: int) -> bytes:
        word = self.words.pop(0) if self.words else b""
        if isinstance(word, BaseException):
            raise word
        return word

    def heard(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.said.splitlines()]


def a_job(channel: Any, *, try_modes: bool = False) -> Job:
    return Job(
        generation=1, index=0, config=Path("/c.yaml"), digest="d", listeners=(), channel=channel, try_modes=try_modes
    )


class Edge:
    """LiteLLM's app inside its edge, as far as the start sees it."""

    longest = 600.0

    def __init__(self, *answers: Message) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.ended = self.closed = False
        self.policy = types.SimpleNamespace(members={"near": ("near.1.a",)})

    async def __call__(self, scope: Message, _receive: Receive, send: Send) -> None:
        self.asked.append(scope["type"])
        for answer in self.answers:
            await send(answer)

    def end(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A LiteLLM that took everything over. `entries`: its model list."""
    callback: Any = types.ModuleType("io3ops_gateway.litellm_proxy.hooks")
    callback.policy = object()
    made: Any = types.ModuleType("litellm")
    made.callbacks = ["another", callback.policy]
    server: Any = types.ModuleType("litellm.proxy.proxy_server")
    made.entries = [{"model_name": "near", "model_info": {"id": "near.1.a"}}]
    server.llm_router = types.SimpleNamespace(get_model_list=lambda: made.entries)
    made.server = server
    for name, module in {
        "io3ops_gateway.litellm_proxy.hooks": callback,
        "litellm": made,
        "litellm.proxy": types.ModuleType("litellm.proxy"),
        "litellm.proxy.proxy_server": server,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield made


class Begun:
    """A start that was let run to its end, or to where the parent has to say something."""

    def __init__(self, worker: Any, monkeypatch: pytest.MonkeyPatch, edge: Edge, *, try_modes: bool = False) -> None:
        self.steps: list[str] = []
        self.sent: list[Message] = []

        async def rehearse(given: Any) -> None:
            assert given is edge
            self.steps.append("rehearsed")

        async def warm_providers(given: Any) -> None:
            assert given is edge
            self.steps.append("providers warm")

        async def modes(given: Any) -> None:
            assert given is edge
            self.steps.append("tried")

        async def go(_job: Job) -> None:
            self.steps.append("said ready")

        async def send(message: Message) -> None:
            self.sent.append(message)

        async def receive() -> Message:
            return {"type": "lifespan.startup"}

        monkeypatch.setattr(worker.warmup, "warm_up", rehearse)
        monkeypatch.setattr(worker.warmup, "warm_providers", warm_providers)
        monkeypatch.setattr(worker.warmup, "try_modes", modes)
        monkeypatch.setattr(worker, "gc", types.SimpleNamespace(collect=int, freeze=int, set_threshold=lambda *_: None))
        start = worker.Start(edge, a_job(Channel(), try_modes=try_modes), lambda: self.steps.append("log closed"))
        start.server = types.SimpleNamespace(wait_for_go=go)
        asyncio.run(start({"type": "lifespan"}, receive, send))
        self.failure = start.failure


def test_a_failed_start_keeps_the_last_line_of_its_traceback(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {"type": "lifespan.startup.failed", "message": "Traceback:\n  File x\nImportError: no\n"}
    begun = Begun(worker, monkeypatch, Edge(failed))
    assert begun.failure.what == "LiteLLM did not start: ImportError: no" and "render-config" in begun.failure.hint
    assert begun.sent == [{"type": "lifespan.startup.failed"}], "nothing of it is said twice"
    assert begun.steps == []


@pytest.mark.parametrize("message", ["", "\n", None])
def test_a_failed_start_without_a_reason_says_so(worker: Any, monkeypatch: pytest.MonkeyPatch, message: Any) -> None:
    failed = {"type": "lifespan.startup.failed"} | ({} if message is None else {"message": message})
    assert "no reason given" in Begun(worker, monkeypatch, Edge(failed)).failure.what


def test_a_start_is_over_when_it_was_rehearsed_and_the_parent_says_go(
    worker: Any, monkeypatch: pytest.MonkeyPatch, litellm: Any
) -> None:
    """The log is closed before the first request of somebody else; the rest of the lifespan is passed on."""
    begun = Begun(worker, monkeypatch, Edge(COMPLETE, STOPPED))
    assert begun.failure is None
    assert begun.sent == [COMPLETE, STOPPED]
    assert begun.steps == ["rehearsed", "providers warm", "log closed", "said ready"]


def test_modes_are_tried_before_the_worker_is_ready(worker: Any, monkeypatch: pytest.MonkeyPatch, litellm: Any) -> None:
    begun = Begun(worker, monkeypatch, Edge(COMPLETE), try_modes=True)
    assert begun.steps == ["rehearsed", "providers warm", "tried", "log closed", "said ready"]


def test_a_litellm_that_did_not_take_the_hooks_over_does_not_serve(
    worker: Any, monkeypatch: pytest.MonkeyPatch, litellm: Any
) -> None:
    """It drops callbacks that it cannot load without a word, and would then route everything anywhere."""
    litellm.callbacks.pop()
    begun = Begun(worker, monkeypatch, Edge(COMPLETE))
    assert begun.sent == [{"type": "lifespan.startup.failed"}] and "hooks" in begun.failure.what
    assert begun.steps == [], "it is not said to be ready, nor rehearsed"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "near.1.a"),
        (None, "near.1.a"),
        ([{"model_name": "near", "model_info": {"id": "near.2.b"}}], "near.1.a"),
        ([{"model_name": "far", "model_info": {"id": "near.1.a"}}], "the groups differ"),
        (
            [{"model_name": name, "model_info": {"id": found}} for name, found in (("near", "near.1.a"), ("x", "y"))],
            "the groups differ",
        ),
    ],
)
def test_a_litellm_that_holds_something_else_does_not_serve(
    worker: Any, litellm: Any, entries: Any, words: str
) -> None:
    """It drops models that it cannot read without a word."""
    litellm.entries = entries
    with pytest.raises(StartError, match=f"does not hold what the file says: .*{words}"):
        worker.check_held(Edge())


def test_a_litellm_without_a_router_does_not_serve(worker: Any, litellm: Any) -> None:
    litellm.server.llm_router = None
    with pytest.raises(StartError, match=r"does not hold what the file says: near\.1\.a"):
        worker.check_held(Edge())


def test_requests_go_to_the_edge_as_they_are(worker: Any) -> None:
    edge = Edge()
    scope: Message = {"type": "http"}
    asyncio.run(worker.Start(edge, a_job(Channel()), lambda: None)(scope, None, None))
    assert edge.asked == ["http"]


# -- the process


class Ended(Exception):
    pass


@pytest.fixture
def ends(worker: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a worker's `main` to the end of its process; (its exit code, what it told the parent)."""
    monkeypatch.setattr(worker.os, "environ", {})

    def leave(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(worker.os, "_exit", leave)

    def run(build: Any, serve: Any = None) -> tuple[int, list[dict[str, Any]]]:
        channel = Channel()
        if serve is not None:
            monkeypatch.setattr(worker.Server, "serve", serve)
        with pytest.raises(Ended) as found:
            worker.main(a_job(channel), build, 4, lambda: None)
        return found.value.args[0], channel.heard()

    return run


def test_a_worker_that_has_served_ends_with_nothing_to_say(ends: Any, worker: Any) -> None:
    edge = Edge()
    assert ends(lambda _job: edge) == (0, [])
    assert edge.closed, "what the log waits with is written before the process ends"
    environment = worker.os.environ
    assert environment["IO3_CONFIG"] == environment["CONFIG_FILE_PATH"] == "/c.yaml", "its own generation's"


def test_a_reason_of_ours_is_told_with_its_exit_code(ends: Any) -> None:
    def build(_job: Job) -> Any:
        raise ConfigError("the policy is broken", "mend it")

    said = {"event": "failed", "what": "the policy is broken", "hint": "mend it", "code": 78}
    assert ends(build) == (78, [said])


def test_uvicorns_way_out_has_the_reason_that_was_watched(ends: Any) -> None:
    async def serve(self: Any, sockets: Any) -> None:
        self.config.app.failure = StartError("LiteLLM did not start: no", "h")
        raise SystemExit(3)

    code, (said,) = ends(lambda _job: Edge(), serve)
    assert code == 70 and said["what"] == "LiteLLM did not start: no"


def test_uvicorns_way_out_without_a_reason_is_a_failure_too(ends: Any) -> None:
    async def serve(_self: Any, sockets: Any) -> None:
        raise SystemExit(3)

    code, (said,) = ends(lambda _job: Edge(), serve)
    assert code == 70 and said["what"] == "LiteLLM did not start"


def test_what_nobody_expected_is_one_line(ends: Any) -> None:
    def build(_job: Job) -> Any:
        raise ValueError("two\nlines")

    code, (said,) = ends(build)
    assert code == 70 and said["what"] == "a worker failed: ValueError: two lines"


def test_a_worker_whose_parent_is_gone_ends_all_the_same(worker: Any) -> None:
    channel = Channel()
    channel.broken = True
    assert worker._tell(a_job(channel), ConfigError("w", "h")) == 78


def test_a_policy_that_cannot_be_read_keeps_its_own_reason(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> Any:
        raise ConfigError("no modes", "h")

    monkeypatch.setattr(worker.importlib, "import_module", fail)
    with pytest.raises(ConfigError, match="no modes"):
        worker.build_edge(a_job(Channel()), lambda *_: None)


def test_an_import_that_fails_in_a_worker_is_one_line(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> Any:
        raise ImportError("no\nsuch thing")

    monkeypatch.setattr(worker.importlib, "import_module", fail)
    with pytest.raises(StartError, match="LiteLLM cannot be imported: ImportError: no such thing; build the gateway"):
        worker.build_edge(a_job(Channel()), lambda *_: None)


# -- leaving


class Held:
    """A connection of a worker."""

    def __init__(self) -> None:
        self.left: list[float] = []

    def leave(self, idle: float) -> None:
        self.left.append(idle)


class Serving:
    """A worker's server; `hear` has the parent speak."""

    def __init__(self, worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.edge = Edge()
        self.readers: list[Any] = []
        loop = types.SimpleNamespace(remove_reader=self.readers.remove)
        monkeypatch.setattr(worker.asyncio, "get_running_loop", lambda: loop)
        monkeypatch.setattr(worker.time, "monotonic", lambda: self.now)
        self.server = worker.Server(types.SimpleNamespace(edge=self.edge, server=None), 4)
        self.connection = Held()
        self.server.server_state.connections.add(self.connection)
        self.channel = Channel()
        self.readers.append(self.channel)

    def hear(self, *words: bytes | BaseException) -> None:
        for word in words:
            self.channel.words = [word]
            self.server._on_word(a_job(self.channel))

    def run(self, work: Any) -> Any:
        """Run a coroutine that waits for nothing."""
        try:
            work.send(None)
        except StopIteration as ended:
            return ended.value
        raise AssertionError("it waits")

    @property
    def ends(self) -> bool:
        return bool(self.run(self.server.on_tick(1)))


@pytest.fixture
def serving(worker: Any, monkeypatch: pytest.MonkeyPatch) -> Serving:
    return Serving(worker, monkeypatch)


def test_a_worker_waits_for_the_parents_word(serving: Serving) -> None:
    serving.hear(b"g")
    assert not serving.server._go.is_set()
    serving.hear(b"o\n")
    assert serving.server._go.is_set() and not serving.server.server_state.leaving and not serving.ends


def test_a_word_that_has_not_come_yet_is_waited_for(serving: Serving) -> None:
    serving.hear(BlockingIOError())
    assert serving.readers and not serving.server._go.is_set()


def test_a_drained_worker_finishes_what_it_has(serving: Serving, worker: Any) -> None:
    """As long as the longest mode may take, and a little longer; then it ends all the same."""
    serving.hear(b"go\n", b"drain\n")
    assert serving.connection.left == [worker.IDLE_SECONDS] and serving.server.server_state.leaving
    assert serving.channel.heard() == [{"event": "left"}], "the parent waits for that"
    serving.now += serving.edge.longest + worker.GRACE_SECONDS - 1
    assert not serving.ends
    serving.now += 2
    assert serving.ends


def test_a_worker_that_leaves_ends_with_its_last_connection(serving: Serving) -> None:
    serving.hear(b"go\n", b"drain\n")
    serving.server.server_state.connections.clear()
    serving.server.server_state.tasks.add("a request whose client has left")
    assert not serving.ends
    serving.server.server_state.tasks.clear()
    assert serving.ends


def test_the_end_of_the_container_shortens_a_drain_and_not_the_other_way(serving: Serving) -> None:
    serving.hear(b"go\n", b"drain\n", b"stop\n")
    assert serving.connection.left[-1] == 0
    serving.hear(b"drain\n")
    serving.now += 4.1
    assert serving.ends


def test_a_worker_without_a_parent_leaves(serving: Serving) -> None:
    serving.hear(b"go\n", b"")
    assert not serving.readers, "and does not read an end again and again"
    serving.now += 4.1
    assert serving.ends


@pytest.mark.parametrize("end", [ConnectionResetError(), OSError(9, os.strerror(9))])
def test_a_channel_that_breaks_is_its_end(serving: Serving, end: Exception) -> None:
    serving.hear(end)
    assert not serving.readers and serving.server.server_state.leaving


@pytest.mark.parametrize("words", [(b"go\ndrain\n",), (b"go\n", b"drain\n"), (b"drain\n",), (b"stop\n",), (b"",)])
def test_a_worker_that_is_told_to_leave_while_it_starts_accepts_nobody(
    serving: Serving, words: tuple[bytes, ...]
) -> None:
    """There is nothing to close yet when it hears; what is opened later is closed at once."""
    serving.hear(*words)
    assert serving.server._go.is_set(), "its start ends"
    serving.run(serving.server.startup(["a socket", "another"]))
    assert serving.server.seen == ["startup", "closed", "closed"]


def test_whoever_still_waits_is_told_before_the_connections_close(serving: Serving) -> None:
    serving.run(serving.server.shutdown())
    assert serving.edge.ended and serving.server.seen == ["shutdown"]
