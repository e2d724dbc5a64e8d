"""The commands that change the stack: `up`, `down`, `apply`; and `smoke`, which calls it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from io3ops.cli.command import asdict, command, run_lock
from io3ops.cli.confirmation import confirmed

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.tools import Tools


@command("up", "Start or update the stack")
@click.option("--dry-run", is_flag=True, help="Print the steps and their causes; change nothing.")
def up(tools: Tools, console: Console, dry_run: bool) -> int:
    """Start the stack, or update it to the table: engine, images, models, gateway, one test call per mode."""
    from io3ops.operations.lifecycle import summary
    from io3ops.operations.lifecycle import up as operation

    if dry_run:
        run = operation.up(tools, console, dry_run=True)
        console.result("up", summary.data(run), "nothing was changed (--dry-run)")
        return 0
    with run_lock(tools):
        run = operation.up(tools, console)
    console.result("up", summary.data(run), summary.text(run, Path.cwd()))
    return 0


@command("down", "Stop the stack and keep its data")
@click.option("--purge", is_flag=True, help="Also remove the models, the keys and io3ops' part of .env. Asks first.")
@click.option("--yes", is_flag=True, help="Answer yes to the question of --purge.")
def down(tools: Tools, console: Console, purge: bool, yes: bool) -> int:
    """Stop the stack. Models, keys and configuration are kept."""
    from io3ops.operations.lifecycle import down as operation

    if yes and not purge:
        raise click.UsageError("--yes requires --purge")
    question = f"Remove all models, the keys and io3ops' part of .env of project {tools.settings.project!r}?"
    if purge and not confirmed(console, question, yes=yes, warning="--purge removes models and keys"):
        return 0
    with run_lock(tools):
        result = operation.down(tools, console, purge=purge)
    console.result("down", asdict(result), "")
    return 0


@command("apply", "Switch the running gateway to the table")
def apply(tools: Tools, console: Console) -> int:
    """Render the table and switch the running gateway to it. If the table fails its checks, the previous one keeps serving."""
    from io3ops.operations.lifecycle import apply as operation

    with run_lock(tools):
        result = operation.apply(tools, console)
    console.result("apply", asdict(result), "applied" if result.changed else "the gateway already has this table")
    return 0


@command("smoke", "Send one real request per mode")
@click.option(
    "--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write a JUnit report to this file."
)
@click.option("--cloud", is_flag=True, help="Send public prompts, so that cloud steps are tested too.")
def smoke(tools: Tools, console: Console, junit: Path | None, cloud: bool) -> int:
    """Send one real request per mode through the gateway; exit with 1 if one fails. Without --cloud nothing leaves this machine."""
    from io3ops.adapters.files import write_atomic
    from io3ops.operations.lifecycle import smoke as operation
    from io3ops.operations.stack import owner_key, project
    from io3ops.operations.table import config

    plan = config.load(tools.settings).plan
    key = owner_key.read(tools.settings)
    project.own_containers(tools)
    with console.step("smoke", "one short call per mode") as step:
        checks = operation.smoke(tools.settings, plan, key, step.activity("calling"), cloud=cloud)
        step.outcome = f"{sum(c.ok for c in checks)} of {len(checks)} modes answer"
    if junit:
        write_atomic(junit, operation.junit(checks).encode())
    good = all(c.ok for c in checks)
    console.result("smoke", {"checks": [asdict(c) for c in checks]}, operation.text(checks), ok=good)
    return 0 if good else 1
