"""Whether the containers still have the folders that lie here.

A bind mount stays with the folder that it was made of. When that is replaced (a restore, `mv`, `cp`), the container keeps the old one: it
goes on to accept a key that was revoked in the new one, and its log is written where nobody looks. Inode numbers tell nothing where the
engine runs in a virtual machine, so a mark is put into each folder here, and the container says whether it sees it.
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

# A mark that a killed process left behind. Others may be another process's, which still looks for them.
OLD_SECONDS = 3600
# Before each look: what a virtual machine shares may come a little later.
PAUSES = (0.0, 0.2, 1.0)


def bound(root: Path) -> dict[str, dict[str, Path]]:
    """By service, what the Compose files mount: the folder's place in the container, and the folder. The overlays that are not in use too."""
    found: dict[str, dict[str, Path]] = {}
    for path in (root / "compose.yaml", *sorted((root / "compose").glob("*.yaml"))):
        document = yaml.safe_load(files.read_bytes(path) or b"") or {}
        for service, entry in document.get("services", {}).items():
            for volume in entry.get("volumes") or ():
                if isinstance(volume, dict) and volume.get("type") == "bind":
                    found.setdefault(service, {})[volume["target"]] = root / volume["source"]
    return found


def stale(
    tools: Tools, containers: Mapping[str, Container], only: Collection[Path] = ()
) -> dict[str, tuple[Path, ...]]:
    """By service, the folders in whose place its running container has another; () when it cannot be looked into. `only`: look at these alone.

    Raises NotWritable when a folder takes no mark.
    """
    found: dict[str, tuple[Path, ...]] = {}
    known = bound(tools.settings.root)
    for service, container in containers.items():
        folders = {p: f for p, f in known.get(service, {}).items() if not only or f in only}
        if container.running and folders:
            other = _unseen(tools, container, folders)
            if other is None or other:
                found[service] = other or ()
    return found


def cause(settings: Settings, found: Mapping[str, tuple[Path, ...]]) -> str:
    """What is stale, in one line."""
    parts = []
    for service, folders in found.items():
        old = ", ".join(str(folder.relative_to(settings.root)) for folder in folders)
        parts.append(f"{service} still has the old {old}" if old else f"{service} does not say which it has")
    return f"folders were replaced: {'; '.join(parts)}"


def _unseen(tools: Tools, container: Container, folders: Mapping[str, Path]) -> tuple[Path, ...] | None:
    name = f"{files.MARK}{secrets.token_hex(8)}"
    with contextlib.ExitStack() as marks:
        # One that is gone altogether cannot be what the container has.
        there = {place: folder for place, folder in folders.items() if folder.is_dir()}
        for folder in there.values():
            marks.enter_context(_mark(folder / name))
        # The root is always there: without it in the answer, nobody has looked.
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
