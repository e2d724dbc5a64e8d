"""The commands that look at the stack: `status` and `health`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from io3ops.cli.command import asdict, command

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.tools import Tools


@command("status", "Show containers, modes and models")
def status(tools: Tools, console: Console) -> int:
    """Show the containers, modes and models, without calling a model; exit with 1 if the stack does not run."""
    from io3ops.operations.checks import status as operation

    found = operation.status(tools)
    console.result("status", asdict(found), operation.text(found), ok=found.running)
    return 0 if found.running else 1


@command("health", "Check every layer, one line each")
@click.option("--deep", is_flag=True, help="Add one real request per mode.")
def health(tools: Tools, console: Console, deep: bool) -> int:
    """Check every layer, one line each; exit with 1 if one fails."""
    from io3ops.operations.checks import health as operation

    probes = operation.health(tools, deep=deep)
    good = operation.healthy(probes)
    console.result("health", {"probes": [asdict(p) for p in probes]}, operation.text(probes), ok=good)
    return 0 if good else 1
