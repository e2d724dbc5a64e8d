"""Takes out of LiteLLM what costs time on each request and does nothing here: keys in a database, budgets, its own limits, other people's telemetry.

The edge and the policy do what is needed of it. Everything here touches LiteLLM's internals, so it is held to the one version it was
written for, and IO3_TRIM=off leaves LiteLLM as it comes. Touches LiteLLM's modules in this process.
"""

import importlib
import sys
from collections.abc import Callable, Collection
from importlib.metadata import version
from typing import Any

from io3ops_gateway.policy import endpoints

VERSION = "1.106.2"
# Of its middlewares. Lazy features: `/v1/messages` among others is registered by its first request.
KEPT = frozenset({"LazyFeatureMiddleware"})
# Looked for on every request, and never there: an import that fails searches the disk each time.
ABSENT = ("litellm.integrations.otel.logger", "opentelemetry.sdk", "prisma")
# In `litellm`: who is told of every call.
LISTS = (
    "callbacks",
    "success_callback",
    "failure_callback",
    "_async_success_callback",
    "_async_failure_callback",
)
_trimmed: list[bool] = []


def before(found: str | None = None) -> str:
    """Before the workers are forked. Returns why nothing was done, '' when it was. `found`: LiteLLM's version."""
    found = found or version("litellm")
    if found != VERSION:
        return f"LiteLLM {found} is not {VERSION}, which can be trimmed: requests take longer"
    for name in ABSENT:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    proxy = importlib.import_module("litellm.proxy.proxy_server")
    proxy.app.user_middleware[:] = [entry for entry in proxy.app.user_middleware if entry.cls.__name__ in KEPT]
    # FastAPI prepares each router when a request first passes it. That takes seconds for 500 routes that the edge lets nobody reach.
    served = endpoints.paths({endpoint.task for endpoint in endpoints.EXTRA.values()})
    proxy.app.router.routes[:] = [route for route in proxy.app.router.routes if _leads_to(route, served)]
    # Limits by budget, key and session, skills from a database, ids that are encrypted for users: there are none.
    importlib.import_module("litellm.proxy.hooks").PROXY_HOOKS.clear()
    auth = importlib.import_module("litellm.proxy.auth.user_api_key_auth").user_api_key_auth
    proxy.app.dependency_overrides[auth] = _owner(importlib.import_module("litellm.proxy._types"))
    # Why a call cost nothing: it was local.
    vars(importlib.import_module("litellm.litellm_core_utils.litellm_logging"))["diagnose_zero_cost"] = _nothing
    ollama = importlib.import_module("litellm.llms.ollama.common_utils").OllamaModelInfo
    ollama._is_static_ollama_model = staticmethod(_priced(ollama._strip_ollama_model_prefix))
    # Usage against `tpm` and `rpm` of a deployment, which no rendered file has: limits are the edge's.
    importlib.import_module("litellm.router").Router._increment_deployment_usage = _never
    _trimmed.append(True)
    return ""


def after(hooks: object) -> None:
    """After LiteLLM's start, if it was trimmed: nobody is told of a call but the router and the policy."""
    if not _trimmed:
        return
    litellm = sys.modules["litellm"]
    for name in LISTS:
        told = getattr(litellm, name)
        told[:] = [entry for entry in told if entry is hooks or _routes(entry)]


def _leads_to(route: Any, served: Collection[str]) -> bool:
    """Whether this is the route of a path in `served`, or a router with such a route."""
    router = getattr(route, "original_router", None)
    if router is None:
        return getattr(route, "path", "") in served
    return any(_leads_to(inner, served) for inner in router.routes)


def _routes(entry: object) -> bool:
    """Whether it is the router's: methods of it, and strategies such as least-busy."""
    where = getattr(entry, "__module__", "") or ""
    return where == "litellm.router" or where.startswith("litellm.router_strategy.")


def _owner(types: Any) -> Callable[[], Any]:
    """Who calls, for LiteLLM: always the same. The edge has looked at the key, and nobody else can reach this app."""

    async def owner() -> Any:
        return types.UserAPIKeyAuth(
            api_key="io3ops", user_id="io3ops", user_role=types.LitellmUserRoles.PROXY_ADMIN, request_route=None
        )

    return owner


def _nothing(*_: object, **__: object) -> None:
    return


async def _never(*_: object, **__: object) -> None:
    return


def _priced(stripped: Callable[[str], str]) -> Callable[[str], bool]:
    """Whether LiteLLM has prices for an Ollama model, without writing all three thousand names in small letters first."""

    def priced(model: str) -> bool:
        known, bare = sys.modules["litellm"].model_cost, stripped(model)
        names = (model, bare, f"ollama/{bare}", f"ollama_chat/{bare}")
        return any(name in known or name.lower() in known for name in names)

    return priced
