"""`python -m io3ops_gateway.litellm_proxy.validate FOLDER`: loads each litellm.yaml of a folder as a start would, and prints what is then held.

One line per file, `HELD [name, {...}]` or `REFUSED [name, reason]`. LiteLLM drops what it cannot read without a word, so the
caller compares with what it planned. May touch: this process's environment and the given files; it serves nothing.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from io3ops_gateway.errors import one_line
from io3ops_gateway.litellm_proxy.startup import LITELLM_DEFAULTS


def held(path: Path) -> dict[str, Any]:
    """The deployments, fallbacks, modes and aliases after LiteLLM's own loader and our policy have read the file."""
    from litellm.proxy.proxy_server import ProxyConfig

    # The policy plugin reads its section while it is imported, as at a real start.
    os.environ["IO3_CONFIG"] = str(path)
    sys.modules.pop("io3ops_gateway.litellm_proxy.hooks", None)
    router, _, _ = asyncio.run(ProxyConfig().load_config(router=None, config_file_path=str(path)))
    policy = sys.modules["io3ops_gateway.litellm_proxy.hooks"].policy.policy
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
    """Every *.yaml of the folder. Returns 0 when all were loaded, else 1."""
    for name, value in (LITELLM_DEFAULTS | {"LITELLM_MASTER_KEY": "sk-of-no-gateway-at-all"}).items():
        os.environ.setdefault(name, value)
    refused = 0
    for path in sorted(folder.glob("*.yaml")):
        try:
            print("HELD", json.dumps([path.name, held(path)]), flush=True)
        except Exception as error:
            refused += 1
            print("REFUSED", json.dumps([path.name, one_line(error)]), flush=True)
    return min(refused, 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
