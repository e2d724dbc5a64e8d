"""The port: an address that cannot be bound is one plain line."""

from __future__ import annotations

import os
import socket

import pytest

from io3ops_gateway.errors import PortError
from io3ops_gateway.server import sockets


@pytest.mark.parametrize(
    ("number", "reason"), [(98, "Address already in use"), (99, "Cannot assign requested address"), (13, "denied")]
)
def test_an_address_that_cannot_be_bound_is_a_plain_error(
    monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(PortError, match=rf"cannot listen on 127\.0\.0\.1:4000: .*{reason}"):
        sockets.bind("127.0.0.1", 4000)
