"""A copy of this clone for tests: its own folder, project name, port and volumes, removed at the end.

Never a developer's stack: the project name is random, and the ports are free ones.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests import projects

ROOT = Path(__file__).resolve().parents[1]
# Seconds until a wait is given up. No wait says how soon something must happen: a machine that is busy with something else has taken
# a minute and a half for what takes one second, and a wait that is met ends at once.
PATIENCE = 300.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Clone:
    """A working copy with what is committed or about to be; nothing that was built or made here."""

    path: Path
    project: str = field(default_factory=projects.claim)
    port: int = field(default_factory=free_port)
    images: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, name: str = "clone") -> Clone:
        target = folder / name
        listed = subprocess.run(
            ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
        ).stdout
        for entry in filter(None, listed.decode().split("\0")):
            source = ROOT / entry
            if source.is_file():
                (target / entry).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / entry)
        return cls(path=target)

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("IO3OPS_", "COMPOSE_", "VIRTUAL_ENV"))}
        return kept | {
            "IO3OPS_PROJECT": self.project,
            "IO3OPS_PORT": str(self.port),
            "IO3OPS_ROOT": str(self.path),
            "IO3OPS_WAIT_TIMEOUT": f"{2 * PATIENCE:g}",
        }

    def run(self, *argv: str, timeout: float = 900, **env: str) -> subprocess.CompletedProcess[str]:
        """Any program, in the clone."""
        return subprocess.run(
            argv, cwd=self.path, env=self.env | env, capture_output=True, text=True, timeout=timeout, check=False
        )

    def io3ops(self, *args: str, timeout: float = 900, **env: str) -> subprocess.CompletedProcess[str]:
        """The command line, from the tests' own Python: a second virtual environment per clone would prove nothing new."""
        return self.run(sys.executable, "-m", "io3ops", *args, timeout=timeout, **env)

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        """The command line in the background, as a process group of its own (as a shell would start it)."""
        return subprocess.Popen(
            [sys.executable, "-m", "io3ops", *args],
            cwd=self.path, env=self.env | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            # Whoever runs the tests in the background has SIGINT ignored, and every child with it.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def json(self, *args: str) -> dict[str, Any]:
        done = self.io3ops(*args, "--json")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def key(self) -> str:
        return (self.path / ".io3ops/secrets/master_key").read_text().strip()

    def edit_table(self, old: str, new: str) -> None:
        table = self.path / "runtime/routing.yaml"
        text = table.read_text("utf-8")
        assert old in text, f"the table has no {old!r}"
        table.write_text(text.replace(old, new), "utf-8")

    def docker(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.run("docker", *argv)

    def container(self, service: str) -> str:
        """The id of a service's container, '' when there is none."""
        found = self.docker(
            "ps",
            "-aq",
            "-f",
            f"label=com.docker.compose.project={self.project}",
            "-f",
            f"label=com.docker.compose.service={service}",
        )
        return found.stdout.strip()

    def remove(self) -> None:
        projects.remove(self.project)
        for image in self.images:
            self.docker("rmi", "-f", image)


def expect(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The stable exit code, the layer in brackets, a hint, no traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    assert f"error E{code} [" in done.stderr and "\nhint: " in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def until(what: str, check: Callable[[], bool]) -> None:
    """Poll until true; a timeout says what was waited for."""
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)
