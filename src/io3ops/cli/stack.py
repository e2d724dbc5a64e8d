"""The commands that run the stack and look at it. Like all of them: flags -> one operation -> console -> exit code."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from io3ops.cli.command import asdict, command

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.operations.lifecycle.up import Run
    from io3ops.tools import Tools


@command("up")
@click.option("--dry-run", is_flag=True, help="Print what would be done and why; change nothing.")
def up(tools: Tools, console: Console, dry_run: bool) -> int:
    """Bring the stack to what the table says: engine, images, models, gateway, one test call per mode."""
    from io3ops.adapters.files import exclusive
    from io3ops.operations.lifecycle.up import up as bring_up

    if dry_run:
        console.result("up", _up_data(bring_up(tools, console, dry_run=True)), "nothing was changed (--dry-run)")
        return 0
    with exclusive(tools.settings.state / "lock"):
        done = bring_up(tools, console)
    console.result("up", _up_data(done), _summary(done))
    return 0


def _up_data(done: Run) -> dict[str, Any]:
    settings = done.tools.settings
    return {
        "endpoint": settings.base_url,
        "key_file": str(settings.key_file),
        "modes": {mode: [d.runtime_name for d in done.config.plan.chain(mode)] for mode in done.config.plan.modes},
        "acted": done.acted,
        "checks": [asdict(c) for c in done.checks],
    }


def _summary(done: Run) -> str:
    settings, plan, table = done.tools.settings, done.config.plan, done.config.table
    width = max(len(mode) for mode in plan.modes)
    chat = next((m for m in plan.modes if plan.task(m) == "chat"), plan.modes[0])
    rows = []
    for mode in plan.modes:
        chain = " → ".join(f"{d.model} ({table.model(d.model).source.name})" for d in plan.chain(mode))
        rows.append(f"    {mode:<{width}}  {chain}")
    # Pasted lines must work where the user stands, and past a proxy.
    here = Path.cwd() == settings.root
    key_file = str(settings.key_file.relative_to(settings.root)) if here else shlex.quote(str(settings.key_file))
    proxied = any(settings.environment.get(name) for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"))
    curl = "curl -s --noproxy '*'" if proxied else "curl -s"
    key_literal = json.dumps(
        str(settings.key_file.relative_to(settings.root)) if here else str(settings.key_file), ensure_ascii=False
    )
    first = f"""
  Endpoint  {settings.base_url}
  Key       {key_file}   (`io3ops key --show` prints it)
  Modes
""" + "\n".join(rows)
    return (
        first
        + f"""

  Try it:
    {curl} {settings.base_url}/chat/completions -H "Authorization: Bearer $(cat {key_file})" \\
      -H 'Content-Type: application/json' -d '{{"model": "{chat}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

  From Python (pip install openai):
    from openai import OpenAI
    client = OpenAI(base_url="{settings.base_url}", api_key=open({key_literal}).read().strip())
    print(client.chat.completions.create(model="{chat}", messages=[{{"role": "user", "content": "Hello!"}}]).choices[0].message.content)

  Next: edit runtime/routing.yaml and run `io3ops apply`; `io3ops preset` offers larger models (.venv/bin/io3ops).
"""
    )


@command("down")
@click.option("--purge", is_flag=True, help="Also remove the models, the key and io3ops' part of .env. Asks first.")
@click.option("--yes", is_flag=True, help="Answer yes to --purge.")
def down(tools: Tools, console: Console, purge: bool, yes: bool) -> int:
    """Stop the stack; models, key and configuration are kept."""
    from io3ops.adapters.files import exclusive
    from io3ops.operations.lifecycle.down import down as take_down

    if yes and not purge:
        raise click.UsageError("--yes belongs to --purge")
    if purge and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("--purge removes models and the key: confirm it with --yes")
        question = f"Remove all models, the key and io3ops' part of .env of project {tools.settings.project!r}?"
        if not click.confirm(question, err=True):
            console.note("nothing was removed")
            return 0
    with exclusive(tools.settings.state / "lock"):
        done = take_down(tools, console, purge=purge)
    console.result("down", asdict(done), "")
    return 0


@command("status")
def status(tools: Tools, console: Console) -> int:
    """Say what runs: containers, modes and models. Asks no model."""
    from io3ops.operations.checks import status as operation

    found = operation.status(tools)
    console.result("status", asdict(found), operation.text(found), ok=found.running)
    return 0 if found.running else 1


@command("health")
@click.option("--deep", is_flag=True, help="Add one real round trip per mode.")
def health(tools: Tools, console: Console, deep: bool) -> int:
    """Probe every layer, one line each; exit code 1 when one fails."""
    from io3ops.operations.checks import health as operation

    probes = operation.health(tools, deep=deep)
    marks = {"ok": "✓", "failed": "✗", "skipped": "-"}
    lines = []
    for probe in probes:
        lines.append(f"{marks[probe.state]} {probe.layer:<15} {probe.detail}")
        if probe.hint and probe.state == "failed":
            lines.append(f"  {'':<15} hint: {probe.hint}")
    good = operation.healthy(probes)
    console.result("health", {"probes": [asdict(p) for p in probes]}, "\n".join(lines), ok=good)
    return 0 if good else 1


@command("pull")
def pull(tools: Tools, console: Console) -> int:
    """Fetch the models that the table names and the runtime does not have."""
    from io3ops.adapters.files import exclusive
    from io3ops.operations.models.pull import pull as fetch_missing

    with exclusive(tools.settings.state / "lock"):
        fetched = fetch_missing(tools, console)
    console.result("pull", {"fetched": list(fetched)}, "")
    return 0


@command("models")
@click.option(
    "--prune", is_flag=True, help="Remove the models in the stack's runtime that the table does not use. Asks first."
)
@click.option("--yes", is_flag=True, help="Answer yes to --prune.")
def models(tools: Tools, console: Console, prune: bool, yes: bool) -> int:
    """List the table's models: installed, loaded, memory; and what lies there unused."""
    from io3ops.operations.models.pull import list_models, models_text, prune_models, unused_models

    unused = unused_models(tools)
    if prune and unused:
        if not yes and not sys.stdin.isatty():
            raise click.UsageError("--prune removes models: confirm it with --yes")
        if not yes and not click.confirm(f"Remove {', '.join(m.name for m in unused)}?", err=True):
            console.note("nothing was removed")
            return 0
        prune_models(tools, unused)
        console.note(f"removed {', '.join(m.name for m in unused)}")
        unused = ()
    rows = list_models(tools)
    data = {"models": [asdict(r) for r in rows], "unused": [asdict(m) for m in unused]}
    console.result("models", data, models_text(rows, unused))
    return 0


@command("smoke")
@click.option(
    "--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write a JUnit report to this file."
)
@click.option("--cloud", is_flag=True, help="Send them as public prompts, so that cloud steps are tried too.")
def smoke(tools: Tools, console: Console, junit: Path | None, cloud: bool) -> int:
    """One real call per mode through the gateway; exit code 1 when one fails. Nothing leaves this machine without --cloud."""
    from io3ops.adapters.files import write_atomic
    from io3ops.operations.lifecycle import smoke as operation
    from io3ops.operations.stack import owner_key as key
    from io3ops.operations.stack.project import own_containers
    from io3ops.operations.table import config

    plan = config.load(tools.settings).plan
    value = key.read(tools.settings)
    own_containers(tools)
    with console.step("smoke", "one short call per mode") as step:
        checks = operation.smoke(tools.settings, plan, value, step.activity("calling"), cloud=cloud)
        step.outcome = f"{sum(c.ok for c in checks)} of {len(checks)} modes answer"
    if junit:
        write_atomic(junit, operation.junit(checks).encode())
    good = all(c.ok for c in checks)
    text = "\n".join(f"{'✓' if c.ok else '✗'} {c.mode:<12} {c.seconds:5.2f} s  {c.detail}" for c in checks)
    console.result("smoke", {"checks": [asdict(c) for c in checks]}, text, ok=good)
    return 0 if good else 1


@command("apply")
def apply(tools: Tools, console: Console) -> int:
    """Render and hand the table to the running gateway; when it does not pass, the previous one serves on."""
    from io3ops.adapters.files import exclusive
    from io3ops.operations.lifecycle.apply import apply as hand_over

    with exclusive(tools.settings.state / "lock"):
        done = hand_over(tools, console)
    console.result("apply", asdict(done), "applied" if done.changed else "the gateway has this table already")
    return 0


@command("verify-isolation")
def verify_isolation(tools: Tools, console: Console) -> int:
    """Try to get out, from inside each container's network, and look for keys where they must not be; exit code 1 when one
    check fails."""
    from io3ops.operations.privacy import isolation as operation

    findings = operation.verify(tools)
    good = all(f.state != "failed" for f in findings)
    console.result("verify-isolation", {"findings": [asdict(f) for f in findings]}, operation.text(findings), ok=good)
    return 0 if good else 1


@command("bench")
@click.option(
    "--mode",
    "modes",
    multiple=True,
    metavar="MODE",
    help="Measure this one; repeatable. Unset: the first of each task.",
)
@click.option(
    "--rounds", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Pairs of one request each way."
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 256),
    default=4,
    show_default=True,
    help="Clients at one time; 1: not many at a time.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1, 86_400),
    default=60,
    show_default=True,
    help="Time for measuring; a round that would not fit is not begun.",
)
@click.option("--plot", is_flag=True, help="Also draw a picture of it.")
def bench(
    tools: Tools, console: Console, modes: tuple[str, ...], rounds: int, parallel: int, seconds: int, plot: bool
) -> int:
    """Measure the running stack, direct to the runtime against through the gateway; exit code 1 when a request failed.

    Chat, streamed chat and embeddings, one and many at a time, in turns, with a prompt of our own. It keeps the models busy
    meanwhile. Cloud providers are never called.
    """
    from io3ops.operations.bench import bench as operation
    from io3ops.operations.bench import text as bench_text
    from io3ops.operations.bench.requests import Wish

    wish = Wish(modes=modes, rounds=rounds, parallel=parallel, seconds=seconds)
    with console.step("bench", "direct to the runtime against through the gateway") as step:
        found = operation.bench(tools, wish, step.activity("measuring"))
        step.outcome = f"{found.requests} requests"
    console.result("bench", bench_text.data(found), bench_text.text(found, plot=plot), ok=not found.errors)
    return 1 if found.errors else 0
