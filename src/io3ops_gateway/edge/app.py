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
from io3ops_gateway.edge.admit import Admitter
from io3ops_gateway.errors import Refusal
from io3ops_gateway.limits.admission import Admission
from io3ops_gateway.limits.counters import WorkerCounters
from io3ops_gateway.limits.rate_limits import RateLimiter
from io3ops_gateway.litellm_proxy.app import FullPath
from io3ops_gateway.policy import endpoints
from io3ops_gateway.policy import policy as rules
from io3ops_gateway.policy.client_keys import OWNER, ClientKey, KeyRing
from io3ops_gateway.policy.data_classes import INTERNAL, PROBE
from io3ops_gateway.policy.endpoints import Endpoint
from io3ops_gateway.request import responses
from io3ops_gateway.request.context import CURRENT, RequestContext
from io3ops_gateway.request.disconnect import DisconnectWatcher
from io3ops_gateway.request.record import LEFT, RequestRecord, clock, new_record
from io3ops_gateway.request.responses import STOPPING
from io3ops_gateway.request_log.recorder import RequestRecorder

if TYPE_CHECKING:
    from io3ops_gateway.fast_lane.lane import Lane

# What a health check may ask without a key. None of them calls a model.
HEALTH = ("/health", "/health/liveliness", "/health/liveness", "/health/readiness")
MODELS = ("/v1/models", "/models")
# In OpenTelemetry's words; the other endpoints have their own name.
OPERATIONS = {"completions": "text_completion", "responses": "chat", "messages": "chat"}
# What came of a request that the edge itself ended.
OUTCOMES = {"out_of_time": "timeout", "stopping": "stopping", "cut": LEFT}
WARMUP_SECONDS = 50.0
OUT_OF_TIME = Refusal(504, "out_of_time", "the mode's total time is used up")


class Edge:
    """Wraps LiteLLM's app. `inner_key`, `hide`, `why`: see `FullPath`. `owner_key`: for requests that this process sends itself;
    `config`: the digest of what it serves, told to the owner; `lane`: None, there is no fast one."""

    def __init__(
        self,
        app: App,
        policy: rules.Policy,
        ring: KeyRing,
        limiter: RateLimiter,
        inner_key: str,
        hide: Callable[[bytes], bytes] = bytes,
        why: Callable[[str], str] = str,
        *,
        owner_key: str = "",
        config: str = "",
        lane: "Lane | None" = None,
        recorder: RequestRecorder | None = None,
        counters: WorkerCounters | None = None,
    ) -> None:
        self.policy = policy
        self._app = app
        self._full = FullPath(app, inner_key, hide, why)
        self._ring = ring
        self._limiter = limiter
        self._admitter = Admitter(policy, limiter)
        self._owned = [(b"authorization", f"Bearer {owner_key}".encode()), (PROBE, b"start")]
        self._config = config
        self._lane = lane
        self._recorder = recorder
        self._admission = Admission(
            policy.gateway.parallel, policy.gateway.queue, policy.gateway.queue_timeout, counters=counters
        )
        self._paths = endpoints.paths({mode.task for mode in policy.modes.values()})
        self._hosts = request_checks.HOSTS | set(policy.gateway.hosts)
        self._origins = frozenset(policy.gateway.origins)
        self._started = int(time.time())
        self._budget = request_checks.BodyBudget(max(request_checks.BUDGET_BYTES, policy.gateway.max_body))
        self._active: set[RequestContext] = set()

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
            record = new_record(scope["headers"])
            try:
                await self._request(scope, receive, record.sent(send), record)
            except BaseException as error:
                # Nobody foresaw it, or the process ends: without a word the line would say that all went well.
                stopped = isinstance(error, asyncio.CancelledError)
                record.failed("stopping" if stopped else "cut" if record.status else "error", type(error).__name__)
                raise
            finally:
                record.ended = clock()
                if self._recorder is not None:
                    self._recorder.ended(record)

    async def owned(self, scope: Message, receive: Receive, send: Send) -> None:
        """The same for a request of this process itself: it has the owner's key, and takes nothing of what clients may use."""
        await self({**scope, "headers": [*scope["headers"], *self._owned]}, receive, send)

    def warm_up(self, mode: rules.ModePolicy, answer: object) -> App:
        """LiteLLM's app, for a request that no client could send: the body goes to it as it is, and `answer` comes in place of a model's."""

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            # No client waits: a mode may be meant for quicker machines than this one is while it starts.
            async with asyncio.timeout(max(mode.total, WARMUP_SECONDS)) as budget:
                context = RequestContext(
                    budget=budget,
                    key=OWNER,
                    slots=(),
                    mode=mode.name,
                    asked=mode.groups[INTERNAL],
                    group=mode.groups[INTERNAL],
                    data_class=INTERNAL,
                    source="default",
                    leaves=False,
                    warmup=answer,
                )
                token = CURRENT.set(context)
                try:
                    given = await receive()
                    whole = [given]

                    async def once() -> Message:
                        return whole.pop() if whole else await receive()

                    await self._app(self._full.inner(scope, given["body"]), once, send)
                finally:
                    CURRENT.reset(token)

        return app

    def end(self) -> None:
        """There is no time left: whoever still waits is told, and what still runs is ended."""
        if self._recorder is not None:
            self._recorder.flush()
        for context in list(self._active):
            context.stopping = True
            if not context.budget.expired():
                context.budget.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """The process ends, and nothing runs any more: what the log still waits with is written."""
        if self._recorder is not None:
            self._recorder.close()

    async def _request(self, scope: Message, receive: Receive, send: Send, record: RequestRecord) -> None:
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
                record.path = ""
                return await responses.answer(send, 204, None, more)
            if method in ("GET", "HEAD") and exact and path in HEALTH:
                record.path = ""
                return await responses.answer(send, 200, {"status": "healthy"}, more)
            endpoint = self._paths.get(path) if method == "POST" and exact else None
            record.operation = OPERATIONS.get(endpoint.name, endpoint.name) if endpoint else ""
            listing = method == "GET" and exact and (path in MODELS or path.startswith(("/v1/models/", "/models/")))
            if endpoint is None and not listing:
                raise Refusal(404, "not_found", "the gateway serves nothing here")
            key = self._ring.find(_keys(headers))
            if key is None:
                # LiteLLM without a database answers this with "No connected db" or a bare 500.
                raise Refusal(401, "invalid_api_key", "the key is missing or not this gateway's")
            record.key, record.key_id = key.name, key.digest[:8]
            if endpoint is None:
                listed = self._models(key, path)
                record.path = ""
                told = [(b"x-io3-config", self._config.encode())] if key.name == OWNER else []
                return await responses.answer(send, 200, listed, [*told, *more])
            await self._bodied(scope, receive, send, endpoint, key, more, record)
        except Refusal as refused:
            record.failed(OUTCOMES.get(refused.code, "refused"), refused.code)
            await responses.refuse(send, refused, endpoint, more)

    async def _bodied(
        self,
        scope: Message,
        receive: Receive,
        send: Send,
        endpoint: Endpoint,
        key: ClientKey,
        more: Headers,
        record: RequestRecord,
    ) -> None:
        size = 0

        def take(count: int) -> None:
            nonlocal size
            self._budget.take(count)
            size += count
            record.bytes_in = size

        try:
            body = await request_checks.read_body(scope["headers"], receive, self.policy.gateway.max_body, take)
            record.body = clock()
            await self._admitted(scope, receive, send, endpoint, body, key, more, record)
        finally:
            self._budget.give_back(size)

    async def _admitted(
        self,
        scope: Message,
        receive: Receive,
        send: Send,
        endpoint: Endpoint,
        body: dict[str, Any],
        key: ClientKey,
        more: Headers,
        record: RequestRecord,
    ) -> None:
        context = None
        try:
            async with asyncio.timeout(None) as budget:
                context, handed = self._admitter.admit(
                    scope["headers"], endpoint, body, key, budget, record, scope.get("query_string", b"")
                )
                if self._recorder is not None:
                    self._recorder.admitted(record, self.policy.modes[context.mode], handed)
                watcher = DisconnectWatcher(context)
                self._active.add(context)
                try:
                    with watcher.watched(scope, receive):
                        begun = clock()
                        try:
                            async with self._admission:
                                record.queued = clock() - begun
                                await self._serve(scope, send, context, watcher, handed, more)
                        finally:
                            record.queued = record.queued or clock() - begun
                            if watcher.gone.is_set() and not context.ended:
                                record.failed(LEFT, "")
                finally:
                    record.truncated, record.override = context.truncated, bool(context.audited)
                    self._active.discard(context)
                    self._limiter.leave(*context.slots)
        except TimeoutError:
            if context is None or not context.begun:
                raise STOPPING if context and context.stopping else OUT_OF_TIME from None
            if not context.ended and not watcher.gone.is_set():
                # It can only be cut, and the server does that.
                record.failed("stopping" if context.stopping else "cut", "cut")
                raise RuntimeError("an answer ended in the middle") from None

    async def _serve(
        self,
        scope: Message,
        send: Send,
        context: RequestContext,
        watcher: DisconnectWatcher,
        body: dict[str, Any],
        more: Headers,
    ) -> None:
        found = self._lane.call(context.endpoint, body, context) if self._lane else None
        if found and self._lane and await self._lane.serve(*found, context, watcher, send, more):
            return
        await self._full(scope, send, context, watcher, body, more)
        if self._lane:
            self._lane.served(context)

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
