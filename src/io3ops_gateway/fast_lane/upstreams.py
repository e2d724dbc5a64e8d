"""Reads from the rendered file which deployments the fast lane may use. Touches only the environment's proxy settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from io3ops_gateway.codec.base import Target
from io3ops_gateway.policy import policy as rules

ROUTES = {"ollama_chat": ("ollama", "chat"), "ollama": ("ollama", "embeddings"), "openai": ("openai_compatible", "")}
# Keys of `litellm_params` that must not be sent upstream.
SETTINGS = frozenset({"model", "api_base", "api_key", "order", "weight", "timeout", "stream_timeout", "max_retries"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Upstream:
    """A deployment that the lane may use, for one group. `timeout`: the seconds that a whole response may be silent; `first`: the same
    for a stream, from its start. `proxy`: the URL of the HTTP proxy, for a server that is reached through one."""

    id: str
    name: str
    target: Target
    key: str
    timeout: float
    first: float
    proxy: str | None = None


def upstreams(policy: rules.Policy, entries: list[Mapping[str, Any]]) -> dict[str, Upstream]:
    """Return, by group, its first step, when that is a single local deployment that a codec can serve. `entries`: the file's model list."""
    by_group: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        by_group.setdefault(entry["model_name"], []).append(entry)
    made = {}
    for group, members in by_group.items():
        lowest = min(m["litellm_params"].get("order", 1) for m in members)
        first = [m for m in members if m["litellm_params"].get("order", 1) == lowest]
        upstream = _upstream(policy, first[0]) if len(first) == 1 else None
        if upstream:
            made[group] = upstream
    return made


def _upstream(policy: rules.Policy, entry: Mapping[str, Any]) -> Upstream | None:
    params, deployment_id = entry["litellm_params"], entry["model_info"]["id"]
    deployment = policy.deployments[deployment_id]
    route, _, model = str(params["model"]).partition("/")
    if not deployment.local or route not in ROUTES or not params.get("api_base"):
        return None
    kind, task = ROUTES[route]
    task = task or {"embedding": "embeddings"}.get(entry["model_info"]["mode"], entry["model_info"]["mode"])
    parameters = {name: value for name, value in params.items() if name not in SETTINGS}
    target = Target(kind=kind, task=task, url=params["api_base"], model=model, parameters=parameters)
    times = {"timeout": float(params["timeout"]), "first": float(params["stream_timeout"])}
    return Upstream(
        id=deployment_id, name=deployment.name, target=target, key=deployment.key, proxy=_proxy(target.url), **times
    )


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment sets for a URL, as LiteLLM's HTTP clients read it. Called once, not for each request."""
    parts = urlsplit(url)
    proxy = getproxies_environment().get(parts.scheme)
    return proxy if proxy and not proxy_bypass(parts.netloc) else None
