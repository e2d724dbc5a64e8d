"""A restore replaces a folder under the running stack: nothing is claimed that the gateway has not taken, and `up` mends it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.clone import PATIENCE, Clone, free_port
from tests.stacks import own_table

from io3ops.adapters import files

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def stack(running: Clone) -> Iterator[Clone]:
    """A stack with all containers that are lent folders: the way out, the observer, its outlet."""
    observe = f"observe: {{metrics_port: {free_port()}, otlp_url: 'http://host.docker.internal:9'}}"
    clouds = "  cloud: {kind: openai, key: openai, enabled: true}\n"
    with own_table(running):
        running.edit_table("providers:\n", f"{observe}\nproviders:\n{clouds}")
        running.edit_table("models:\n", "models:\n  far: {provider: cloud, source: {external: x}, context: 4096}\n")
        running.edit_table(
            "Carries out one task as instructed\n    chain: [smollm2]",
            "x\n    chain: [smollm2, far]\n    record_internal: true",
        )
        stored = running.run("sh", "-c", f"echo sk-cloud-1 | {sys.executable} -m io3ops secrets set openai")
        done = running.io3ops("up", timeout=1800)
        assert (stored.returncode, done.returncode) == (0, 0), stored.stderr + done.stderr
        yield running
        for old in (*running.path.glob("*.old"), *(running.path / ".io3ops").glob("*.old")):
            shutil.rmtree(old)
        assert running.io3ops("secrets", "remove", "openai").returncode == 0


def replace(folder: Path) -> None:
    """As a person restores a backup: `mv` it away, `cp -a` it back."""
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    shutil.copytree(old, folder)
    for path in (old, *old.iterdir()):
        status = path.stat()
        os.chown(folder / path.relative_to(old), status.st_uid, status.st_gid)


def lists_modes(clone: Clone, key: str) -> int:
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        url = f"http://127.0.0.1:{clone.port}/v1/models"
        return client.get(url, headers={"Authorization": f"Bearer {key}"}).status_code


def probe(clone: Clone, layer: str) -> dict[str, Any]:
    return next(p for p in clone.json("health")["data"]["probes"] if p["layer"] == layer)


def test_keys_after_a_restore(stack: Clone) -> None:
    done = stack.io3ops("keys", "add", "alice")
    alice = done.stdout.strip()
    assert done.returncode == 0 and "works at once" in done.stderr and lists_modes(stack, alice) == 200
    assert probe(stack, "folders")["state"] == "ok"
    replace(stack.path / ".io3ops/keys")

    added = stack.io3ops("keys", "add", "bob")
    bob = added.stdout.strip()
    assert added.returncode == 63 and "E63" in added.stderr and "io3ops up" in added.stderr
    assert "works at once" not in added.stderr and bob.startswith("sk-io3-"), "it is shown only now"
    assert lists_modes(stack, bob) == 401
    ended = stack.io3ops("keys", "revoke", "alice")
    assert ended.returncode == 63 and "refuses it from now on" not in ended.stdout
    again = stack.io3ops("keys", "revoke", "alice", "--json")
    assert again.returncode == 63 and json.loads(again.stdout)["data"]["gateway"] == "not_taken"
    assert lists_modes(stack, alice) == 200, "which is why nothing else may be said"
    found = probe(stack, "folders")
    assert (
        found["state"] == "failed"
        and "gateway still has the old .io3ops/keys" in found["detail"]
        and "up" in found["hint"]
    )

    up = stack.io3ops("up")
    assert up.returncode == 0 and "gateway still has the old .io3ops/keys" in up.stderr, up.stderr
    assert (lists_modes(stack, alice), lists_modes(stack, bob)) == (401, 200)
    assert probe(stack, "folders")["state"] == "ok"
    assert not list(stack.path.rglob(f"{files.MARK}*")), "no mark is left"
    assert stack.io3ops("keys", "revoke", "bob").returncode == 0 and lists_modes(stack, bob) == 401
    gateway = stack.container("gateway")
    assert stack.io3ops("up").returncode == 0 and stack.container("gateway") == gateway, "once is enough"


def test_the_request_log_after_a_restore(stack: Clone) -> None:
    logs = stack.path / ".io3ops/logs"
    replace(logs)
    for path in logs.iterdir():
        path.unlink()
    assert stack.io3ops("smoke").returncode == 0
    assert stack.io3ops("usage").returncode == 65
    assert stack.io3ops("up").returncode == 0
    assert stack.io3ops("smoke").returncode == 0 and stack.io3ops("usage").returncode == 0
    assert probe(stack, "observer")["state"] == "ok"


def test_recording_after_a_restore(stack: Clone) -> None:
    """Both the folder that asks, and the one that is written and should be emptied."""
    assert stack.io3ops("record", "on", "--mode", "executor").returncode == 0
    for folder in ("content", "recording"):
        replace(stack.path / ".io3ops" / folder)
        ended = stack.io3ops("record", "off", "--delete")
        assert ended.returncode == 63 and "E63" in ended.stderr, ended.stderr
    assert stack.io3ops("up").returncode == 0
    assert stack.io3ops("record", "off", "--delete").returncode == 0


def test_every_folder_of_every_container(stack: Clone) -> None:
    """One `up` for all of them, and only the containers concerned are made anew."""
    runtime = stack.container("runtime")
    for name in ("ca", "provider_keys", "audit", "egress", "outlet", "observer"):
        replace(stack.path / ".io3ops" / name)
    replace(stack.path / "runtime")
    detail = probe(stack, "folders")["detail"]
    for words in ("gateway still has the old", "runtime,", ".io3ops/ca", ".io3ops/provider_keys", ".io3ops/audit",
                  "egress still has the old .io3ops/egress", "outlet still has the old .io3ops/outlet", ".io3ops/observer"):  # fmt: skip
        assert words in detail, detail
    assert stack.io3ops("up").returncode == 0
    assert probe(stack, "folders")["state"] == "ok" and stack.container("runtime") == runtime
    before = {name: stack.container(name) for name in ("gateway", "egress", "observer", "outlet")}
    replace(stack.path / ".io3ops/egress")
    assert stack.io3ops("up").returncode == 0
    after = {name: stack.container(name) for name in before}
    assert {name for name in before if before[name] != after[name]} == {"egress"}


def test_a_file_restored_with_its_old_time_is_read(stack: Clone) -> None:
    """Same size, same time, same inode: a backup of the day before may be that."""
    key = stack.io3ops("keys", "add", "carol").stdout.strip()
    path = stack.path / ".io3ops/keys/keys.json"
    before, status = path.read_text(), path.stat()
    assert lists_modes(stack, key) == 200
    digest = json.loads(before)["keys"]["carol"]["sha256"]
    path.write_text(before.replace(digest, digest[::-1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_ino == status.st_ino and lists_modes(stack, key) == 401
