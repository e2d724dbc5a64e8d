"""The command `bench`, which measures the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from io3ops.cli.command import command

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.tools import Tools


@command("bench", "Measure what the gateway costs")
@click.option(
    "--mode",
    "modes",
    multiple=True,
    metavar="MODE",
    help="A mode to measure; repeatable. Unset: the first local one of each task.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="Number of rounds; each sends one request on each path.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 256),
    default=4,
    show_default=True,
    help="Number of concurrent clients; 1 skips the concurrency test.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1, 86_400),
    default=60,
    show_default=True,
    help="Time limit; stop before a round that would exceed it.",
)
@click.option("--plot", is_flag=True, help="Also draw the results.")
def bench(
    tools: Tools, console: Console, modes: tuple[str, ...], rounds: int, parallel: int, seconds: int, plot: bool
) -> int:
    """Measure the running stack, comparing direct calls to the runtime with calls through the gateway.

    Sends chat, streamed chat and embeddings, one at a time and concurrently, alternately on both paths, with a prompt of its own.
    The models are busy meanwhile. Cloud providers are never called. Exits with 1 if a request fails.
    """
    from io3ops.operations.bench import bench as operation
    from io3ops.operations.bench import text as bench_text
    from io3ops.operations.bench.requests import Options

    options = Options(modes=modes, rounds=rounds, parallel=parallel, seconds=seconds)
    with console.step("bench", "direct calls to the runtime, and calls through the gateway") as step:
        report = operation.bench(tools, options, step.activity("measuring"))
        step.outcome = f"{report.requests} requests"
    console.result("bench", bench_text.data(report), bench_text.text(report, plot=plot), ok=not report.errors)
    return 1 if report.errors else 0
