"""How many workers serve, and how many fit into the container's memory. Touches the files of the container's memory limit."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Bytes: the parent with one worker, and each further worker. A worker that has warmed up every kind of provider has 109 MB of
# its own; the rest is for its requests.
FIRST_WORKER, MORE_WORKER = 450_000_000, 120_000_000
UNLIMITED = 1000
# From this many cores on one worker is not enough by default: it serves more requests than a local runtime can answer.
MANY_CORES = 16


def workers(config: Mapping[str, Any], cores: int, memory: int) -> int:
    """Return how many workers serve a configuration: what the table says, else one or two, as far as they fit.

    `memory`: bytes that the container may use, 0 when it is not limited.
    """
    gateway = (config.get("io3ops_policy") or {}).get("edge") or {}
    wanted = gateway.get("workers") or (2 if cores >= MANY_CORES else 1)
    # While a new configuration takes over, there are twice as many.
    fit = max(1, room(memory) // 2)
    if fit < wanted:
        print(f"gateway: {wanted} workers are wanted, but there is memory for {fit}", file=sys.stderr, flush=True)
    return int(min(wanted, fit))


def room(memory: int) -> int:
    """Return how many workers fit into this many bytes; 0 bytes means no limit."""
    return 1 + max(0, memory - FIRST_WORKER) // MORE_WORKER if memory else UNLIMITED


def memory_limit() -> int:
    """Return the bytes that this container may use, 0 when they are not limited."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text("ascii").strip()
        except OSError:
            continue
        # Without a limit the file has a word, or a number larger than any machine.
        return int(text) if text.isdecimal() and int(text) < 1 << 60 else 0
    return 0
