"""The commands that read the request log: `usage` and `trace`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from io3ops.cli.command import command
from io3ops.cli.time_options import TIME_HELP, time_of

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.tools import Tools

# Repeated here because an import of the operation would load DuckDB for `--help`.
DIMENSIONS = ("mode", "model", "key", "client", "outcome", "error", "day", "hour")


@command("usage", "Count requests, tokens, times and costs")
@click.option(
    "--since",
    default="today",
    show_default=True,
    metavar="TIME",
    help=f"Start of the range. {TIME_HELP}",
)
@click.option(
    "--until",
    default="now",
    show_default=True,
    metavar="TIME",
    help="End of the range (exclusive); same formats as --since.",
)
@click.option("--by", multiple=True, type=click.Choice(DIMENSIONS), help="Group by this; repeatable. Unset: mode.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the groups as CSV.")
@click.option("--plot", is_flag=True, help="Also draw requests over time, and durations by group.")
def usage(tools: Tools, console: Console, since: str, until: str, by: tuple[str, ...], as_csv: bool, plot: bool) -> int:
    """Count requests, errors, tokens, durations and costs from the request log.

    Days and hours are in this machine's time zone. Needs no running stack.
    """
    from datetime import UTC, datetime

    from io3ops.operations.usage import text as usage_text
    from io3ops.operations.usage.usage import usage as count

    if as_csv and (plot or console.mode == "json"):
        raise click.UsageError("--csv cannot be combined with --json or --plot")
    now = datetime.now(UTC)
    begin, end = time_of("--since", since, now), time_of("--until", until, now)
    if begin >= end:
        raise click.UsageError("--since must be before --until")
    found = count(tools.settings.logs, begin, end, tuple(dict.fromkeys(by)) or ("mode",), timeline=plot)
    if as_csv:
        console.result("usage", {}, usage_text.comma_separated(found))
        return 0
    console.result("usage", usage_text.data(found), usage_text.text(found, console.width, plot=plot))
    return 0


@command("trace", "Show one request, part by part")
@click.argument("request", default="last", metavar="[ID|last]")
@click.option("--failed", is_flag=True, help="The last request that failed.")
@click.option("--mode", default="", metavar="MODE", help="The last request of this mode.")
def trace(tools: Tools, console: Console, request: str, failed: bool, mode: str) -> int:
    """Show one request, part by part: who served it, after which attempts, and where its time went.

    ID is the x-request-id of the response; a unique prefix of at least 8 characters is enough.
    """
    from io3ops.operations.trace import text as trace_text
    from io3ops.operations.trace import trace as operation
    from io3ops.operations.trace.advice import advice

    if request != "last" and (failed or mode):
        raise click.UsageError("--failed and --mode search for the last request: do not combine them with an id")
    logs = tools.settings.logs
    found = operation.last(logs, failed=failed, mode=mode) if request == "last" else operation.find(logs, request)
    parts = operation.waterfall(found)
    said = advice(found, parts, operation.keep_alive(tools.settings, found))
    # The console's mode describes stderr, but the result goes to stdout.
    colour = console.mode == "tty" and sys.stdout.isatty()
    text = trace_text.text(found, parts, said, console.width, colour=colour)
    console.result("trace", trace_text.data(found, parts, said), text)
    return 0
