"""The gateway's own door, around LiteLLM's app: who calls, what for, of which data class; everything else does not exist.

An ASGI wrapper that touches only the requests it is handed. It decides everything before LiteLLM sees a byte, and hands on a request
that it wrote itself: known fields, known headers, a key that only this process knows. Only here is every end of a request
seen: answered, failed, streamed to the end, or left by the client.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from io3ops_gateway.asgi import App, Headers, Message, Receive, Send
from io3ops_gateway.edge import request_checks
from io3ops_gateway.edge.admit import Decisions
from io3ops_gateway.errors import Refusal
from io3ops_gateway.limits.admission import Admission
from io3ops_gateway.limits.counters import Column
from io3ops_gateway.limits.rate_limits import Meter
from io3ops_gateway.litellm_proxy.app import FullPath
from io3ops_gateway.policy import endpoints
from io3ops_gateway.policy import policy as rules
from io3ops_gateway.policy.client_keys import OWNER, ClientKey, KeyRing
from io3ops_gateway.policy.data_classes import INTERNAL, PROBE
from io3ops_gateway.policy.endpoints import Endpoint
from io3ops_gateway.request import responses
from io3ops_gateway.request.context import RUNNING, Running
from io3ops_gateway.request.disconnect import Client
from io3ops_gateway.request.record import LEFT, Seen, begin, clock
from io3ops_gateway.request.responses import STOPPING
from io3ops_gateway.request_log.recorder import Journal

if TYPE_CHECKING:
    from io3ops_gateway.fast_lane.lane import Lane

# What a health check may ask without a key. None of them calls a model.
HEALTH = ("/health", "/health/liveliness", "/health/liveness", "/health/readiness")
MODELS = ("/v1/models", "/models")
# In OpenTelemetry's words; the other endpoints have their own name.
OPERATIONS = {"completions": "text_completion", "responses": "chat", "messages": "chat"}
# What came of a request that the edge itself ended.
OUTCOMES = {"out_of_time": "timeout", "stopping": "stopping", "cut": LEFT}
REHEARSAL_SECONDS = 50.0
OUT_OF_TIME = Refusal(504, "out_of_time", "the mode's total time is used up")


class Edge:
    """Wraps LiteLLM's app. `inner_key`, `hide`, `why`: see `FullPath`. `owner_key`: for requests that this process sends itself;
    `config`: the digest of what it serves, told to the owner; `lane`: None, there is no fast one."""

    def __init__(
        self,
        app: App,
        policy: rules.Policy,
        ring: KeyRing,
        meter: Meter,
        inner_key: str,
        hide: Callable[[bytes], bytes] = bytes,
        why: Callable[[str], str] = str,
        *,
        owner_key: str = "",
        config: str = "",
        lane: "Lane | None" = None,
        journal: Journal | None = None,
        gauge: Column | None = None,
    ) -> None:
        self.policy = policy
        self._app = app
        self._full = FullPath(app, inner_key, hide, why)
        self._ring = ring
        self._meter = meter
        self._decisions = Decisions(policy, meter)
        self._owned = [(b"authorization", f"Bearer {owner_key}".encode()), (PROBE, b"start")]
        self._config = config
        self._lane = lane
        self._journal = journal
        self._admission = Admission(policy.door.parallel, policy.door.queue, policy.door.queue_timeout, gauge=gauge)
        self._paths = endpoints.paths({mode.task for mode in policy.modes.values()})
        self._hosts = request_checks.HOSTS | set(policy.door.hosts)
        self._origins = frozenset(policy.door.origins)
        self._started = int(time.time())
        self._held = request_checks.Held(max(request_checks.HELD_BYTES, policy.door.max_body))
        self._running: set[Running] = set()

    @property
    def longest(self) -> float:
        """Seconds that a request may take in any mode."""
        return max(mode.total for mode in self.policy.modes.values())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # Nothing in the table is served this way, and the policy's hooks would not see it.
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            seen = begin(scope["headers"])
            try:
                await self._request(scope, receive, seen.sent(send), seen)
            except BaseException as error:
                # Nobody foresaw it, or the process ends: without a word the line would say that all went well.
                stopped = isinstance(error, asyncio.CancelledError)
                seen.failed("stopping" if stopped else "cut" if seen.status else "error", type(error).__name__)
                raise
            finally:
                seen.ended = clock()
                if self._journal is not None:
                    self._journal.ended(seen)

    async def owned(self, scope: Message, receive: Receive, send: Send) -> None:
        """The same for a request of this process itself: it has the owner's key, and takes nothing of what clients may use."""
        await self({**scope, "headers": [*scope["headers"], *self._owned]}, receive, send)

    def rehearse(self, mode: rules.ModePolicy, answer: object) -> App:
        """LiteLLM's app, for a request that no client could send: the body goes to it as it is, and `answer` comes in place of a model's."""

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            # No client waits: a mode may be meant for quicker machines than this one is while it starts.
            async with asyncio.timeout(max(mode.total, REHEARSAL_SECONDS)) as budget:
                running = Running(
                    budget=budget,
                    key=OWNER,
                    slots=(),
                    mode=mode.name,
                    asked=mode.groups[INTERNAL],
                    group=mode.groups[INTERNAL],
                    data_class=INTERNAL,
                    source="default",
                    leaves=False,
                    rehearsal=answer,
                )
                token = RUNNING.set(running)
                try:
                    given = await receive()
                    whole = [given]

                    async def once() -> Message:
                        return whole.pop() if whole else await receive()

                    await self._app(self._full.inner(scope, given["body"]), once, send)
                finally:
                    RUNNING.reset(token)

        return app

    def end(self) -> None:
        """There is no time left: whoever still waits is told, and what still runs is ended."""
        if self._journal is not None:
            self._journal.flush()
        for running in list(self._running):
            running.stopping = True
            if not running.budget.expired():
                running.budget.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """The process ends, and nothing runs any more: what the log still waits with is written."""
        if self._journal is not None:
            self._journal.close()

    async def _request(self, scope: Message, receive: Receive, send: Send, seen: Seen) -> None:
        headers: Headers = scope["headers"]
        path = scope["path"]
        more: Headers = []
        endpoint = None
        try:
            request_checks.check_host(headers, self._hosts)
            more = request_checks.cross_origin(headers, self._origins)
            method = scope["method"]
            # As the client wrote it: what has to be decoded or tidied up first is not one of these few names.
            exact = scope.get("raw_path", path.encode()) == path.encode()
            if method == "OPTIONS" and exact and more and (path in self._paths or path in MODELS):
                seen.path = ""
                return await responses.answer(send, 204, None, more)
            if method in ("GET", "HEAD") and exact and path in HEALTH:
                seen.path = ""
                return await responses.answer(send, 200, {"status": "healthy"}, more)
            endpoint = self._paths.get(path) if method == "POST" and exact else None
            seen.operation = OPERATIONS.get(endpoint.name, endpoint.name) if endpoint else ""
            listing = method == "GET" and exact and (path in MODELS or path.startswith(("/v1/models/", "/models/")))
            if endpoint is None and not listing:
                raise Refusal(404, "not_found", "the gateway serves nothing here")
            key = self._ring.find(_keys(headers))
            if key is None:
                # LiteLLM without a database answers this with "No connected db" or a bare 500.
                raise Refusal(401, "invalid_api_key", "the key is missing or not this gateway's")
            seen.key, seen.key_id = key.name, key.digest[:8]
            if endpoint is None:
                listed = self._models(key, path)
                seen.path = ""
                told = [(b"x-io3-config", self._config.encode())] if key.name == OWNER else []
                return await responses.answer(send, 200, listed, [*told, *more])
            await self._bodied(scope, receive, send, endpoint, key, more, seen)
        except Refusal as refused:
            seen.failed(OUTCOMES.get(refused.code, "refused"), refused.code)
            await responses.refuse(send, refused, endpoint, more)

    async def _bodied(
        self,
        scope: Message,
        receive: Receive,
        send: Send,
        endpoint: Endpoint,
        key: ClientKey,
        more: Headers,
        seen: Seen,
    ) -> None:
        size = 0

        def take(count: int) -> None:
            nonlocal size
            self._held.take(count)
            size += count
            seen.bytes_in = size

        try:
            body = await request_checks.read_body(scope["headers"], receive, self.policy.door.max_body, take)
            seen.body = clock()
            await self._admitted(scope, receive, send, endpoint, body, key, more, seen)
        finally:
            self._held.give_back(size)

    async def _admitted(
        self,
        scope: Message,
        receive: Receive,
        send: Send,
        endpoint: Endpoint,
        body: dict[str, Any],
        key: ClientKey,
        more: Headers,
        seen: Seen,
    ) -> None:
        running = None
        try:
            async with asyncio.timeout(None) as budget:
                running, handed = self._decisions.running(
                    scope["headers"], endpoint, body, key, budget, seen, scope.get("query_string", b"")
                )
                if self._journal is not None:
                    self._journal.admitted(seen, self.policy.modes[running.mode], handed)
                client = Client(running)
                self._running.add(running)
                try:
                    with client.watched(scope, receive):
                        begun = clock()
                        try:
                            async with self._admission:
                                seen.queued = clock() - begun
                                await self._serve(scope, send, running, client, handed, more)
                        finally:
                            seen.queued = seen.queued or clock() - begun
                            if client.gone.is_set() and not running.ended:
                                seen.failed(LEFT, "")
                finally:
                    seen.truncated, seen.override = running.truncated, bool(running.audited)
                    self._running.discard(running)
                    self._meter.leave(*running.slots)
        except TimeoutError:
            if running is None or not running.begun:
                raise STOPPING if running and running.stopping else OUT_OF_TIME from None
            if not running.ended and not client.gone.is_set():
                # It can only be cut, and the server does that.
                seen.failed("stopping" if running.stopping else "cut", "cut")
                raise RuntimeError("an answer ended in the middle") from None

    async def _serve(
        self, scope: Message, send: Send, running: Running, client: Client, body: dict[str, Any], more: Headers
    ) -> None:
        found = self._lane.call(running.endpoint, body, running) if self._lane else None
        if found and self._lane and await self._lane.serve(*found, running, client, send, more):
            return
        await self._full(scope, send, running, client, body, more)
        if self._lane:
            self._lane.served(running)

    def _models(self, key: ClientKey, path: str) -> dict[str, Any]:
        names = [name for name in self.policy.modes if key.modes is None or name in key.modes]
        listed = [{"id": n, "object": "model", "created": self._started, "owned_by": "io3ops"} for n in names]
        if path in MODELS:
            return {"object": "list", "data": listed}
        wanted = path.split("/models/", 1)[1]
        for entry in listed:
            if entry["id"] == wanted:
                return entry
        raise Refusal(404, "model_not_found", f"there is no mode {wanted[:80]!r}; GET /v1/models lists them")


def _keys(headers: Headers) -> Iterable[bytes]:
    """What stands in the headers in which clients send keys."""
    for name, value in headers:
        if name == b"authorization":
            yield value[7:] if value[:7].lower() == b"bearer " else b""
        elif name in (b"x-api-key", b"api-key"):
            yield value
