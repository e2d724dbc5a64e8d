"""`io3ops logs prune` in a folder of the gateway's user, which may have been tampered with."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from io3ops.adapters import files
from io3ops.operations.request_log import prune as prune_logs
from io3ops_shared.request_log.files import LOCK


def test_root_changes_the_owner_of_the_lock_and_not_of_a_link_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs, theirs = tmp_path / "logs", tmp_path / "shadow"
    logs.mkdir()
    theirs.write_text("root's alone")
    given: list[tuple[int, int, int]] = []

    def swapped(_folder: Path) -> tuple[int, int]:
        (logs / LOCK).unlink()
        (logs / LOCK).symlink_to(theirs)
        return 10001, 10001

    def give(descriptor: int, uid: int, gid: int) -> None:
        given.append((os.fstat(descriptor).st_ino, uid, gid))

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(files, "owner", swapped)
    monkeypatch.setattr(os, "fchown", give)
    monkeypatch.setattr(os, "chown", lambda *_: pytest.fail("by its name"))
    settings: Any = SimpleNamespace(logs=logs)
    assert prune_logs.prune(settings, keep_days=1, budget_mb=1).removed == ()
    assert [(uid, gid) for _, uid, gid in given] == [(10001, 10001)] and given[0][0] != theirs.stat().st_ino
