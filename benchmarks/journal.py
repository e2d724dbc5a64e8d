"""What the request log costs: the same gateway with it and without, in one run.

    .venv/bin/python benchmarks/journal.py [--requests 3000] [--rounds 10] [--full]

Both run from the gateway's image, in the fast lane (`--full`: through LiteLLM), before an upstream that answers at once. Requests alternate between
the two, so that whatever else the machine does falls on both. Prints the median of the paired differences, the ratio of throughputs, and how long a
line is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import statistics
import subprocess
import tempfile
from pathlib import Path

import httpx
import yaml
from guard import ROOT, TABLE, docker, many_at_a_time, one_at_a_time, start

from io3ops.operations.stack.images import GATEWAY_INPUTS, digest
from io3ops.routing.load import parse_table
from io3ops.routing.plan import make_plan
from io3ops.routing.render import render

WAYS = ("off", "on")


def processor(container: str) -> float:
    """Seconds of processor time that a container has used."""
    try:
        found = docker("exec", container, "cat", "/sys/fs/cgroup/cpu.stat")
        return int(found.split("usage_usec", 1)[1].split()[0]) / 1e6
    except SystemExit:
        return int(docker("exec", container, "cat", "/sys/fs/cgroup/cpuacct/cpuacct.usage")) / 1e9


async def measure(
    addresses: dict[str, str], containers: dict[str, str], key: str, requests: int, rounds: int
) -> dict[str, float]:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(trust_env=False, timeout=60, headers=headers) as client:
        await one_at_a_time(client, addresses, 200)
        times = await one_at_a_time(client, addresses, requests)
        rates: dict[str, list[float]] = {name: [] for name in addresses}
        work: dict[str, list[float]] = {name: [] for name in addresses}
        for number in range(rounds):
            for name in WAYS if number % 2 else reversed(WAYS):
                before = processor(containers[name])
                rates[name].append(await many_at_a_time(client, addresses[name], 800))
                work[name].append((processor(containers[name]) - before) / 800)
    paired = [on - off for on, off in zip(times["on"], times["off"], strict=True)]
    burnt = [on - off for on, off in zip(work["on"], work["off"], strict=True)]
    ratios = [on / off for on, off in zip(rates["on"], rates["off"], strict=True)]
    return {
        "median ms without": 1000 * statistics.median(times["off"]),
        "median ms with": 1000 * statistics.median(times["on"]),
        "median of paired differences ms": 1000 * statistics.median(paired),
        "requests/s without": statistics.median(rates["off"]),
        "requests/s with": statistics.median(rates["on"]),
        "median ratio of throughputs": statistics.median(ratios),
        "processor ms per request without": 1000 * statistics.median(work["off"]),
        "processor ms per request more": 1000 * statistics.median(burnt),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What the request log costs.")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    image = f"io3ops/gateway:{digest(ROOT, GATEWAY_INPUTS)}"
    name, key = f"io3ops-bench-{secrets.token_hex(3)}", f"sk-bench-{secrets.token_hex(16)}"
    with tempfile.TemporaryDirectory() as scratch:
        folder, logs = Path(scratch), Path(scratch) / "logs"
        logs.mkdir()
        logs.chmod(0o777)
        config = yaml.safe_load(render(make_plan(parse_table(TABLE, "table"))))
        config["io3ops_policy"]["edge"]["lane"] = not given.full
        for way in WAYS:
            config["io3ops_policy"]["log"]["requests"] = way == "on"
            (folder / f"{way}.yaml").write_text(yaml.safe_dump(config), "utf-8")
        (folder / "key").write_text(key, "ascii")
        folder.chmod(0o755)
        docker("network", "create", name)
        try:
            upstream = ["run", "-d", "--name", f"{name}-up", "--network", name, "--network-alias", "upstream"]
            upstream += ["-v", f"{ROOT}/benchmarks:/bench:ro", "--entrypoint", "/opt/gateway/bin/python", image]
            docker(*upstream, "/bench/instant.py")
            addresses = {way: start(folder, f"{name}-{way}", image, name, "-v", f"{logs}:/run/logs") for way in WAYS}
            found = asyncio.run(
                measure(addresses, {way: f"{name}-{way}" for way in WAYS}, key, given.requests, given.rounds)
            )
        finally:
            for part in ("up", *WAYS):
                subprocess.run(["docker", "rm", "-f", f"{name}-{part}"], capture_output=True, check=False)
            subprocess.run(["docker", "network", "rm", name], capture_output=True, check=False)
        written = [len(line) for file in logs.glob("*.jsonl") for line in file.read_bytes().splitlines()]
        found["lines"], found["bytes per line"] = len(written), statistics.mean(written)
    print(json.dumps({what: round(value, 3) for what, value in found.items()}, indent=1))


if __name__ == "__main__":
    main()
