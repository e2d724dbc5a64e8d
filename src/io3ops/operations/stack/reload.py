"""A new configuration to the running gateway, which tries it and takes it over without dropping a request."""

from __future__ import annotations

from io3ops.errors import ApplyFailed
from io3ops.tools import Tools


def hand_over(tools: Tools, container: str, text: str) -> None:
    """Returns when the new configuration serves.

    Raises ApplyFailed when it does not start or a mode does not answer: the previous one never stopped serving.
    """
    said = tools.control.reload(tools.engine.command(), container, text, try_modes=True)
    if not said.get("ok"):
        raise ApplyFailed(
            "the new table did not pass, and the previous one serves on",
            details=str(said.get("what", "")),
            hint="runtime/routing.yaml is as you left it: correct it and apply again, or take your change back",
        )
