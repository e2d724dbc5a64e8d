"""The commands for the routing table: `preset`, `render-config`, `routes`, `explain` and `graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from io3ops.cli.command import DATA_CLASS, asdict, command

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.routing.language import DataClass
    from io3ops.tools import Tools


@command("preset", "Show the presets, or put one in place")
@click.argument("name", required=False, type=click.Choice(["starter", "laptop", "workstation"]))
@click.option("--force", is_flag=True, help="Replace your own table; a copy is kept as routing.yaml.bak.")
def preset(tools: Tools, console: Console, name: str | None, force: bool) -> int:
    """Show the presets, which are ready routing tables, or put one in place: io3ops preset laptop."""
    from io3ops.operations.table import preset as operation

    if name:
        changed = operation.apply(tools.settings, name, force=force)
        text = f"runtime/routing.yaml is now the preset {name}; run `make up`"
        console.result("preset", {"applied": name, "changed": changed}, text)
        return 0
    found = operation.all_presets()
    best = operation.recommend(tools.machine, tools.machine.memory, found)
    current = operation.current(tools.settings, found)
    data = {
        "recommended": best.name,
        "current": current,
        "presets": [{k: v for k, v in asdict(p).items() if k != "text"} for p in found],
    }
    console.result("preset", data, operation.text(found, best, current, tools.machine))
    return 0


@command("render-config", "Render litellm.yaml from the table")
@click.option("--check", is_flag=True, help="Write nothing; print the difference and exit with 1 if there is one.")
@click.option("--stdout", "to_stdout", is_flag=True, help="Print the file instead of writing it.")
@click.option(
    "--validate",
    "with_loader",
    is_flag=True,
    help="First test the file with LiteLLM's own loader, in the gateway's image (takes seconds).",
)
@click.option("--force", is_flag=True, help="Overwrite a litellm.yaml that was edited by hand.")
def render_config(tools: Tools, console: Console, check: bool, to_stdout: bool, with_loader: bool, force: bool) -> int:
    """Render runtime/litellm.yaml from runtime/routing.yaml."""
    from io3ops.operations.table import config as operation

    config = operation.load(tools.settings)
    for warning in config.warnings:
        console.note(f"warning: {warning}")
    if with_loader:
        from io3ops.operations.stack import images, validate

        validate.validate(tools, config, images.gateway_image(tools))
    if to_stdout:
        console.result("render-config", {"text": config.text}, config.text)
        return 0
    if check:
        diff = config.diff(tools.settings.root)
        text = diff or "runtime/litellm.yaml, its schema and its picture are current"
        console.result("render-config", {"current": config.current, "diff": diff}, text, ok=config.current)
        return 0 if config.current else 1
    written = operation.write(tools.settings, config, force=force)
    text = f"wrote {', '.join(written)}" if written else "runtime/litellm.yaml is current"
    console.result("render-config", {"written": list(written), "warnings": list(config.warnings)}, text)
    return 0


@command("routes", "Show or edit the routing table")
@click.argument("action", type=click.Choice(["edit"]), required=False)
@click.option("--resolved", is_flag=True, help="Show every value in effect and its origin.")
def routes(tools: Tools, console: Console, action: str | None, resolved: bool) -> int:
    """Show the modes of the routing table.

    `io3ops routes edit` opens the table in $EDITOR, checks it, shows the changes and renders it. A table with problems is not saved.
    """
    from io3ops.operations.table import routes as operation

    if action == "edit":
        from io3ops.operations.table.edit import edit

        return edit(tools, console)
    if resolved:
        values = operation.all_values(tools.settings)
        console.result("routes", {"values": [asdict(v) for v in values]}, operation.values_text(values))
        return 0
    rows = operation.routes(tools.settings)
    console.result("routes", {"routes": [asdict(r) for r in rows]}, operation.routes_text(rows))
    return 0


@command("explain", "Predict who serves a mode when something fails")
@click.argument("mode")
@click.option(
    "--data-class",
    type=DATA_CLASS,
    help="Data class set by the key or the request (default: unmarked).",
)
@click.option(
    "--fail", multiple=True, metavar="NAME", help="A deployment, model or provider that fails, or `all`; repeatable."
)
@click.option(
    "--status",
    default="500",
    show_default=True,
    help="How it fails: 400 401 403 404 408 429 500 502 503, timeout, context, content.",
)
def explain(
    tools: Tools, console: Console, mode: str, data_class: DataClass | None, fail: tuple[str, ...], status: str
) -> int:
    """Predict which deployments a request to MODE tries, in which order and with which time limits, and how it ends."""
    from io3ops.operations.table import routes as operation
    from io3ops.routing import explain as explaining

    if status not in explaining.STATUSES:
        raise click.UsageError(f"--status {status!r} is not one of {', '.join(explaining.STATUSES)}")
    path = operation.explain(tools.settings, mode, data_class=data_class or "", fail=fail, status=status)
    console.result("explain", asdict(path), explaining.text(path, status))
    return 0


@command("graph", "Print the routing picture")
@click.option("--svg", is_flag=True, help="Print SVG instead of Mermaid.")
def graph(tools: Tools, console: Console, svg: bool) -> int:
    """Print the routing picture. `render-config` updates the one in docs/routing.md."""
    from io3ops.operations.table import routes as operation

    picture = operation.graph(tools.settings, "svg" if svg else "mermaid")
    console.result("graph", {"picture": picture}, picture)
    return 0
