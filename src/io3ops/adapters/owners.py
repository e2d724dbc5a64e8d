"""A user id that no account of this machine has, or can be given. Reads the lists of accounts; changes nothing."""

from __future__ import annotations

import contextlib
import functools
import grp
import pwd
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from io3ops.errors import KeyFileUnsafe

# systemd's list of ranges (UIDS-GIDS) leaves 1879048192 to 2147352575 to nobody. The accounts of a directory that SSSD
# maps end at 2000200000, so the search begins above them.
HIGH = (range(2_100_010_001, 2_100_010_101), range(1_879_058_193, 1_879_058_293))
# For a root that is one of a container only: its map often ends at 65536. The same list leaves these to nobody too.
LOW = (range(60_906, 61_184), range(65_520, 65_534))
# What stands in login.defs: the ranges from which useradd takes the ids of accounts, and those it lends to their containers.
DEFINED = ("UID", "GID", "SYS_UID", "SYS_GID", "SUB_UID", "SUB_GID")


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """What this machine says of its ids. `maps`: of users and of groups, those that exist for this process; `lent`: of subuid and subgid;
    `defined`: of login.defs; `known(id)`: whether a user or group has it."""

    maps: tuple[tuple[range, ...], ...]
    lent: tuple[range, ...]
    defined: tuple[range, ...]
    known: Callable[[int], bool]


def choose(accounts: Accounts) -> int:
    """The first id that can be nobody's. Raises KeyFileUnsafe when each of them is somebody's."""
    # Where login.defs claims every id, one that nobody has must do.
    for claimed in ((*accounts.lent, *accounts.defined), accounts.lent):
        for number in (n for ids in (*HIGH, *LOW) for n in ids):
            exists = all(_in(number, ids) for ids in accounts.maps)
            if exists and not _in(number, claimed) and not accounts.known(number):
                return number
    raise KeyFileUnsafe(
        "the keys must belong to a user that no account can be, and each id that io3ops may take is given to somebody",
        hint="run io3ops as a user who is not root: the keys then belong to that user",
    )


@functools.cache
def of_nobody() -> int:
    """The id on this machine, for user and group. Raises KeyFileUnsafe."""
    return choose(look(Path("/etc"), Path("/proc/self")))


def look(etc: Path, process: Path) -> Accounts:
    """What the files of a machine say. `process`: where this process's maps of ids are."""
    return Accounts(
        # Elsewhere than on Linux there are no maps.
        maps=tuple(ids for name in ("uid_map", "gid_map") if (ids := _map(process / name))),
        lent=tuple(_lent(etc / "subuid")) + tuple(_lent(etc / "subgid")),
        defined=tuple(_defined(etc / "login.defs")),
        known=known,
    )


def known(number: int) -> bool:
    """Whether a user or a group of this machine, or of its directory, has this id."""
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
