"""Finds a user id that no account of this machine has or can get. Reads only."""

from __future__ import annotations

import contextlib
import functools
import grp
import pwd
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from io3ops.errors import KeyFileUnsafe

# systemd's list of ranges (UIDS-GIDS) assigns nothing between 1879048192 and 2147352575. Accounts that SSSD maps from a
# directory end at 2000200000, so the search begins above them.
HIGH = (range(2_100_010_001, 2_100_010_101), range(1_879_058_193, 1_879_058_293))
# Unassigned in the same list. For a root inside a container, whose id map often ends at 65536.
LOW = (range(60_906, 61_184), range(65_520, 65_534))
# Prefixes in login.defs of the ranges from which useradd takes ids for accounts and for their containers.
DEFINED = ("UID", "GID", "SYS_UID", "SYS_GID", "SUB_UID", "SUB_GID")


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """The ids of this machine that are in use or reserved.

    `maps`: ids that exist for this process, of users and of groups. `lent`: ranges of subuid and subgid. `defined`: ranges of
    login.defs. `known(id)`: whether a user or group has the id.
    """

    maps: tuple[tuple[range, ...], ...]
    lent: tuple[range, ...]
    defined: tuple[range, ...]
    known: Callable[[int], bool]


def choose(accounts: Accounts) -> int:
    """Return the first id that no account has or can get. Raises KeyFileUnsafe when there is none."""
    # login.defs may claim every id. Then an id that no account has yet must do.
    for claimed in ((*accounts.lent, *accounts.defined), accounts.lent):
        for number in (n for ids in (*HIGH, *LOW) for n in ids):
            exists = all(_in(number, ids) for ids in accounts.maps)
            if exists and not _in(number, claimed) and not accounts.known(number):
                return number
    raise KeyFileUnsafe(
        "the keys must belong to a user id that no account has, but every id that io3ops may take is in use",
        hint="run io3ops as a user who is not root; the keys then belong to that user",
    )


@functools.cache
def unassigned_id() -> int:
    """Return this machine's id for user and group. Raises KeyFileUnsafe."""
    return choose(look(Path("/etc"), Path("/proc/self")))


def look(etc: Path, process: Path) -> Accounts:
    """Read a machine's files. `process`: folder with this process's id maps."""
    return Accounts(
        # Only Linux has id maps.
        maps=tuple(ids for name in ("uid_map", "gid_map") if (ids := _map(process / name))),
        lent=tuple(_lent(etc / "subuid")) + tuple(_lent(etc / "subgid")),
        defined=tuple(_defined(etc / "login.defs")),
        known=known,
    )


def known(number: int) -> bool:
    """Return whether a user or group of this machine, or of its directory service, has this id."""
    for find in (pwd.getpwuid, grp.getgrgid):
        with contextlib.suppress(KeyError):
            find(number)
            return True
    return False


def _in(number: int, ranges: Iterable[range]) -> bool:
    return any(number in ids for ids in ranges)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _map(path: Path) -> tuple[range, ...]:
    rows = [line.split() for line in _lines(path)]
    return tuple(range(int(row[0]), int(row[0]) + int(row[2])) for row in rows if len(row) == 3)


def _lent(path: Path) -> Iterable[range]:
    for line in _lines(path):
        _, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if first.isdecimal() and count.strip().isdecimal():
            yield range(int(first), int(first) + int(count))


def _defined(path: Path) -> Iterable[range]:
    rows = (line.split() for line in _lines(path))
    found = {row[0]: int(row[1]) for row in rows if len(row) >= 2 and row[1].isdecimal()}
    for name in DEFINED:
        if f"{name}_MAX" in found:
            yield range(found.get(f"{name}_MIN", 0), found[f"{name}_MAX"] + 1)
