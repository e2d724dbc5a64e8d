"""Mistakes that are found before an engine is asked: each with its own exit code, the layer, a hint, and nothing half done."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from tests.clone import Clone, expect


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "runtime/routing.yaml is missing"),
        (b"", "the file is empty"),
        (b"\x7fELF\x00\xff", "not UTF-8"),
        (b"version: 1\nmodes:\n\texecutor: {}\n", "runtime/routing.yaml:3:1: a tab"),
        (b"version: 1\nversion: 1\n", "runtime/routing.yaml:2:1: duplicate key 'version', first on line 1"),
        (b"version: 1\nmods: {}\n", "did you mean 'modes'?"),
    ],
    ids=["missing", "empty", "binary", "tab", "duplicate", "unknown"],
)
def test_a_bad_table_stops_up_before_anything_else(clone: Clone, content: bytes | None, words: str) -> None:
    table = clone.path / "runtime/routing.yaml"
    rendered = (clone.path / "runtime/litellm.yaml").read_bytes()
    table.unlink() if content is None else table.write_bytes(content)
    expect(clone.io3ops("up", DOCKER_HOST="unix:///nowhere.sock"), 10, words)
    assert (clone.path / "runtime/litellm.yaml").read_bytes() == rendered
    assert not (clone.path / ".env").exists()


def test_a_hand_edited_litellm_yaml_is_shown_and_kept(clone: Clone) -> None:
    path = clone.path / "runtime/litellm.yaml"
    path.write_text(path.read_text().replace("num_ctx: 4096", "num_ctx: 512"))
    edited = path.read_text()
    expect(clone.io3ops("render-config"), 15, "-      num_ctx: 512")
    assert path.read_text() == edited
    assert clone.io3ops("render-config", "--force").returncode == 0
    assert "num_ctx: 512" not in path.read_text()


def test_an_open_key_file_is_refused(clone: Clone) -> None:
    key = clone.path / ".io3ops/secrets/master_key"
    key.parent.mkdir(parents=True)
    key.write_text("sk-io3-" + "k" * 40)
    key.chmod(0o644)
    done = clone.io3ops("up")
    expect(done, 12, "io3ops key --rotate")
    assert "kkkk" not in done.stderr


def test_a_broken_env_file_is_named(clone: Clone) -> None:
    (clone.path / ".env").write_text("IO3OPS_PORT=4100\nthis is no line\n")
    expect(clone.io3ops("up"), 11, "this is no line")


def test_an_impossible_setting_is_named(clone: Clone) -> None:
    expect(clone.io3ops("up", IO3OPS_PORT="99999"), 16, "IO3OPS_PORT='99999'")
    expect(clone.io3ops("status", IO3OPS_GPU="voodoo"), 16, "auto, none, nvidia, amd")


def test_a_clone_that_cannot_be_written(clone: Clone) -> None:
    """Root may write anywhere, so for root the folder is mounted read-only in a mount namespace of its own."""
    clone.path.chmod(0o555)
    readonly = 'mount --bind "$PWD" "$PWD" && mount -o remount,bind,ro "$PWD" && cd "$PWD" && exec "$@"'
    wrap = ("unshare", "--mount", "sh", "-c", readonly, "sh") if os.geteuid() == 0 else ()
    expect(clone.run(*wrap, "sh", "scripts/bootstrap.sh", "host"), 13, "cannot be written")
    expect(clone.run(*wrap, sys.executable, "-m", "io3ops", "up"), 13, "cannot be written")
    clone.path.chmod(0o755)
    assert not (clone.path / ".venv").exists() and not (clone.path / ".io3ops").exists()


def test_without_an_engine_every_command_says_so(clone: Clone) -> None:
    dead: dict[str, Any] = {"DOCKER_HOST": "tcp://127.0.0.1:9"}
    for command in ("logs", "down"):
        expect(clone.io3ops(command, **dead), 21)
    done = clone.io3ops("logs", PATH="/nowhere")
    expect(done, 20)
    assert "IO3OPS_INSTALL_DOCKER" not in done.stderr
