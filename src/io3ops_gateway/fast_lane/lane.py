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

from io3ops_gateway.asgi import Headers, Send
from io3ops_gateway.codec import ollama_requests, openai_requests
from io3ops_gateway.codec.base import Call, Reply, Target
from io3ops_gateway.fast_lane.response import Answer, blames, failed_attempt
from io3ops_gateway.fast_lane.upstreams import Stop
from io3ops_gateway.limits.rate_limits import Meter
from io3ops_gateway.litellm_proxy import http_transport
from io3ops_gateway.litellm_proxy.http_transport import Outcome
from io3ops_gateway.policy import policy as rules
from io3ops_gateway.policy.endpoints import Endpoint
from io3ops_gateway.policy.provider_keys import ProviderKeys
from io3ops_gateway.request.context import Running
from io3ops_gateway.request.disconnect import Client

# Shorter than servers keep a connection that nobody uses: a request must not cross their close.
IDLE_SECONDS = 4.0
CODECS: dict[str, Callable[[Endpoint, Mapping[str, Any], Target, Reply], Call | None]] = {
    "ollama": ollama_requests.call,
    "openai_compatible": openai_requests.call,
}


class Lane:
    """`stops`: where it may go, by group; empty: nowhere."""

    def __init__(self, policy: rules.Policy, stops: Mapping[str, Stop], keys: ProviderKeys, meter: Meter) -> None:
        self._policy = policy
        self._stops = stops
        self._keys = keys
        self._meter = meter
        self._failed: set[str] = set()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    def call(self, endpoint: Endpoint, body: Mapping[str, Any], running: Running) -> tuple[Stop, Call] | None:
        """Where and how the lane would serve a request; None: the full path."""
        stop = self._stops.get(running.group)
        if stop is None or stop.name in self._failed or running.reason:
            return None
        reply = Reply(
            asked=running.asked,
            now=int(time.time()),
            new_id=_new_id,
            count=http_transport.count,
            prompt=partial(_count_prompt, body),
        )
        found = CODECS[stop.target.kind](endpoint, body, stop.target, reply)
        return (stop, found) if found else None

    def served(self, running: Running) -> None:
        """A request has gone the full path: whoever answered there is healthy again, and whoever was passed over is not."""
        stop = self._stops.get(running.group)
        if stop is None or not running.attempts:
            return
        if running.status < 400 and running.deployment == stop.name:
            self._failed.discard(stop.name)
        elif blames(running.status) and not running.overflowed:
            # Who refused a long prompt is well, whoever served it then.
            self._failed.add(stop.name)

    async def serve(self, stop: Stop, call: Call, running: Running, client: Client, send: Send, more: Headers) -> bool:
        """Serve one admitted request. False: nothing was sent to the client, and the full path is next.

        Raises:
            Refusal: the prompt may not go there.
            TimeoutError: its budget ended, or the client left.
        """
        # Last before the wire, as on the full path.
        place = self._policy.place(stop.id, stop.target.url, leaves=running.leaves)
        running.window = place.window
        headers = {"content-type": "application/json", "x-request-id": running.seen.onward}
        if place.key:
            key = self._keys.get(place.key)
            if not key:
                return False
            headers["authorization"] = f"Bearer {key}"
        running.seen.path = "lane"
        attempt = running.seen.attempt(place)
        answer = Answer(call, running, stop, send, more)
        patience = stop.first if call.stream else stop.timeout
        limits = aiohttp.ClientTimeout(total=None, sock_connect=patience, sock_read=patience)
        session = self._session(running.leaves)
        try:
            async with session.post(
                call.path, data=call.body, headers=headers, timeout=limits, allow_redirects=False, proxy=stop.proxy
            ) as got:
                running.outcome = await (answer.stream(got) if call.stream else answer.whole(got))
        except asyncio.CancelledError:
            attempt.end(error="stopped")
            if running.begun and running.stopping and not client.gone.is_set():
                await answer.tell()
            raise
        except (aiohttp.ClientError, TimeoutError) as error:
            failure = failed_attempt(call.path, stop.name, error)
            attempt.end(error=failure.error.__name__)
            if running.begun:
                await answer.broken()
            else:
                running.outcome = failure
        finally:
            if running.begun and running.slots:
                self._meter.used(_tokens(call), *running.slots)
            attempt.timings = call.facts.timings
            running.seen.used(call.facts.prompt, call.facts.completion)
            running.seen.reason(call.facts.finish_reason)
        outcome = running.outcome
        if isinstance(outcome, Outcome):
            attempt.end(outcome.status, f"http_{outcome.status}" if outcome.status >= 400 else "not_understood")
        else:
            attempt.end(200, "cut" if answer.cut or call.failed else "")
        if answer.cut or (isinstance(outcome, Outcome) and blames(outcome.status)):
            self._failed.add(stop.name)
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
