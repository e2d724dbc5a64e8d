"""`logs` and `top` as a user runs them: files that are renamed under a follower, containers that come and go, and a terminal that is given back.

The containers are small ones of a project of their own, labelled as Compose does it: what is tried is how their lines are read.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.clone import Clone, until

# Nothing answers there, so that no test depends on an engine.
AWAY: dict[str, Any] = {"DOCKER_HOST": "tcp://127.0.0.1:9"}


class Follower:
    """A running `io3ops logs -f --json`, and the lines that it has printed."""

    def __init__(self, clone: Clone, *args: str, **env: str) -> None:
        self.process = clone.start("logs", "-f", "--json", *args, **env)
        self.seen: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.seen.append(json.loads(line))

    @property
    def texts(self) -> list[str]:
        return [str(one.get("text", one.get("id"))) for one in self.seen]

    def has(self, *texts: str) -> None:
        until(f"{texts} in {self.texts}", lambda: set(texts) <= set(self.texts), 20)

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(10)
        self._thread.join(5)
        assert self.process.stdout and self.process.stderr
        self.errors = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        return code


def record(identity: str, **fields: Any) -> str:
    return json.dumps({"v": 1, "time": "2026-11-24T18:00:00Z", "id": identity, "mode": "m", "ms": 1} | fields) + "\n"


def test_the_request_log_is_followed_over_its_renaming_without_an_engine(clone: Clone) -> None:
    folder = clone.path / ".io3ops/logs"
    folder.mkdir(parents=True)
    log = folder / "requests.jsonl"
    log.write_text(record("before"))
    follower = Follower(clone, "--layer", "requests", **AWAY)
    follower.has("before")
    with open(log, "a") as file:
        file.write(record("one") + '{"v":1,"torn\n' + record("two")[:20])
        file.flush()
        follower.has("one")
        file.write(record("two")[20:])
    follower.has("two")
    log.rename(folder / "requests-20261124T180000Z-1.jsonl")
    log.write_text(record("three"))
    follower.has("three")
    assert follower.end() == 0 and "Traceback" not in follower.errors
    assert follower.texts == ["before", "one", "two", "three"]
    done = clone.io3ops("logs", "requests", "--id", "before", **AWAY)
    assert done.returncode == 0 and done.stdout.split()[2:] == ["requests", "before", "m", "ok", "1", "ms"]


def test_what_needs_no_engine_is_shown_without_one(clone: Clone) -> None:
    done = clone.io3ops("logs", **AWAY)
    assert done.returncode == 21 and "--layer requests" in done.stderr
    done = clone.io3ops("logs", "--layer", "requests", **AWAY)
    assert done.returncode == 0 and "no request log" in done.stderr and not done.stdout
    done = clone.io3ops("logs", "--layer", "engine", **AWAY)
    assert done.returncode == 0 and "runs elsewhere" in done.stderr


# -- containers


class Small:
    """Containers that print what they are told, as services of the clone's project."""

    def __init__(self, clone: Clone, image: str) -> None:
        self.clone, self.image = clone, image

    def run(self, service: str, *lines: str) -> str:
        name, project = f"{self.clone.project}-{service}", self.clone.project
        labels = [
            f"com.docker.compose.{k}={v}"
            for k, v in (("project", project), ("service", service), ("project.working_dir", self.clone.path))
        ]
        says = "; ".join(f"printf '{line}\\n'; sleep 0.01" for line in lines)
        done = self.clone.docker(
            "run", "-d", "--init", "--network", "none", "--name", name, *(w for label in labels for w in ("--label", label)),
            "--entrypoint", "/bin/sh", self.image, "-c", f"{says}; touch /tmp/said; exec tail -n 0 -f /tmp/said",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return name

    def say(self, name: str, text: str) -> None:
        done = self.clone.docker("exec", name, "sh", "-c", f"echo {text} >> /tmp/said")
        assert done.returncode == 0, done.stderr


@pytest.fixture
def small(clone: Clone, request: pytest.FixtureRequest) -> Small:
    """Of an image that is here already; a stack is started only when there is none."""
    here = clone.docker("images", "--format", "{{.ID}}", "io3ops/gateway").stdout.split()
    if not here:
        running: Clone = request.getfixturevalue("running")
        here = [running.docker("inspect", "-f", "{{.Image}}", running.container("gateway")).stdout.strip()]
    return Small(clone, here[0])


@pytest.mark.containers
def test_lines_of_all_containers_are_merged_by_time(small: Small) -> None:
    small.run("gateway", "g1", "\\033[31mred\\033[0m\\033]0;title\\a", "call job-7")
    small.run("runtime", "r1", "r2")
    small.run("elsewhere", "of no layer")
    clone = small.clone

    def lines(*args: str) -> list[dict[str, Any]]:
        done = clone.io3ops("logs", "--json", *args)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    both = ("--layer", "gateway", "--layer", "runtime")
    until("they have said all", lambda: len(lines(*both)) == 5, 20)
    found = lines(*both)
    assert [one["time"] for one in found] == sorted(one["time"] for one in found)
    assert {(one["layer"], one["text"]) for one in found} >= {("gateway", "g1"), ("runtime", "r1"), ("runtime", "r2")}
    assert [one["text"] for one in lines(*both, "--tail", "2")] == [one["text"] for one in found[-2:]]
    assert [one["text"] for one in lines("runtime", "--tail", "1")] == ["r2"]
    assert [one["text"] for one in lines(*both, "--id", "job-7")] == ["call job-7"]
    assert lines(*both, "--since", "2099-01-01") == []
    plain = clone.io3ops("logs", "gateway").stdout
    assert plain.replace("\n", "").isprintable() and plain.splitlines()[1].endswith("gateway  red")


@pytest.mark.containers
def test_containers_are_followed_when_they_stop_restart_and_are_replaced(small: Small) -> None:
    gateway, runtime = small.run("gateway", "g1"), small.run("runtime", "r1")
    docker = small.clone.docker
    follower = Follower(small.clone)
    try:
        follower.has("g1", "r1")
        docker("kill", runtime)
        small.say(gateway, "g2")
        follower.has("g2")
        docker("restart", "-t", "0", gateway)
        until("it begins again", lambda: follower.texts.count("g1") == 2, 20)
        docker("rm", "-f", gateway)
        assert small.run("gateway", "replaced") == gateway
        follower.has("replaced")
        docker("start", runtime)
        until("it begins again", lambda: follower.texts.count("r1") == 2, 20)
        # One that was not there when it began.
        small.run("egress", "e1")
        follower.has("e1")
    finally:
        code = follower.end()
    assert code == 0 and "Traceback" not in follower.errors, follower.errors
    ours = [text for text in follower.texts if text in ("g1", "g2", "r1", "replaced", "e1")]
    assert ours.count("g2") == ours.count("replaced") == ours.count("e1") == 1, "no line comes twice"


# -- the live view


class Screen:
    """`io3ops top` in a terminal of its own."""

    def __init__(self, clone: Clone) -> None:
        ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (24, 80))
        self.before = termios.tcgetattr(self.theirs)
        self.ours, self.shown = ours, b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "io3ops", "top"], cwd=clone.path, env=clone.env | AWAY | {"TERM": "xterm"},
            stdin=self.theirs, stdout=self.theirs, stderr=self.theirs, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def read(self) -> bytes:
        while select.select([self.ours], [], [], 0.05)[0]:
            self.shown += os.read(self.ours, 65_536)
        return self.shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.mark.parametrize(
    ("how", "code"),
    [(b"q", 0), (b"\x04", 0), (signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["q", "Ctrl-D", "SIGINT", "SIGTERM", "SIGHUP"],
)
def test_the_terminal_is_given_back_however_the_view_ends(clone: Clone, how: Any, code: int) -> None:
    screen = Screen(clone)
    try:
        until("it is drawn", lambda: b"Docker engine" in screen.read(), 20)
        assert termios.tcgetattr(screen.theirs)[3] & termios.ICANON == 0
        if isinstance(how, bytes):
            os.write(screen.ours, how)
        else:
            screen.process.send_signal(how)
        until("it ends", lambda: screen.read() is None or screen.process.poll() is not None, 10)
        shown = screen.read()
        assert screen.process.returncode == code, shown[-500:]
        assert termios.tcgetattr(screen.theirs) == screen.before
        begun, ended = shown.rfind(b"\x1b[?1049h"), shown.rfind(b"\x1b[?1049l")
        assert 0 <= begun < ended and shown.rfind(b"\x1b[?25l") < shown.rfind(b"\x1b[?25h")
        assert b"Traceback" not in shown
    finally:
        screen.close()


def test_where_there_is_no_terminal_it_is_printed_once(clone: Clone, tmp_path: Path) -> None:
    folder = clone.path / ".io3ops/logs"
    folder.mkdir(parents=True)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    (folder / "requests.jsonl").write_text(record("a", time=now, outcome="error", error="ConnectError"))
    done = clone.io3ops("top", **AWAY)
    assert done.returncode == 0 and "\x1b" not in done.stdout
    assert "Docker engine" in done.stdout and "ConnectError" in done.stdout
    data = json.loads(clone.io3ops("top", "--json", **AWAY).stdout)["data"]
    assert data["total"]["requests"] == 1 and data["failures"][0]["error"] == "ConnectError"
    assert "containers" in data["problems"]
