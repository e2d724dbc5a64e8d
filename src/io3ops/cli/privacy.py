"""The commands for privacy: `verify-isolation`, `audit` and `record`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from io3ops.cli.change_result import report_change
from io3ops.cli.command import asdict, command

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.operations.stack.confirm import Confirmation
    from io3ops.tools import Tools


@command("verify-isolation", "Test that no container has a way out")
def verify_isolation(tools: Tools, console: Console) -> int:
    """Try to get out of each container, and look for keys where they must not be; exit with 1 if a check fails."""
    from io3ops.operations.privacy import isolation as operation

    findings = operation.verify(tools)
    good = all(f.state is not operation.State.FAILED for f in findings)
    console.result("verify-isolation", {"findings": [f.data() for f in findings]}, operation.text(findings), ok=good)
    return 0 if good else 1


@command("audit", "Show prompts that left by an override")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Show the last N entries only; all are verified.")
def audit(tools: Tools, console: Console, last: int | None) -> int:
    """Show and verify the log of prompts that left by an explicit override; exit with 1 if the log was changed.

    Stores the last verified entry, so that the next call detects lost lines and a replaced log.
    """
    from io3ops.operations.privacy import audit as operation

    report, note = operation.audit(tools.settings)
    console.result("audit", report.data(last), operation.text(report, last), ok=report.intact)
    if note:
        console.note(note)
    return 0 if report.intact else 1


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    from io3ops.operations.privacy.recording import duration

    try:
        return duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _confirmation(tools: Tools) -> Confirmation:
    from io3ops.operations.privacy import recording as operation
    from io3ops.operations.stack import confirm

    return confirm.confirm(tools, confirm.RECORDING, operation.request_file(tools.settings), [tools.settings.content])


@command("record", "Record prompts and answers for a limited time", group=True)
def record(tools: Tools, console: Console) -> int:
    """Show the modes whose prompts and answers are recorded, until when, and where."""
    from io3ops.operations.privacy import recording as operation

    found = operation.look(tools.settings)
    console.result("record", asdict(found), operation.text(found, time.time()))
    return 0


@command("record on", "Start recording a mode")
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
    """Record the prompts and answers of a mode in .io3ops/content/content.jsonl, for a limited time.

    Internal prompts are recorded only if the table sets `record_internal: true` for the mode.
    """
    from io3ops.operations.privacy import recording as operation
    from io3ops.operations.stack.confirm import State

    found = operation.start(tools, modes, seconds)
    confirmation = _confirmation(tools)
    console.note(
        f"prompts and answers of {', '.join(modes)} are recorded in {found.file}, which only its owner can read"
    )
    console.note("internal prompts are not recorded, unless the table sets `record_internal: true` for the mode")
    if confirmation.state is State.NONE:
        console.note("no gateway runs now; recording starts with the gateway and stops at the same time")
    return report_change(console, "record on", asdict(found), operation.text(found, time.time()), confirmation)


@command("record off", "Stop recording")
@click.option("--mode", default="", metavar="MODE", help="Stop for this mode only.")
@click.option("--delete", is_flag=True, help="Also delete the recorded prompts and answers.")
def record_off(tools: Tools, console: Console, mode: str, delete: bool) -> int:
    """Stop recording; takes effect within a second, also for running requests."""
    from io3ops.operations.privacy import recording as operation

    if mode and delete:
        raise click.UsageError("--delete deletes the recordings of every mode: do not combine it with --mode")
    ended = operation.stop(tools, mode, delete=delete)
    text = f"{', '.join(ended.modes)}: recording stopped" if ended.modes else "no recording was active"
    if delete:
        text += "; the recorded content was deleted" if ended.deleted else "; nothing was recorded"
    return report_change(console, "record off", asdict(ended), text, _confirmation(tools))
