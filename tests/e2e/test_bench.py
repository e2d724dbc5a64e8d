"""`io3ops bench` on the real stack: both ways answer, nobody else sees the key, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from tests.clone import PATIENCE, Clone, until

pytestmark = pytest.mark.containers


def containers(stack: Clone) -> list[str]:
    """The measuring containers of this project."""
    return stack.docker("ps", "-aq", "--no-trunc", "-f", f"name={stack.project}-bench-").stdout.split()


def test_both_ways_are_measured_and_the_key_is_nowhere_to_be_seen(stack: Clone) -> None:
    running = stack.start("bench", "--rounds", "2", "--parallel", "2", "--seconds", "900", "--json")
    until("the measuring container runs", lambda: bool(containers(stack)))
    (container,) = containers(stack)
    seen = stack.docker("inspect", container).stdout
    until("its program runs", lambda: "measure.py" in stack.docker("top", container, "-eo", "pid,args").stdout)
    seen += stack.docker("top", container, "-eo", "pid,args").stdout + stack.run("ps", "-eo", "args").stdout
    out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, out + err
    key = stack.key()
    assert container in seen and "measure.py" in seen and key not in seen + out + err
    assert containers(stack) == []
    data = json.loads(out)["data"]
    assert data["errors"] == [] and data["requests"] >= 2 * 3 * 2
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in data["rows"]:
        rows[row["what"], row["measure"], row["at_once"]] = row
    for what, measure in (("chat", "answer"), ("chat", "tokens"), ("stream", "first token"), ("embeddings", "answer")):
        row = rows[what, measure, 1]
        assert row["direct"]["median"] > 0 and row["gateway"]["median"] > 0, row
        assert row["difference"]["pairs"] == 2 and row["verdict"] == "too few pairs"
    first, answer = rows["stream", "first token", 1], rows["stream", "answer", 1]
    assert first["gateway"]["median"] < answer["gateway"]["median"]
    assert rows["chat", "requests", 2]["gateway"]["median"] > 0
    assert not [n for n in data["notes"] if "tokens" in n], "both ways do the same work"


@pytest.mark.parametrize(
    ("end", "code"),
    [(lambda pid: os.killpg(pid, signal.SIGINT), 130), (lambda pid: os.kill(pid, signal.SIGKILL), -signal.SIGKILL)],
    ids=["ctrl-c", "killed"],
)
def test_an_interrupted_bench_leaves_no_container(stack: Clone, end: Callable[[int], None], code: int) -> None:
    running = stack.start("bench", "--rounds", "10000", "--mode", "embed", "--parallel", "1")
    until(
        "the measuring container runs",
        lambda: bool(stack.docker("ps", "-q", "-f", f"name={stack.project}-bench-").stdout),
    )
    end(running.pid)
    out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == code and "Traceback" not in out + err
    until("the container is gone", lambda: containers(stack) == [])


def test_modes_that_are_not_there_and_a_stack_that_does_not_run_are_said(stack: Clone) -> None:
    done = stack.io3ops("bench", "--mode", "executer")
    assert done.returncode == 16 and "executor" in done.stderr
    idle = Clone(path=stack.path)
    done = idle.io3ops("bench", "--json")
    assert done.returncode == 41 and "make up" in json.loads(done.stdout)["error"]["hint"]
