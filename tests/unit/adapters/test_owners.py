"""The owner of the keys in a clone made by root: an id that no account of the machine has or can get."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from io3ops.adapters import owners
from io3ops.errors import KeyFileUnsafe

FIRST = 2_100_010_001
LOGIN_DEFS = "# a comment\nUID_MIN 1000\nUID_MAX\t60000\nSUB_UID_MIN 100000\nSUB_UID_MAX 600100000\nSUB_GID_MAX x\n"


def machine(
    folder: Path, *, subuid: str = "", subgid: str = "", defs: str = LOGIN_DEFS, uids: str = "", gids: str = ""
) -> owners.Accounts:
    for name, text in (
        ("subuid", subuid),
        ("subgid", subgid),
        ("login.defs", defs),
        ("uid_map", uids),
        ("gid_map", gids),
    ):
        if text:
            (folder / name).write_text(text)
    return owners.look(folder, folder)


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "known", lambda _number: False)


def taken(*numbers: int) -> Callable[[int], bool]:
    return lambda number: number in numbers


def test_an_ordinary_machine_gets_the_first_id(tmp_path: Path) -> None:
    """It lies above the ranges of systemd and of directory accounts, and is valid for a container's user."""
    found = owners.choose(
        machine(tmp_path, subuid="me:100000:65536\n", uids="0 0 4294967295\n", gids="0 0 4294967295\n")
    )
    assert found == FIRST and 2_000_200_000 < found <= 2_147_352_575
    assert owners.choose(machine(tmp_path / "nowhere", defs="")) == FIRST, "a system without these files"


@pytest.mark.parametrize("lists", [{"subuid": "me:2100000000:65536\nodd line\n"}, {"subgid": "me:2100010001:1\nx:y:z"}])
def test_ids_lent_to_a_users_containers_are_skipped(tmp_path: Path, lists: dict[str, str]) -> None:
    found = owners.choose(machine(tmp_path, **lists))
    assert found != FIRST and not 2_100_000_000 <= found < 2_100_010_002


def test_an_id_of_an_account_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "known", taken(FIRST, FIRST + 1))
    assert owners.choose(machine(tmp_path)) == FIRST + 2


@pytest.mark.parametrize(
    ("uids", "gids"),
    [("0 100000 65536", "0 100000 65536"), ("0 0 4294967295", "0 100000 65536"), ("0 100000 65536", "0 0 4294967295")],
)
def test_root_in_a_container_gets_an_id_of_its_map(tmp_path: Path, uids: str, gids: str) -> None:
    """chown fails for an id outside of its map; these ids are in the map, and no account has them."""
    found = owners.choose(machine(tmp_path, uids=uids, gids=gids))
    assert 60_706 <= found <= 61_183


def test_if_useradd_may_assign_every_id_an_unused_one_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = "UID_MIN 1000\nUID_MAX 4294967294\n"
    assert owners.choose(machine(tmp_path, defs=everything)) == FIRST
    monkeypatch.setattr(owners, "known", lambda _number: True)
    with pytest.raises(KeyFileUnsafe) as caught:
        owners.choose(machine(tmp_path, defs=everything))
    assert "not root" in caught.value.hint


def test_both_users_and_groups_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def nobody(_number: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(grp, "getgrgid", nobody)
    assert not owners.known(5)
    monkeypatch.setattr(grp, "getgrgid", lambda _number: SimpleNamespace())
    assert owners.known(5)
