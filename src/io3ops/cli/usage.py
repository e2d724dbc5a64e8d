"""The commands that read the request log: `usage`, `trace`. Like all of them: flags -> one operation -> console -> exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from io3ops.cli.command import command
from io3ops.cli.times import TIME_HELP, time_of

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.tools import Tools

# Written here too: reading them from the operation would load DuckDB for `--help`.
DIMENSIONS = ("mode", "model", "key", "client", "outcome", "error", "day", "hour")


@command("usage")
@click.option("--since", default="today", show_default=True, metavar="TIME", help=f"Start of the range. {TIME_HELP}")
@click.option(
    "--until",
    default="now",
    show_default=True,
    metavar="TIME",
    help="End of the range (exclusive); same forms as --since.",
)
@click.option("--by", multiple=True, type=click.Choice(DIMENSIONS), help="Group by it; repeatable. Unset: mode.")
@click.option("--csv", "as_csv", is_flag=True, help="The groups as CSV on stdout.")
@click.option("--plot", is_flag=True, help="Also draw requests over time, and times by group.")
def usage(tools: Tools, console: Console, since: str, until: str, by: tuple[str, ...], as_csv: bool, plot: bool) -> int:
    """What went where: requests, errors, tokens, times and costs, from the request log.

    Days and hours are this machine's. It asks nobody and works when the stack does not run.
    """
    from datetime import UTC, datetime

    from io3ops.operations.usage import text as usage_text
    from io3ops.operations.usage.usage import usage as count

    if as_csv and (plot or console.mode == "json"):
        raise click.UsageError("--csv goes with neither --json nor --plot")
    now = datetime.now(UTC)
    begin, end = time_of("--since", since, now), time_of("--until", until, now)
    if begin >= end:
        raise click.UsageError("--since is not before --until")
    found = count(tools.settings.logs, begin, end, tuple(dict.fromkeys(by)) or ("mode",), timeline=plot)
    if as_csv:
        console.result("usage", {}, usage_text.comma_separated(found))
        return 0
    console.result("usage", usage_text.data(found), usage_text.text(found, console.width, plot=plot))
    return 0


@command("trace")
@click.argument("request", default="last", metavar="[ID|last]")
@click.option("--failed", is_flag=True, help="The last one that did not end well.")
@click.option("--mode", default="", metavar="MODE", help="The last one of this mode.")
def trace(tools: Tools, console: Console, request: str, failed: bool, mode: str) -> int:
    """One request, part by part: who served it, after which attempts, and where its time went.

    ID is what the answer's x-request-id says; its first letters do, 8 at least, when no other begins so.
    """
    from io3ops.operations.trace import text as trace_text
    from io3ops.operations.trace import trace as operation
    from io3ops.operations.trace.advice import advice

    if request != "last" and (failed or mode):
        raise click.UsageError("--failed and --mode look for the last one: give no id with them")
    logs = tools.settings.logs
    found = operation.last(logs, failed=failed, mode=mode) if request == "last" else operation.find(logs, request)
    parts = operation.waterfall(found)
    said = advice(found, parts, operation.keep_alive(tools.settings, found))
    # The console's mode is about stderr; this goes to stdout.
    colour = console.mode == "tty" and sys.stdout.isatty()
    text = trace_text.text(found, parts, said, console.width, colour=colour)
    console.result("trace", trace_text.data(found, parts, said), text)
    return 0
