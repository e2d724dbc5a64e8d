"""Runs in the gateway's container, for `guard.py` alone: the same processes and the same trimmed LiteLLM, without edge and hooks.

It is not part of the image; whoever can mount a file into the container and start it can do anything anyway.
"""

import importlib
import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from io3ops_gateway.litellm_proxy import startup, trim
from io3ops_gateway.server import launcher, warmup


class Bare:
    """In the edge's place: LiteLLM's app as it is."""

    longest = 600.0

    async def __call__(self, *given: Any) -> None:
        await importlib.import_module("litellm.proxy.proxy_server").app(*given)

    def finish_start(self) -> None:
        trim.trim_callbacks(None)

    def end(self) -> None:
        return

    def close(self) -> None:
        return


async def nothing(_edge: Any) -> None:
    return


def import_litellm(ours: Iterable[str]) -> None:
    imported(ours)
    factory: Any = importlib.import_module("io3ops_gateway.server.worker_factory")
    bare: Any = Bare()
    factory.WorkerFactory.build = lambda _factory, _job: factory.worker.Service(bare, bare)
    sys.modules["io3ops_gateway.litellm_proxy.hooks"] = SimpleNamespace(policy=None)  # type: ignore[assignment]  # a module with one name


def install_patches(*, trimmed: bool) -> bool:
    return trimmed and not trim.install()


imported = startup.import_litellm
# Any: names of other modules are replaced here, which the type checker cannot follow.
replaced: Any = startup
replaced.import_litellm = import_litellm
replaced.install_patches = install_patches
replaced = warmup
replaced.warm_up = replaced.warm_providers = nothing
sys.exit(launcher.main())
