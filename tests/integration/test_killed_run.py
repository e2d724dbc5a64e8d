"""A test run removes what a killed one has left: an engine has room for some thirty networks."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests import projects
from tests.clone import ROOT

pytestmark = pytest.mark.containers

RUN = """
import subprocess, sys
from tests import projects
project = projects.claim()
for label in projects.LABELS:
    name = f"{project}-{label}"
    subprocess.run(["docker", "network", "create", "--label", f"{label}={project}", name], check=True, stdout=sys.stderr)
print(project, flush=True)
sys.stdin.read()
"""


def run() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def networks(project: str) -> list[str]:
    listed = ["docker", "network", "ls", "--format", "{{.Name}}", "-f", f"name={project}"]
    return subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()


def test_the_networks_of_a_killed_run_are_removed_and_no_others() -> None:
    with run() as killed, run() as running:
        assert killed.stdout and running.stdout
        dead, alive = killed.stdout.readline().strip(), running.stdout.readline().strip()
        assert len(networks(dead)) == len(networks(alive)) == 2
        killed.kill()
        killed.wait()
        projects.remove_leftovers()
        assert networks(dead) == []
        assert len(networks(alive)) == 2
    projects.remove_leftovers()
    assert networks(alive) == []
