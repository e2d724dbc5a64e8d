"""The fast lane: a plain request to a healthy local model, without LiteLLM in between.

Touches the servers of local deployments. What it cannot serve goes the full path: a request that is not plain, a mode whose first step is
shared, in a cloud, or has just failed. A failure before the first byte of an answer goes there too, with what was seen (`replay`). A
deployment that failed is served by LiteLLM until it has answered there: its health is LiteLLM's to judge.
"""

import asyncio
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
import httpx

from io3ops_gateway import answers, codec_ollama, codec_openai, codec_stream, replay
from io3ops_gateway import policy as rules
from io3ops_gateway.asgi import Headers, Send
from io3ops_gateway.client import Client
from io3ops_gateway.codec import Call, Cut, Reply, Strange, Target
from io3ops_gateway.endpoints import Endpoint
from io3ops_gateway.errors import Refusal
from io3ops_gateway.full import STOPPING
from io3ops_gateway.meter import Meter
from io3ops_gateway.provider_keys import ProviderKeys
from io3ops_gateway.replay import Outcome
from io3ops_gateway.running import Running

# Shorter than servers keep a connection that nobody uses: a request must not cross their close.
IDLE_SECONDS = 4.0
# Of an answer that begins with what is not understood: enough for an error.
STRANGE_BYTES, STRANGE_SECONDS = 1_000_000, 2.0
# After the last word: so long a server may take to end its answer, or the connection is not used again.
END_SECONDS = 0.5
# More than any model says; the container has not much more.
ANSWER_BYTES = 64_000_000
ROUTES = {"ollama_chat": ("ollama", "chat"), "ollama": ("ollama", "embeddings"), "openai": ("openai_compatible", "")}
# Of a rendered entry: what is not a part of the request.
SETTINGS = frozenset({"model", "api_base", "api_key", "order", "weight", "timeout", "stream_timeout", "max_retries"})
CODECS: dict[str, Callable[[Endpoint, Mapping[str, Any], Target, Reply], Call | None]] = {
    "ollama": codec_ollama.call,
    "openai_compatible": codec_openai.call,
}
JSON = (b"content-type", b"application/json")
# Proxies before us must not hold a stream back.
EVENTS = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"content-type", b"text/event-stream; charset=utf-8"),
]
GONE = codec_stream.error_event("the model's server ended in the middle of its answer", "upstream_cut", "server_error")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """A deployment that the lane may use, for one group. `timeout`: seconds between bytes; `first`: until a stream's. `proxy`: the way
    out, for a server outside the stack."""

    id: str
    name: str
    target: Target
    key: str
    timeout: float
    first: float
    proxy: str | None = None


def stops(policy: rules.Policy, entries: list[Mapping[str, Any]]) -> dict[str, Stop]:
    """By group: its first step, where that is one local deployment that a codec speaks to. `entries`: the file's model list."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        found.setdefault(entry["model_name"], []).append(entry)
    made = {}
    for group, members in found.items():
        lowest = min(m["litellm_params"].get("order", 1) for m in members)
        first = [m for m in members if m["litellm_params"].get("order", 1) == lowest]
        stop = _stop(policy, first[0]) if len(first) == 1 else None
        if stop:
            made[group] = stop
    return made


def _stop(policy: rules.Policy, entry: Mapping[str, Any]) -> Stop | None:
    params, found = entry["litellm_params"], entry["model_info"]["id"]
    place = policy.deployments[found]
    route, _, model = str(params["model"]).partition("/")
    if not place.local or route not in ROUTES or not params.get("api_base"):
        return None
    kind, task = ROUTES[route]
    task = task or {"embedding": "embeddings"}.get(entry["model_info"]["mode"], entry["model_info"]["mode"])
    rest = {name: value for name, value in params.items() if name not in SETTINGS}
    target = Target(kind=kind, task=task, url=params["api_base"], model=model, parameters=rest)
    times = {"timeout": float(params["timeout"]), "first": float(params["stream_timeout"])}
    return Stop(id=found, name=place.name, target=target, key=place.key, proxy=_proxy(target.url), **times)


def _proxy(url: str) -> str | None:
    """What the environment says, as LiteLLM's own clients read it; looked up once, not for each request."""
    parts = urlsplit(url)
    found = getproxies_environment().get(parts.scheme)
    return found if found and not proxy_bypass(parts.netloc) else None


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
            count=replay.count,
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
        elif _blames(running.status) and not running.overflowed:
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
        answer = _Answer(call, running, stop, send, more)
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
            failure = _failure(call.path, stop.name, error)
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
        if answer.cut or (isinstance(outcome, Outcome) and _blames(outcome.status)):
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


class _Answer:
    """The upstream's answer on its way to the client."""

    def __init__(self, call: Call, running: Running, stop: Stop, send: Send, more: Headers) -> None:
        self._call = call
        self._running = running
        self._stop = stop
        self._send = send
        self._more = more
        self.cut = False

    async def whole(self, got: aiohttp.ClientResponse) -> Outcome | None:
        """An answer in one piece; what it came to when that is of no use."""
        parts, size = [], 0
        while part := await self._next(got):
            parts.append(part)
            size += len(part)
            if size > ANSWER_BYTES:
                return _failure(self._call.path, self._stop.name, aiohttp.ClientPayloadError("the answer has no end"))
        data = b"".join(parts)
        body = self._call.answer(data) if got.status == 200 else None
        if body is None:
            return self._outcome(got, data)
        if refused := self._overlong():
            return replace(self._outcome(got, b""), status=400, overlong=refused)
        await self._begin([JSON, (b"content-length", str(len(body)).encode())])
        self._running.ended = True
        await self._send({"type": "http.response.body", "body": body})
        return None

    async def stream(self, got: aiohttp.ClientResponse) -> Outcome | None:
        """An answer in events, handed on as they come."""
        if got.status != 200:
            return self._outcome(got, await _rest(got, b""))
        seen = b""
        try:
            while not self._call.closed and (chunk := await self._next(got)):
                seen = b"" if self._running.begun else seen + chunk
                await self._pass(self._call.events(chunk), last=False)
                if self._call.failed:
                    self._running.seen.failed("cut", "upstream_error")
                    break
            if not self._call.failed:
                events = self._call.end()
                if refused := self._overlong():
                    self._running.seen.failed("error", refused.code)
                    events = [answers.error_event(refused, self._running.endpoint)]
                await self._pass(events, last=True)
                await _rest(got, b"", END_SECONDS)
        except Strange:
            if self._running.begun:
                await self.broken()
                return None
            return self._outcome(got, await _rest(got, seen))
        except Cut:
            if not self._running.begun:
                return self._outcome(got, seen)
            await self.broken()
            return None
        await self._finish()
        return None

    def _overlong(self) -> Refusal | None:
        """What to say in place of an answer to a part of the prompt, by a server that says how much it read."""
        allowed = self._running.truncation == "flag"
        return replay.cut(self._running, self._stop.name, self._call.body, self._call.facts.prompt, allowed)

    async def _next(self, got: aiohttp.ClientResponse) -> bytes:
        """What comes next. aiohttp's own clock stops at a malformed chunk; this one does not."""
        try:
            async with asyncio.timeout(self._stop.first if self._call.stream else self._stop.timeout):
                return bytes(await got.content.readany())
        except (aiohttp.ClientError, TimeoutError):
            if self._call.stream and self._call.finished:
                # All was said; how the connection ends says nothing.
                return b""
            raise

    async def _pass(self, events: list[bytes], *, last: bool) -> None:
        if not events:
            return
        if not self._running.begun:
            await self._begin(EVENTS)
        body = events[0] if len(events) == 1 else b"".join(events)
        self._running.ended = last
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    async def _finish(self) -> None:
        if not self._running.ended:
            self._running.ended = True
            await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self, headers: Headers) -> None:
        running = self._running
        running.attempts, running.deployment, running.local = 1, self._stop.name, True
        running.begun, running.status = True, 200
        running.seen.stream = self._call.stream
        running.budget.reschedule(None)
        kept = [*headers, *answers.facts(running, 200), *self._more]
        await self._send({"type": "http.response.start", "status": 200, "headers": kept})

    async def broken(self) -> None:
        """The server has gone in the middle: a stream says so, a whole answer had not begun."""
        self.cut = True
        self._running.seen.failed("cut", "upstream_cut")
        await self._event(GONE)

    async def tell(self) -> None:
        """The gateway ends."""
        self._running.seen.failed("stopping", STOPPING.code)
        await self._event(answers.error_event(STOPPING, self._running.endpoint))

    async def _event(self, event: bytes) -> None:
        if not self._running.ended:
            self._running.ended = True
            await self._send({"type": "http.response.body", "body": event})

    def _outcome(self, got: aiohttp.ClientResponse, body: bytes) -> Outcome:
        kind = got.headers.get("content-type", "application/json")
        return Outcome(url=self._call.path, deployment=self._stop.name, status=got.status, content_type=kind, body=body)


async def _rest(got: aiohttp.ClientResponse, seen: bytes, seconds: float = STRANGE_SECONDS) -> bytes:
    """What an answer goes on with that is not understood, or over; as far as it comes soon."""
    try:
        async with asyncio.timeout(seconds):
            while len(seen) < STRANGE_BYTES and (part := await got.content.readany()):
                seen += part
    except (TimeoutError, aiohttp.ClientError):
        pass
    return seen


def _blames(status: int) -> bool:
    """Whether an answer's status speaks against the server, and not against this one request."""
    return status < 400 or status >= 500 or status in (401, 403, 404, 408, 429)


def _tokens(call: Call) -> int:
    """What a request took of its limits: also one that was cut, and one whose server does not count."""
    prompt, completion = call.facts.prompt, call.facts.completion
    if prompt is None:
        prompt, completion = call.counted()
    return prompt + (completion or 0)


def _failure(url: str, deployment: str, error: Exception) -> Outcome:
    """A failed attempt in httpx's words, which are LiteLLM's."""
    kinds: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
        (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
        (TimeoutError, httpx.ReadTimeout),
        (aiohttp.ClientConnectorError, httpx.ConnectError),
        (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    )
    kind = next((theirs for ours, theirs in kinds if isinstance(error, ours)), httpx.ReadError)
    return Outcome(url=url, deployment=deployment, error=kind, reason=str(error) or type(error).__name__)


def _new_id(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4()}"


def _count_prompt(body: Mapping[str, Any]) -> int:
    """Tokens of what was asked, in the same way."""
    if "messages" in body:
        return int(sys.modules["litellm"].token_counter(model="", messages=body["messages"]))
    given = body.get("prompt") or ""
    return replay.count(given if isinstance(given, str) else "".join(given))
