"""What the guard costs on the full path: the gateway without its lane, against the same without edge and hooks, in one run.

    .venv/bin/python benchmarks/guard.py [--requests 2000] [--rounds 8]

Both run from the gateway's image with the same rendered file and an upstream that answers at once. Requests alternate between the two, so that
whatever else the machine does falls on both. Prints medians, the median of the paired differences, and the ratio of throughputs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import yaml

from io3ops.operations.stack.images import GATEWAY_INPUTS, digest
from io3ops.routing.load import parse_table
from io3ops.routing.plan import make_plan
from io3ops.routing.render import render

ROOT = Path(__file__).resolve().parents[1]
TABLE = b"""version: 1
providers: {up: {kind: openai_compatible, url: "http://upstream:8000/v1", locality: local}}
models: {m: {provider: up, source: {external: m}}}
modes: {executor: {chain: [m]}}
"""
BODY = {"model": "executor", "messages": [{"role": "user", "content": "Say hello. " * 40}], "max_tokens": 64}


def docker(*argv: str) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"docker {' '.join(argv)} failed: {done.stderr}")
    return done.stdout.strip()


def start(folder: Path, name: str, image: str, network: str, *command: str) -> str:
    """A gateway; its address."""
    argv = ["run", "-d", "--name", name, "--network", network, "-p", "127.0.0.1::4000", "--user", "10001:10001"]
    argv += [
        "-v",
        f"{folder}:/etc/io3ops:ro",
        "-v",
        f"{ROOT}/benchmarks:/bench:ro",
        "-e",
        "IO3_MASTER_KEY_FILE=/etc/io3ops/key",
    ]
    docker(*argv, "-e", f"IO3_CONFIG=/etc/io3ops/{name.rsplit('-', 1)[1]}.yaml", *command[:2], image, *command[2:])
    port = docker("port", name, "4000/tcp").rsplit(":", 1)[1]
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            if httpx.get(f"{address}/health/liveliness", trust_env=False).status_code == 200:
                return address
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit(docker("logs", name))
        time.sleep(0.2)


async def one_at_a_time(client: httpx.AsyncClient, addresses: dict[str, str], requests: int) -> dict[str, list[float]]:
    """Seconds of each request, in turns."""
    times: dict[str, list[float]] = {name: [] for name in addresses}
    for number in range(requests):
        order = list(addresses) if number % 2 else list(reversed(addresses))
        for name in order:
            started = time.perf_counter()
            answer = await client.post(f"{addresses[name]}/v1/chat/completions", json=BODY)
            times[name].append(time.perf_counter() - started)
            assert answer.status_code == 200, answer.text
    return times


async def many_at_a_time(client: httpx.AsyncClient, address: str, requests: int) -> float:
    """Requests per second, 32 at a time."""
    queue = iter(range(requests))

    async def worker() -> None:
        for _ in queue:
            answer = await client.post(f"{address}/v1/chat/completions", json=BODY)
            assert answer.status_code == 200, answer.text

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(32)))
    return requests / (time.perf_counter() - started)


async def measure(addresses: dict[str, str], key: str, requests: int, rounds: int) -> dict[str, float]:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(trust_env=False, timeout=60, headers=headers) as client:
        await one_at_a_time(client, addresses, 100)
        times = await one_at_a_time(client, addresses, requests)
        rates: dict[str, list[float]] = {name: [] for name in addresses}
        for _ in range(rounds):
            for name, address in addresses.items():
                rates[name].append(await many_at_a_time(client, address, 400))
    paired = [g - b for g, b in zip(times["guarded"], times["bare"], strict=True)]
    ratios = [g / b for g, b in zip(rates["guarded"], rates["bare"], strict=True)]
    return {
        "bare median ms": 1000 * statistics.median(times["bare"]),
        "guarded median ms": 1000 * statistics.median(times["guarded"]),
        "median of paired differences ms": 1000 * statistics.median(paired),
        "bare requests/s": statistics.median(rates["bare"]),
        "guarded requests/s": statistics.median(rates["guarded"]),
        "median ratio of throughputs": statistics.median(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What the gateway's guard costs.")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    image = f"io3ops/gateway:{digest(ROOT, GATEWAY_INPUTS)}"
    name, key = f"io3ops-bench-{secrets.token_hex(3)}", f"sk-bench-{secrets.token_hex(16)}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        text = render(make_plan(parse_table(TABLE, "table")))
        bare = yaml.safe_load(text)
        # The lane has no LiteLLM to be measured against.
        bare["io3ops_policy"]["edge"]["lane"] = False
        (folder / "guarded.yaml").write_text(yaml.safe_dump(bare), "utf-8")
        del bare["litellm_settings"]["callbacks"]
        (folder / "bare.yaml").write_text(yaml.safe_dump(bare), "utf-8")
        (folder / "key").write_text(key, "ascii")
        folder.chmod(0o755)
        docker("network", "create", name)
        try:
            upstream = [
                "run",
                "-d",
                "--name",
                f"{name}-up",
                "--network",
                name,
                "--network-alias",
                "upstream",
                "-v",
                f"{ROOT}/benchmarks:/bench:ro",
            ]
            docker(*upstream, "--entrypoint", "/opt/gateway/bin/python", image, "/bench/instant.py")
            addresses = {
                "bare": start(
                    folder,
                    f"{name}-bare",
                    image,
                    name,
                    "--entrypoint",
                    "/opt/gateway/bin/python",
                    "/bench/unguarded.py",
                ),
                "guarded": start(folder, f"{name}-guarded", image, name),
            }
            found = asyncio.run(measure(addresses, key, given.requests, given.rounds))
        finally:
            for part in ("up", "bare", "guarded"):
                subprocess.run(["docker", "rm", "-f", f"{name}-{part}"], capture_output=True, check=False)
            subprocess.run(["docker", "network", "rm", name], capture_output=True, check=False)
    print(json.dumps({what: round(value, 3) for what, value in found.items()}, indent=1))


if __name__ == "__main__":
    main()
