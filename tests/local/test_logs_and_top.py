"""`logs` and `top` as a user runs them: files that are renamed under a follower, and a terminal that is given back."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from tests.clone import Clone, until
from tests.follower import Follower, record

# Nothing answers there, so that no test depends on an engine.
AWAY: dict[str, Any] = {"DOCKER_HOST": "tcp://127.0.0.1:9"}


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
        until("it is drawn", lambda: b"Docker engine" in screen.read())
        assert termios.tcgetattr(screen.theirs)[3] & termios.ICANON == 0
        if isinstance(how, bytes):
            os.write(screen.ours, how)
        else:
            screen.process.send_signal(how)
        until("it ends", lambda: screen.read() is None or screen.process.poll() is not None)
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
