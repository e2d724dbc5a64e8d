"""`io3ops usage` and `trace` through the command line: no engine is needed, and a log may hold whatever a client sent."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.clone import Clone

NO_ENGINE: dict[str, Any] = {"DOCKER_HOST": "tcp://127.0.0.1:9"}
SINCE = ("--since", "2026-11-24", "--until", "2026-11-26")


@pytest.fixture
def logged(clone: Clone, root: Path) -> Clone:
    """A clone whose log is the docs' examples, and what a hostile client and a crash left."""
    text = (root / "docs/request-log.md").read_text("utf-8")
    lines = re.findall(r"^```json\n(.*)\n```$", text, re.M)
    wild = {
        "v": 1,
        "time": "2026-11-24T19:00:00.000Z",
        "id": "wild-client",
        "client": "\x1b[2J\x9b" + "x" * 10**6,
        "ms": 5.0,
    }
    folder = clone.path / ".io3ops/logs"
    folder.mkdir(parents=True)
    (folder / "requests.jsonl").write_text("\n".join([*lines, lines[0][:40] + lines[1], "{", json.dumps(wild)]) + "\n")
    return clone


def test_usage_counts_and_says_what_it_could_not_read(logged: Clone) -> None:
    done = logged.io3ops("usage", *SINCE, **NO_ENGINE)
    assert done.returncode == 0 and done.stderr == ""
    assert re.search(r"^executor +3 ", done.stdout, re.M) and re.search(r"^all +5 ", done.stdout, re.M)
    assert "2 lines of the log cannot be read" in done.stdout
    data = logged.json("usage", *SINCE, "--by", "outcome", "--by", "key")["data"]
    assert {"outcome": "refused", "key": None} in [g["group"] for g in data["groups"]]
    assert (data["total"]["fallbacks"], data["total"]["cloud"], data["total"]["local"]) == (2, 2, 1)


def test_usage_is_csv_or_a_picture(logged: Clone) -> None:
    done = logged.io3ops("usage", *SINCE, "--by", "client", "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {r["client"][:8] for r in rows} == {"OpenAI/P", "curl 8.1", "python-h", "\\x1b[2J\\"} and len(
        done.stdout
    ) < 2000
    assert "█" in logged.io3ops("usage", *SINCE, "--plot").stdout
    for wrong in (("--csv", "--json"), ("--csv", "--plot"), ("--since", "soon"), ("--since", "now"), ("--by", "nose")):
        assert logged.io3ops("usage", *wrong).returncode == 2, wrong


def test_trace_by_id_last_and_failed(logged: Clone) -> None:
    shown = logged.io3ops("trace", "client-chosen-7", **NO_ENGINE)
    assert shown.returncode == 0 and "1 executor.1.smollm2  ConnectError" in shown.stdout and "→ " in shown.stdout
    assert "executor.1.smollm2" in logged.io3ops("trace", "0193603c").stdout
    assert logged.json("trace", "--mode", "executor")["data"]["request"]["id"] == "client-chosen-7"
    found = logged.json("trace", "--failed")["data"]
    assert found["request"]["error"] == "invalid_api_key" and found["advice"].startswith("missing or invalid API key")
    wild = logged.io3ops("trace")
    assert "wild-client" in wild.stdout and len(wild.stdout) < 2000
    assert all(c.isprintable() for c in wild.stdout.replace("\n", ""))


def test_what_is_not_there_is_an_error_with_a_hint(logged: Clone) -> None:
    for wanted in ("01936", "nothing-like-it"):
        done = logged.io3ops("trace", wanted)
        assert done.returncode == 66 and "hint:" in done.stderr, wanted
    assert logged.json("trace", "nothing-like-it")["error"]["code"] == "E66"
    assert logged.io3ops("trace", "client-chosen-7", "--failed").returncode == 2
    (logged.path / ".io3ops/logs/requests.jsonl").unlink()
    for command in ("usage", "trace"):
        done = logged.io3ops(command)
        assert done.returncode == 65 and "make up" in done.stderr


def test_colours_are_for_terminals_only(logged: Clone) -> None:
    """On stdout: that stderr is a terminal means nothing to what is piped."""

    def on_terminal(*streams: str, **env: str) -> str:
        master, slave = pty.openpty()
        piped = subprocess.PIPE if "stdout" not in streams else slave
        child = subprocess.Popen(
            [sys.executable, "-m", "io3ops", "trace", "client-chosen-7"], env=logged.env | {"TERM": "xterm"} | env,
            stdout=piped, stderr=slave, cwd=logged.path,
        )  # fmt: skip
        out = child.communicate()[0]
        os.close(slave)
        if out is None:
            out = b""
            try:
                while block := os.read(master, 65536):
                    out += block
            except OSError:
                pass
        os.close(master)
        return bytes(out).decode()

    assert "\x1b[31m" in on_terminal("stdout", "stderr")
    assert "\x1b" not in on_terminal("stdout", "stderr", NO_COLOR="1")
    assert "\x1b" not in on_terminal("stderr")


def test_duckdb_is_loaded_by_usage_alone(logged: Clone) -> None:
    code = "import sys, io3ops.cli.main; print('duckdb' in sys.modules)"
    assert logged.run(sys.executable, "-c", code).stdout.strip() == "False"
    code = "import sys, io3ops.cli.command as c, io3ops.cli.main as m; sys.argv = ['io3ops', 'trace']; import atexit; atexit.register(lambda: print('duckdb' in sys.modules)); m.run()"
    assert logged.run(sys.executable, "-c", code).stdout.strip().endswith("False")
