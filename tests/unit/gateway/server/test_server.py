"""The limits of a request's head, on a stand-in for uvicorn's protocol that only knows what ours builds on."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest


class Handle:
    def __init__(self, seconds: float, call: Callable[..., None], given: tuple[Any, ...]) -> None:
        self.seconds, self.call, self.given, self.cancelled = seconds, call, given, False

    def cancel(self) -> None:
        self.cancelled = True

    def strike(self) -> None:
        assert not self.cancelled
        self.call(*self.given)


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Event:
    def set(self) -> None:
        return


class Cycle:
    response_complete = response_started = disconnected = False
    keep_alive = True
    message_event = Event()


class Parser:
    """httptools': what it says of the request."""

    def get_http_version(self) -> str:
        return "1.1"

    def get_method(self) -> bytes:
        return b"POST"

    def should_upgrade(self) -> bool:
        return False


class Base:
    """uvicorn's: a parser that calls back. `feed` says which calls the next data make."""

    def __init__(self) -> None:
        self.loop = self
        self.transport: Any = None
        self.parser = Parser()
        self.scope: dict[str, Any] = {}
        self.cycle: Any = None
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.feed: list[Callable[[], None]] = []
        self.handles: list[Handle] = []
        self.seen: list[str] = []
        self.server_state = types.SimpleNamespace(leaving=False)
        self.timeout_keep_alive = 75.0
        self.timeout_keep_alive_task: Any = None

    def call_later(self, seconds: float, call: Callable[..., None], *given: Any) -> Handle:
        self.handles.append(Handle(seconds, call, given))
        return self.handles[-1]

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, _exc: Exception | None) -> None:
        self.seen.append("lost")

    def data_received(self, _data: bytes) -> None:
        calls, self.feed = self.feed, []
        for call in calls:
            call()

    def on_message_begin(self) -> None:
        self.url, self.headers = b"/", []
        self.seen.append("begin")

    def on_headers_complete(self) -> None:
        self.cycle = Cycle()
        self.seen.append("request")

    def on_body(self, _body: bytes) -> None:
        assert self.cycle
        self.seen.append("body")

    def on_message_complete(self) -> None:
        assert self.cycle
        self.seen.append("end")

    def _unset_keepalive_if_required(self) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("uvicorn", "uvicorn.protocols", "uvicorn.protocols.http", "uvicorn.protocols.http.httptools_impl"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    vars(sys.modules["uvicorn.protocols.http.httptools_impl"])["HttpToolsProtocol"] = Base
    monkeypatch.delitem(sys.modules, "io3ops_gateway.server.http_protocol", raising=False)
    yield importlib.import_module("io3ops_gateway.server.http_protocol")
    sys.modules.pop("io3ops_gateway.server.http_protocol", None)


@pytest.fixture
def connection(server: Any) -> Any:
    made = server.LimitedHttp()
    made.connection_made(Transport())
    return made


def receive(connection: Any, size: int, *calls: Callable[[], None]) -> None:
    connection.feed = list(calls)
    connection.data_received(b"x" * size)


def head(connection: Any, headers: list[tuple[bytes, bytes]], url: bytes = b"/") -> tuple[Callable[[], None], ...]:
    def fill() -> None:
        connection.url, connection.headers = url, list(headers)

    return connection.on_message_begin, fill, connection.on_headers_complete


def test_a_request_like_others_passes(connection: Any) -> None:
    receive(
        connection,
        300,
        *head(connection, [(b"host", b"localhost")] * 100),
        lambda: connection.on_body(b"x"),
        connection.on_message_complete,
    )
    assert connection.seen == ["begin", "request", "body", "end"] and not connection.transport.closed
    assert [h.cancelled for h in connection.handles] == [True]


def test_half_a_head_is_not_waited_for(connection: Any, server: Any) -> None:
    receive(connection, 20, connection.on_message_begin)
    (clock,) = connection.handles
    assert clock.seconds == server.HEAD_SECONDS <= 30
    clock.strike()
    assert connection.transport.closed and connection.transport.written.startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_says_nothing_is_not_kept(connection: Any) -> None:
    connection.handles[0].strike()
    assert connection.transport.closed and b"408" in connection.transport.written


def test_bytes_that_trickle_do_not_buy_time(connection: Any) -> None:
    receive(connection, 1, connection.on_message_begin)
    for _ in range(50):
        receive(connection, 1)
    assert len(connection.handles) == 1 and not connection.handles[0].cancelled


def test_the_next_request_of_a_connection_has_a_clock_of_its_own(connection: Any) -> None:
    receive(connection, 300, *head(connection, []), connection.on_message_complete)
    connection.cycle.response_complete = True
    receive(connection, 10, connection.on_message_begin)
    assert [h.cancelled for h in connection.handles] == [True, False]
    connection.handles[1].strike()
    assert b"408" in connection.transport.written and connection.transport.closed


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ([(b"a", b"b")] * 101, b"/"),
        ([(b"a", b"b" * 65_536)], b"/"),
        ([(b"a" * 65_536, b"")], b"/"),
        ([(b"a" * 800, b"b" * 800)] * 50, b"/"),
        ([], b"/" * 65_537),
    ],
)
def test_a_head_that_is_too_large_is_no_request(
    connection: Any, headers: list[tuple[bytes, bytes]], url: bytes
) -> None:
    receive(
        connection,
        100,
        *head(connection, headers, url),
        lambda: connection.on_body(b"x"),
        connection.on_message_complete,
    )
    assert connection.transport.written.startswith(b"HTTP/1.1 431 ") and connection.transport.closed
    assert b"connection: close" in connection.transport.written and connection.seen == ["begin"]


def test_a_header_without_end_is_counted_before_the_parser_shows_it(connection: Any, server: Any) -> None:
    receive(connection, server.HEAD_BYTES, connection.on_message_begin)
    assert not connection.transport.closed
    receive(connection, 1)
    assert connection.transport.closed and b" 431 " in connection.transport.written


def test_what_never_becomes_a_request_is_counted_too(connection: Any, server: Any) -> None:
    receive(connection, server.HEAD_BYTES + 1)
    assert connection.transport.closed and b" 431 " in connection.transport.written


def test_a_connection_ends_after_its_requests(connection: Any) -> None:
    receive(connection, 300, *head(connection, []), connection.on_message_complete)
    connection.connection_lost(None)
    assert connection.seen[-1] == "lost"


def test_a_body_may_be_larger_than_a_head(connection: Any) -> None:
    receive(connection, 300, *head(connection, []))
    for _ in range(10):
        receive(connection, 60_000, lambda: connection.on_body(b"x"))
    receive(connection, 60_000, connection.on_message_complete)
    assert not connection.transport.closed
    connection.cycle.response_complete = True
    receive(connection, 60_000, connection.on_message_begin)
    assert not connection.transport.closed, "what came before this head does not count"
    receive(connection, 60_000)
    assert connection.transport.closed


def test_an_answer_that_is_being_sent_is_not_written_into(connection: Any) -> None:
    receive(connection, 300, *head(connection, []), connection.on_message_complete)
    connection.cycle.response_started = True
    receive(connection, 70_000, connection.on_message_begin)
    assert connection.transport.closed and connection.transport.written == b""


def test_a_closed_connection_is_left_alone(connection: Any) -> None:
    connection.connection_lost(None)
    assert connection.seen == ["lost"] and [h.cancelled for h in connection.handles] == [True]
    connection.transport.closed = True
    connection._end(408)
    connection.transport = None
    connection._end(408)


# -- whoever watches for the client, and a worker that leaves


def test_a_client_that_leaves_is_noticed_once(connection: Any) -> None:
    gone: list[str] = []
    receive(connection, 300, *head(connection, []), connection.on_message_complete)
    assert connection.scope["io3_connection"] is connection
    connection.when_gone = lambda: gone.append("gone")
    connection.connection_lost(None)
    assert gone == ["gone"] and connection.gone


def test_a_worker_that_leaves_closes_after_its_answer(connection: Any) -> None:
    receive(connection, 300, *head(connection, []), connection.on_message_complete)
    connection.leave(5)
    assert not connection.cycle.keep_alive and not connection.transport.closed
    assert connection.timeout_keep_alive == 5, "and should the client keep it: not for long"


def test_an_answer_that_has_begun_said_keep_alive_already(connection: Any) -> None:
    """Its head is with the client; the connection then has the short time of an idle one."""
    receive(connection, 300, *head(connection, []), connection.on_message_complete)
    connection.cycle.response_started = True
    connection.leave(5)
    assert connection.cycle.keep_alive and connection.timeout_keep_alive == 5


def test_an_idle_connection_may_ask_once_more(connection: Any) -> None:
    receive(connection, 300, *head(connection, []), connection.on_message_complete)
    connection.cycle.response_complete = True
    connection.leave(5)
    clock = connection.handles[-1]
    assert clock.seconds == 5 and not connection.transport.closed
    connection.server_state.leaving = True
    receive(connection, 300, *head(connection, []), connection.on_message_complete)
    assert not connection.cycle.keep_alive, "and is then closed in good order, with its answer"


def test_an_idle_connection_is_closed_in_the_end(connection: Any) -> None:
    connection.leave(5)
    connection.handles[-1].strike()
    assert connection.transport.closed
