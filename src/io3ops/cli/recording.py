"""The commands that keep content for a while: `record`. Like all of them: flags -> one operation -> console -> exit code."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from io3ops.cli.command import asdict, command
from io3ops.cli.keys import confirmed

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.tools import Tools


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    from io3ops.operations.privacy.recording import duration

    try:
        return duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@command("record", group=True)
def record(tools: Tools, console: Console) -> int:
    """Say which modes' prompts and answers are kept now, until when, and where."""
    from io3ops.operations.privacy import recording as operation

    found = operation.look(tools.settings)
    console.result("record", asdict(found), operation.text(found, time.time()))
    return 0


@command("record on")
@click.option("--mode", "modes", multiple=True, required=True, metavar="MODE", help="A mode to record; repeatable.")
@click.option(
    "--for",
    "seconds",
    default="30m",
    show_default=True,
    metavar="DURATION",
    callback=_seconds,
    help="How long to record, e.g. 90s, 30m or 1h30m; at most 24h. Recording stops by itself.",
)
def record_on(tools: Tools, console: Console, modes: tuple[str, ...], seconds: int) -> int:
    """Keep the prompts and answers of a mode in .io3ops/content/content.jsonl, for a while.

    Internal prompts only where the table says `record_internal: true` of the mode.
    """
    from io3ops.operations.privacy import recording as operation
    from io3ops.operations.stack import confirm

    found = operation.start(tools, modes, seconds)
    seen = confirm.seen(tools, confirm.RECORDING, operation.wish(tools.settings), [tools.settings.content])
    console.note(
        f"prompts and answers of {', '.join(modes)} are written to {found.file}, which only its owner may read"
    )
    console.note("internal prompts are not, unless the table says `record_internal: true` of the mode")
    if seen.state == "none":
        console.note("no gateway runs now: it is recorded from the next start on, until that time")
    return confirmed(console, "record on", asdict(found), operation.text(found, time.time()), seen)


@command("record off")
@click.option("--mode", default="", metavar="MODE", help="End it for this mode only.")
@click.option("--delete", is_flag=True, help="Also remove what was kept.")
def record_off(tools: Tools, console: Console, mode: str, delete: bool) -> int:
    """Keep nothing more; within a second also of requests that run."""
    from io3ops.operations.privacy import recording as operation
    from io3ops.operations.stack import confirm

    if mode and delete:
        raise click.UsageError("--delete removes what was kept of every mode: leave --mode out")
    done = operation.stop(tools, mode, delete=delete)
    words = [f"{', '.join(done.modes)}: recorded no more" if done.modes else "nothing was recorded"]
    if delete:
        words.append("what was kept is removed" if done.deleted else "nothing had been kept")
    seen = confirm.seen(tools, confirm.RECORDING, operation.wish(tools.settings), [tools.settings.content])
    return confirmed(console, "record off", asdict(done), "; ".join(words), seen)
