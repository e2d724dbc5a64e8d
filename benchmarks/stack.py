"""Measures this clone's own times: start, stop, a second `up`, `--help`, and what an idle stack holds in memory.

Runs a project of its own on a free port, and removes it at the end; a running stack is not touched, but shares the
machine: stop it for clean figures. usage: make bench
"""

from __future__ import annotations

import os
import secrets
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNS = 5


def main() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    project = f"io3ops-bench-{secrets.token_hex(3)}"
    env = os.environ | {"IO3OPS_PROJECT": project, "IO3OPS_PORT": str(port)}
    # .env and the key belong to the clone, so the measured project works on a copy of it.
    copy = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip()) / "clone"
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(copy)], check=True)
    env["IO3OPS_ROOT"] = str(copy)

    def io3ops(*args: str) -> float:
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "io3ops", *args], env=env, cwd=copy, capture_output=True, check=True)
        return time.monotonic() - started

    rows = [("first `up`, images there, models from the cache", [io3ops("up")])]
    try:
        down, up, again = [], [], []
        for _ in range(RUNS):
            down.append(io3ops("down"))
            up.append(io3ops("up"))
            again.append(io3ops("up"))
        command = ROOT / ".venv/bin/io3ops"
        helps = []
        for _ in range(RUNS * 2):
            started = time.monotonic()
            subprocess.run([command, "--help"], capture_output=True, check=True)
            helps.append(time.monotonic() - started)
        rows += [
            ("`down`", down),
            ("`up` after `down`, models preloaded and tested", up),
            ("`up` when all runs", again),
            ("`io3ops --help`", helps),
        ]
        print("| what | median s | least s | most s | runs |\n|---|---|---|---|---|")
        for what, times in rows:
            print(f"| {what} | {statistics.median(times):.2f} | {min(times):.2f} | {max(times):.2f} | {len(times)} |")
        print("\n| resident memory, idle, starter models loaded | MB |\n|---|---|")
        total = 0
        for service in ("gateway", "runtime"):
            used = resident(project, service)
            total += used
            print(f"| {service} | {used} |")
        print(f"| together | {total} |")
    finally:
        io3ops("down", "--purge", "--yes")


def resident(project: str, service: str) -> int:
    """MB of all processes of a service (RSS; pages that two processes share are counted twice)."""
    labels = ["-f", f"label=com.docker.compose.project={project}", "-f", f"label=com.docker.compose.service={service}"]
    container = subprocess.run(
        ["docker", "ps", "-q", *labels], capture_output=True, text=True, check=True
    ).stdout.strip()
    shown = subprocess.run(
        ["docker", "top", container, "-eo", "pid,rss"], capture_output=True, text=True, check=True
    ).stdout
    return sum(int(line.split()[1]) for line in shown.splitlines()[1:]) * 1024 // 10**6


if __name__ == "__main__":
    main()
