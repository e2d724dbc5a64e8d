"""Runs in the gateway's container, for `guard.py` alone: the same launcher and LiteLLM, without edge and hooks.

It is not part of the image; whoever can mount a file into the container and start it can do anything anyway.
"""

import importlib
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from io3ops_gateway import launcher

KEY = Path(os.environ["IO3_MASTER_KEY_FILE"]).read_text("ascii").strip()


def bare(_ring: Any, _inner: str) -> Any:
    return importlib.import_module("litellm.proxy.proxy_server").app


launcher.import_proxy = bare
launcher._hooked = lambda: True
# LiteLLM must know the key that the client sends.
secrets.token_urlsafe = lambda *_: KEY
sys.exit(launcher.main())
