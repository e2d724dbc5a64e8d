"""The commands that show logs and activity: `logs`, `logs prune` and `top`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from io3ops.cli.command import asdict, command
from io3ops.cli.confirmation import confirmed
from io3ops.cli.time_options import TIME_HELP, time_of

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.operations.logs.lines import Line
    from io3ops.tools import Tools

# Repeated here because an import of the operation would load much for `--help`.
LAYERS = ("gateway", "runtime", "egress", "observer", "outlet", "loader", "engine", "requests")
# How long `top --once` waits for a layer that does not answer.
FIRST_SECONDS = 5.0


class Logs(click.Group):
    """Accepts `io3ops logs gateway` for `io3ops logs --layer gateway`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes = {name for p in self.params if isinstance(p, click.Option) and not p.is_flag for name in p.opts}
        words: list[str] = []
        for at, word in enumerate(args):
            value = bool(at) and args[at - 1] in takes
            if not value and word in self.commands:
                words += args[at:]
                break
            words += ["--layer", word] if word in LAYERS and not value else [word]
        return super().parse_args(ctx, words)


@command("logs", "Show every layer's log, merged by time", reports=False, group=Logs)
@click.option("-f", "--follow", is_flag=True, help="Continue with new lines until Ctrl-C.")
@click.option(
    "--layer", "layers", multiple=True, type=click.Choice(LAYERS), help="A layer to show; repeatable. Unset: all."
)
@click.option("--id", "identity", default="", metavar="ID", help="Only lines of the request with this id.")
@click.option("--since", default="", metavar="TIME", help=f"Only lines from this time on. {TIME_HELP}")
@click.option(
    "--tail",
    metavar="N|all",
    help="Number of last lines, of all layers together. Unset: 200, or all with --since or --id.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def logs(
    tools: Tools,
    console: Console,
    follow: bool,
    layers: tuple[str, ...],
    identity: str,
    since: str,
    tail: str | None,
) -> int:
    """Print the logs of all layers, merged by time: the containers, the engine, and one line per request. They contain no prompts.

    A request's line appears when the request ends, with its duration. `io3ops logs gateway` means --layer gateway.
    """
    from io3ops.operations.logs import lines as log_lines
    from io3ops.operations.logs.logs import logs as operation

    begin = max(0.0, time_of("--since", since).timestamp()) if since else 0.0
    count = tail or ("all" if since or identity else "200")
    if count != "all" and not (count.isdecimal() and len(count) < 10):
        raise click.UsageError(f"--tail {count!r} is neither a number nor `all`")
    selection = log_lines.Selection(
        layers=layers or LAYERS, id=identity, since=begin, tail=None if count == "all" else int(count)
    )

    def show(lines: Iterable[Line]) -> None:
        if console.mode == "json":
            console.lines([(log_lines.as_json(line), "")] for line in lines)
        else:
            console.lines(map(log_lines.cells, lines))

    operation(tools, selection, show, console.note, follow=follow)
    return 0


@command("logs prune", "Remove old request logs now")
@click.option(
    "--keep-days",
    type=click.IntRange(0, 100_000),
    metavar="N",
    help="Remove files that are older. Unset: the table's value.",
)
@click.option(
    "--budget-mb",
    type=click.IntRange(0, 10_000_000),
    metavar="N",
    help="Remove the oldest files beyond this size. Unset: the table's value.",
)
@click.option("--all", "everything", is_flag=True, help="Remove every request log. Asks first.")
@click.option("--yes", is_flag=True, help="Answer yes to the question of --all.")
def prune(
    tools: Tools, console: Console, keep_days: int | None, budget_mb: int | None, everything: bool, yes: bool
) -> int:
    """Remove old request logs now. The gateway also does so by itself, as `logs:` in the table sets it."""
    if yes and not everything:
        raise click.UsageError("--yes requires --all")
    question = f"Remove all request logs in {tools.settings.logs}?"
    if everything and not confirmed(console, question, yes=yes, warning="--all removes every request log"):
        return 0
    from io3ops.operations.request_log import prune as prune_logs
    from io3ops.operations.table import config

    if keep_days is None or budget_mb is None:
        # Read the table only when it is needed: it may have problems.
        kept = config.load(tools.settings).table.log
        keep_days = kept.keep_days if keep_days is None else keep_days
        budget_mb = kept.budget_mb if budget_mb is None else budget_mb
    done = prune_logs.prune(tools.settings, keep_days=keep_days, budget_mb=budget_mb, everything=everything)
    count = len(done.removed)
    text = (
        f"removed {count} file{'s' if count != 1 else ''}, {done.freed / 1e6:,.1f} MB"
        if count
        else "no file is old enough"
    )
    console.result("logs prune", asdict(done), text)
    return 0


@command("top", "Show a live view of the stack")
@click.option("--once", is_flag=True, help="Print the current state as text and exit.")
def top(tools: Tools, console: Console, once: bool) -> int:
    """Show containers, loaded models, requests and the last errors, updated every second. q quits.

    Without a terminal, and with --json, the state is printed once.
    """
    from io3ops.operations.top import text as top_text
    from io3ops.operations.top.top import Top

    terminal = sys.stdout.isatty() and tools.settings.environment.get("TERM", "dumb") != "dumb"
    view = Top(tools)
    view.begin()
    try:
        if once or console.mode == "json" or not terminal:
            view.wait(FIRST_SECONDS)
            seen = view.snapshot()
            console.result("top", asdict(seen), top_text.text(seen))
        else:
            from io3ops.cli import live

            live.watch(view.snapshot)
    finally:
        view.close()
    return 0
