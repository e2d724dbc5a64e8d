"""The question that a command asks before it removes something, and `--yes`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from io3ops.console import Console


def confirmed(console: Console, question: str, *, yes: bool, warning: str) -> bool:
    """Ask before something is removed; return whether to continue. `yes`: the user has confirmed it already.

    Raises UsageError with `warning` when there is no terminal to ask.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"{warning}: confirm it with --yes")
    if click.confirm(question, err=True):
        return True
    console.note("nothing was removed")
    return False
