"""The commands for keys: `key` (the owner's), `keys` (those of clients) and `secrets` (those of providers)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from io3ops.cli.change_result import report_change
from io3ops.cli.command import DATA_CLASS, asdict, command

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.routing.language import DataClass
    from io3ops.tools import Tools


@command("key", "Show, print or rotate the owner's key")
@click.option("--show", is_flag=True, help="Print the whole key on stdout.")
@click.option("--rotate", is_flag=True, help="Make a new key. The gateway uses it after `io3ops up`.")
def key(tools: Tools, console: Console, show: bool, rotate: bool) -> int:
    """Show where the owner's key is stored; print the key itself with --show only."""
    from io3ops.operations.stack import owner_key as operation

    if rotate:
        operation.rotate(tools.settings)
        console.note("a new key was written; a running gateway accepts the old one until `make up`")
    value = operation.read(tools.settings)
    path = str(tools.settings.key_file)
    data = {"file": path, "fingerprint": operation.fingerprint(value), **({"key": value} if show else {})}
    console.result("key", data, value if show else f"{path}: {operation.masked(value)}")
    return 0


@command("keys", "List, add and revoke client keys", group=True)
def keys(tools: Tools, console: Console) -> int:
    """List the client keys: what each may do, and whether it is revoked.

    Only hashes of the keys are stored; a key's fingerprint is the beginning of its hash.
    """
    from io3ops.operations.keys import client_keys

    stored = tuple(client_keys.load(tools.settings).values())
    console.result("keys", {"keys": [k.row() for k in stored]}, client_keys.text(stored))
    return 0


@command("keys add", "Make a client key and print it once")
@click.argument("name")
@click.option(
    "--data-class",
    type=DATA_CLASS,
    help="Data class of the key's requests. Unset: the key does not decide.",
)
@click.option(
    "--mode", "modes", multiple=True, metavar="MODE", help="A mode that the key may use; repeatable. Unset: all."
)
@click.option("--requests-per-minute", type=click.IntRange(1, 10_000_000), help="Limit; further requests get 429.")
@click.option(
    "--tokens-per-minute",
    type=click.IntRange(1, 10_000_000_000),
    help="Limit for prompt and answer tokens; further requests get 429.",
)
@click.option(
    "--parallel", type=click.IntRange(1, 100_000), help="Limit for concurrent requests; further ones get 429."
)
def add_key(
    tools: Tools,
    console: Console,
    name: str,
    data_class: DataClass | None,
    modes: tuple[str, ...],
    **limits: int | None,
) -> int:
    """Make a client key and print it, once. It works at once when the gateway runs."""
    from io3ops.operations.keys import client_keys
    from io3ops.operations.stack.confirm import KEYS, State, confirm

    wanted = {k: v for k, v in limits.items() if v is not None}
    made, value = client_keys.add(tools, name, data_class=data_class or "", modes=modes, limits=wanted)
    confirmation = confirm(tools, KEYS, tools.settings.keys_file)
    effect = {
        State.TAKEN: "it works at once, without a restart",
        State.NONE: "no gateway runs, so it works from the next start",
    }.get(confirmation.state, "it does not work yet")
    console.note(f"the key of {made.name} is printed only now and stored nowhere; {effect}")
    return report_change(console, "keys add", made.row() | {"key": value}, value, confirmation)


@command("keys revoke", "Revoke a client key for good")
@click.argument("name")
def revoke_key(tools: Tools, console: Console, name: str) -> int:
    """Revoke a client key for good. The gateway refuses it within a second, without a restart."""
    from io3ops.operations.keys import client_keys
    from io3ops.operations.stack.confirm import KEYS, State, confirm

    key, changed = client_keys.revoke(tools, name)
    # Ask even for a key that was revoked before: perhaps the gateway never learned of it.
    confirmation = confirm(tools, KEYS, tools.settings.keys_file)
    text = f"the key of {key.name} was already revoked at {key.revoked}"
    if changed:
        effect = {
            State.TAKEN: "the gateway refuses it from now on",
            State.NONE: "no gateway runs, and none will accept it",
        }.get(confirmation.state, "the running gateway may still accept it")
        text = f"the key of {key.name} is revoked; {effect}"
    return report_change(console, "keys revoke", key.row() | {"changed": changed}, text, confirmation)


@command("secrets", "List, set and remove the providers' API keys", group=True)
def secrets(tools: Tools, console: Console) -> int:
    """List the API keys that the table's providers use and those that are stored, never their values."""
    from io3ops.operations.keys import provider_keys

    found = provider_keys.listing(tools.settings)
    console.result("secrets", {"secrets": [asdict(k) for k in found.keys]}, provider_keys.text(found))
    return 0


@command("secrets set", "Store a provider's API key")
@click.argument("name")
@click.argument("surplus", nargs=-1, metavar="")
def set_secret(tools: Tools, console: Console, name: str, surplus: tuple[str, ...]) -> int:
    """Store a provider's API key. Reads it from a hidden prompt, or from stdin when that is not a terminal.

    \b
    NAME is the value of a provider's `key:` in runtime/routing.yaml.
    For bedrock the API key is ACCESS_KEY_ID:SECRET.
    """
    from io3ops.operations.keys import provider_keys

    provider_keys.check_name(name)
    if surplus:
        # Do not repeat the argument: it may be the key.
        raise click.UsageError(
            "do not pass the key as an argument: pipe it in, or wait for the prompt. The shell's history may contain it now"
        )
    if sys.stdin is not None and sys.stdin.isatty():
        value = click.prompt(f"API key {name}", hide_input=True, err=True).strip()
    else:
        # Read a little more than the longest key, to detect one that is too long.
        piped = sys.stdin.buffer.read(provider_keys.LONGEST + 3) if sys.stdin is not None else b""
        value = provider_keys.one_line(piped)
    notes = provider_keys.put(tools, name, value)
    for note in notes:
        console.note(note)
    console.result("secrets set", {"name": name, "notes": list(notes)}, f"stored {name}")
    return 0


@command("secrets remove", "Remove a provider's API key")
@click.argument("name")
def remove_secret(tools: Tools, console: Console, name: str) -> int:
    """Remove a provider's API key from this clone. It stays valid at the provider."""
    from io3ops.operations.keys import provider_keys

    note = provider_keys.remove(tools.settings, name)
    console.note(note)
    console.result("secrets remove", {"name": name, "notes": [note]}, f"removed {name}")
    return 0
