"""Decides about a request before LiteLLM or a model's server sees a byte of it: its mode, its data class, and where it may go.

Touches the rate limiter, in which an admitted request takes its slots.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from io3ops_gateway.asgi import Headers
from io3ops_gateway.edge.exchange import Exchange
from io3ops_gateway.errors import Refusal
from io3ops_gateway.limits.rate_limits import RateLimiter
from io3ops_gateway.policy import data_classes, endpoints
from io3ops_gateway.policy import policy as rules
from io3ops_gateway.policy.client_keys import ClientKey
from io3ops_gateway.policy.data_classes import OVERRIDE, PROBE
from io3ops_gateway.policy.endpoints import Endpoint
from io3ops_gateway.policy.policy import Policy
from io3ops_gateway.request.context import AdmittedRequest, RequestContext
from io3ops_gateway.request.record import RequestRecord
from io3ops_gateway.request.response_writer import ResponseWriter
from io3ops_shared.names import INTERNAL, OWNER, PUBLIC
from io3ops_shared.policy import ModePolicy


def wrong_endpoint(mode: ModePolicy, endpoint: Endpoint) -> str:
    """Return the message for a mode whose task the endpoint does not serve, naming an endpoint that does."""
    path = endpoints.for_task(mode.task)
    return f'mode "{mode.name}" serves {mode.task}, not {endpoint.task}; use {path}'


class Admitter:
    """Admits requests by one policy."""

    def __init__(self, policy: Policy, rate_limiter: RateLimiter) -> None:
        self._policy = policy
        self._rate_limiter = rate_limiter

    def admit(
        self, exchange: Exchange, body: Mapping[str, Any], budget: asyncio.Timeout
    ) -> tuple[RequestContext, dict[str, Any]]:
        """Return the context of an admitted request and the fields to hand on. The caller gives its `slots` back.

        Raises:
            Refusal: it is not admitted.
        """
        key, endpoint, headers = exchange.key, exchange.endpoint, exchange.headers
        assert key is not None and endpoint is not None
        query = exchange.scope.get("query_string", b"")
        mode, admitted, handed = self._decide(headers, query, endpoint, body, key, exchange.record)
        # The owner's test of a mode (`io3ops smoke`) does not count towards the clients' limits.
        testing = key.name == OWNER and any(name == PROBE for name, _ in headers)
        limited = () if testing else ((f"mode {mode.name}", mode.limits), (f"key {key.name}", key.limits))
        # Last, because a refusal after this would have to give the slots back.
        slots = self._rate_limiter.enter(*limited)
        budget.reschedule(asyncio.get_running_loop().time() + mode.total)
        writer = ResponseWriter(exchange.send, exchange.extra)
        return RequestContext(admitted, budget, writer, exchange.record, slots), handed

    def _decide(
        self,
        headers: Headers,
        query: bytes,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        key: ClientKey,
        record: RequestRecord,
    ) -> tuple[ModePolicy, AdmittedRequest, dict[str, Any]]:
        """Return (mode, decision, fields to hand on). Note in `record` what is decided, also when the request is refused."""
        mode, suffix = self._policy.mode(body.get("model"))
        record.decision.mode = mode.name
        if key.modes is not None and mode.name not in key.modes:
            raise Refusal(403, "mode_not_allowed", f"this key may not use mode {mode.name}")
        if mode.task != endpoint.task:
            message = wrong_endpoint(mode, endpoint)
            raise Refusal(400, "wrong_endpoint", message)
        marked = data_classes.mark(headers, body, suffix, query)
        decision = data_classes.decide(mode.data_class, key.data_class, marked, self._policy.data_class)
        record.decision.data_class = decision.data_class
        record.decision.data_class_from = decision.source
        reason = self._override(headers, body, key, mode, decision.data_class)
        may_leave = decision.data_class == PUBLIC or bool(reason)
        group = self._policy.group(mode, PUBLIC if may_leave else INTERNAL)
        handed, ignored = endpoints.kept(endpoint, body)
        endpoints.check_content(handed, internal=not may_leave)
        rules.apply(mode, endpoint, handed)
        admitted = AdmittedRequest(
            endpoint=endpoint,
            key=key.name,
            mode=mode.name,
            requested_model=str(body["model"]),
            group=group,
            data_class=decision.data_class,
            data_class_from=decision.source,
            may_leave=may_leave,
            override_reason=reason,
            truncation=mode.truncation,
            ignored=tuple(ignored),
        )
        return mode, admitted, handed

    def _override(
        self, headers: Headers, body: Mapping[str, Any], key: ClientKey, mode: ModePolicy, data_class: str
    ) -> str:
        """Return the reason with which this request overrides its data class; '' when it does not."""
        stated = [value.decode("utf-8", "replace") for name, value in headers if name == OVERRIDE]
        in_body = data_classes.metadata(body, "override_reason")
        stated += [in_body if isinstance(in_body, str) else ""] if in_body is not None else []
        if not stated:
            return ""
        reason = stated[0].strip()
        if len(set(stated)) != 1 or not 10 <= len(reason) <= 300 or not reason.isprintable():
            raise Refusal(
                400, "bad_override", "an override needs exactly one reason, of 10 to 300 printable characters"
            )
        if mode.name not in self._policy.overrides.get(key.name, ()):
            message = f"key {key.name} may not override the data class in mode {mode.name}"
            raise Refusal(403, "override_not_allowed", message)
        # A prompt that may leave anyway needs no override, and no entry in the audit log.
        return reason if data_class == INTERNAL else ""
