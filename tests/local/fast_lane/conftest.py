"""The lane's tests speak real HTTP: they may open connections, but only on loopback."""

from __future__ import annotations

import socket
from typing import Any

import pytest

LOOPBACK = "127.0.0.1"
_connect, _bind = socket.socket.connect, socket.socket.bind


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: socket.socket, address: Any) -> None:
        assert address[0] == LOOPBACK, address
        _connect(self, address)

    def bind(self: socket.socket, address: Any) -> None:
        assert address[0] == LOOPBACK, address
        _bind(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "bind", bind)
