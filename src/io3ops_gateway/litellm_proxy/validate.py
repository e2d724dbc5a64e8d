"""`python -m io3ops_gateway.litellm_proxy.validate FOLDER`: load each litellm.yaml of a folder as a start would, and print what LiteLLM holds.

One line per file, `HELD [name, {...}]` or `REFUSED [name, reason]`. LiteLLM drops what it cannot read and says nothing, so the caller
compares with its plan. May touch: this process's environment and the given files; it serves nothing.
"""

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from io3ops_gateway.errors import one_line
from io3ops_gateway.litellm_proxy import compat
from io3ops_gateway.litellm_proxy.startup import LITELLM_DEFAULTS
from io3ops_gateway.settings import from_environment


def held(path: Path) -> dict[str, Any]:
    """Return the deployments, fallbacks, modes and aliases that LiteLLM's own loader and our policy have read."""
    compat.check()
    # Only here: this imports LiteLLM, which reads the environment that `main` sets.
    from io3ops_gateway.litellm_proxy import hooks

    policy = hooks.load(replace(from_environment(os.environ), config=path)).policy
    loader = compat.PROXY_CONFIG.find()()
    router, _, _ = asyncio.run(compat.LOAD_CONFIG.find()(loader, router=None, config_file_path=str(path)))
    return {
        "deployments": [
            [d["model_name"], d["model_info"]["id"], d["litellm_params"]["model"], d["litellm_params"].get("order")]
            for d in router.get_model_list()
        ],
        "fallbacks": router.fallbacks or [],
        "modes": sorted(policy.modes),
        "aliases": dict(policy.aliases),
    }


def main(folder: Path) -> int:
    """Load every *.yaml of the folder. Return 0 when all were loaded, else 1."""
    for name, value in (LITELLM_DEFAULTS | {"LITELLM_MASTER_KEY": "sk-of-no-gateway-at-all"}).items():
        os.environ.setdefault(name, value)
    refused = 0
    for path in sorted(folder.glob("*.yaml")):
        try:
            print("HELD", json.dumps([path.name, held(path)]), flush=True)
        except Exception as error:  # noqa: BLE001  LiteLLM raises anything for a file it cannot use
            refused += 1
            print("REFUSED", json.dumps([path.name, one_line(error)]), flush=True)
    return min(refused, 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
