"""Decisions about the stack, with an engine that is a list of answers: owners, ports, users, and the end of a wait."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from io3ops.adapters import machine, owners
from io3ops.adapters.docker_engine import Container
from io3ops.errors import ContainerDied, ForeignStack, NotReady, PortTaken
from io3ops.operations.stack import ownership, project, waiting
from io3ops.settings import Settings, read_settings

GATEWAY = Container(
    id="c1", service="gateway", status="running", health="starting", exit_code=0, restarts=0, image="i", working_dir="", oom_killed=False,
)  # fmt: skip


def settings(root: Path, **environment: str) -> Settings:
    return read_settings(environment, root, {})


def tools(*answers: Container | None, timeout: str = "120") -> Any:
    """Each poll gets the next answer; the last one is repeated."""
    left = list(answers)

    def containers(_project: str) -> dict[str, Container]:
        found = left.pop(0) if len(left) > 1 else left[0]
        return {found.service: found} if found else {}

    return SimpleNamespace(
        settings=settings(Path("/nowhere"), IO3OPS_WAIT_TIMEOUT=timeout),
        engine=SimpleNamespace(containers=containers, tail=lambda _id, _lines: "its last words"),
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that advances only when the loop sleeps."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


READY = waiting.Waiting(service="gateway", what="the gateway", ready=lambda c: c.health == "healthy")


def test_a_wait_ends_when_ready(clock: list[float]) -> None:
    assert waiting.wait(tools(GATEWAY, GATEWAY, replace(GATEWAY, health="healthy")), READY, 0) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (replace(GATEWAY, status="exited", exit_code=78), "exit code 78"),
        (replace(GATEWAY, status="restarting", restarts=1), "exit code"),
        (replace(GATEWAY, restarts=3), "was restarted 3 times"),
        (replace(GATEWAY, status="exited", oom_killed=True), "out of memory"),
        (None, "there is no gateway container"),
    ],
    ids=["exited", "restarting", "restarted", "memory", "gone"],
)
def test_a_wait_ends_at_once_when_the_container_ends(clock: list[float], later: Container | None, words: str) -> None:
    with pytest.raises(ContainerDied, match=words) as caught:
        waiting.wait(tools(GATEWAY, later), READY, 0)
    assert clock[0] < 1000.5 and caught.value.hint
    assert later is None or caught.value.details == "its last words"


def test_earlier_restarts_do_not_end_a_wait(clock: list[float]) -> None:
    waiting.wait(tools(replace(GATEWAY, restarts=2), replace(GATEWAY, restarts=2, health="healthy")), READY, 2)


def test_a_wait_times_out(clock: list[float]) -> None:
    with pytest.raises(NotReady, match="health starting") as caught:
        waiting.wait(tools(GATEWAY, timeout="7"), READY, 0)
    assert 1007 < clock[0] < 1008 and caught.value.details == "its last words"


@pytest.mark.parametrize(
    ("uid", "options", "owner"),
    [
        (1000, [], (1000, 1000)),
        (0, [], (2_100_010_001, 2_100_010_001)),
        (1000, ["name=seccomp,profile=builtin", "name=rootless"], (0, 0)),
    ],
    ids=["a user", "root", "rootless"],
)
def test_the_gateway_is_never_root_outside_its_container(
    monkeypatch: pytest.MonkeyPatch, uid: int, options: list[str], owner: tuple[int, int]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "getegid", lambda: uid)
    monkeypatch.setattr(owners, "unassigned_id", lambda: 2_100_010_001)
    assert ownership.container_user({"SecurityOptions": options}) == owner


def test_containers_of_another_clone_are_left_alone_unless_it_was_removed(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    with pytest.raises(ForeignStack, match=str(other)):
        project.check_owner(settings(mine), {"gateway": replace(GATEWAY, working_dir=str(other))})
    project.check_owner(settings(mine), {"gateway": replace(GATEWAY, working_dir=str(mine))})
    project.check_owner(settings(mine), {"gateway": replace(GATEWAY, working_dir=str(tmp_path / "gone"))})


@pytest.mark.parametrize(
    "found",
    [{}, {"gateway": replace(GATEWAY, status="exited")}, {"gateway": replace(GATEWAY, ports=(4100,))}],
    ids=["none", "stopped", "ours is another"],
)
def test_a_port_of_another_program_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: Mapping[str, Container]
) -> None:
    monkeypatch.setattr(machine, "port_free", lambda _port: False)
    with pytest.raises(PortTaken, match="4000"):
        project.check_port(settings(tmp_path), found)


def test_a_proxys_password_is_not_written_to_env(tmp_path: Path) -> None:
    values = {"HTTPS_PROXY": "http://me:secret@proxy", "HTTP_PROXY": "x", "NO_PROXY": "y", "IO3OPS_UID": "1"}
    assert project.persistent(values, settings(tmp_path)) == {"IO3OPS_UID": "1"}


def test_a_port_that_the_user_set_in_env_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("IO3OPS_PORT=4100\n")
    assert "IO3OPS_PORT" not in project.persistent({"IO3OPS_PORT": "4100", "IO3OPS_UID": "1"}, settings(tmp_path))


@pytest.mark.parametrize(
    ("setting", "cards", "info", "chosen"),
    [
        ("auto", {}, {}, ""),
        ("auto", {"nvidia": True}, {"Runtimes": {"nvidia": {}}}, "nvidia"),
        ("auto", {"nvidia": True}, {"Runtimes": {"runc": {}}}, ""),
        ("auto", {"amd": True}, {}, "amd"),
        ("none", {"nvidia": True}, {"Runtimes": {"nvidia": {}}}, ""),
        ("nvidia", {}, {}, "nvidia"),
    ],
)
def test_a_graphics_card_is_used_if_the_engine_supports_it(
    tmp_path: Path, setting: str, cards: dict[str, bool], info: dict[str, Any], chosen: str
) -> None:
    here: Any = SimpleNamespace(**({"nvidia": False, "amd": False} | cards))
    assert project.gpu_overlay(settings(tmp_path, IO3OPS_GPU=setting), here, info) == chosen


def test_the_runtime_never_gets_the_whole_machine() -> None:
    assert project._runtime_memory(16 * 2**30) <= 14 * 2**30
    assert project._runtime_memory(2**30) == 2**30


def test_with_a_rootless_engine_the_key_file_belongs_to_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root in its containers is this user on the host, so no chown to 0 is possible or needed."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    assert ownership.key_owner({"SecurityOptions": ["name=rootless"]}) == (1000, 1000)
    assert ownership.key_owner({}) == (1000, 1000)


def test_with_userns_remap_the_files_belong_to_the_shifted_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """The id must be within the map, and the host sees it shifted. An id of an account is skipped."""
    info = {"SecurityOptions": ["name=seccomp", "name=userns"], "DockerRootDir": "/var/lib/docker/165536.231072"}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(owners, "known", lambda number: number in (175_537, 241_074))
    assert ownership.container_user(info) == (10_003, 10_003), "the first id is a user of the host, the second a group"
    assert ownership.key_owner(info) == (175_539, 241_075)


def test_every_file_of_the_gateway_is_listed_and_no_link_is_followed(tmp_path: Path) -> None:
    """The gateway can write to some folders, and must not become the owner of a link's target."""
    mine = settings(tmp_path)
    paths = [mine.key_file, mine.provider_keys / "openai", mine.keys_file, mine.audit_file, mine.logs / "requests.jsonl",
             mine.recording / "recording.json", mine.content / "content.jsonl", mine.mounted_keys / "openai",
             mine.egress_folder / "egress.conf", mine.observer_folder / "words.json", mine.outlet_folder / "egress.conf"]  # fmt: skip
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "shadow").write_text("x")
    (mine.logs / "requests-1.jsonl").symlink_to(tmp_path / "shadow")
    found = list(ownership.owned_files(mine))
    assert set(paths) <= set(found) and {p.parent for p in paths[1:]} <= set(found)
    assert len(found) == len(set(found)) == 2 * len(paths) - 1
    me = os.geteuid()
    assert ownership.wrongly_owned(mine, (me, me)) == () and set(ownership.wrongly_owned(mine, (me + 1, me))) == set(
        found
    )
