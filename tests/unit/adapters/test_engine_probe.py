"""The status of the engine, by its answer or its silence."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from io3ops.adapters.docker_engine import DockerEngine, EngineState, EngineStatus


class Programs:
    """Stands in for `Processes`: docker is installed, and the test sets the answer of each subcommand."""

    def __init__(self, compose: str = "2.40.3", context: str = "", docker: bool = True, buildx: str = "v0.30") -> None:
        self._answers = {"compose": compose, "context": context, "buildx": buildx}
        self._docker = docker

    def which(self, _program: str) -> str | None:
        return "/usr/bin/docker" if self._docker else None

    def run(self, argv: list[str], **_: object) -> Any:
        output = (
            self._answers[argv[1]]
            if argv[1:3] in (["compose", "version"], ["buildx", "version"], ["context", "inspect"])
            else ""
        )
        return SimpleNamespace(ok=bool(output), output=output)


def probe(monkeypatch: pytest.MonkeyPatch, programs: Programs, version: str | Exception) -> EngineState:
    def connect(_self: DockerEngine) -> Any:
        if isinstance(version, Exception):
            raise version
        return SimpleNamespace(version=lambda: {"Version": version})

    monkeypatch.setattr(DockerEngine, "_connect", connect)
    it: Any = programs
    return DockerEngine(it, "").probe()


@pytest.mark.parametrize(
    ("programs", "version", "expected"),
    [
        (Programs(), "28.5.2+dfsg4", EngineStatus.READY),
        (Programs(compose="v2.24.0-desktop.1"), "25.0.0", EngineStatus.READY),
        (Programs(), "24.0.9", EngineStatus.TOO_OLD),
        (Programs(compose="2.23.3"), "28.0.0", EngineStatus.NO_COMPOSE),
        (Programs(compose=""), "28.0.0", EngineStatus.NO_COMPOSE),
        (Programs(buildx=""), "28.0.0", EngineStatus.NO_BUILDX),
        (Programs(), ConnectionError("no"), EngineStatus.STOPPED),
        (Programs(docker=False), "28.0.0", EngineStatus.MISSING),
    ],
    ids=["ready", "oldest", "old engine", "old compose", "no compose", "no buildx", "silent", "no docker"],
)
def test_each_answer_of_the_engine_gives_its_status(
    monkeypatch: pytest.MonkeyPatch, programs: Programs, version: str | Exception, expected: EngineStatus
) -> None:
    assert probe(monkeypatch, programs, version).status is expected


def test_a_socket_without_access_is_not_a_stopped_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The check uses the socket of the current context, because Docker Desktop, Colima and rootless engines have their own."""
    (tmp_path / "docker.sock").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    programs = Programs(context=f"unix://{tmp_path}/docker.sock\n")
    found = probe(monkeypatch, programs, PermissionError(13, "denied"))
    assert found.status is EngineStatus.DENIED and str(tmp_path) in found.detail
