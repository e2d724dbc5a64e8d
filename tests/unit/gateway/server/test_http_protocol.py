"""The limits of a connection, on uvicorn's real protocol and httptools' real parser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.unit.gateway.server.wire import Wire

from io3ops_gateway.server import http_protocol
from io3ops_gateway.server.http_protocol import HEAD_BYTES, HEAD_SECONDS, STALL_SECONDS

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
JAVA = (
    b"POST /v1/chat/completions HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: localhost\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\n"
)


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.end()


def head(*headers: bytes, path: bytes = b"/") -> bytes:
    return b"".join([b"GET ", path, b" HTTP/1.1\r\n", *(header + b"\r\n" for header in headers), b"\r\n"])


def test_a_request_is_served(wire: Wire) -> None:
    wire.receive(POST + b"body")
    assert wire.statuses == [200] and wire.app.bodies == [b"body"] and wire.open
    wire.receive(head(b"host: localhost", *[b"a: b"] * 99))
    assert wire.statuses == [200, 200] and wire.open


def test_the_app_gets_the_target_as_the_client_wrote_it(wire: Wire) -> None:
    """uvicorn drops the host of an absolute target and a fragment; the edge must see that they were there."""
    wire.receive(head(b"host: localhost", path=b"http://evil.example/v1/%6dodels?x=1#y"))
    (scope,) = wire.app.scopes
    assert scope["raw_path"] == b"http://evil.example/v1/%6dodels" and scope["path"] == "/v1/models"
    assert scope["io3_connection"] is wire.connection


# -- time


def test_half_a_head_is_not_waited_for(wire: Wire) -> None:
    assert HEAD_SECONDS <= 30
    wire.receive(b"GET / HTTP/1.1\r\nho")
    wire.wait(HEAD_SECONDS - 1)
    assert wire.open
    wire.wait(2)
    assert wire.statuses == [408] and not wire.open


def test_a_connection_that_says_nothing_is_not_kept(wire: Wire) -> None:
    wire.wait(HEAD_SECONDS + 1)
    assert wire.statuses == [408] and not wire.open


def test_bytes_that_trickle_do_not_buy_time(wire: Wire) -> None:
    wire.receive(b"GET / HTTP/1.1\r\na: ")
    for _ in range(int(HEAD_SECONDS) - 1):
        wire.wait(1)
        wire.receive(b"b")
    assert wire.open
    wire.wait(1)
    assert wire.statuses == [408] and not wire.open


def test_a_body_has_more_time_than_a_head(wire: Wire) -> None:
    wire.receive(POST)
    wire.wait(HEAD_SECONDS + 1)
    wire.receive(b"body")
    assert wire.statuses == [200]


def test_the_next_request_of_a_connection_has_its_own_time(wire: Wire) -> None:
    wire.receive(GET)
    wire.wait(HEAD_SECONDS + 1)
    assert wire.open, "an idle connection has longer"
    wire.receive(b"GET /")
    wire.wait(HEAD_SECONDS - 1)
    assert wire.open
    wire.wait(2)
    assert wire.statuses == [200, 408] and not wire.open


@pytest.mark.parametrize("between", [b"\r\n", b"\n"])
def test_an_empty_line_between_requests_does_not_keep_a_connection_open(wire: Wire, between: bytes) -> None:
    """uvicorn stops its own timer at any byte."""
    wire.receive(GET)
    wire.receive(between)
    wire.wait(HEAD_SECONDS + 1)
    assert wire.statuses == [200, 408] and not wire.open


def test_the_rest_of_a_body_that_nobody_reads_is_not_waited_for(wire: Wire) -> None:
    wire.app.reads = False
    wire.receive(POST + b"bo")
    assert wire.statuses == [200] and wire.open
    wire.wait(HEAD_SECONDS + 1)
    assert not wire.open


def test_a_client_that_stops_reading_is_cut_off(wire: Wire) -> None:
    wire.app.streams = True
    wire.app.may_respond.clear()
    wire.receive(GET)
    wire.connection.pause_writing()
    wire.wait(STALL_SECONDS - 1)
    assert wire.open
    wire.wait(2)
    assert wire.transport.aborted


def test_a_client_that_reads_on_is_kept(wire: Wire) -> None:
    wire.app.streams = True
    wire.app.may_respond.clear()
    wire.receive(GET)
    wire.connection.pause_writing()
    wire.wait(STALL_SECONDS - 1)
    wire.connection.resume_writing()
    wire.wait(STALL_SECONDS)
    assert wire.open
    wire.connection.pause_writing()
    wire.lose()
    wire.wait(STALL_SECONDS + 1)
    assert not wire.transport.aborted, "a connection that has ended has no timer"


# -- size


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ([b"a: b"] * 101, b"/"),
        ([b"a: " + b"b" * HEAD_BYTES], b"/"),
        ([b"a" * HEAD_BYTES + b": b"], b"/"),
        ([b"a" * 800 + b": " + b"b" * 800] * 50, b"/"),
        ([], b"/" * (HEAD_BYTES + 1)),
    ],
    ids=["many headers", "long value", "long name", "long altogether", "long target"],
)
def test_a_head_that_is_too_large_is_no_request(wire: Wire, headers: list[bytes], path: bytes) -> None:
    wire.receive(head(*headers, path=path))
    assert wire.statuses == [431] and not wire.open and wire.app.scopes == []
    assert b"connection: close" in wire.transport.written


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\na: ", b"GET /", b"\r\n" * 20], ids=["header", "target", "no request"]
)
def test_bytes_without_end_are_counted_before_the_parser_shows_them(wire: Wire, start: bytes) -> None:
    wire.receive(start.ljust(HEAD_BYTES, b"\n" if start.endswith(b"\n") else b"b"))
    assert wire.open
    wire.receive(b"\n" if start.endswith(b"\n") else b"b")
    assert wire.statuses == [431] and not wire.open


def test_a_body_may_be_larger_than_a_head(wire: Wire) -> None:
    size = 10 * 60_000
    wire.receive(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % size)
    for _ in range(10):
        wire.receive(b"x" * 60_000)
    assert wire.statuses == [200] and [len(body) for body in wire.app.bodies] == [size]
    wire.receive(b"GET / HTTP/1.1\r\na: " + b"b" * 60_000)
    assert wire.open, "the body before does not count for this head"
    wire.receive(b"b" * 6_000)
    assert wire.statuses == [200, 431] and not wire.open


def test_a_chunk_extension_without_end_is_counted(wire: Wire) -> None:
    wire.receive(CHUNKED)
    wire.receive(b"4;" + b"x" * HEAD_BYTES)
    assert wire.statuses == [431] and not wire.open


def test_what_is_counted_begins_anew_after_the_head(wire: Wire) -> None:
    wire.receive(CHUNKED.replace(b"host: ", b"a: %s\r\nhost: " % (b"b" * 60_000)))
    wire.receive(b"4;" + b"x" * 60_000)
    wire.receive(b"\r\nbody\r\n0\r\n\r\n")
    assert wire.statuses == [200] and wire.app.bodies == [b"body"]


def test_many_small_chunks_are_a_body(wire: Wire) -> None:
    """All of their heads together are longer than the limit."""
    for part in (CHUNKED, *[b"1\r\nx\r\n" * 1000] * 30, b"0\r\n\r\n"):
        wire.receive(part)
    assert wire.statuses == [200] and wire.app.bodies == [b"x" * 30_000]


def test_a_trailer_is_refused(wire: Wire) -> None:
    """It would come too late for every decision about the request."""
    wire.receive(CHUNKED + b"4\r\nbody\r\n0\r\nx-io3-data-class: public\r\n\r\n")
    assert wire.statuses == [400] and not wire.open and wire.app.bodies == []


# -- what is not HTTP/1.1


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example\r\n\r\n", 400), (b"GET / HTTP/0.9\r\nhost: localhost\r\n\r\n", 505)],
)  # fmt: skip
def test_another_protocol_is_refused(wire: Wire, data: bytes, status: int) -> None:
    wire.receive(data)
    assert wire.statuses == [status] and not wire.open and wire.app.scopes == []


@pytest.mark.parametrize("body", [[b"body"], [b"bo", b"dy"]], ids=["at once", "in parts"])
def test_an_upgrade_that_is_offered_is_ignored(wire: Wire, body: list[bytes]) -> None:
    """Java's client offers HTTP/2 with every request. uvicorn would lose the body, and take it for the next request."""
    first, *rest = body
    wire.receive(JAVA + first)
    for part in rest:
        wire.receive(part)
    assert wire.statuses == [200] and wire.app.bodies == [b"body"] and wire.open
    (scope,) = wire.app.scopes
    assert not {b"upgrade", b"http2-settings", b"connection"} & {name for name, _ in scope["headers"]}
    wire.receive(JAVA + b"more")
    assert wire.statuses == [200, 200] and wire.app.bodies == [b"body", b"more"]


def test_an_upgrade_that_is_offered_keeps_the_other_connection_options(wire: Wire) -> None:
    wire.receive(JAVA.replace(b"Upgrade, HTTP2-Settings", b"close, Upgrade, HTTP2-Settings") + b"body")
    assert wire.statuses == [200] and not wire.open, "the client asked for a close"


# -- a connection's end


def test_a_request_after_a_response_that_runs_is_not_written_into(wire: Wire) -> None:
    wire.app.streams = True
    wire.app.may_respond.clear()
    wire.receive(GET)
    before = wire.transport.written
    assert wire.statuses == [200]
    wire.receive(b"GET / HTTP/1.1\r\na: " + b"b" * 70_000)
    assert not wire.open and wire.transport.written == before


def test_a_request_that_waits_for_its_response_is_refused_once(wire: Wire) -> None:
    """The app must not respond to it a second time."""
    wire.app.may_respond.clear()
    wire.receive(GET)
    wire.receive(b"GET / HTTP/1.1\r\na: " + b"b" * 70_000)
    assert wire.statuses == [431] and not wire.open
    wire.app.may_respond.set()
    wire.settle()
    assert wire.statuses == [431]


def test_a_connection_that_has_ended_is_left_alone(wire: Wire) -> None:
    wire.lose()
    wire.wait(HEAD_SECONDS + 1)
    wire.connection._end(408)
    assert wire.statuses == []


def test_a_client_that_disconnects_is_noticed_once(wire: Wire) -> None:
    gone: list[str] = []
    wire.app.may_respond.clear()
    wire.receive(GET)
    wire.connection.when_gone = lambda: gone.append("gone")
    assert not wire.connection.gone
    wire.lose()
    assert gone == ["gone"] and wire.connection.gone


# -- a worker that leaves


def test_a_connection_of_a_worker_that_leaves_is_closed_with_its_response(wire: Wire) -> None:
    wire.app.may_respond.clear()
    wire.receive(GET)
    wire.connection.leave(5)
    assert wire.open
    wire.app.may_respond.set()
    wire.settle()
    assert wire.statuses == [200] and b"connection: close" in wire.transport.written and not wire.open


def test_a_response_that_has_begun_is_finished_and_its_connection_closed_soon(wire: Wire) -> None:
    """Its head promised the client a connection that stays open."""
    wire.app.streams = True
    wire.app.may_respond.clear()
    wire.receive(GET)
    wire.connection.leave(5)
    wire.app.may_respond.set()
    wire.settle()
    assert wire.transport.written.endswith(b"0\r\n\r\n") and wire.open
    wire.wait(6)
    assert not wire.open and wire.statuses == [200]


def test_an_idle_connection_may_ask_once_more(wire: Wire) -> None:
    wire.receive(GET)
    wire.state.leaving = True
    wire.connection.leave(5)
    wire.wait(4)
    assert wire.open
    wire.receive(GET)
    assert wire.statuses == [200, 200] and b"connection: close" in wire.transport.written and not wire.open


def test_an_idle_connection_is_closed_in_the_end(wire: Wire) -> None:
    wire.receive(GET)
    wire.connection.leave(5)
    wire.wait(6)
    assert not wire.open and wire.statuses == [200]


def test_an_idle_connection_has_only_the_shorter_time(wire: Wire) -> None:
    """The timer from before must not end a request that comes within it."""
    wire.receive(GET)
    wire.wait(70)
    wire.connection.leave(10)
    wire.wait(1)
    wire.app.may_respond.clear()
    wire.receive(GET)
    wire.wait(6)
    assert wire.open


def test_a_connection_that_has_sent_nothing_is_closed_too(wire: Wire) -> None:
    wire.connection.leave(0)
    wire.settle()
    assert not wire.open


def test_every_status_that_is_written_has_a_reason() -> None:
    assert set(http_protocol._STATUS) == {400, 408, 431, 505}
