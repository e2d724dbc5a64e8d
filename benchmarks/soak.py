"""Whether the gateway's memory grows: many requests, and what its processes hold after each part of them.

    .venv/bin/python benchmarks/soak.py [--requests 200000] [--every 20000] [--full]

The upstream answers at once, 32 requests at a time. The first part is the warm-up that the end is compared with.
"""

from __future__ import annotations

import argparse
import time

from compare import CONNECTIONS, subjects, without_lane
from lab import Lab, gateway_image, rendered, routing_table, tools

TARGET = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether the gateway's memory grows.")
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--every", type=int, default=20_000)
    parser.add_argument("--ollama-protocol", action="store_true", help="towards the upstream, instead of OpenAI's")
    parser.add_argument("--full", action="store_true", help="through LiteLLM, without the fast lane")
    parser.add_argument("--stream", action="store_true", help="streams of 100 chunks instead of whole answers")
    given = parser.parse_args()
    if given.requests < 2 * given.every:
        parser.error("--requests must be at least twice --every")
    route = "ollama" if given.ollama_protocol else "openai"
    part = "full" if given.full else "ours"
    with Lab(gateway_image(tools())) as lab:
        row = next(row for row in subjects(lab.key) if row.part == part and row.route == route)
        target = row.target("stream" if given.stream else "chat", {})
        ours = rendered(routing_table({}))
        lab.write(f"{part}.yaml", without_lane(ours) if given.full else ours)
        lab.start_harness()
        with lab.timed_start(part, target):
            lab.start_ours(part)
        held = [lab.usage(part)["bytes"] / 10**6]
        print(f"after the start: {held[0]:.1f} MB", flush=True)
        done = 0
        while done < given.requests:
            count = min(given.every, given.requests - done)
            found = lab.ask_load(do="count", target=target, requests=count, connections=CONNECTIONS)
            done += count
            # What a request leaves to be done after its answer.
            time.sleep(1)
            held.append(lab.usage(part)["bytes"] / 10**6)
            failed = f", {found['failed']} failed" if found["failed"] else ""
            print(f"after {done:,}: {held[-1]:.1f} MB, {count / found['seconds']:,.0f} requests/s{failed}", flush=True)
    ratio = held[-1] / held[1]
    met = "met" if ratio <= TARGET else "not met"
    print(
        f"after {given.every:,}: {held[1]:.1f} MB, at the end {held[-1]:.1f} MB: {ratio:.3f} times (target: under {TARGET}: {met})"
    )


if __name__ == "__main__":
    main()
