"""Runs in the gateway's container, for `guard.py` alone: the same processes and the same trimmed LiteLLM, without edge and hooks.

It is not part of the image; whoever can mount a file into the container and start it can do anything anyway.
"""

import importlib
import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from io3ops_gateway.litellm_proxy import startup
from io3ops_gateway.server import launcher, warmup


class Bare:
    """In the edge's place: LiteLLM's app as it is."""

    longest = 600.0

    async def __call__(self, *given: Any) -> None:
        await importlib.import_module("litellm.proxy.proxy_server").app(*given)

    def end(self) -> None:
        return


async def nothing(_edge: Any) -> None:
    return


def import_litellm(ours: Iterable[str]) -> None:
    imported(ours)
    worker: Any = importlib.import_module("io3ops_gateway.server.worker")
    worker.build_edge = lambda _job, _make: Bare()
    worker.check_held = lambda _edge: None
    sys.modules["io3ops_gateway.litellm_proxy.hooks"] = SimpleNamespace(policy=None)  # type: ignore[assignment]  # a module with one name


imported = startup.import_litellm
# Any: names of other modules are replaced here, which the type checker cannot follow.
replaced: Any = launcher
replaced.import_litellm = import_litellm
replaced = warmup
replaced.warm_up = nothing
sys.exit(launcher.main())
