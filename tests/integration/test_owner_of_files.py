"""A clone of root's that an older io3ops made: its keys belonged to user 10001, who may be anybody."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import pytest
from tests.clone import PATIENCE, Clone

from io3ops.adapters import files, owners

pytestmark = pytest.mark.containers


def as_before(clone: Clone) -> None:
    """What the older release left behind: files, `.env` and a running gateway of user 10001."""
    mine = files.read_env(clone.path / ".env")[0]["IO3OPS_UID"]
    for path in (clone.path / ".io3ops").rglob("*"):
        if str(path.stat().st_uid) == mine:
            os.chown(path, 10001, 10001)
    env = clone.path / ".env"
    env.write_text(env.read_text().replace(mine, "10001"))
    subprocess.run(
        ["docker", "compose", "up", "-d", "--no-deps", "gateway"], cwd=clone.path, check=True, capture_output=True
    )


def lists_modes(clone: Clone, key: str) -> int:
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        url = f"http://127.0.0.1:{clone.port}/v1/models"
        return client.get(url, headers={"Authorization": f"Bearer {key}"}).status_code


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand a file to another user")
def test_up_hands_everything_to_a_user_that_nobody_can_be(running: Clone) -> None:
    clone = running
    assert clone.io3ops("up").returncode == 0
    erin = clone.io3ops("keys", "add", "erin").stdout.strip()
    assert clone.run("sh", "-c", f"echo sk-1 | {sys.executable} -m io3ops secrets set openai").returncode == 0
    as_before(clone)
    assert clone.docker("exec", clone.container("gateway"), "id", "-u").stdout.strip() == "10001"

    done = clone.io3ops("up")
    assert done.returncode == 0 and "IO3OPS_UID" in done.stderr, done.stderr
    kept = [path for path in (clone.path / ".io3ops").rglob("*") if path.stat().st_uid != 0]
    assert not [str(path) for path in kept if 10001 in (path.stat().st_uid, path.stat().st_gid)]
    nobody = owners.unassigned_id()
    assert {"keys.json", "master_key", "requests.jsonl", "openai", "audit"} <= {
        p.name for p in kept if p.stat().st_uid == nobody
    }
    assert clone.docker("exec", clone.container("gateway"), "id", "-u").stdout.strip() == str(nobody)
    assert lists_modes(clone, erin) == 200, "the gateway reads what is now its own"
    # One that came back from a backup with another owner is seen, without anything else having changed.
    keys = clone.path / ".io3ops/keys/keys.json"
    content = keys.read_bytes()
    keys.unlink()
    keys.write_bytes(content)
    keys.chmod(0o600)
    assert lists_modes(clone, erin) == 401
    assert "keys.json" in clone.io3ops("up").stderr
    assert lists_modes(clone, erin) == 200
    assert clone.io3ops("secrets", "remove", "openai").returncode == 0
