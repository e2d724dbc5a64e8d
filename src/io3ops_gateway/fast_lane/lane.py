"""Serves plain requests from a healthy local model, without LiteLLM in between. Touches the servers of local deployments.

All other requests go through LiteLLM: a request that is not plain, and a mode whose first step is shared, in a cloud, or has just
failed. So does a failure before the first byte of the response, with its outcome, so that LiteLLM counts it as its own attempt. After
a failure LiteLLM serves the deployment until it has answered there: LiteLLM alone judges its health.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import aiohttp

from io3ops_gateway.codec import ollama_requests, openai_requests
from io3ops_gateway.codec.base import Call, Reply, Target
from io3ops_gateway.fast_lane.response import ResponseRelay, blames_server, failed_attempt
from io3ops_gateway.fast_lane.upstreams import Upstream
from io3ops_gateway.limits.rate_limits import RateLimiter
from io3ops_gateway.policy import policy as rules
from io3ops_gateway.policy.endpoints import Endpoint
from io3ops_gateway.policy.provider_keys import ProviderKeys
from io3ops_gateway.request.attempt_outcome import AttemptOutcome
from io3ops_gateway.request.context import AdmittedRequest, RequestContext
from io3ops_shared.request_log.schema import AttemptError, RequestPath

# Shorter than servers keep an idle connection: a request must not be sent while the server closes it.
IDLE_SECONDS = 4.0
CODECS: dict[str, Callable[[Endpoint, Mapping[str, Any], Target, Reply], Call | None]] = {
    "ollama": ollama_requests.call,
    "openai_compatible": openai_requests.call,
}


class TokenCounter(Protocol):
    """Counts tokens for servers that report none, as `litellm_proxy.token_counter.TokenCounter` does."""

    def text(self, text: str) -> int: ...

    def messages(self, messages: Sequence[Any]) -> int: ...


class Lane:
    """`upstreams`: the deployment that each group may use, by the group's name. `counter`: for servers that report no tokens."""

    def __init__(
        self,
        policy: rules.Policy,
        upstreams: Mapping[str, Upstream],
        keys: ProviderKeys,
        limiter: RateLimiter,
        counter: TokenCounter,
    ) -> None:
        self._policy = policy
        self._upstreams = upstreams
        self._keys = keys
        self._limiter = limiter
        self._counter = counter
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
            count=self._counter.text,
            prompt=partial(self._count_prompt, body),
        )
        call = CODECS[upstream.target.kind](admitted.endpoint, body, upstream.target, reply)
        return (upstream, call) if call else None

    def observe(self, context: RequestContext) -> None:
        """Learn from a request that took the full path: the upstream that answered is healthy again, one that was passed over is not."""
        upstream = self._upstreams.get(context.admitted.group)
        if upstream is None or not context.routing.attempts:
            return
        if context.response.status < 400 and context.routing.deployment == upstream.name:
            self._failed.discard(upstream.name)
        elif blames_server(context.response.status) and not context.routing.overflowed:
            # A model that rejected an over-long prompt is still healthy.
            self._failed.add(upstream.name)

    async def serve(self, upstream: Upstream, call: Call, context: RequestContext) -> bool:
        """Serve one admitted request. Return False when nothing was sent to the client and the full path is next.

        Raises:
            Refusal: the prompt may not go there.
            TimeoutError: the request's budget ended.
        """
        # The last check before the prompt is sent, as on the full path.
        deployment = self._policy.deployment(upstream.id, upstream.target.url, leaves=context.admitted.may_leave)
        context.routing.window = deployment.window
        headers = {"content-type": "application/json", "x-request-id": context.record.onward}
        if deployment.key:
            key = self._keys.get(deployment.key)
            if not key:
                return False
            headers["authorization"] = f"Bearer {key}"
        context.record.path = RequestPath.LANE
        attempt = context.record.attempt(deployment)
        relay = ResponseRelay(call, context, upstream, self._counter.text, self._keys.hide)
        patience = upstream.first if call.stream else upstream.timeout
        limits = aiohttp.ClientTimeout(total=None, sock_connect=patience, sock_read=patience)
        session = self._session(context.admitted.may_leave)
        outcome: AttemptOutcome | None = None
        try:
            async with session.post(
                call.path, data=call.body, headers=headers, timeout=limits, allow_redirects=False, proxy=upstream.proxy
            ) as response:
                outcome = await (relay.stream(response) if call.stream else relay.whole(response))
        except asyncio.CancelledError:
            attempt.end(error=AttemptError.STOPPED)
            if context.response.begun and context.stopping and not context.disconnected.is_set():
                await relay.announce_stop()
            raise
        except (aiohttp.ClientError, TimeoutError) as error:
            failure = failed_attempt(call.path, upstream.name, error)
            attempt.end(error=failure.error)
            if context.response.begun:
                await relay.announce_cut()
            else:
                outcome = failure
        finally:
            if context.response.begun and context.slots:
                self._limiter.used(_tokens(call), *context.slots)
            attempt.timings = call.facts.timings
            context.record.usage.count(call.facts.prompt, call.facts.completion)
            context.record.usage.finish(call.facts.finish_reason)
        context.routing.outcome = outcome
        if outcome is not None:
            attempt.end(
                outcome.status, f"http_{outcome.status}" if outcome.status >= 400 else AttemptError.NOT_UNDERSTOOD
            )
        else:
            attempt.end(200, AttemptError.CUT if relay.cut or call.failed else "")
        if relay.cut or (outcome is not None and blames_server(outcome.status)):
            self._failed.add(upstream.name)
        return outcome is None

    def _session(self, may_leave: bool) -> aiohttp.ClientSession:
        """Return the connections of one kind of prompt: internal prompts share none with prompts that may leave."""
        if may_leave not in self._sessions:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)
            self._sessions[may_leave] = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("user-agent", "accept", "accept-encoding"),
                read_bufsize=1 << 18,
            )
        return self._sessions[may_leave]

    def _count_prompt(self, body: Mapping[str, Any]) -> int:
        """Return the tokens of the prompt, by our own count."""
        if "messages" in body:
            return self._counter.messages(body["messages"])
        prompt = body.get("prompt") or ""
        return self._counter.text(prompt if isinstance(prompt, str) else "".join(prompt))


def _tokens(call: Call) -> int:
    """Return the tokens that count towards the rate limits, also when the response was cut or its server reports none."""
    prompt, completion = call.facts.prompt, call.facts.completion
    if prompt is None:
        prompt, completion = call.counted()
    return prompt + (completion or 0)


def _new_id(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4()}"
