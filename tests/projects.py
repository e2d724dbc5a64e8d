"""Names of the stacks that tests start, and the removal of all that belongs to one, also after a run that was killed.

A run holds a lock on a file for each of its names; the kernel lets go of it whatever ends the run. The next run removes what a name
without a holder has left: an engine has room for some thirty networks.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import secrets
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

# Compose gives the first to all that it makes; the parts that tests start beside a stack have the second.
LABELS = ("com.docker.compose.project", "io3ops.test.project")
_held: dict[str, IO[str]] = {}


def claim() -> str:
    """A name that no other run has."""
    _once()
    project = f"io3ops-test-{secrets.token_hex(4)}"
    # Under another name until it is locked, so that no other run takes it for a leftover.
    new = _folder() / f".{project}"
    _held[project] = new.open("w")
    fcntl.flock(_held[project], fcntl.LOCK_EX)
    new.rename(_folder() / project)
    return project


def release(project: str) -> None:
    """Give a name back that nothing belongs to."""
    if held := _held.pop(project, None):
        (_folder() / project).unlink(missing_ok=True)
        held.close()


def remove(project: str) -> None:
    """Everything that has the project's label, and nothing else."""
    for listing, removal in (
        (["ps", "-aq"], ["rm", "-f", "-v"]),
        (["network", "ls", "-q"], ["network", "rm"]),
        (["volume", "ls", "-q"], ["volume", "rm", "-f"]),
    ):
        # Filters of one kind are joined by "and".
        ids = {i for label in LABELS for i in _docker(*listing, "-f", f"label={label}={project}").stdout.split()}
        if ids:
            _docker(*removal, *ids)
    release(project)


@cache
def _once() -> None:
    atexit.register(_let_go)
    remove_leftovers()


def _let_go() -> None:
    """Give up the names that a test kept: the next run removes what belongs to them."""
    for held in _held.values():
        held.close()


def remove_leftovers() -> None:
    """Remove what belongs to names that no run holds any more, where there is an engine."""
    if shutil.which("docker") is None:
        return
    for file in _folder().glob("io3ops-test-*"):
        with file.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if _docker("version").returncode == 0:
                remove(file.name)
                file.unlink(missing_ok=True)


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"io3ops-test-projects-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _docker(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *argv], capture_output=True, text=True, check=False)
