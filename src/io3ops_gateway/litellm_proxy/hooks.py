"""The policy as LiteLLM's hooks: they hold each call and each attempt to the edge's decisions. LiteLLM loads `policy` by its dotted name.

Touches LiteLLM's hook interface, the files of provider keys and the audit log. Nothing that a request carries is believed here:
the rendered file says where a deployment is, and the request's context says whether the prompt may leave.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger

from io3ops_gateway.errors import Refusal
from io3ops_gateway.limits.rate_limits import Ledger, RateLimiter
from io3ops_gateway.litellm_proxy import compat
from io3ops_gateway.policy import audit_log as audit
from io3ops_gateway.policy import policy as rules
from io3ops_gateway.policy.provider_keys import ProviderKeys
from io3ops_gateway.request.attempt_outcome import AttemptOutcome
from io3ops_gateway.request.context import CURRENT, RequestContext
from io3ops_gateway.request.record import RequestRecord
from io3ops_gateway.request.usage import Usage
from io3ops_gateway.settings import Settings
from io3ops_shared.names import PUBLIC
from io3ops_shared.policy import Deployment


@dataclass(frozen=True, slots=True)
class Files:
    """The files that the hooks read and write."""

    keys: ProviderKeys
    audit: Path


class PolicyHooks(CustomLogger):  # type: ignore[misc]  # LiteLLM is not in the development environment
    """Applies the policy to each call, each routing decision and each attempt, and counts the tokens used."""

    def __init__(self, policy: rules.Policy, files: Files, entries: list[Mapping[str, Any]]) -> None:
        super().__init__()
        self.policy = policy
        self.files = files
        # The file's model list, for the fast lane.
        self.entries = entries
        # A worker puts the limiter that it shares with the others here.
        self.limiter = RateLimiter(Ledger(), worker=0, clock=time.monotonic)
        # Called when LiteLLM has reported the end of a call.
        self.told: Callable[[RequestRecord], None] | None = None
        self._clients: dict[float, Any] = {}

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Ask the router for the group that the edge chose. LiteLLM calls this once per request, before any routing."""
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
        """Keep only deployments to which this prompt may go. LiteLLM calls this at every first try, retry and fallback."""
        context = CURRENT.get()
        return [d for d in healthy_deployments if context is not None and self._may_use(context, d)]

    def _may_use(self, context: RequestContext, entry: dict[str, Any]) -> bool:
        info, params = entry.get("model_info") or {}, entry.get("litellm_params") or {}
        try:
            deployment = self.policy.deployment(info.get("id"), _address(params), leaves=context.admitted.may_leave)
        except Refusal:
            return False
        # A provider that is enabled, and has no key yet, serves nothing.
        return not deployment.key or bool(self.files.keys.get(deployment.key))

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> dict[str, Any]:
        """Check the deployment once more and add its provider's key. LiteLLM calls this last before each attempt."""
        context = _context()
        info = kwargs.get("model_info") or {}
        try:
            deployment = self.policy.deployment(info.get("id"), _address(kwargs), leaves=context.admitted.may_leave)
            if not deployment.local and context.admitted.data_class != PUBLIC:
                await self._audit(context, deployment)
        except Refusal as refused:
            raise _stop(refused) from None
        # LiteLLM serves some endpoints through others, and calls this for both: only the outer call counts.
        routing = context.routing
        routing.call_type = routing.call_type or str(call_type)
        if routing.call_type == str(call_type):
            routing.attempts += 1
            outcome = routing.outcome
            # An outcome of the fast lane is replayed in this attempt, so the record already has it.
            if not isinstance(outcome, AttemptOutcome) or outcome.deployment != deployment.name:
                context.record.attempt(deployment)
        routing.deployment, routing.local, routing.window = deployment.name, deployment.local, deployment.window
        # A warm-up works without the key, so that a key set later needs no new generation.
        if deployment.key and not context.unsent:
            key = self.files.keys.get(deployment.key)
            if not key:
                # With an empty key LiteLLM would look for another one in its environment.
                raise _stop(
                    Refusal(503, "no_provider_key", f"the API key of provider {deployment.provider} is not set")
                )
            if deployment.kind == "bedrock":
                kwargs["aws_access_key_id"], _, kwargs["aws_secret_access_key"] = key.partition(":")
            else:
                kwargs["api_key"] = key
        if context.warmup is not None:
            kwargs["mock_response"] = context.warmup
        if deployment.kind == "gemini" and kwargs.get("stream"):
            # For this kind LiteLLM sets no limit on the silence within a stream.
            kwargs["client"] = self._client(deployment.first_token)
        return kwargs

    def _client(self, seconds: float) -> Any:
        """Return LiteLLM's HTTP client with this limit between two parts of a stream; one for each limit."""
        if seconds not in self._clients:
            self._clients[seconds] = compat.HTTP_HANDLER.find()(timeout=httpx.Timeout(seconds, connect=5))
        return self._clients[seconds]

    async def _audit(self, context: RequestContext, deployment: Deployment) -> None:
        """Record that an override takes effect. A prompt leaves only after its entry is on the disk."""
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
        """Say why no deployment of a group could be tried: missing keys, else pauses after failures."""
        members = [self.policy.deployments[name] for name in self.policy.members.get(group, ())]
        missing = sorted({d.provider for d in members if d.key and not self.files.keys.get(d.key)})
        if missing:
            return f"the key of {', '.join(missing)} is missing (`io3ops secrets set`)"
        return "all of them failed a moment ago and are paused"

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Count a response's tokens towards the limits of its mode and key, and record them."""
        context = CURRENT.get()
        report = kwargs.get("standard_logging_object") or {}
        tokens = report.get("total_tokens")
        if context is None:
            return
        if isinstance(tokens, int):
            self.limiter.used(tokens, *context.slots)
        usage = context.record.usage
        if usage.prompt is None:
            usage.count(report.get("prompt_tokens"), report.get("completion_tokens"))
        if not context.routing.local:
            usage.charge(report.get("response_cost"))
        _note_response(usage, response_obj)
        usage.reported = True
        if self.told is not None:
            self.told(context.record)


def _note_response(usage: Usage, response: Any) -> None:
    """Record the finish reason and the cached prompt tokens of LiteLLM's response object."""
    try:
        details = response.usage.prompt_tokens_details
        usage.count_cached(getattr(details, "cached_tokens", None))
        usage.finish(response.choices[0].finish_reason)
    except (AttributeError, IndexError, TypeError):
        # Embeddings, images and others have neither.
        return


def _context() -> RequestContext:
    context = CURRENT.get()
    if context is None:
        raise _stop(Refusal(403, "no_request", "this call did not come through the gateway's edge"))
    return context


def _address(params: dict[str, Any]) -> object:
    return params.get("api_base") or params.get("base_url") or params.get("aws_bedrock_runtime_endpoint")


def _stop(refused: Refusal) -> HTTPException:
    """Return the error on which LiteLLM ends a request at once, without another attempt."""
    detail = {"error": {"message": refused.message, "type": "invalid_request_error", "code": refused.code}}
    return HTTPException(refused.status, detail=detail)


# The instance that LiteLLM looks up by this module's name. There is none before `load`, so a start without the policy fails.
policy: PolicyHooks


def load(settings: Settings) -> PolicyHooks:
    """Read the policy of the rendered file, and make it the one that LiteLLM finds.

    Raises:
        ConfigError: the policy is malformed, or of a version that this gateway does not read.
        OSError: the file cannot be read.
    """
    global policy
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    config = yaml.load(settings.config.read_text("utf-8"), Loader=loader)  # noqa: S506  a safe loader, in C where there is one
    files = Files(ProviderKeys(settings.provider_keys), settings.audit_dir / "audit.jsonl")
    policy = PolicyHooks(rules.from_config(config), files, config["model_list"])
    return policy
