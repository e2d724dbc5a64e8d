"""The commands for models: `pull` and `models`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from io3ops.cli.command import asdict, command, run_lock
from io3ops.cli.confirmation import confirmed

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.tools import Tools


@command("pull", "Fetch the table's missing models")
def pull(tools: Tools, console: Console) -> int:
    """Fetch the table's models that the runtime does not have."""
    from io3ops.operations.models import pull as operation

    with run_lock(tools):
        fetched = operation.pull(tools, console)
    console.result("pull", {"fetched": list(fetched)}, "")
    return 0


@command("models", "List installed, loaded and unused models")
@click.option(
    "--prune", is_flag=True, help="Remove models that the table does not use from the stack's runtime. Asks first."
)
@click.option("--yes", is_flag=True, help="Answer yes to the question of --prune.")
def models(tools: Tools, console: Console, prune: bool, yes: bool) -> int:
    """List the table's models with their state, disk and memory, and the models that the table does not use."""
    from io3ops.operations.models import pull as operation

    unused = operation.unused_models(tools)
    if prune and unused:
        names = ", ".join(m.name for m in unused)
        if not confirmed(console, f"Remove {names}?", yes=yes, warning="--prune removes models"):
            return 0
        operation.prune_models(tools, unused)
        console.note(f"removed {names}")
        unused = ()
    rows = operation.list_models(tools)
    data = {"models": [asdict(r) for r in rows], "unused": [asdict(m) for m in unused]}
    console.result("models", data, operation.models_text(rows, unused))
    return 0
