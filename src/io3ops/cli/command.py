"""What all commands share: the group `main`, and how a function becomes a command. Operations are imported when called: `--help` stays quick."""

from __future__ import annotations

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
    from io3ops.operations.stack.confirm import Seen
    from io3ops.tools import Tools

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
# Written here too: reading it from the language would load the whole table for `--help`.
DATA_CLASS = click.Choice(["internal", "public"])


def command(
    name: str, *, reports: bool = True, group: bool | type[click.Group] = False
) -> Callable[[Callable[..., int | None]], click.Command]:
    """A command whose function gets (tools, console, **flags) and returns an exit code; `reports` adds --json.

    `group`: it has commands of its own (named `keys add`), and the function is what it does without one; or click's class for that.
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
            kind = click.Group if group is True else group
            return parent.group(last, cls=kind, short_help=SHORT[name], invoke_without_command=True)(call)
        return parent.command(last, short_help=SHORT[name])(call)

    return decorate


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
