"""Flags -> one operation -> console -> exit code. Operations are imported when called: `--help` stays quick."""

from __future__ import annotations

import gc
import io
import json
import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from io3ops import __version__
from io3ops.errors import Io3opsError

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.operations.up import Run
    from io3ops.tools import Tools

INTERRUPTED = 130
# What `io3ops --help` says of each command; click would cut the first sentence of the long help in the middle.
SHORT = {
    "up": "Bring the stack to what the table says",
    "down": "Stop the stack; nothing is lost",
    "status": "What runs: containers, modes, models",
    "health": "Probe every layer, one line each",
    "pull": "Fetch the table's missing models",
    "models": "Installed, loaded and unused models",
    "smoke": "One real call per mode",
    "logs": "Every layer's log, merged by time",
    "logs prune": "Remove old request logs now",
    "trace": "One request, part by part",
    "usage": "What went where: requests, tokens, times",
    "top": "A live view of the stack",
    "record": "Keep prompts and answers, for a while",
    "record on": "Keep a mode's prompts and answers",
    "record off": "End it",
    "key": "Where the key is; print or rotate it",
    "keys": "Client keys: list, add, revoke",
    "keys add": "Make a key and print it once",
    "keys revoke": "End a key, within a second",
    "secrets": "The providers' API keys: list, set, remove",
    "secrets set": "Store a provider's API key",
    "secrets remove": "Remove a provider's API key",
    "audit": "Prompts that left by an override",
    "preset": "Show or apply a ready table",
    "render-config": "Render litellm.yaml from the table",
    "routes": "The table as a table; edit it",
    "explain": "Who serves a mode when something fails",
    "graph": "The routing picture",
    "apply": "Hand the table to the running gateway",
    "verify-isolation": "Try to get out of each container",
    "bench": "What the gateway costs, measured",
}
BUG = 70
# Written here too: reading it from the language would load the whole table for `--help`.
DATA_CLASS = click.Choice(["internal", "public"])


def run() -> None:
    """The entry point: every outcome becomes an exit code, and a user's mistake never a traceback."""
    # A command lives for seconds and makes no cycles worth looking for; on a large table the search takes half of the time.
    gc.disable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8 gets a question mark for a tick, not a crash.
            stream.reconfigure(errors="replace")
    try:
        # Outside its standalone mode click turns Exit into a return value.
        sys.exit(main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("\ninterrupted; nothing is lost, the same command continues\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # `io3ops logs | head`: the reader has seen enough.
        sys.stderr.close()
        sys.exit(0)
    except Exception:
        # Not a user's mistake, so the traceback is what the report needs.
        import traceback

        sys.stderr.write(
            f"{traceback.format_exc()}\nerror E{BUG} [io3ops] this is a bug in io3ops {__version__}: please report the lines above\n"
        )
        sys.exit(BUG)


def command(
    name: str, *, reports: bool = True, group: bool = False
) -> Callable[[Callable[..., int | None]], click.Command]:
    """A command whose function gets (tools, console, **flags) and returns an exit code; `reports` adds --json.

    `group`: it has commands of its own (named `keys add`), and the function is what it does without one.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @wraps(function)
        def call(**flags: Any) -> None:
            context = click.get_current_context()
            if context.invoked_subcommand:
                return
            # `io3ops keys --json add NAME` means the same as `io3ops keys add NAME --json`.
            above = context.parent.params if context.parent else {}
            console = _console(flags.pop("as_json", False) or above.get("as_json", False))
            try:
                code = function(_tools(), console, **flags)
            except Io3opsError as error:
                console.error(name, error)
                code = error.exit_code
            raise click.exceptions.Exit(code or 0)

        if reports:
            call = click.option(
                "--json", "as_json", is_flag=True, help="Print one JSON object (events go to stderr as JSON lines)."
            )(call)
        *above, last = name.split()
        parent = main.commands[above[0]] if above else main
        assert isinstance(parent, click.Group)
        if group:
            return parent.group(last, short_help=SHORT[name], invoke_without_command=True)(call)
        return parent.command(last, short_help=SHORT[name])(call)

    return decorate


def asdict(value: Any) -> dict[str, Any]:
    # dataclasses costs a tenth of `--help`, which does not need it.
    import dataclasses

    return dataclasses.asdict(value)


def _console(as_json: bool) -> Console:
    from io3ops.console import Console, choose_mode
    from io3ops.settings import process_environment

    environment = process_environment()
    mode = choose_mode(
        as_json=as_json, err=sys.stderr, no_color=bool(environment.get("NO_COLOR")), term=environment.get("TERM", "")
    )
    return Console(mode)


def _tools() -> Tools:
    from io3ops.adapters.files import read_env
    from io3ops.settings import find_root, process_environment, read_settings
    from io3ops.tools import make_tools

    environment = process_environment()
    root = find_root(environment, Path.cwd())
    _, own_lines = read_env(root / ".env")
    return make_tools(read_settings(environment, root, own_lines))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="io3ops")
def main() -> None:
    """One local control plane for LLMs: a routing table, the gateway (LiteLLM) and the runtime (Ollama).

    Edit runtime/routing.yaml, then run `io3ops up`. Applications talk to modes at http://127.0.0.1:4000/v1.

    \b
    Exit codes: 0 done, 1 a check failed, 2 wrong command line, 130 interrupted;
    every other one names the error (E20 = 20); README.md lists them all.
    """


@command("up")
@click.option("--dry-run", is_flag=True, help="Print what would be done and why; change nothing.")
def up(tools: Tools, console: Console, dry_run: bool) -> int:
    """Bring the stack to what the table says: engine, images, models, gateway, one test call per mode."""
    from io3ops.adapters.files import exclusive
    from io3ops.operations.up import up as bring_up

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
    from io3ops.operations.down import down as take_down

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
    from io3ops.operations import status as operation

    found = operation.status(tools)
    console.result("status", asdict(found), operation.text(found), ok=found.running)
    return 0 if found.running else 1


@command("health")
@click.option("--deep", is_flag=True, help="Add one real round trip per mode.")
def health(tools: Tools, console: Console, deep: bool) -> int:
    """Probe every layer, one line each; exit code 1 when one fails."""
    from io3ops.operations import health as operation

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
    from io3ops.operations.pull import pull as fetch_missing

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
    from io3ops.operations.pull import list_models, models_text, prune_models, unused_models

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
    from io3ops.operations import config, key
    from io3ops.operations import smoke as operation
    from io3ops.operations.stack import own_containers

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


@command("logs", reports=False)
@click.argument(
    "service", type=click.Choice(["gateway", "runtime", "egress", "observer", "outlet", "loader"]), required=False
)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines.")
@click.option("--tail", default="200", show_default=True, help="How many of the last lines, or `all`.")
def logs(tools: Tools, console: Console, service: str | None, follow: bool, tail: str) -> int:
    """Print the containers' logs. They hold no prompt text."""
    from io3ops.operations import engine
    from io3ops.operations.down import compose_variables

    engine.require(tools, "without it there are no containers; `make up` starts it")
    return tools.compose.logs([service] if service else [], compose_variables(tools), follow=follow, tail=tail)


@command("key")
@click.option("--show", is_flag=True, help="Print the whole key on stdout.")
@click.option("--rotate", is_flag=True, help="Make a new key; `io3ops up` hands it to the gateway.")
def key(tools: Tools, console: Console, show: bool, rotate: bool) -> int:
    """Say where the key is, and print it only when asked."""
    from io3ops.operations import key as operation

    if rotate:
        operation.rotate(tools.settings)
        console.note("new key written; run `make up` so that the gateway takes it")
    value = operation.read(tools.settings)
    path = str(tools.settings.key_file)
    data = {"file": path, "fingerprint": operation.fingerprint(value), **({"key": value} if show else {})}
    console.result("key", data, value if show else f"{path}: {operation.masked(value)}")
    return 0


@command("keys", group=True)
def keys(tools: Tools, console: Console) -> int:
    """List the client keys besides the owner's: what each may do, and whether it is revoked.

    The keys themselves are not kept, only their hashes; the fingerprint is the hash's beginning.
    """
    from io3ops.operations import client_keys

    found = tuple(client_keys.load(tools.settings).values())
    console.result("keys", {"keys": [k.row() for k in found]}, client_keys.text(found))
    return 0


@command("keys add")
@click.argument("name")
@click.option(
    "--data-class",
    type=DATA_CLASS,
    help="What its prompts are. Unset: the key says nothing.",
)
@click.option("--mode", "modes", multiple=True, metavar="MODE", help="A mode that it may use; repeatable. Unset: all.")
@click.option("--requests-per-minute", type=click.IntRange(1, 10_000_000), help="More are answered with 429.")
@click.option(
    "--tokens-per-minute", type=click.IntRange(1, 10_000_000_000), help="In and out; more are answered with 429."
)
@click.option("--parallel", type=click.IntRange(1, 100_000), help="Requests at one time; more are answered with 429.")
def add_key(
    tools: Tools, console: Console, name: str, data_class: str | None, modes: tuple[str, ...], **limits: int | None
) -> int:
    """Make a client key and print it, once; it works at once."""
    from io3ops.operations import client_keys

    wanted = {k: v for k, v in limits.items() if v is not None}
    made, value = client_keys.add(tools, name, data_class=data_class or "", modes=modes, limits=wanted)
    console.note(f"the key of {made.name} is shown only now, and kept nowhere; it works at once, without a restart")
    console.result("keys add", made.row() | {"key": value}, value)
    return 0


@command("keys revoke")
@click.argument("name")
def revoke_key(tools: Tools, console: Console, name: str) -> int:
    """End a client key for good; the gateway refuses it within a second, without a restart."""
    from io3ops.operations import client_keys

    ended, changed = client_keys.revoke(tools, name)
    text = "is revoked; the gateway refuses it from now on" if changed else f"was revoked already, {ended.revoked}"
    console.result("keys revoke", ended.row() | {"changed": changed}, f"the key of {ended.name} {text}")
    return 0


@command("secrets", group=True)
def secrets(tools: Tools, console: Console) -> int:
    """List the API keys that the table's providers name, and those that are stored; never their values."""
    from io3ops.operations import provider_keys

    found = provider_keys.listing(tools.settings)
    console.result("secrets", {"secrets": [asdict(k) for k in found.keys]}, provider_keys.text(found))
    return 0


@command("secrets set")
@click.argument("name")
@click.argument("surplus", nargs=-1, metavar="")
def set_secret(tools: Tools, console: Console, name: str, surplus: tuple[str, ...]) -> int:
    """Store a provider's API key: from a hidden prompt, or from stdin when that is no terminal.

    \b
    NAME is what `key:` of a provider says in runtime/routing.yaml.
    For bedrock the value is ACCESS_KEY_ID:SECRET.
    """
    from io3ops.operations import provider_keys

    provider_keys.check_name(name)
    if surplus:
        # Not repeated: it may be the key, which is now in the shell's history already.
        raise click.UsageError(
            "the key is no argument: pipe it in, or wait for the prompt; the one you typed may be known now"
        )
    if sys.stdin is not None and sys.stdin.isatty():
        value = click.prompt(f"API key {name}", hide_input=True, err=True).strip()
    else:
        # A little more than the longest, which is enough to refuse it.
        piped = sys.stdin.buffer.read(provider_keys.LONGEST + 3) if sys.stdin is not None else b""
        value = provider_keys.one_line(piped)
    notes = provider_keys.put(tools, name, value)
    for note in notes:
        console.note(note)
    console.result("secrets set", {"name": name, "notes": list(notes)}, f"stored {name}")
    return 0


@command("secrets remove")
@click.argument("name")
def remove_secret(tools: Tools, console: Console, name: str) -> int:
    """Remove a provider's API key from this clone; the provider still knows it."""
    from io3ops.operations import provider_keys

    note = provider_keys.remove(tools.settings, name)
    console.note(note)
    console.result("secrets remove", {"name": name, "notes": [note]}, f"removed {name}")
    return 0


@command("audit")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Show only the last N entries; all are verified.")
def audit(tools: Tools, console: Console, last: int | None) -> int:
    """Show and verify the log of prompts that left by an explicit override; exit code 1 when it was changed.

    The last entry is remembered: a log that lost lines, or was replaced, is reported the next time.
    """
    from io3ops.operations import audit as operation

    report, note = operation.audit(tools.settings)
    console.result("audit", report.data(last), operation.text(report, last), ok=report.intact)
    if note:
        console.note(note)
    return 0 if report.intact else 1


@command("preset")
@click.argument("name", required=False, type=click.Choice(["starter", "laptop", "workstation"]))
@click.option("--force", is_flag=True, help="Replace a table of your own (kept as routing.yaml.bak).")
def preset(tools: Tools, console: Console, name: str | None, force: bool) -> int:
    """Show the ready routing tables, or put one in place: io3ops preset laptop."""
    from io3ops.operations import preset as operation

    if name:
        changed = operation.apply(tools.settings, name, force=force)
        console.result(
            "preset", {"applied": name, "changed": changed}, f"runtime/routing.yaml is now preset {name}; run `make up`"
        )
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


@command("render-config")
@click.option("--check", is_flag=True, help="Write nothing; show the difference and exit 1 when there is one.")
@click.option("--stdout", "to_stdout", is_flag=True, help="Print the file instead of writing it.")
@click.option(
    "--validate",
    "with_loader",
    is_flag=True,
    help="First hold it against LiteLLM's own loader, in the gateway image (seconds).",
)
@click.option("--force", is_flag=True, help="Overwrite a litellm.yaml that was edited by hand.")
def render_config(tools: Tools, console: Console, check: bool, to_stdout: bool, with_loader: bool, force: bool) -> int:
    """Render runtime/litellm.yaml from runtime/routing.yaml."""
    from io3ops.operations import config as operation

    config = operation.load(tools.settings)
    for warning in config.warnings:
        console.note(f"warning: {warning}")
    if with_loader:
        from io3ops.operations import images, validate

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


@command("routes")
@click.argument("action", type=click.Choice(["edit"]), required=False)
@click.option("--resolved", is_flag=True, help="Every value that is in effect, and where it comes from.")
def routes(tools: Tools, console: Console, action: str | None, resolved: bool) -> int:
    """The routing table as a table.

    `io3ops routes edit` opens it in $EDITOR, checks it, shows what changes, and renders it; a table with problems is not taken.
    """
    from io3ops.operations import routes as operation

    if action == "edit":
        from io3ops.operations.edit import edit

        return edit(tools, console)
    if resolved:
        values = operation.all_values(tools.settings)
        console.result("routes", {"values": [asdict(v) for v in values]}, operation.values_text(values))
        return 0
    rows = operation.routes(tools.settings)
    console.result("routes", {"routes": [asdict(r) for r in rows]}, operation.routes_text(rows))
    return 0


@command("explain")
@click.argument("mode")
@click.option(
    "--data-class",
    type=DATA_CLASS,
    help="What key or request say; without it, nothing.",
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
    tools: Tools, console: Console, mode: str, data_class: str | None, fail: tuple[str, ...], status: str
) -> int:
    """Which deployment is tried when, with which time limits, and what ends the chain."""
    from io3ops.operations import routes as operation
    from io3ops.routing import explain as explaining

    if status not in explaining.STATUSES:
        raise click.UsageError(f"--status {status!r} is not one of {', '.join(explaining.STATUSES)}")
    found = operation.explain(tools.settings, mode, data_class=data_class or "", fail=fail, status=status)
    console.result("explain", asdict(found), explaining.text(found, status))
    return 0


@command("graph")
@click.option("--svg", is_flag=True, help="SVG instead of Mermaid.")
def graph(tools: Tools, console: Console, svg: bool) -> int:
    """Print the routing picture; render-config keeps the one in docs/routing.md current."""
    from io3ops.operations import routes as operation

    picture = operation.graph(tools.settings, "svg" if svg else "mermaid")
    console.result("graph", {"picture": picture}, picture)
    return 0


@command("apply")
def apply(tools: Tools, console: Console) -> int:
    """Render and hand the table to the running gateway; when it does not pass, the previous one serves on."""
    from io3ops.adapters.files import exclusive
    from io3ops.operations.apply import apply as hand_over

    with exclusive(tools.settings.state / "lock"):
        done = hand_over(tools, console)
    console.result("apply", asdict(done), "applied" if done.changed else "the gateway has this table already")
    return 0


@command("verify-isolation")
def verify_isolation(tools: Tools, console: Console) -> int:
    """Try to get out, from inside each container's network, and look for keys where they must not be; exit code 1 when one
    check fails."""
    from io3ops.operations import isolation as operation

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
    from io3ops.operations import bench as operation
    from io3ops.operations import bench_text
    from io3ops.operations.bench_requests import Wish

    wish = Wish(modes=modes, rounds=rounds, parallel=parallel, seconds=seconds)
    with console.step("bench", "direct to the runtime against through the gateway") as step:
        found = operation.bench(tools, wish, step.activity("measuring"))
        step.outcome = f"{found.requests} requests"
    console.result("bench", bench_text.data(found), bench_text.text(found, plot=plot), ok=not found.errors)
    return 1 if found.errors else 0


@main.command("completion", short_help="Completion script for a shell")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell: eval "$(io3ops completion bash)"."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "io3ops", "_IO3OPS_COMPLETE").source())


# Their commands, in files of their own; each adds itself to `main`.
from io3ops import cli_logs, cli_record, cli_usage  # noqa: E402, F401
