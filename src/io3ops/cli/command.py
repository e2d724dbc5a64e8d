"""What the commands share: the group `main`, the decorator that makes a command, and questions to the user.

Commands import their operations when they are called, so that `--help` stays fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from io3ops import __version__
from io3ops.errors import Io3opsError

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.tools import Tools

# Repeated here because an import of the language would load all of the table's code for `--help`.
DATA_CLASS = click.Choice(["internal", "public"])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="io3ops")
def main() -> None:
    """One local control plane for LLMs: a routing table, the gateway (LiteLLM) and the runtime (Ollama).

    Edit runtime/routing.yaml, then run `io3ops up`. Applications call modes at http://127.0.0.1:4000/v1.

    \b
    Exit codes: 0 success, 1 a check failed, 2 wrong command line, 130 interrupted. Any other code is an error's number
    (E20 exits with 20); docs/reference/errors.md lists them.
    """


def command(
    name: str, short: str, *, reports: bool = True, group: bool | type[click.Group] = False
) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a command of a function that gets (tools, console, **options) and returns an exit code.

    `short`: its line in the list of commands, because click would cut the long help in the middle of a sentence. `reports`: add
    `--json`. `group`: the command has subcommands, named like `keys add`, and the function runs when none is given; a class
    replaces click's own.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @wraps(function)
        def call(**options: Any) -> None:
            context = click.get_current_context()
            if context.invoked_subcommand:
                return
            # `io3ops keys --json add NAME` means the same as `io3ops keys add NAME --json`.
            above = context.parent.params if context.parent else {}
            console = _console(options.pop("as_json", False) or above.get("as_json", False))
            try:
                code = function(_tools(), console, **options)
            except Io3opsError as error:
                console.error(name, error)
                code = error.exit_code
            raise click.exceptions.Exit(code or 0)

        if reports:
            call = click.option(
                "--json", "as_json", is_flag=True, help="Print one JSON object; events go to stderr as JSON lines."
            )(call)
        *above, last = name.split()
        parent = main.commands[above[0]] if above else main
        assert isinstance(parent, click.Group)
        if group:
            kind = click.Group if group is True else group
            return parent.group(last, cls=kind, short_help=short, invoke_without_command=True)(call)
        return parent.command(last, short_help=short)(call)

    return decorate


def asdict(value: Any) -> dict[str, Any]:
    """Return a dataclass as a dictionary."""
    # `--help` does not need dataclasses, whose import takes a tenth of its time.
    import dataclasses

    return dataclasses.asdict(value)


def run_lock(tools: Tools) -> AbstractContextManager[None]:
    """Hold the clone's run lock, so that one command at a time changes the stack. Raises AlreadyRunning."""
    from io3ops.adapters.files import exclusive

    return exclusive(tools.settings.state / "lock")


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
