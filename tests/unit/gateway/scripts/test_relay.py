"""The relay, over socket pairs and pipes."""

import os
import socket
import threading

import pytest

from io3ops_gateway.scripts import relay

BINARY = bytes(range(256)) * 8192  # 2 MiB: more than any buffer on the way holds


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_bytes_arrive_unchanged_both_ways_and_each_half_closes_alone() -> None:
    ours, theirs = socket.socketpair()
    source, feed = os.pipe()
    out, sink = os.pipe()
    received: list[bytes] = []

    def remote() -> None:
        # Answers only after the end of what it is sent: that needs the half-close.
        parts = []
        while part := theirs.recv(1 << 16):
            parts.append(part)
        received.append(b"".join(parts))
        theirs.sendall(BINARY[::-1])
        theirs.close()

    def user() -> None:
        with os.fdopen(feed, "wb") as stream:
            stream.write(BINARY)

    def copy() -> None:
        with ours:
            relay.relay(ours, source, sink)
        os.close(sink)

    threads = [threading.Thread(target=target) for target in (remote, user, copy)]
    for thread in threads:
        thread.start()
    answer = _read_all(out)
    for thread in threads:
        thread.join()
    assert received == [BINARY]
    assert answer == BINARY[::-1]


def test_it_ends_with_the_remote_side_while_stdin_is_still_open() -> None:
    ours, theirs = socket.socketpair()
    source, feed = os.pipe()
    out, sink = os.pipe()
    theirs.sendall(b"bye")
    theirs.close()
    with ours:
        relay.relay(ours, source, sink)
    os.close(sink)
    assert _read_all(out) == b"bye"
    os.close(feed)


@pytest.mark.parametrize(
    "arguments", [[], ["host"], ["host", "http"], ["host", "0"], ["host", "65536"], ["a", "1", "b"]]
)
def test_wrong_arguments_are_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert relay.main(arguments) == relay.USAGE
    assert capsys.readouterr().err == "relay: usage: relay HOST PORT\n"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "cannot be resolved"),
        (TimeoutError("timed out"), "no answer within 5 s"),
    ],
)
def test_an_address_that_does_not_answer_is_reported_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, reason: str
) -> None:
    def refuse(*_: object) -> socket.socket:
        raise error

    monkeypatch.setattr(socket, "create_connection", refuse)
    assert relay.main(["runtime", "11434"]) == relay.UNAVAILABLE
    said = capsys.readouterr().err
    assert said.startswith("relay: runtime:11434: ")
    assert reason in said
    assert said.count("\n") == 1
