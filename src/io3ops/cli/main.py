"""The entry point: runs the command line and turns every outcome into an exit code."""

from __future__ import annotations

import gc
import io
import sys

import click

from io3ops import __version__

# Each of these adds its commands to `main`.
from io3ops.cli import bench, checks, keys, logs, models, privacy, stack, table, usage  # noqa: F401
from io3ops.cli.command import main

INTERRUPTED = 130
BUG = 70


def run() -> None:
    """Run the command line. A user's mistake never shows a traceback; a bug does."""
    # A command lives for seconds and makes few cycles; on a large table the collector would take half of the time.
    gc.disable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # On a terminal without UTF-8, print a question mark instead of failing.
            stream.reconfigure(errors="replace")
    try:
        # Without its standalone mode, click returns the exit code instead of exiting.
        sys.exit(main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("\ninterrupted; nothing is lost, run the same command again to continue\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # `io3ops logs | head` closes the pipe when it has enough lines.
        sys.stderr.close()
        sys.exit(0)
    except Exception:  # noqa: BLE001  the outermost handler reports every bug
        # This is a bug, so the report needs the traceback.
        import traceback

        sys.stderr.write(
            f"{traceback.format_exc()}\nerror E{BUG} [io3ops] this is a bug in io3ops {__version__}: please report the lines above\n"
        )
        sys.exit(BUG)


@main.command("completion", short_help="Print a shell's completion script")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell, for: eval "$(io3ops completion bash)"."""
    from click.shell_completion import get_completion_class

    completion_class = get_completion_class(shell)
    assert completion_class is not None
    click.echo(completion_class(main, {}, "io3ops", "_IO3OPS_COMPLETE").source())
