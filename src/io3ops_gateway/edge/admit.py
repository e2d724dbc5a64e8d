"""What is decided about a request before LiteLLM or a model's server sees a byte of it: its mode, its data class, where it may go.

Touches the meter, in which an admitted request takes its place.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from io3ops_gateway.asgi import Headers
from io3ops_gateway.errors import Refusal
from io3ops_gateway.limits.rate_limits import RateLimiter
from io3ops_gateway.policy import data_classes, endpoints
from io3ops_gateway.policy import policy as rules
from io3ops_gateway.policy.client_keys import OWNER, ClientKey
from io3ops_gateway.policy.data_classes import INTERNAL, OVERRIDE, PROBE, PUBLIC
from io3ops_gateway.policy.endpoints import Endpoint
from io3ops_gateway.request.context import RequestContext
from io3ops_gateway.request.record import RequestRecord


class Admitter:
    """By one policy."""

    def __init__(self, policy: rules.Policy, limiter: RateLimiter) -> None:
        self._policy = policy
        self._limiter = limiter

    def admit(
        self,
        headers: Headers,
        endpoint: Endpoint,
        body: dict[str, Any],
        key: ClientKey,
        budget: asyncio.Timeout,
        record: RequestRecord,
        query: bytes = b"",
    ) -> tuple[RequestContext, dict[str, Any]]:
        """A request that is admitted, and the fields that are handed on. Its `slots` are the caller's to give back.

        Raises:
            Refusal: it is not.
        """
        mode, suffix = self._policy.mode(body.get("model"))
        record.mode = mode.name
        if key.modes is not None and mode.name not in key.modes:
            raise Refusal(403, "mode_not_allowed", f"this key may not use mode {mode.name}")
        if mode.task != endpoint.task:
            message = f"mode {mode.name} is for {mode.task}, and this endpoint for {endpoint.task}"
            raise Refusal(400, "wrong_endpoint", message)
        said = data_classes.mark(headers, body, suffix, query)
        found = data_classes.decide(mode.data_class, key.data_class, said, self._policy.data_class)
        record.data_class, record.data_class_from = found.data_class, found.source
        reason = self._override(headers, body, key, mode, found.data_class)
        leaves = found.data_class == PUBLIC or bool(reason)
        group = self._policy.group(mode, PUBLIC if leaves else INTERNAL)
        handed, ignored = endpoints.kept(endpoint, body)
        endpoints.check_content(handed, internal=not leaves)
        rules.apply(mode, endpoint, handed)
        # The owner's own test of a mode (`io3ops smoke`) takes nothing of what clients may use.
        testing = key.name == OWNER and any(name == PROBE for name, _ in headers)
        # Last: whoever takes a slot must give it back.
        who = () if testing else ((f"mode {mode.name}", mode.limits), (f"key {key.name}", key.limits))
        slots = self._limiter.enter(*who)
        budget.reschedule(asyncio.get_running_loop().time() + mode.total)
        return (
            RequestContext(
                budget=budget,
                endpoint=endpoint,
                key=key.name,
                slots=slots,
                mode=mode.name,
                asked=str(body["model"]),
                group=group,
                data_class=found.data_class,
                source=found.source,
                leaves=leaves,
                reason=reason,
                ignored=ignored,
                record=record,
                truncation=mode.truncation,
            ),
            handed,
        )

    def _override(
        self, headers: Headers, body: Mapping[str, Any], key: ClientKey, mode: rules.ModePolicy, data_class: str
    ) -> str:
        """The reason with which this request overrides its class; '' when it does not."""
        stated = [value.decode("utf-8", "replace") for name, value in headers if name == OVERRIDE]
        in_body = data_classes.metadata(body, "override_reason")
        stated += [in_body if isinstance(in_body, str) else ""] if in_body is not None else []
        if not stated:
            return ""
        reason = stated[0].strip()
        if len(set(stated)) != 1 or not 10 <= len(reason) <= 300 or not reason.isprintable():
            raise Refusal(400, "bad_override", "an override needs one reason in words, of 10 to 300 characters")
        if mode.name not in self._policy.overrides.get(key.name, ()):
            message = f"key {key.name} may not override the data class in mode {mode.name}"
            raise Refusal(403, "override_not_allowed", message)
        # What may leave anyway needs no override, and no entry in its record.
        return reason if data_class == INTERNAL else ""
