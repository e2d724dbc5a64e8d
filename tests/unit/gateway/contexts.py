"""Request contexts and edges for the gateway's unit tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from io3ops_gateway.asgi import App, Message
from io3ops_gateway.edge.app import Edge
from io3ops_gateway.edge.authenticate import Authenticator
from io3ops_gateway.edge.backend import Backend
from io3ops_gateway.limits.limits import worker_limits
from io3ops_gateway.limits.rate_limits import RateLimiter
from io3ops_gateway.litellm_proxy.app import FullPath
from io3ops_gateway.policy.client_keys import KeyRing
from io3ops_gateway.policy.endpoints import CHAT
from io3ops_gateway.policy.policy import Policy
from io3ops_gateway.request.context import AdmittedRequest, RequestContext
from io3ops_gateway.request.record import new_record
from io3ops_gateway.request.response_writer import ResponseWriter
from io3ops_gateway.request_log.recorder import RequestRecorder


async def nowhere(_message: Message) -> None:
    """Discard what is sent."""


def a_context(budget: Any = None, slots: tuple[str, ...] = (), **decided: Any) -> RequestContext:
    """The context of a request that was admitted with these decisions; the others are of a plain internal chat."""
    plain: dict[str, Any] = {
        "endpoint": CHAT,
        "key": "k",
        "mode": "m",
        "requested_model": "m",
        "group": "m",
        "may_leave": False,
    }
    plain |= {"data_class": "internal", "data_class_from": "mode"}
    admitted = AdmittedRequest(**(plain | decided))
    return RequestContext(admitted, budget, ResponseWriter(nowhere, []), new_record([]), slots)


class NoContent:
    """A recorder of content that nobody asked for."""

    def wants(self, mode: str, data_class: str, allow_internal: bool) -> bool:
        return False

    def keep(self, entry: Mapping[str, Any]) -> bool:
        return False

    def close(self, seconds: float = 0.0) -> bool:
        return True


def an_edge(
    app: App,
    policy: Policy,
    ring: KeyRing,
    limiter: RateLimiter,
    *,
    hide: Callable[[bytes], bytes] = bytes,
    why: Callable[[str], str] = str,
    owner_key: str = "",
    config: str = "",
) -> Edge:
    """An edge around `app` in LiteLLM's place, without a fast lane and without a log."""
    return Edge(
        policy,
        Backend(app, FullPath(app, "sk-inside", hide, why)),
        Authenticator(ring, owner_key),
        worker_limits(policy.gateway, limiter),
        RequestRecorder(None, NoContent()),
        config=config,
    )
