"""The deployments that the fast lane may use, read from the rendered file. Pure, but for the environment's proxies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from io3ops_gateway.codec.base import Target
from io3ops_gateway.policy import policy as rules

ROUTES = {"ollama_chat": ("ollama", "chat"), "ollama": ("ollama", "embeddings"), "openai": ("openai_compatible", "")}
# Of a rendered entry: what is not a part of the request.
SETTINGS = frozenset({"model", "api_base", "api_key", "order", "weight", "timeout", "stream_timeout", "max_retries"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Upstream:
    """A deployment that the lane may use, for one group. `timeout`: seconds between bytes; `first`: until a stream's. `proxy`: the way
    out, for a server outside the stack."""

    id: str
    name: str
    target: Target
    key: str
    timeout: float
    first: float
    proxy: str | None = None


def upstreams(policy: rules.Policy, entries: list[Mapping[str, Any]]) -> dict[str, Upstream]:
    """By group: its first step, where that is one local deployment that a codec speaks to. `entries`: the file's model list."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        found.setdefault(entry["model_name"], []).append(entry)
    made = {}
    for group, members in found.items():
        lowest = min(m["litellm_params"].get("order", 1) for m in members)
        first = [m for m in members if m["litellm_params"].get("order", 1) == lowest]
        upstream = _upstream(policy, first[0]) if len(first) == 1 else None
        if upstream:
            made[group] = upstream
    return made


def _upstream(policy: rules.Policy, entry: Mapping[str, Any]) -> Upstream | None:
    params, found = entry["litellm_params"], entry["model_info"]["id"]
    deployment = policy.deployments[found]
    route, _, model = str(params["model"]).partition("/")
    if not deployment.local or route not in ROUTES or not params.get("api_base"):
        return None
    kind, task = ROUTES[route]
    task = task or {"embedding": "embeddings"}.get(entry["model_info"]["mode"], entry["model_info"]["mode"])
    rest = {name: value for name, value in params.items() if name not in SETTINGS}
    target = Target(kind=kind, task=task, url=params["api_base"], model=model, parameters=rest)
    times = {"timeout": float(params["timeout"]), "first": float(params["stream_timeout"])}
    return Upstream(
        id=found, name=deployment.name, target=target, key=deployment.key, proxy=_proxy(target.url), **times
    )


def _proxy(url: str) -> str | None:
    """What the environment says, as LiteLLM's own clients read it; looked up once, not for each request."""
    parts = urlsplit(url)
    found = getproxies_environment().get(parts.scheme)
    return found if found and not proxy_bypass(parts.netloc) else None
