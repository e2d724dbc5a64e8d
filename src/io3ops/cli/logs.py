"""The commands that show what happens now: `logs`, `top`. Like all of them: flags -> one operation -> console -> exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from io3ops.cli.command import asdict, command
from io3ops.cli.times import TIME_HELP, time_of

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.operations.logs.lines import Line
    from io3ops.tools import Tools

# Written here too: reading it from the operation would load much for `--help`.
LAYERS = ("gateway", "runtime", "egress", "observer", "outlet", "loader", "engine", "requests")
# As long as `top --once` waits for a layer that does not answer.
FIRST_SECONDS = 5.0


class Logs(click.Group):
    """`io3ops logs gateway` says the same as `io3ops logs --layer gateway`."""

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


@command("logs", reports=False, group=Logs)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines, until Ctrl-C.")
@click.option(
    "--layer", "layers", multiple=True, type=click.Choice(LAYERS), help="Only this one; repeatable. Unset: all."
)
@click.option("--id", "identity", default="", metavar="ID", help="Only lines of the request with this id.")
@click.option("--since", default="", metavar="TIME", help=f"Show only lines from then on. {TIME_HELP}")
@click.option(
    "--tail",
    metavar="N|all",
    help="The last so many lines of all layers together; unset: 200, and all with --since or --id.",
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
    """Print what every layer wrote, by time: the containers, the engine, and one line per request. No prompt is in it.

    A request's line stands at its end, and says how long it took. `io3ops logs gateway` is the same as --layer gateway.
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


@command("logs prune")
@click.option(
    "--keep-days", type=click.IntRange(0, 100_000), metavar="N", help="Remove what is older. Unset: the table's."
)
@click.option(
    "--budget-mb",
    type=click.IntRange(0, 10_000_000),
    metavar="N",
    help="Remove the oldest beyond that. Unset: the table's.",
)
@click.option("--all", "everything", is_flag=True, help="Remove all of them. Asks first.")
@click.option("--yes", is_flag=True, help="Answer yes to --all.")
def prune(
    tools: Tools, console: Console, keep_days: int | None, budget_mb: int | None, everything: bool, yes: bool
) -> int:
    """Remove old request logs at once; the gateway does it by itself too, as `logs:` in the table says."""
    if yes and not everything:
        raise click.UsageError("--yes belongs to --all")
    if everything and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("--all removes every request log: confirm it with --yes")
        if not click.confirm(f"Remove all request logs in {tools.settings.logs}?", err=True):
            console.note("nothing was removed")
            return 0
    from io3ops.operations.request_log import prune as prune_logs
    from io3ops.operations.table import config

    if keep_days is None or budget_mb is None:
        # Only then the table is needed, which may have problems.
        kept = config.load(tools.settings).table.log
        keep_days = kept.keep_days if keep_days is None else keep_days
        budget_mb = kept.budget_mb if budget_mb is None else budget_mb
    done = prune_logs.prune(tools.settings, keep_days=keep_days, budget_mb=budget_mb, everything=everything)
    count = len(done.removed)
    text = (
        f"removed {count} file{'s' if count != 1 else ''}, {done.freed / 1e6:,.1f} MB"
        if count
        else "nothing is that old"
    )
    console.result("logs prune", asdict(done), text)
    return 0


@command("top")
@click.option("--once", is_flag=True, help="Print what is seen now, as text, and end.")
def top(tools: Tools, console: Console, once: bool) -> int:
    """Show what every layer does now, again each second: containers, loaded models, requests, the last errors. q quits.

    Where there is no terminal, and with --json, it is printed once.
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
