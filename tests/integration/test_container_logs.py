"""`logs` of containers that come and go.

The containers are small ones of a project of their own, labelled as Compose does it: what is tried is how their lines are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.beside import Part
from tests.clone import Clone, until
from tests.follower import Follower

pytestmark = pytest.mark.containers


class Small:
    """Containers that print what they are told, as services of the clone's project."""

    def __init__(self, clone: Clone, image: str, parts: ExitStack) -> None:
        self.clone, self.image, self.parts = clone, image, parts

    def run(self, service: str, *lines: str) -> str:
        told = (("project", self.clone.project), ("service", service), ("project.working_dir", str(self.clone.path)))
        says = "; ".join(f"printf '{line}\\n'; sleep 0.01" for line in lines)
        part = Part(
            self.clone, service, self.image, ("-c", f"{says}; touch /tmp/said; exec tail -n 0 -f /tmp/said"), entrypoint="/bin/sh",
            networks=["none"], labels={f"com.docker.compose.{name}": value for name, value in told}, init=True,
        )  # fmt: skip
        return self.parts.enter_context(part).name

    def say(self, name: str, text: str) -> None:
        done = self.clone.docker("exec", name, "sh", "-c", f"echo {text} >> /tmp/said")
        assert done.returncode == 0, done.stderr


@pytest.fixture
def small(clone: Clone, request: pytest.FixtureRequest) -> Iterator[Small]:
    """Of an image that is here already; a stack is started only when there is none."""
    here = clone.docker("images", "--format", "{{.ID}}", "io3ops/gateway").stdout.split()
    if not here:
        running: Clone = request.getfixturevalue("running")
        here = [running.docker("inspect", "-f", "{{.Image}}", running.container("gateway")).stdout.strip()]
    with ExitStack() as parts:
        yield Small(clone, here[0], parts)


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
    until("they have said all", lambda: len(lines(*both)) == 5)
    found = lines(*both)
    assert [one["time"] for one in found] == sorted(one["time"] for one in found)
    assert {(one["layer"], one["text"]) for one in found} >= {("gateway", "g1"), ("runtime", "r1"), ("runtime", "r2")}
    assert [one["text"] for one in lines(*both, "--tail", "2")] == [one["text"] for one in found[-2:]]
    assert [one["text"] for one in lines("runtime", "--tail", "1")] == ["r2"]
    assert [one["text"] for one in lines(*both, "--id", "job-7")] == ["call job-7"]
    assert lines(*both, "--since", "2099-01-01") == []
    plain = clone.io3ops("logs", "gateway").stdout
    assert plain.replace("\n", "").isprintable() and plain.splitlines()[1].endswith("gateway  red")


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
        until("it begins again", lambda: follower.texts.count("g1") == 2)
        docker("rm", "-f", gateway)
        assert small.run("gateway", "replaced") == gateway
        follower.has("replaced")
        docker("start", runtime)
        until("it begins again", lambda: follower.texts.count("r1") == 2)
        # One that was not there when it began.
        small.run("egress", "e1")
        follower.has("e1")
    finally:
        code = follower.end()
    assert code == 0 and "Traceback" not in follower.errors, follower.errors
    ours = [text for text in follower.texts if text in ("g1", "g2", "r1", "replaced", "e1")]
    assert ours.count("g2") == ours.count("replaced") == ours.count("e1") == 1, "no line comes twice"
