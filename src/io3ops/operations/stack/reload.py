"""Passes a new configuration to the running gateway, which tests it and switches to it without dropping a request."""

from __future__ import annotations

from io3ops.errors import ApplyFailed
from io3ops.tools import Tools


def hand_over(tools: Tools, container: str, text: str) -> None:
    """Pass a configuration and return when it serves.

    Raises ApplyFailed when it does not start or one of its modes does not answer. The previous one serves all the time.
    """
    answer = tools.control.reload(tools.engine.command(), container, text, try_modes=True)
    if not answer.get("ok"):
        raise ApplyFailed(
            "the new table failed its checks, so the previous one keeps serving",
            details=str(answer.get("what", "")),
            hint="runtime/routing.yaml is unchanged: correct it and run `io3ops apply` again, or undo your change",
        )
