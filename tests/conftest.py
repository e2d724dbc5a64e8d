"""Tiers by permitted I/O: unit tests may not start a program or open a connection; the others may."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

# Time says nothing about the code on a machine that is busy with something else: making one input has taken 53 s there.
# In CI every run tries the same examples, so that a failure is the change's own; new examples are tried on developers'
# machines.
settings.register_profile(
    "io3ops", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("io3ops")


@pytest.fixture(autouse=True)
def _no_outside_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "/tests/unit/" not in str(request.node.path):
        return

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a unit test started a program or opened a connection")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)


@pytest.fixture(scope="session")
def root() -> Path:
    """The clone under test."""
    return ROOT
