"""Tiers by permitted I/O: unit tests start no program and open no connection; local ones have no engine; the others may do all."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.clone import ROOT, Clone

NO_ENGINE = "tcp://127.0.0.1:9"

# Time says nothing about the code on a machine that is busy with something else: making one input has taken 53 s there.
# In CI every run tries the same examples, so that a failure is the change's own; new examples are tried on developers'
# machines.
settings.register_profile(
    "io3ops", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("io3ops")


@pytest.fixture(autouse=True)
def _tier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tier may not do fails."""
    tier = request.node.path.relative_to(ROOT / "tests").parts[0]
    if tier == "unit":
        # Not the class itself: a module that a test is the first to import may name `Popen[bytes]`.
        monkeypatch.setattr(subprocess.Popen, "__init__", _refuse)
        monkeypatch.setattr(socket.socket, "connect", _refuse)
        monkeypatch.setattr(socket.socket, "bind", _refuse)
    elif tier == "local":
        # Programs that a test starts inherit it: no engine, wherever this machine's is.
        monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)


def _refuse(*_args: object, **_kwargs: object) -> None:
    raise AssertionError("a unit test started a program or opened a connection")


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    """A clone of its own; nothing runs in it yet."""
    made = Clone.make(tmp_path)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def root() -> Path:
    """The clone under test."""
    return ROOT
