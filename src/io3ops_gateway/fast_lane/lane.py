"""The fast lane: a plain request to a healthy local model, without LiteLLM in between.

Touches the servers of local deployments. What it cannot serve goes the full path: a request that is not plain, a mode whose first step is
shared, in a cloud, or has just failed. A failure before the first byte of an answer goes there too, with what was seen (`http_transport`). A
deployment that failed is served by LiteLLM until it has answered there: its health is LiteLLM's to judge.
"""

import asyncio
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import aiohttp

from io3ops_gateway.codec import ollama_requests, openai_requests
from io3ops_gateway.codec.base import Call, Reply, Target
from io3ops_gateway.fast_lane.response import ResponseRelay, blames, failed_attempt
from io3ops_gateway.fast_lane.upstreams import Upstream
from io3ops_gateway.limits.rate_limits import RateLimiter
from io3ops_gateway.litellm_proxy import http_transport
from io3ops_gateway.litellm_proxy.http_transport import Outcome
from io3ops_gateway.policy import policy as rules
from io3ops_gateway.policy.endpoints import Endpoint
from io3ops_gateway.policy.provider_keys import ProviderKeys
from io3ops_gateway.request.context import AdmittedRequest, RequestContext

# Shorter than servers keep a connection that nobody uses: a request must not cross their close.
IDLE_SECONDS = 4.0
CODECS: dict[str, Callable[[Endpoint, Mapping[str, Any], Target, Reply], Call | None]] = {
    "ollama": ollama_requests.call,
    "openai_compatible": openai_requests.call,
}


class Lane:
    """`upstreams`: where it may go, by group; empty: nowhere."""

    def __init__(
        self, policy: rules.Policy, upstreams: Mapping[str, Upstream], keys: ProviderKeys, limiter: RateLimiter
    ) -> None:
        self._policy = policy
        self._upstreams = upstreams
        self._keys = keys
        self._limiter = limiter
        self._failed: set[str] = set()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    def plan(self, admitted: AdmittedRequest, body: Mapping[str, Any]) -> tuple[Upstream, Call] | None:
        """Return where and how the lane would serve a request; None when it has to take the full path."""
        upstream = self._upstreams.get(admitted.group)
        if upstream is None or upstream.name in self._failed or admitted.override_reason:
            return None
        reply = Reply(
            asked=admitted.requested_model,
            now=int(time.time()),
            new_id=_new_id,
            count=http_transport.count,
            prompt=partial(_count_prompt, body),
        )
        found = CODECS[upstream.target.kind](admitted.endpoint, body, upstream.target, reply)
        return (upstream, found) if found else None

    def observe(self, context: RequestContext) -> None:
        """Learn from a request that took the full path: the upstream that answered is healthy again, one that was passed over is not."""
        upstream = self._upstreams.get(context.admitted.group)
        if upstream is None or not context.routing.attempts:
            return
        if context.response.status < 400 and context.routing.deployment == upstream.name:
            self._failed.discard(upstream.name)
        elif blames(context.response.status) and not context.routing.overflowed:
            # A model that rejected an over-long prompt is still healthy.
            self._failed.add(upstream.name)

    async def serve(self, upstream: Upstream, call: Call, context: RequestContext) -> bool:
        """Serve one admitted request. Return False when nothing was sent to the client and the full path is next.

        Raises:
            Refusal: the prompt may not go there.
            TimeoutError: the request's budget ended.
        """
        # Last before the wire, as on the full path.
        deployment = self._policy.deployment(upstream.id, upstream.target.url, leaves=context.admitted.may_leave)
        context.routing.window = deployment.window
        headers = {"content-type": "application/json", "x-request-id": context.record.onward}
        if deployment.key:
            key = self._keys.get(deployment.key)
            if not key:
                return False
            headers["authorization"] = f"Bearer {key}"
        context.record.path = "lane"
        attempt = context.record.attempt(deployment)
        answer = ResponseRelay(call, context, upstream)
        patience = upstream.first if call.stream else upstream.timeout
        limits = aiohttp.ClientTimeout(total=None, sock_connect=patience, sock_read=patience)
        session = self._session(context.admitted.may_leave)
        try:
            async with session.post(
                call.path, data=call.body, headers=headers, timeout=limits, allow_redirects=False, proxy=upstream.proxy
            ) as got:
                context.routing.outcome = await (answer.stream(got) if call.stream else answer.whole(got))
        except asyncio.CancelledError:
            attempt.end(error="stopped")
            if context.response.begun and context.stopping and not context.disconnected.is_set():
                await answer.tell()
            raise
        except (aiohttp.ClientError, TimeoutError) as error:
            failure = failed_attempt(call.path, upstream.name, error)
            attempt.end(error=failure.error.__name__)
            if context.response.begun:
                await answer.broken()
            else:
                context.routing.outcome = failure
        finally:
            if context.response.begun and context.slots:
                self._limiter.used(_tokens(call), *context.slots)
            attempt.timings = call.facts.timings
            context.record.usage.count(call.facts.prompt, call.facts.completion)
            context.record.usage.finish(call.facts.finish_reason)
        outcome = context.routing.outcome
        if isinstance(outcome, Outcome):
            attempt.end(outcome.status, f"http_{outcome.status}" if outcome.status >= 400 else "not_understood")
        else:
            attempt.end(200, "cut" if answer.cut or call.failed else "")
        if answer.cut or (isinstance(outcome, Outcome) and blames(outcome.status)):
            self._failed.add(upstream.name)
        return outcome is None

    def _session(self, leaves: bool) -> aiohttp.ClientSession:
        """Internal prompts share no connection with what may leave."""
        if leaves not in self._sessions:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)
            self._sessions[leaves] = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("user-agent", "accept", "accept-encoding"),
                read_bufsize=1 << 18,
            )
        return self._sessions[leaves]


def _tokens(call: Call) -> int:
    """What a request took of its limits: also one that was cut, and one whose server does not count."""
    prompt, completion = call.facts.prompt, call.facts.completion
    if prompt is None:
        prompt, completion = call.counted()
    return prompt + (completion or 0)


def _new_id(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4()}"


def _count_prompt(body: Mapping[str, Any]) -> int:
    """Tokens of what was asked, in the same way."""
    if "messages" in body:
        return int(sys.modules["litellm"].token_counter(model="", messages=body["messages"]))
    given = body.get("prompt") or ""
    return http_transport.count(given if isinstance(given, str) else "".join(given))
