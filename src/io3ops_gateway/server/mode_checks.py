"""Checks every mode of a new configuration with a real request, before its workers serve. Touches the app that it is handed.

If a mode fails, the new generation ends and the old one keeps serving.
"""

import asyncio

from io3ops_gateway.edge.app import Edge
from io3ops_gateway.errors import StartError
from io3ops_gateway.server.self_request import call, error_text
from io3ops_gateway.server.warmup import REQUESTS
from io3ops_shared.names import INTERNAL
from io3ops_shared.policy import ModePolicy

# For the model of a mode to answer.
MODE_SECONDS = 50.0


async def check_modes(edge: Edge) -> None:
    """Send one short request to the model of each mode that serves internal prompts, all at the same time.

    Raises:
        StartError: naming each mode that fails.
    """
    modes = [mode for mode in edge.policy.modes.values() if mode.task in REQUESTS and INTERNAL in mode.groups]
    failures = [failure for failure in await asyncio.gather(*(_mode_failure(edge, mode) for mode in modes)) if failure]
    if failures:
        hint = "correct runtime/routing.yaml, or read the log of the model's server (`io3ops logs`)"
        raise StartError("; ".join(failures), hint)


async def _mode_failure(edge: Edge, mode: ModePolicy) -> str:
    """Return why the model of a mode does not answer; "" when it does."""
    path, body = REQUESTS[mode.task]
    try:
        async with asyncio.timeout(MODE_SECONDS):
            status, response = await call(edge.owned, path, {**body, "model": f"{mode.name}:{INTERNAL}"})
    except TimeoutError:
        return f"mode {mode.name}: no answer within {MODE_SECONDS:g} s"
    return "" if status == 200 else f"mode {mode.name}: {error_text(status, response)}"
