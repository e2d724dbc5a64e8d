"""Finds bind mounts whose folder was replaced on the host.

A bind mount stays attached to the folder that it was made from. When a restore, `mv` or `cp` replaces the folder, the container
keeps the old one: it accepts keys that were revoked in the new one, and writes its log to a folder that has no name any more.
Inode numbers do not help when the engine runs in a virtual machine. So we put a mark file into each folder and look for it from
inside the container.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import yaml

from io3ops.adapters import files
from io3ops.adapters.docker_engine import Container
from io3ops.settings import Settings
from io3ops.tools import Tools

# Age of a mark that a killed process left behind. Younger ones may belong to a process that still looks for them.
OLD_SECONDS = 3600
# Seconds before each look: a virtual machine's shared folder shows a change with a delay.
PAUSES = (0.0, 0.2, 1.0)


def bound(root: Path) -> dict[str, dict[str, Path]]:
    """Return the bind mounts of all Compose files by service: {path in the container: folder}. Includes overlays that are not in use."""
    mounts: dict[str, dict[str, Path]] = {}
    for path in (root / "compose.yaml", *sorted((root / "compose").glob("*.yaml"))):
        document = yaml.safe_load(files.read_bytes(path) or b"") or {}
        for service, entry in document.get("services", {}).items():
            for volume in entry.get("volumes") or ():
                if isinstance(volume, dict) and volume.get("type") == "bind":
                    mounts.setdefault(service, {})[volume["target"]] = root / volume["source"]
    return mounts


def stale(
    tools: Tools, containers: Mapping[str, Container], only: Collection[Path] = ()
) -> dict[str, tuple[Path, ...]]:
    """Return by service the folders that were replaced under its running container; () when the container cannot be examined.

    `only`: examine these folders only. Raises NotWritable when a mark cannot be written.
    """
    replaced: dict[str, tuple[Path, ...]] = {}
    known = bound(tools.settings.root)
    for service, container in containers.items():
        folders = {p: f for p, f in known.get(service, {}).items() if not only or f in only}
        if container.running and folders:
            other = _unseen(tools, container, folders)
            if other is None or other:
                replaced[service] = other or ()
    return replaced


def cause(settings: Settings, replaced: Mapping[str, tuple[Path, ...]]) -> str:
    """Describe the result of `stale` in one line."""
    parts = []
    for service, folders in replaced.items():
        old = ", ".join(str(folder.relative_to(settings.root)) for folder in folders)
        parts.append(f"{service} still has the old {old}" if old else f"{service} cannot be examined")
    return f"folders were replaced: {'; '.join(parts)}"


def _unseen(tools: Tools, container: Container, folders: Mapping[str, Path]) -> tuple[Path, ...] | None:
    name = f"{files.MARK}{secrets.token_hex(8)}"
    with contextlib.ExitStack() as marks:
        # A folder that no longer exists cannot be the one that the container has.
        there = {place: folder for place, folder in folders.items() if folder.is_dir()}
        for folder in there.values():
            marks.enter_context(_mark(folder / name))
        # The root always exists. When it is missing from the answer, `ls` did not run.
        asked = ["/", *(f"{place}/{name}" for place in there)]
        seen: list[str] = []
        for pause in PAUSES:
            time.sleep(pause)
            seen = tools.engine.execute(container.id, ["ls", "-d", *asked], errors=False)[1].splitlines()
            if set(asked) <= set(seen):
                break
    if "/" not in seen:
        return None
    return tuple(folder for place, folder in folders.items() if f"{place}/{name}" not in seen)


@contextlib.contextmanager
def _mark(path: Path) -> Iterator[None]:
    try:
        for old in path.parent.glob(f"{files.MARK}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - old.lstat().st_mtime > OLD_SECONDS:
                    old.unlink()
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644))
    except OSError as error:
        raise files.not_writable(path, error) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
