"""Folders that were replaced under a running container, and the gateway's confirmation of files. The engine is a stand-in."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from io3ops.adapters import files, machine
from io3ops.adapters.docker_engine import Container
from io3ops.errors import EngineLost, GatewayError, NotWritable
from io3ops.operations.stack import confirm, mounts
from io3ops.settings import Settings, read_settings

GATEWAY = Container(
    id="c1", service="gateway", status="running", health="healthy", exit_code=0, restarts=0, image="i", working_dir="", oom_killed=False,
)  # fmt: skip


class Engine:
    """The gateway's container: by path, the mounted folder, which a rename does not change."""

    def __init__(self, mounted: dict[str, int], root: Path) -> None:
        self.mounted = mounted
        self.root = root
        self.asked: list[list[str]] = []
        self.silent = False
        # The number of looks that come too early to see the mark.
        self.late = 0

    def execute(self, _container: str, argv: list[str], *, errors: bool) -> tuple[int, str]:
        assert not errors, "stderr could interrupt a line of stdout"
        self.asked.append(argv)
        if self.silent:
            return 126, ""
        if len(self.asked) <= self.late:
            return 2, "/\n"
        seen = [word for word in argv[2:] if word == "/" or self._sees(word)]
        return 2, "\n".join([*seen, ""])

    def _sees(self, word: str) -> bool:
        place, _, name = word.rpartition("/")
        if place not in self.mounted:
            return False
        try:
            os.stat(name, dir_fd=self.mounted[place])
        except FileNotFoundError:
            return False
        return True


@pytest.fixture
def clone(tmp_path: Path, root: Path) -> Settings:
    shutil.copytree(root / "compose", tmp_path / "compose")
    shutil.copy(root / "compose.yaml", tmp_path)
    for folders in mounts.bound(tmp_path).values():
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
    return read_settings({}, tmp_path, {})


@pytest.fixture
def engine(clone: Settings) -> Iterator[Engine]:
    mounted = {place: os.open(folder, os.O_RDONLY) for place, folder in mounts.bound(clone.root)["gateway"].items()}
    yield Engine(mounted, clone.root)
    for descriptor in mounted.values():
        os.close(descriptor)


def tools(clone: Settings, engine: Engine, **more: Any) -> Any:
    return SimpleNamespace(settings=clone, engine=engine, **more)


def swap(folder: Path) -> None:
    """Replace a folder as a restore does: by another one with the same content."""
    folder.rename(folder.with_name(f"{folder.name}.old"))
    shutil.copytree(folder.with_name(f"{folder.name}.old"), folder)


def left(root: Path) -> list[Path]:
    return list(root.rglob(f"{files.MARK}*"))


def test_every_bind_mount_of_the_compose_files_is_known(clone: Settings) -> None:
    found = mounts.bound(clone.root)
    assert set(found) == {"gateway", "loader", "egress", "observer", "outlet"}
    assert found["gateway"]["/run/keys"] == clone.keys_file.parent and len(found["gateway"]) == 8
    assert found["egress"] == {"/etc/io3ops/egress": clone.egress_folder}
    assert found["outlet"] == {"/etc/io3ops/egress": clone.outlet_folder}
    assert set(found["observer"]) == {"/run/logs", "/run/observer", "/run/ca"}


def test_unchanged_folders_are_not_stale_and_keep_no_mark(clone: Settings, engine: Engine) -> None:
    (clone.keys_file.parent / f"{files.MARK}old").write_text("")
    os.utime(clone.keys_file.parent / f"{files.MARK}old", (time.time() - 7200,) * 2)
    (clone.keys_file.parent / f"{files.MARK}other").write_text("")
    assert mounts.stale(tools(clone, engine), {"gateway": GATEWAY}) == {}
    assert len(engine.asked) == 1 and len(engine.asked[0]) == 2 + 1 + 8, "one question"
    assert [path.name for path in left(clone.root)] == [f"{files.MARK}other"], (
        "a young mark may belong to another process"
    )


@pytest.mark.parametrize(
    "place",
    [
        "/etc/io3ops",
        "/run/ca",
        "/run/keys",
        "/run/provider_keys",
        "/run/audit",
        "/run/recording",
        "/run/content",
        "/run/logs",
    ],
)
def test_each_replaced_or_missing_folder_is_detected(clone: Settings, engine: Engine, place: str) -> None:
    folder = mounts.bound(clone.root)["gateway"][place]
    swap(folder)
    found = mounts.stale(tools(clone, engine), {"gateway": GATEWAY})
    assert found == {"gateway": (folder,)} and not left(clone.root)
    assert str(folder.relative_to(clone.root)) in mounts.cause(clone, found)
    shutil.rmtree(folder)
    assert mounts.stale(tools(clone, engine), {"gateway": GATEWAY}) == {"gateway": (folder,)}
    assert mounts.stale(tools(clone, engine), {"gateway": GATEWAY}, only=[clone.table]) == {}


def test_a_slow_shared_folder_is_examined_again(clone: Settings, engine: Engine) -> None:
    engine.late = 2
    assert mounts.stale(tools(clone, engine), {"gateway": GATEWAY}) == {}


def test_a_container_that_cannot_be_examined_is_reported(clone: Settings, engine: Engine) -> None:
    engine.silent = True
    assert mounts.stale(tools(clone, engine), {"gateway": GATEWAY}) == {"gateway": ()}
    assert not left(clone.root)
    assert mounts.stale(tools(clone, engine), {"gateway": replace(GATEWAY, status="exited")}) == {}


def test_marks_are_removed_when_the_engine_fails(
    clone: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise EngineLost("gone")

    monkeypatch.setattr(engine, "execute", lost)
    with pytest.raises(EngineLost):
        mounts.stale(tools(clone, engine), {"gateway": GATEWAY})
    assert not left(clone.root)

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(NotWritable, match="full"):
        mounts.stale(tools(clone, engine), {"gateway": GATEWAY})


def test_a_mark_does_not_count_as_a_mounted_file(tmp_path: Path) -> None:
    """`health` may put a mark into a folder while `up` writes to it."""
    (tmp_path / f"{files.MARK}x").write_text("")
    assert files.read_folder(tmp_path) == {}
    files.sync_folder(tmp_path, {"a": b"x"})
    assert (tmp_path / f"{files.MARK}x").exists() and files.read_folder(tmp_path) == {"a": b"x"}


# -- the confirmation of the running gateway


def asking(clone: Settings, engine: Engine, held: Any, gateway: Container | None = GATEWAY) -> Any:
    def status(_docker: str, _container: str, *, seconds: float) -> dict[str, Any]:
        if isinstance(held, Exception):
            raise held
        said = held() if callable(held) else held
        return {"ok": True, "generation": 1} | ({} if said == "old release" else {"files": {"keys": said}})

    def containers(_project: str) -> dict[str, Container]:
        if isinstance(gateway, Exception):
            raise gateway
        return {"gateway": gateway} if gateway else {}

    engine.command = lambda: "docker"  # type: ignore[attr-defined]
    engine.containers = containers  # type: ignore[attr-defined]
    return tools(clone, engine, control=SimpleNamespace(status=status))


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "PATIENCE", 0.0)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_that_the_gateway_reports_is_confirmed(
    clone: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.keys_file.write_bytes(b"new")
    held = iter([sha(b"old"), sha(b"new")])
    monkeypatch.setattr(confirm, "PATIENCE", 60.0)
    found = confirm.confirm(asking(clone, engine, lambda: next(held)), confirm.KEYS, clone.keys_file)
    assert found.state == "taken" and found.settled, "the question is repeated, because a shared folder may be slow"
    clone.keys_file.unlink()
    assert confirm.confirm(asking(clone, engine, ""), confirm.KEYS, clone.keys_file).state is confirm.State.TAKEN


@pytest.mark.parametrize(
    ("held", "state", "words"),
    [
        (sha(b"old"), "not_taken", "does not see it: its folder was replaced"),
        (None, "not_taken", "does not see it"),
        ("", "not_taken", "does not see it"),
        ("old release", "unknown", "older release"),
        (GatewayError("the gateway does not answer commands"), "unknown", "does not answer commands"),
        (KeyboardInterrupt(), "unknown", "was interrupted before the running gateway confirmed it"),
    ],
)
def test_a_file_that_the_gateway_does_not_report_is_not_confirmed(
    clone: Settings, engine: Engine, held: Any, state: str, words: str
) -> None:
    clone.keys_file.write_bytes(b"new")
    asked = asking(clone, engine, held)
    if isinstance(held, KeyboardInterrupt):
        asked.control.status = interrupted
    found = confirm.confirm(asked, confirm.KEYS, clone.keys_file)
    error = found.problem()
    assert found.state == state and not found.settled and words in error.message
    assert error.exit_code == 63 and error.message.startswith("saved, but") and "io3ops up" in error.hint


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("gateway", [None, replace(GATEWAY, status="exited"), replace(GATEWAY, working_dir="/tmp")])
def test_without_a_gateway_of_this_clone_a_file_counts_from_the_next_start(
    clone: Settings, engine: Engine, gateway: Container | None
) -> None:
    clone.keys_file.write_bytes(b"new")
    found = confirm.confirm(asking(clone, engine, sha(b"old"), gateway), confirm.KEYS, clone.keys_file)
    assert found.state == "none" and found.settled


@pytest.mark.parametrize(("free", "state"), [(True, "none"), (False, "unknown")])
def test_a_silent_engine_means_no_gateway_only_if_the_port_is_free(
    clone: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, free: bool, state: str
) -> None:
    monkeypatch.setattr(machine, "port_free", lambda _port: free)
    lost: Any = EngineLost("the Docker engine stopped answering")
    found = confirm.confirm(asking(clone, engine, "", lost), confirm.KEYS, clone.keys_file)
    assert found.state == state


def test_a_file_is_not_confirmed_if_a_folder_was_replaced(clone: Settings, engine: Engine) -> None:
    asked = asking(clone, engine, "")
    assert confirm.confirm(asked, confirm.KEYS, clone.keys_file, [clone.content]).state is confirm.State.TAKEN
    swap(clone.content)
    found = confirm.confirm(asked, confirm.KEYS, clone.keys_file, [clone.content])
    assert found.state == "not_taken" and ".io3ops/content" in found.why
