"""Commands that need no engine, through the command line: what is printed, what is kept, which exit code."""

from __future__ import annotations

import json
import stat
import sys
from typing import Any

import pytest
from tests.clone import Clone


def test_the_key_is_printed_only_when_asked(clone: Clone) -> None:
    assert clone.io3ops("key", "--rotate").returncode == 0
    key = clone.key()
    for flags in ((), ("--json",)):
        done = clone.io3ops("key", *flags)
        assert done.returncode == 0 and key[8:-2] not in done.stdout + done.stderr
        # No run of the key that would make guessing the rest easier.
        assert not any(key[i : i + 6] in done.stdout for i in range(7, len(key) - 6))
    assert clone.io3ops("key", "--show").stdout.strip() == key
    assert json.loads(clone.io3ops("key", "--show", "--json").stdout)["data"]["key"] == key
    assert stat.S_IMODE((clone.path / ".io3ops/secrets").stat().st_mode) == 0o700


def test_a_rotated_key_is_another_one_with_another_fingerprint(clone: Clone) -> None:
    seen = set()
    for _ in range(3):
        clone.io3ops("key", "--rotate")
        seen.add(clone.json("key")["data"]["fingerprint"])
    assert len(seen) == 3 and all(len(f) >= 8 for f in seen)


def test_without_a_key_the_error_says_how_to_get_one(clone: Clone) -> None:
    done = clone.io3ops("key")
    assert done.returncode == 12 and "make up" in done.stderr


def test_check_shows_the_difference_and_writes_nothing(clone: Clone) -> None:
    assert clone.io3ops("render-config", "--check").returncode == 0
    clone.edit_table("context: 4096", "context: 2048")
    before = (clone.path / "runtime/litellm.yaml").read_bytes()
    done = clone.io3ops("render-config", "--check")
    assert done.returncode == 1 and "+      num_ctx: 2048" in done.stdout
    assert "num_ctx: 2048" in clone.io3ops("render-config", "--stdout").stdout
    assert (clone.path / "runtime/litellm.yaml").read_bytes() == before


def test_a_preset_never_replaces_a_table_of_the_users_own(clone: Clone) -> None:
    table = clone.path / "runtime/routing.yaml"
    assert clone.io3ops("preset", "laptop").returncode == 0, "a ready table is not the user's own"
    mine = table.read_text("utf-8") + "# mine\n"
    table.write_text(mine, "utf-8")
    assert clone.io3ops("preset", "starter").returncode == 15
    assert table.read_text("utf-8") == mine
    assert clone.io3ops("preset", "starter", "--force").returncode == 0
    assert (clone.path / "runtime/routing.yaml.bak").read_text("utf-8") == mine
    assert clone.json("preset")["data"]["current"] == "starter"
    assert clone.io3ops("preset", "nosuch").returncode == 2


def test_purge_is_refused_without_an_answer(clone: Clone) -> None:
    (clone.path / ".io3ops/secrets").mkdir(parents=True)
    done = clone.io3ops("down", "--purge", DOCKER_HOST="tcp://127.0.0.1:9")
    assert done.returncode == 2 and "--yes" in done.stderr


def test_the_environment_wins_over_the_users_lines_of_env(clone: Clone) -> None:
    (clone.path / ".env").write_text("IO3OPS_PORT=not-a-port\n")
    assert clone.io3ops("key").returncode == 12, "the environment's port is taken"
    done = clone.run("env", "-uIO3OPS_PORT", sys.executable, "-m", "io3ops", "key")
    assert done.returncode == 16 and "not-a-port" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(clone: Clone, shell: str) -> None:
    done = clone.io3ops("completion", shell)
    assert done.returncode == 0 and "_IO3OPS_COMPLETE" in done.stdout


def test_help_loads_nothing_that_it_does_not_need(clone: Clone) -> None:
    """What keeps `--help` under 150 ms, without a clock."""
    code = "import sys, io3ops.cli.main; print(sorted({'docker', 'duckdb', 'httpx', 'jinja2', 'ollama', 'yaml', 'dataclasses'} & set(sys.modules)))"
    assert clone.run(sys.executable, "-c", code).stdout.strip() == "[]"


def test_a_bug_is_its_own_exit_code_and_asks_for_a_report(clone: Clone) -> None:
    code = "import sys, io3ops.cli.command as c, io3ops.cli.main as m; sys.argv = ['io3ops', 'status']; c._tools = lambda: 1 / 0; m.run()"
    done = clone.run(sys.executable, "-c", code)
    assert done.returncode == 70 and "ZeroDivisionError" in done.stderr and "please report" in done.stderr


def test_ctrl_c_is_130(clone: Clone) -> None:
    code = """
import sys, io3ops.cli.command as c, io3ops.cli.main as m
def stop(): raise KeyboardInterrupt
sys.argv = ['io3ops', 'status']; c._tools = stop; m.run()"""
    done = clone.run(sys.executable, "-c", code)
    assert done.returncode == 130 and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["health", "status"])
def test_what_does_not_run_is_exit_code_1(clone: Clone, command: str) -> None:
    done = clone.io3ops(command, "--json", DOCKER_HOST="tcp://127.0.0.1:9")
    assert done.returncode == 1 and json.loads(done.stdout)["ok"] is False


def test_a_stray_environment_reaches_no_program(clone: Clone) -> None:
    """Another project's COMPOSE_FILE, or a PYTHONPATH that pip would import from."""
    code = """
import os
from pathlib import Path
from typing import Any
from io3ops.settings import read_settings
from io3ops.tools import make_tools
tools = make_tools(read_settings(dict(os.environ), Path.cwd(), {}))
print(tools.processes.run(["env"]).output)"""
    stray: dict[str, Any] = {"COMPOSE_FILE": "/evil.yaml", "COMPOSE_PROFILES": "*", "PYTHONWARNINGS": "ignore"}
    shown = clone.run(sys.executable, "-c", code, **stray).stdout
    assert "PATH=" in shown and not [name for name in stray if f"{name}=" in shown]
