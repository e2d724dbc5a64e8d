"""The commands for keys and for the audit log. Like all of them: flags -> one operation -> console -> exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from io3ops.cli.command import DATA_CLASS, asdict, command

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.operations.stack.confirm import Seen
    from io3ops.tools import Tools


def confirmed(console: Console, name: str, data: dict[str, Any], text: str, seen: Seen) -> int:
    """The result of a command whose change counts only once the gateway has it, and the exit code."""
    console.result(name, data | {"gateway": seen.state}, text, ok=seen.settled)
    if seen.settled:
        return 0
    problem = seen.problem()
    if console.mode == "json":
        # The one object on stdout is the result: it may hold a key that is shown only now.
        console.note(f"{problem.code} {problem.message}; {problem.hint}")
    else:
        console.error(name, problem)
    return problem.exit_code


@command("key")
@click.option("--show", is_flag=True, help="Print the whole key on stdout.")
@click.option("--rotate", is_flag=True, help="Make a new key; `io3ops up` hands it to the gateway.")
def key(tools: Tools, console: Console, show: bool, rotate: bool) -> int:
    """Say where the key is, and print it only when asked."""
    from io3ops.operations.stack import owner_key as operation

    if rotate:
        operation.rotate(tools.settings)
        console.note("new key written; a running gateway takes the old one until `make up`")
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
    from io3ops.operations.keys import client_keys

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
    """Make a client key and print it, once; it works at once when a gateway runs."""
    from io3ops.operations.keys import client_keys
    from io3ops.operations.stack import confirm

    wanted = {k: v for k, v in limits.items() if v is not None}
    made, value = client_keys.add(tools, name, data_class=data_class or "", modes=modes, limits=wanted)
    seen = confirm.seen(tools, confirm.KEYS, tools.settings.keys_file)
    works = {"taken": "it works at once, without a restart", "none": "no gateway runs: it works from the next start on"}
    console.note(
        f"the key of {made.name} is shown only now, and kept nowhere; {works.get(seen.state, 'it does not work yet')}"
    )
    return confirmed(console, "keys add", made.row() | {"key": value}, value, seen)


@command("keys revoke")
@click.argument("name")
def revoke_key(tools: Tools, console: Console, name: str) -> int:
    """End a client key for good; the gateway refuses it within a second, without a restart."""
    from io3ops.operations.keys import client_keys
    from io3ops.operations.stack import confirm

    ended, changed = client_keys.revoke(tools, name)
    # Also of one that had been revoked before: perhaps it never came to be.
    seen = confirm.seen(tools, confirm.KEYS, tools.settings.keys_file)
    text = "is revoked" if changed else f"was revoked already, {ended.revoked}"
    if changed:
        text += {
            "taken": "; the gateway refuses it from now on",
            "none": "; no gateway runs, and none will take it",
        }.get(seen.state, ", and the running gateway may still take it")
    return confirmed(
        console, "keys revoke", ended.row() | {"changed": changed}, f"the key of {ended.name} {text}", seen
    )


@command("secrets", group=True)
def secrets(tools: Tools, console: Console) -> int:
    """List the API keys that the table's providers name, and those that are stored; never their values."""
    from io3ops.operations.keys import provider_keys

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
    from io3ops.operations.keys import provider_keys

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
    from io3ops.operations.keys import provider_keys

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
    from io3ops.operations.privacy import audit as operation

    report, note = operation.audit(tools.settings)
    console.result("audit", report.data(last), operation.text(report, last), ok=report.intact)
    if note:
        console.note(note)
    return 0 if report.intact else 1
