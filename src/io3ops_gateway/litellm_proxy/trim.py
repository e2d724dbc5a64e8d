"""Remove from LiteLLM the work on each request that has no effect here: keys in a database, budgets, its own limits, telemetry of others.

The edge and the policy do the part of it that this gateway needs. All of it relies on LiteLLM's internals (`compat.TRIMMED`), so it acts only
on the version it was written for, and IO3_TRIM=off leaves LiteLLM unchanged. Touches LiteLLM's modules in this process.
"""

import sys
from collections.abc import Awaitable, Callable, Collection
from importlib.metadata import version
from typing import Any

from io3ops_gateway.litellm_proxy import compat
from io3ops_gateway.policy import endpoints

VERSION = "1.106.2"


def install(installed: str | None = None) -> str:
    """Trim LiteLLM in the parent, before workers are forked. Return why nothing was changed, "" when it was.

    `installed`: LiteLLM's version; None asks the package.

    Raises:
        StartError: a name that is to be replaced is gone.
    """
    installed = installed or version("litellm")
    if installed != VERSION:
        return f"LiteLLM {installed} is not {VERSION}, the only version that is trimmed: requests take longer"
    compat.check(compat.TRIMMED)
    for name in compat.ABSENT_MODULES:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None makes each import fail at once; typeshed knows only modules
    middleware = compat.MIDDLEWARE.find()
    middleware[:] = [entry for entry in middleware if entry.cls is compat.LAZY_FEATURES.find()]
    # FastAPI prepares each router when a request first passes it, which takes seconds for 500 routes that the edge never serves.
    served = endpoints.paths({endpoint.task for endpoint in endpoints.EXTRA.values()})
    routes = compat.ROUTES.find()
    routes[:] = [route for route in routes if _leads_to(route, served)]
    compat.PROXY_HOOKS.find().clear()
    known_caller = _known_caller(compat.CALLER.find(), compat.CALLER_ROLE.find())
    compat.PROXY_APP.find().dependency_overrides[compat.KEY_CHECK.find()] = known_caller
    compat.ZERO_COST.replace(_do_nothing)
    compat.PRICED.replace(staticmethod(_is_priced(compat.BARE_MODEL.find())))
    compat.DEPLOYMENT_USAGE.replace(_count_nothing)
    return ""


def trim_callbacks(hooks: object) -> None:
    """Tell only the router and the policy's `hooks` about a call. For a worker of a trimmed LiteLLM, after LiteLLM's own start."""
    for symbol in compat.CALLBACK_LISTS:
        callbacks = symbol.find()
        callbacks[:] = [callback for callback in callbacks if callback is hooks or _is_routers(callback)]


def _is_routers(callback: object) -> bool:
    """Whether the router registered it: a method of its own, or a strategy such as least-busy."""
    router, strategies = compat.ROUTER_MODULES
    module = getattr(callback, "__module__", "") or ""
    return module == router or module.startswith(strategies)


def _leads_to(route: Any, served: Collection[str]) -> bool:
    """Whether this is the route of a path in `served`, or a router with such a route (`compat.INCLUDED_ROUTER`)."""
    router = getattr(route, "original_router", None)
    if router is None:
        return getattr(route, "path", "") in served
    return any(_leads_to(inner, served) for inner in router.routes)


def _known_caller(caller: Callable[..., Any], role: object) -> Callable[[], Awaitable[Any]]:
    """Name the same caller for every request: the edge has checked the key, and only the edge can reach this app."""

    async def known_caller() -> Any:
        return caller(api_key="io3ops", user_id="io3ops", user_role=role, request_route=None)

    return known_caller


def _do_nothing(*_: object, **__: object) -> None:
    return


async def _count_nothing(*_: object, **__: object) -> None:
    return


def _is_priced(strip: Callable[[str], str]) -> Callable[[str], bool]:
    """Whether LiteLLM has a price for an Ollama model, without a lower-case copy of all three thousand names. `strip` takes a prefix off."""

    def is_priced(model: str) -> bool:
        # Read each time: LiteLLM may put another mapping there.
        from litellm import model_cost

        bare = strip(model)
        return any(
            n in model_cost or n.lower() in model_cost for n in (model, bare, f"ollama/{bare}", f"ollama_chat/{bare}")
        )

    return is_priced
