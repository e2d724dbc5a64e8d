"""LiteLLM's hooks, thin: they hold each call and each attempt to what the edge decided. Loaded by LiteLLM by its dotted name.

Touches LiteLLM's hook interface, the files of provider keys and the audit log. Nothing that a request carries is believed here:
where a deployment is stands in the rendered file, and whether a prompt may leave in `context`.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from fastapi import HTTPException
from litellm.exceptions import ContextWindowExceededError
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils import exception_mapping_utils
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

from io3ops_gateway.errors import Refusal, StartError
from io3ops_gateway.limits.rate_limits import Ledger, RateLimiter
from io3ops_gateway.litellm_proxy import http_transport
from io3ops_gateway.policy import audit_log as audit
from io3ops_gateway.policy import context_window
from io3ops_gateway.policy import policy as rules
from io3ops_gateway.policy.provider_keys import ProviderKeys
from io3ops_gateway.request.attempt_outcome import AttemptOutcome
from io3ops_gateway.request.context import CURRENT, RequestContext
from io3ops_gateway.request.record import RequestRecord
from io3ops_gateway.request.usage import Usage
from io3ops_gateway.settings import from_environment
from io3ops_shared.names import PUBLIC
from io3ops_shared.policy import Deployment


@dataclass(frozen=True, slots=True)
class Files:
    """What the hooks touch."""

    keys: ProviderKeys
    audit: Path


def refuse_redirect(_client: object, request: httpx.Request, response: httpx.Response) -> httpx.Request:
    """In place of httpx's own: a server that answers with another address would take the prompt along to it."""
    raise httpx.RemoteProtocolError(
        "the server redirects to another address, and no redirect is followed", request=request
    )


def map_ollama(*, model: str, error_str: str, custom_llm_provider: str, **rest: Any) -> None:
    """In place of LiteLLM's own, which knows no prompt that is too long from Ollama: there would be no fallback for it."""
    if context_window.KNOWN in error_str:
        raise ContextWindowExceededError(message=context_window.CODE, model=model, llm_provider=custom_llm_provider)
    _map_ollama(model=model, error_str=error_str, custom_llm_provider=custom_llm_provider, **rest)


class PolicyHooks(CustomLogger):  # type: ignore[misc]
    """Applies the policy to each call, each routing decision and each attempt, and counts what was used."""

    def __init__(self, policy: rules.Policy, files: Files) -> None:
        super().__init__()
        self.policy = policy
        self.files = files
        self.limiter = RateLimiter(Ledger(), worker=0, clock=time.monotonic)
        # The file's model list, for the fast lane.
        self.entries: list[dict[str, Any]] = []
        self.clients: dict[float, AsyncHTTPHandler] = {}
        # Who waits for what LiteLLM tells at the end of a call.
        self.told: Callable[[RequestRecord], None] | None = None

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Once per request, before any routing: the router is asked for the group that the edge chose."""
        context = _context()
        if data.get("model") not in (context.admitted.requested_model, context.admitted.group):
            raise _stop(Refusal(403, "changed", "the request changed on its way; nothing was sent anywhere"))
        data["model"] = context.admitted.group
        return data

    async def async_filter_deployments(
        self,
        model: str,
        healthy_deployments: list[dict[str, Any]],
        messages: Any,
        request_kwargs: dict[str, Any] | None = None,
        parent_otel_span: Any = None,
    ) -> list[dict[str, Any]]:
        """At every routing decision, first try, retry and fallback: only deployments to which this prompt may go."""
        context = CURRENT.get()
        return [d for d in healthy_deployments if context is not None and self._may(context, d)]

    def _may(self, context: RequestContext, entry: dict[str, Any]) -> bool:
        info, params = entry.get("model_info") or {}, entry.get("litellm_params") or {}
        try:
            deployment = self.policy.deployment(info.get("id"), _address(params), leaves=context.admitted.may_leave)
        except Refusal:
            return False
        # Enabled without a key does nothing.
        return not deployment.key or bool(self.files.keys.get(deployment.key))

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> dict[str, Any]:
        """Last before the wire, for every attempt: the place is checked once more, and the provider's key put in."""
        context = _context()
        info = kwargs.get("model_info") or {}
        try:
            deployment = self.policy.deployment(info.get("id"), _address(kwargs), leaves=context.admitted.may_leave)
            if not deployment.local and context.admitted.data_class != PUBLIC:
                await self._audit(context, deployment)
        except Refusal as refused:
            raise _stop(refused) from None
        # LiteLLM serves some endpoints through others, and tells of both: only the outer call counts.
        context.routing.call_type = context.routing.call_type or str(call_type)
        if context.routing.call_type == str(call_type):
            context.routing.attempts += 1
            outcome = context.routing.outcome
            # What the fast lane has tried is handed over as this attempt's outcome: it is the same one.
            if not isinstance(outcome, AttemptOutcome) or outcome.deployment != deployment.name:
                context.record.attempt(deployment)
        context.routing.deployment, context.routing.local, context.routing.window = (
            deployment.name,
            deployment.local,
            deployment.window,
        )
        # A warm-up works without the key, so that a key set later needs no new generation.
        if deployment.key and not context.unsent:
            key = self.files.keys.get(deployment.key)
            if not key:
                # An empty one would send LiteLLM to look for another in its surroundings.
                raise _stop(Refusal(503, "no_provider_key", f"the key of provider {deployment.provider} is not there"))
            if deployment.kind == "bedrock":
                kwargs["aws_access_key_id"], _, kwargs["aws_secret_access_key"] = key.partition(":")
            else:
                kwargs["api_key"] = key
        if context.warmup is not None:
            kwargs["mock_response"] = context.warmup
        if deployment.kind == "gemini" and kwargs.get("stream"):
            # The one kind whose streams LiteLLM lets be silent for ever.
            kwargs["client"] = self._patient(deployment.first_token)
        return kwargs

    def _patient(self, seconds: float) -> AsyncHTTPHandler:
        """A client that waits so long for the next bytes; one for each length of time."""
        if seconds not in self.clients:
            self.clients[seconds] = AsyncHTTPHandler(timeout=httpx.Timeout(seconds, connect=5))
        return self.clients[seconds]

    async def _audit(self, context: RequestContext, deployment: Deployment) -> None:
        """Write down that an override takes effect. What is not on the disk does not leave."""
        if not context.admitted.override_reason:
            raise Refusal(403, "stays_local", "an internal prompt stays local; nothing was sent to the cloud")
        entry = {
            "key": context.admitted.key,
            "mode": context.admitted.mode,
            "class": context.admitted.data_class,
            "source": context.admitted.data_class_from,
            "reason": context.admitted.override_reason,
            "provider": deployment.provider,
            "deployment": deployment.name,
        }
        try:
            await asyncio.to_thread(audit.append, self.files.audit, entry)
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"gateway: the audit log cannot be written: {error}; nothing leaves", file=sys.stderr, flush=True)
            raise Refusal(503, "audit_failed", "the audit log cannot be written, so nothing was sent") from None
        context.routing.audited.add(deployment.provider)

    def why(self, group: str) -> str:
        """Why nothing of a group could be tried: keys that are missing, else pauses after failures."""
        places = [self.policy.deployments[name] for name in self.policy.members.get(group, ())]
        missing = sorted({p.provider for p in places if p.key and not self.files.keys.get(p.key)})
        if missing:
            return f"the key of {', '.join(missing)} is missing (`io3ops secrets set`)"
        return "all of them failed just now, and are left out for a while"

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """After an answer: its tokens count towards the limits of its mode and key, and stand in its line of the log."""
        context = CURRENT.get()
        told = kwargs.get("standard_logging_object") or {}
        tokens = told.get("total_tokens")
        if context is None:
            return
        if isinstance(tokens, int):
            self.limiter.used(tokens, *context.slots)
        usage = context.record.usage
        if usage.prompt is None:
            usage.count(told.get("prompt_tokens"), told.get("completion_tokens"))
        if not context.routing.local:
            usage.charge(told.get("response_cost"))
        _note_answer(usage, response_obj)
        usage.reported = True
        if self.told is not None:
            self.told(context.record)


def _note_answer(usage: Usage, answer: Any) -> None:
    """Why an answer ended, and how much of its prompt the provider had kept; in LiteLLM's form of it."""
    try:
        details = answer.usage.prompt_tokens_details
        usage.count_cached(getattr(details, "cached_tokens", None))
        usage.finish(answer.choices[0].finish_reason)
    except (AttributeError, IndexError, TypeError):
        # Embeddings, images and others have none.
        return


def _context() -> RequestContext:
    context = CURRENT.get()
    if context is None:
        raise _stop(Refusal(403, "no_request", "this call did not come through the gateway's door"))
    return context


def _address(params: dict[str, Any]) -> object:
    return params.get("api_base") or params.get("base_url") or params.get("aws_bedrock_runtime_endpoint")


def _stop(refused: Refusal) -> HTTPException:
    """LiteLLM ends a request at once on this, without another attempt."""
    detail = {"error": {"message": refused.message, "type": "invalid_request_error", "code": refused.code}}
    return HTTPException(refused.status, detail=detail)


def _load() -> PolicyHooks:
    settings = from_environment(os.environ)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    config = yaml.load(settings.config.read_text("utf-8"), Loader=loader)
    files = Files(ProviderKeys(settings.provider_keys), settings.audit_dir / "audit.jsonl")
    hooks = PolicyHooks(rules.from_config(config), files)
    hooks.entries = config["model_list"]
    return hooks


# Every client of this process, LiteLLM's own and those of the providers' libraries: each would follow by default. httpx has no
# setting for all of them; should a new version call this otherwise, the gateway does not start.
if not callable(getattr(httpx._client.BaseClient, "_build_redirect_request", None)):
    raise StartError("this httpx cannot be kept from following redirects", "build the image with the locked version")
httpx._client.BaseClient._build_redirect_request = refuse_redirect  # type: ignore[method-assign, assignment]

http_transport.install()

_map_ollama: Any = getattr(exception_mapping_utils, "_map_ollama_exception", None)
if not callable(_map_ollama):
    raise StartError("this LiteLLM cannot be told what Ollama refuses", "build the image with the locked version")
exception_mapping_utils._map_ollama_exception = map_ollama

# LiteLLM looks this name up; a policy that cannot be read stops the start.
policy = _load()
