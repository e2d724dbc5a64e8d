"""The request of the health check, over a pair of connected sockets."""

import socket

import pytest

from io3ops_gateway.scripts import healthcheck


def _ask(*answer: bytes) -> tuple[int, bytes]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for part in answer:
            theirs.sendall(part)
        theirs.shutdown(socket.SHUT_WR)
        return healthcheck.status(ours), theirs.recv(4096)


def test_it_requests_readiness_and_reads_the_status() -> None:
    code, question = _ask(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    assert code == 200
    assert question.startswith(b"GET /health/readiness ")


def test_a_status_line_in_two_parts_is_one() -> None:
    assert _ask(b"HTTP/1.1 5", b"03 Not Ready\r\n\r\n")[0] == 503


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n", b"HTTP/1.1\r\n"])
def test_a_response_that_is_not_http_is_an_error(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"HTTP|invalid literal"):
        _ask(answer)
