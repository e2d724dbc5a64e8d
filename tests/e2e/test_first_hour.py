"""What a new user does in the first hour, in that order, with what `make up` printed."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from subprocess import CompletedProcess

import pytest
from tests.clone import Clone

pytestmark = pytest.mark.containers


def test_up_prints_what_to_do_next_and_not_the_key(stack: Clone, first_up: CompletedProcess[str]) -> None:
    printed = first_up.stdout + first_up.stderr
    assert f"http://127.0.0.1:{stack.port}/v1" in first_up.stdout
    assert ".io3ops/secrets/master_key" in first_up.stdout
    for mode in ("executor", "synthesizer", "governance", "embed"):
        assert re.search(rf"^ +{mode} ", first_up.stdout, re.M)
    assert stack.key() not in printed
    assert "4 of 4 modes answer" in first_up.stderr


def test_the_printed_curl_line_answers(stack: Clone, first_up: CompletedProcess[str]) -> None:
    """Pasted as it is, line break included, into a shell in the clone."""
    line = re.search(r"^ +(curl .*?\}')$", first_up.stdout, re.M | re.S)
    assert line, first_up.stdout
    done = stack.run("bash", "-c", line.group(1))
    answer = json.loads(done.stdout)
    assert answer["choices"][0]["message"]["content"].strip()


def test_the_printed_python_lines_answer(stack: Clone, first_up: CompletedProcess[str]) -> None:
    lines = re.search(r"^( +from openai import OpenAI\n.*?\n.*?)\n", first_up.stdout, re.M)
    assert lines
    done = stack.run(sys.executable, "-c", textwrap.dedent(lines.group(1)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_second_up_does_nothing(stack: Clone) -> None:
    assert stack.json("up")["data"]["acted"] == []


def test_plain_docker_compose_works_in_the_clone(stack: Clone) -> None:
    """Without any variable of ours: .env says it all."""
    plain = {k: "" for k in ("IO3OPS_PROJECT", "IO3OPS_PORT", "IO3OPS_ROOT")}
    done = stack.run("env", *(f"-u{k}" for k in plain), "docker", "compose", "ps", "--format", "json")
    services = {json.loads(line)["Service"]: json.loads(line)["Health"] for line in done.stdout.splitlines()}
    assert services == {"gateway": "healthy", "runtime": "healthy"}, done.stderr


def test_health_names_every_layer(stack: Clone) -> None:
    found = stack.json("health", "--deep")
    assert found["ok"], found
    assert [p["layer"] for p in found["data"]["probes"]] == [
        "table", "config", "engine", "containers", "folders", "runtime API", "models present", "models loaded",
        "gateway live", "gateway ready", "modes listed", "request log", "round trip",
    ]  # fmt: skip


def test_smoke_writes_a_junit_report(stack: Clone) -> None:
    assert stack.io3ops("smoke", "--junit", "report.xml").returncode == 0
    text = (stack.path / "report.xml").read_text("utf-8")
    assert 'tests="4" failures="0"' in text


def test_status_and_models_say_what_serves_each_mode(stack: Clone) -> None:
    status = stack.json("status")["data"]
    assert status["running"] and not status["drift"] and status["preset"] == "starter"
    assert all(m["loaded"] for m in status["modes"])
    assert {m["state"] for m in stack.json("models")["data"]["models"]} == {"loaded"}


def test_logs_show_the_containers(stack: Clone) -> None:
    done = stack.io3ops("logs", "--tail", "5", "runtime")
    assert done.returncode == 0 and "runtime" in done.stdout


def test_an_edited_table_reaches_the_gateway_with_the_next_up(stack: Clone) -> None:
    """A new mode appears; the models stay; only config and gateway act."""
    table = stack.path / "runtime/routing.yaml"
    before = table.read_text("utf-8")
    table.write_text(before + "  reviewer:\n    chain: [smollm2]\n", "utf-8")
    assert stack.io3ops("render-config", "--check").returncode == 1
    done = stack.json("up")
    assert "reviewer" in done["data"]["modes"] and "models" not in done["data"]["acted"]
    assert stack.json("health")["ok"]
    table.write_text(before, "utf-8")
    assert stack.io3ops("up").returncode == 0
    assert stack.io3ops("render-config", "--check").returncode == 0


def test_a_rotated_key_replaces_the_old_one(stack: Clone) -> None:
    old = stack.key()
    assert stack.io3ops("key", "--rotate").returncode == 0
    assert stack.key() != old
    assert stack.io3ops("up").returncode == 0
    headers = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Authorization: Bearer {old}"]
    assert stack.run("curl", *headers, f"http://127.0.0.1:{stack.port}/v1/models").stdout != "200"
    assert stack.io3ops("smoke").returncode == 0


def test_down_loses_nothing_and_up_is_back_without_a_download(stack: Clone) -> None:
    key = stack.key()
    down = stack.run("make", "down")
    assert down.returncode == 0, down.stderr
    assert stack.container("gateway") == "" and stack.container("runtime") == ""
    assert stack.json("down")["ok"], "a second down has nothing to do"
    assert stack.io3ops("status").returncode == 1
    up = stack.json("up")
    assert "models" not in up["data"]["acted"] and "images" not in up["data"]["acted"]
    assert stack.key() == key


def test_purge_asks_first(stack: Clone) -> None:
    done = stack.io3ops("down", "--purge")
    assert done.returncode == 2 and "--yes" in done.stderr
    assert stack.container("runtime"), "nothing was removed"
