"""Fixtures of the gateway's unit tests."""

from __future__ import annotations

import asyncio
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

STAND_INS = ("uvicorn", "uvicorn.protocols", "uvicorn.protocols.http", "uvicorn.protocols.http.httptools_impl")
OURS = ("io3ops_gateway.server.http_protocol", "io3ops_gateway.server.worker")


@pytest.fixture
def certificate() -> bytes:
    """A self-signed authority whose key was thrown away."""
    return Path(__file__).with_name("company.pem").read_bytes()


class Uvicorn:
    """uvicorn's server: what ours builds on, and the settings that it was given."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.server_state = types.SimpleNamespace(connections=set(), tasks=set())
        self.seen: list[str] = []
        self.servers: list[Any] = []

    async def startup(self, sockets: Any = None) -> None:
        self.seen.append("startup")
        self.servers = [types.SimpleNamespace(close=lambda: self.seen.append("closed")) for _ in sockets or ()]

    async def on_tick(self, _counter: int) -> bool:
        return False

    async def shutdown(self, sockets: Any = None) -> None:
        self.seen.append("shutdown")

    async def serve(self, sockets: Any = None) -> None:
        self.seen.append("served")


class Options(types.SimpleNamespace):
    """uvicorn's settings."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app=app, **options)

    def get_loop_factory(self) -> Any:
        return asyncio.new_event_loop


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, on stand-ins for uvicorn: it is not in the tests' environment."""
    for name in STAND_INS:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    vars(sys.modules["uvicorn"]).update(Server=Uvicorn, Config=Options)
    vars(sys.modules[STAND_INS[-1]])["HttpToolsProtocol"] = object
    for name in OURS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("io3ops_gateway.server.worker")
    for name in OURS:
        sys.modules.pop(name, None)
