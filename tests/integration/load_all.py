"""Runs in the gateway's image: loads each litellm.yaml with LiteLLM's own loader and prints what it then holds."""

import asyncio
import json
import os
import sys
from pathlib import Path

os.environ |= {
    "LITELLM_MASTER_KEY": "sk-x-of-no-account-at-all",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
}
from litellm.proxy.proxy_server import ProxyConfig

for path in sorted(Path(sys.argv[1]).glob("*.yaml")):
    # The policy plugin reads its section while it is imported, as at a real start.
    os.environ["IO3_CONFIG"] = str(path)
    sys.modules.pop("io3ops_gateway.callback", None)
    router, _, _ = asyncio.run(ProxyConfig().load_config(router=None, config_file_path=str(path)))
    policy = sys.modules["io3ops_gateway.callback"].policy.policy
    held = {
        "deployments": [
            [d["model_name"], d["model_info"]["id"], d["litellm_params"]["model"], d["litellm_params"].get("order")]
            for d in router.get_model_list()
        ],
        "fallbacks": router.fallbacks or [],
        "modes": sorted(policy.modes),
        "aliases": dict(policy.aliases),
    }
    print("HELD", json.dumps([path.name, held]), flush=True)
