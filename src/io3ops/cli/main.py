"""Flags -> one operation -> console -> exit code. Operations are imported when called: `--help` stays quick."""

from __future__ import annotations

import gc
import io
import sys

import click

from io3ops import __version__

# Each of these adds its commands to `main`.
from io3ops.cli import keys, logs, recording, stack, table, usage  # noqa: F401
from io3ops.cli.command import main

INTERRUPTED = 130
BUG = 70


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


@main.command("completion", short_help="Completion script for a shell")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell: eval "$(io3ops completion bash)"."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "io3ops", "_IO3OPS_COMPLETE").source())
