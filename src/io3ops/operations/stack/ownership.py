"""Who owns the gateway's files: its user in the container, the same user on the host, and the files that it must own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from io3ops.adapters import files, owners
from io3ops.errors import Io3opsError
from io3ops.settings import Settings
from io3ops.tools import Tools

# Ids inside the container when the engine shifts all ids of its containers: within its map, which has at least 65536 ids.
REMAPPED = range(10_001, 10_101)


def container_user(info: Mapping[str, Any]) -> tuple[int, int]:
    """Return (uid, gid) of the gateway in its container: never root, and no account of this machine.

    A rootless engine maps its root to this user, so there 0 is unprivileged.
    """
    if _has_option(info, "rootless"):
        return (0, 0)
    if os.geteuid() != 0:
        return (os.geteuid(), os.getegid())
    base = _remapped(info)
    number = _inside(base) if base else owners.unassigned_id()
    return (number, number)


def key_owner(info: Mapping[str, Any]) -> tuple[int, int]:
    """Return (uid, gid) of the gateway's user on the host, which owns the key file and the folders."""
    user = container_user(info)
    base = _remapped(info) if os.geteuid() == 0 else None
    if base:
        return (base[0] + user[0], base[1] + user[1])
    return (os.geteuid(), os.getegid()) if user == (0, 0) else user


def gateway_user(tools: Tools, path: Path) -> tuple[int, int] | None:
    """Return (uid, gid) for one of the gateway's files; None when it is unknown and the owner must not change.

    Only for root it depends on the engine. A file that already has its owner keeps it: revoking a key must not wait for an
    engine.
    """
    if os.geteuid() != 0:
        return key_owner({})
    before = files.owner(path)
    if before and before[0] != 0:
        return before
    try:
        return key_owner(tools.engine.info())
    except Io3opsError:
        return files.owner(tools.settings.key_file)


def owned_files(settings: Settings) -> Iterator[Path]:
    """Yield the files and folders that the gateway's user must own, each folder before its files."""
    if settings.key_file.exists():
        yield settings.key_file
    for folder in (
        settings.provider_keys,
        settings.keys_file.parent,
        settings.audit_file.parent,
        settings.logs,
        settings.recording,
        settings.content,
        settings.mounted_keys,
        settings.egress_folder,
        settings.observer_folder,
        settings.outlet_folder,
    ):
        if folder.is_dir():
            yield folder
            # Skip links: the gateway writes to some of these folders, and root must not change the owner of a link's target.
            yield from (
                path
                for path in sorted(folder.iterdir())
                if path.is_file() and not path.is_symlink() and not path.name.startswith(files.MARK)
            )


def wrongly_owned(settings: Settings, owner: tuple[int, int]) -> tuple[Path, ...]:
    """Return those of `owned_files` that belong to another user."""
    found = []
    for path in owned_files(settings):
        # The gateway may remove an old log in the meantime.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_uid != owner[0]:
                found.append(path)
    return tuple(found)


def _has_option(info: Mapping[str, Any], name: str) -> bool:
    return any(f"name={name}" in option for option in info.get("SecurityOptions") or ())


def _remapped(info: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return (uid, gid) on the host of the containers' root, when the engine shifts its ids (userns-remap)."""
    # The engine reveals them only in the name of its folder: /var/lib/docker/165536.165536.
    uid, _, gid = str(info.get("DockerRootDir") or "").rpartition("/")[2].partition(".")
    return (int(uid), int(gid)) if _has_option(info, "userns") and uid.isdecimal() and gid.isdecimal() else None


def _inside(base: tuple[int, int]) -> int:
    """Return an id in the container that is no account on the host. The host lends the map's ids to the engine, so no account gets one."""
    free = (n for n in REMAPPED if not owners.known(base[0] + n) and not owners.known(base[1] + n))
    return next(free, REMAPPED[0])
