"""Times `io3ops usage` and `trace` as whole processes on a made log of a million requests, in a temporary clone.

    .venv/bin/python benchmarks/usage.py [--requests 1000000] [--runs 5] [--keep FOLDER]

The log is a day's: chats (half of them streamed) and embeddings, some with a fallback, refused or failed; full files as the gateway
would leave them. Every run is a new process; the files are in the page cache. io3ops keeps no cache of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

FULL = 50_000_000
MODES = {"executor": "smollm2", "synthesizer": "smollm2", "governance": "smollm2", "embed": "minilm"}
CLIENTS = ("OpenAI/Python 1.99.9", "curl 8.14", "OpenAI/JS 5.20.1", "langchain 1.0.4")


def made(chance: random.Random, at: datetime) -> dict[str, Any]:
    """One request; a tenth are not the usual."""
    mode = chance.choices(list(MODES), (60, 15, 5, 20))[0]
    key, kind = chance.choice((("owner", "9f86d081"), ("ci", "2c26b46b"), ("notes", "fcde2b2e"))), chance.random()
    head: dict[str, Any] = {
        "v": 1,
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "id": f"{chance.getrandbits(128):032x}",
        "mode": mode,
        "data_class": "internal",
        "key": key[0],
        "key_id": key[1],
        "client": chance.choice(CLIENTS),
    }
    if kind < 0.02:
        del head["mode"], head["data_class"]
        head |= {"outcome": "refused", "status": 429, "error": "rate_limit_exceeded", "path": "edge", "ms": 0.3}
        return head | {"bytes_out": 131, "gen_ai": {"operation": {"name": "chat"}}}
    tokens_in, tokens_out = chance.randint(8, 900), chance.randint(1, 300)
    ms = round(chance.lognormvariate(6.0, 0.8), 1)
    name, chat = f"{mode}.1.{MODES[mode]}", mode != "embed"
    usage = {"input_tokens": tokens_in} | ({"output_tokens": tokens_out} if chat else {})
    gen_ai = {
        "operation": {"name": "chat" if chat else "embeddings"},
        "response": {"model": MODES[mode]} | ({"finish_reasons": ["stop"]} if chat else {}),
        "usage": usage,
    }
    prompt, whole = round(ms * 0.1, 1), round(ms - 2.1, 1)
    attempt: dict[str, Any] = {"deployment": name, "at": 0.6, "ms": round(ms - 0.9, 1)}
    attempts = [
        attempt | {"load_ms": 11.1, "prompt_ms": prompt, "eval_ms": round(whole - prompt - 12, 1), "runtime_ms": whole}
    ]
    head |= {
        "status": 200,
        "path": "lane",
        "ms": ms,
        "body_ms": 0.2,
        "bytes_in": 4 * tokens_in,
        "bytes_out": 190 * tokens_out,
    }
    if chat and chance.random() < 0.5:
        head |= {"stream": True, "first_ms": round(prompt + 13, 1)}
    if kind < 0.05:
        failed = {"deployment": name, "at": 0.5, "ms": 1.1, "error": "ConnectError"}
        cloud = {
            "deployment": f"{mode}.2.gpt-small",
            "provider": "openai",
            "cloud": True,
            "at": 6.2,
            "ms": round(ms - 8, 1),
        }
        attempts = [failed, cloud]
        head |= {
            "path": "full",
            "data_class": "public",
            "data_class_from": "request",
            "cost_usd": 0.000031,
            "tokens_per_second": 13.4,
        }
    elif kind < 0.06:
        attempts = [{"deployment": name, "at": 0.5, "ms": 1.1, "error": "ConnectError"}]
        head |= {"outcome": "error", "status": 503, "error": "APIConnectionError", "path": "full"}
        gen_ai = {"operation": gen_ai["operation"]}
    return head | {"window": 4096, "gen_ai": gen_ai, "attempts": attempts}


def write(folder: Path, count: int) -> int:
    """The log of a day that ended a minute ago; the bytes in all."""
    chance, last = random.Random(1), datetime.now(UTC) - timedelta(minutes=1)
    first = last - timedelta(days=1)
    folder.mkdir(parents=True)
    number, size, whole, at = 0, 0, 0, first
    file = open(folder / "requests.jsonl", "wb")  # noqa: SIM115  (renamed and opened anew below)
    for place in range(count):
        at = first + (last - first) * (place / count)
        line = json.dumps(made(chance, at), separators=(",", ":")).encode() + b"\n"
        if size + len(line) > FULL:
            file.close()
            number += 1
            old = folder / f"requests-{at:%Y%m%dT%H%M%SZ}-{number}.jsonl"
            (folder / "requests.jsonl").rename(old)
            os.utime(old, (at.timestamp(), at.timestamp()))
            file, size = open(folder / "requests.jsonl", "wb"), 0  # noqa: SIM115  (closed after the loop)
        size += file.write(line)
        whole += len(line)
    file.close()
    return whole


def timed(root: Path, *args: str) -> float:
    environment = {**os.environ, "IO3OPS_ROOT": str(root)}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "io3ops", *args], check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--requests", type=int, default=1_000_000)
    asked.add_argument("--runs", type=int, default=5)
    asked.add_argument("--keep", type=Path, help="Use, or make, the log in this folder, and keep it.")
    wish = asked.parse_args()
    root = wish.keep or Path(tempfile.mkdtemp(prefix="io3ops-usage-"))
    try:
        logs = root / ".io3ops" / "logs"
        if not logs.exists():
            size = write(logs, wish.requests)
            print(
                f"{wish.requests:,} requests, {size / 1e6:,.0f} MB in {len(list(logs.iterdir()))} files, {size / wish.requests:.0f} bytes each"
            )
        first = min(logs.glob("requests*.jsonl"), key=lambda path: path.stat().st_mtime)
        oldest = json.loads(first.read_bytes().split(b"\n", 1)[0])["id"]
        rows = []
        for what, args in (
            ("usage", ("usage", "--since", "2d")),
            (
                "usage by mode, key and outcome",
                ("usage", "--since", "2d", "--by", "mode", "--by", "key", "--by", "outcome"),
            ),
            ("usage by hour, with the picture", ("usage", "--since", "2d", "--by", "hour", "--plot")),
            ("usage of the last hour", ("usage", "--since", "1h")),
            ("trace last", ("trace", "last")),
            ("trace of the oldest id", ("trace", oldest)),
        ):
            times = [timed(root, *args) for _ in range(wish.runs)]
            rows.append(
                f"| {what} | {statistics.median(times):.2f} | {min(times):.2f} | {max(times):.2f} | {len(times)} |"
            )
        print("\n".join(["| what | median s | least s | most s | runs |", "|---|---|---|---|---|", *rows]))
    finally:
        if not wish.keep:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
