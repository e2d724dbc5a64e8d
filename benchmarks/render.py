"""Measures render-config: the shipped table as a whole process, large tables, and a table full of mistakes.

usage: .venv/bin/python benchmarks/render.py
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def table(modes: int, per_mode: int, *, mistakes: int = 0) -> str:
    """A table with `modes` modes of `per_mode` steps each; the first `mistakes` models name a provider that is not there."""
    lines = ["version: 1", "providers: {local: {kind: ollama}}", "models:"]
    for i in range(max(modes, 200)):
        provider = "lcal" if i < mistakes else "local"
        lines.append(f"  m{i}: {{provider: {provider}, source: {{ollama: 'm{i}:1b'}}, context: 4096}}")
    lines.append("modes:")
    for i in range(modes):
        chain = ", ".join(f"m{(i + k) % max(modes, 200)}" for k in range(per_mode))
        lines.append(f"  mode{i}: {{purpose: 'number {i}', chain: [{chain}], limits: {{parallel: 4}}}}")
    return "\n".join(lines) + "\n"


def measure(text: str | None, runs: int) -> tuple[list[float], float]:
    """Seconds of `render-config --stdout` as a whole process, and its peak memory in MB."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "runtime").mkdir()
        (root / "compose.yaml").write_text("")
        shipped = (ROOT / "runtime/routing.yaml").read_text("utf-8")
        (root / "runtime/routing.yaml").write_text(shipped if text is None else text, "utf-8")
        for _ in range(runs):
            started = time.monotonic()
            subprocess.run(
                [ROOT / ".venv/bin/io3ops", "render-config", "--stdout"],
                cwd=root,
                env={"IO3OPS_ROOT": folder, "PATH": "/usr/bin:/bin"},
                capture_output=True,
                check=False,
            )
            times.append(time.monotonic() - started)
    return times, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    print("| render-config, whole process | median s | least s | most s | peak MB so far |\n|---|---|---|---|---|")
    for what, text, runs in (
        ("the shipped table", None, 15),
        ("200 problems", table(4, 2, mistakes=200), 5),
        ("250 modes, 1,250 deployments", table(250, 5), 3),
        ("500 modes, 2,500 deployments", table(500, 5), 3),
        ("1,000 modes, 5,000 deployments", table(1000, 5), 3),
    ):
        times, peak = measure(text, runs)
        print(f"| {what} | {statistics.median(times):.2f} | {min(times):.2f} | {max(times):.2f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
