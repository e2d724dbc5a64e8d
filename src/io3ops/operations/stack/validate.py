"""Tests a rendered file with LiteLLM's own loader, in the gateway's image, before it replaces one that works."""

from __future__ import annotations

import json
import shutil
from typing import Any

from io3ops.adapters import files
from io3ops.errors import GatewayError
from io3ops.operations.stack import images
from io3ops.operations.table.config import Config
from io3ops.routing.plan import Plan
from io3ops.routing.render import fallbacks, route
from io3ops.tools import Tools

PYTHON = "/opt/gateway/bin/python"


def validate(tools: Tools, config: Config, image: str) -> None:
    """Load the rendered file with LiteLLM. Takes a few seconds.

    Raises GatewayError when LiteLLM refuses the file, or understands it differently than the plan.
    """
    folder = tools.settings.state / "candidate"
    files.write_atomic(folder / "litellm.yaml", config.text.encode())
    files.let_read(folder, (-1, -1))
    done = images.run_once(
        tools,
        image,
        PYTHON,
        ["-m", "io3ops_gateway.litellm_proxy.validate", "/candidate"],
        network="none",
        options=["--volume", f"{folder}:/candidate:ro"],
    )
    shutil.rmtree(folder, ignore_errors=True)
    files_loaded = loaded(done.output)
    if "litellm.yaml" not in files_loaded:
        raise GatewayError(
            "LiteLLM cannot load the rendered file, so it was not written",
            details=done.tail(6),
            hint="this is a bug in io3ops, or the gateway's image does not match it: please report the lines above",
        )
    if files_loaded["litellm.yaml"] != planned(config.plan):
        raise GatewayError(
            "LiteLLM understands the rendered file differently than the table, so it was not written",
            details=f"planned: {json.dumps(planned(config.plan))}\nloaded:  {json.dumps(files_loaded['litellm.yaml'])}",
            hint="this is a bug in io3ops: please report the lines above",
        )


def loaded(output: str) -> dict[str, Any]:
    """Return the output of `io3ops_gateway.litellm_proxy.validate` by file name, without refused files."""
    return dict(json.loads(line.removeprefix("HELD ")) for line in output.splitlines() if line.startswith("HELD "))


def planned(plan: Plan) -> dict[str, Any]:
    """Return what the loader must report for a plan."""
    return {
        "deployments": [[d.group, d.id, route(d), d.order] for d in plan.deployments],
        "fallbacks": [{mode: [target]} for mode, target in dict(fallbacks(plan)).get("fallbacks", [])],
        "modes": sorted(plan.modes),
        "aliases": {alias: m.name for m in plan.policies for alias in m.aliases},
    }
