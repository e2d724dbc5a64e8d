"""Prints the result of a command whose change counts only once the running gateway uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from io3ops.console import Console
    from io3ops.operations.stack.confirm import Confirmation


def report_change(console: Console, name: str, data: dict[str, Any], text: str, confirmation: Confirmation) -> int:
    """Print the result, and an error unless the change is in effect; return the exit code."""
    from io3ops.console import Mode

    console.result(name, data | {"gateway": confirmation.state}, text, ok=confirmation.settled)
    if confirmation.settled:
        return 0
    problem = confirmation.problem()
    if console.mode is Mode.JSON:
        # stdout has exactly one object, and it must be the result, which may contain a key that is printed only once.
        console.note(f"{problem.code} {problem.message}; {problem.hint}")
    else:
        console.error(name, problem)
    return problem.exit_code
