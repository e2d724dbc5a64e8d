"""The gateway's ASGI app: decides everything about a request before LiteLLM or a model's server sees a byte of it.

It authenticates the client, finds the mode and the data class, and hands on a rewritten request: known fields, known headers, and a
key that only this process knows. Every request also ends here, whether it succeeds, fails or its client disconnects. Touches only
the requests it is handed.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from io3ops_gateway.asgi import App, Message, Receive, Send
from io3ops_gateway.edge import request_checks
from io3ops_gateway.edge.admit import Admitter
from io3ops_gateway.edge.authenticate import Authenticator
from io3ops_gateway.edge.backend import Backend
from io3ops_gateway.edge.exchange import Exchange
from io3ops_gateway.edge.model_list import PATHS as MODEL_PATHS
from io3ops_gateway.edge.model_list import ModelList
from io3ops_gateway.edge.request_checks import RequestChecks
from io3ops_gateway.errors import Refusal
from io3ops_gateway.limits.limits import Limits
from io3ops_gateway.policy import endpoints
from io3ops_gateway.policy.policy import Policy
from io3ops_gateway.request import error_responses
from io3ops_gateway.request.context import RequestContext
from io3ops_gateway.request.disconnect import watch_disconnect
from io3ops_gateway.request.error_responses import STOPPING
from io3ops_gateway.request.record import clock, new_record
from io3ops_gateway.request.response_writer import send_json
from io3ops_gateway.request_log.recorder import RequestRecorder
from io3ops_shared import digests
from io3ops_shared.policy import ModePolicy
from io3ops_shared.request_log.schema import Outcome

# Health checks need no key here. None of them calls a model.
HEALTH = ("/health", "/health/liveliness", "/health/liveness", "/health/readiness")
# OpenTelemetry's names of operations, where they differ from the endpoint's.
OPERATIONS = {"completions": "text_completion", "responses": "chat", "messages": "chat"}
# The log's outcome of refusals that are not the client's fault.
OUTCOMES = {"out_of_time": Outcome.TIMEOUT, "stopping": Outcome.STOPPING, "cut": Outcome.CLIENT_LEFT}
OUT_OF_TIME = Refusal(504, "out_of_time", "the mode's total time ran out before the response began")


class Edge:
    """Serves every request of a worker, by one `policy`. `config`: the digest of the configuration behind it."""

    def __init__(
        self,
        policy: Policy,
        backend: Backend,
        authenticator: Authenticator,
        limits: Limits,
        recorder: RequestRecorder,
        *,
        config: str = "",
    ) -> None:
        self.policy = policy
        self._backend = backend
        self._authenticator = authenticator
        self._limits = limits
        self._recorder = recorder
        self._checks = RequestChecks(policy.gateway)
        self._admitter = Admitter(policy, limits.rate_limiter)
        self._paths = endpoints.paths({mode.task for mode in policy.modes.values()})
        self._models = ModelList(policy.modes, config)
        self._listed = sorted({path for path in self._paths if path.startswith("/v1/")} | {MODEL_PATHS[0]})
        self._active: set[RequestContext] = set()

    @property
    def longest(self) -> float:
        """The longest total time of any mode, in seconds."""
        return max(mode.total for mode in self.policy.modes.values())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # No mode is served over a websocket, and the policy's hooks would not see it.
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._backend.app(scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def owned(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request of this process itself, with the owner's key. It does not count towards the clients' limits."""
        await self(self._authenticator.as_owner(scope), receive, send)

    def warm_up(self, mode: ModePolicy, answer: object) -> App:
        """Return LiteLLM's app for one warm-up request of `mode`, which LiteLLM answers with `answer` in place of a model's."""
        return self._backend.full_path.warm_up(mode, answer)

    def warm_provider(self, mode: ModePolicy, model: str, *, may_leave: bool) -> App:
        """Return LiteLLM's app for one warm-up request that the provider's HTTP client does not send; `model`: a group or a deployment."""
        return self._backend.full_path.warm_provider(mode, model, may_leave=may_leave)

    def end(self) -> None:
        """Stop serving: tell every client that still waits, and end every request that still runs."""
        self._recorder.flush()
        for context in list(self._active):
            context.stopping = True
            if not context.budget.expired():
                context.budget.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """Write the remaining lines of the request log. Called when the process ends, after the last request."""
        self._recorder.close()

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        record = new_record(scope["headers"])
        exchange = Exchange(scope, receive, record.sent(send), record)
        try:
            await self._answer(exchange)
        except BaseException as error:
            # An unexpected error, or the process ends. Without an outcome the log would show a success.
            stopped = isinstance(error, asyncio.CancelledError)
            outcome = Outcome.STOPPING if stopped else Outcome.CUT if record.status else Outcome.ERROR
            record.failed(outcome, type(error).__name__)
            raise
        finally:
            record.timing.ended = clock()
            self._recorder.ended(record)

    async def _answer(self, exchange: Exchange) -> None:
        """Serve the request, or send its refusal."""
        try:
            await self._exchange(exchange)
        except Refusal as refused:
            exchange.record.failed(OUTCOMES.get(refused.code, Outcome.REFUSED), refused.code)
            await error_responses.refuse(exchange.send, refused, exchange.endpoint, exchange.extra)

    async def _exchange(self, exchange: Exchange) -> None:
        """Check the request, answer it when it needs no model, else have a backend serve it."""
        record = exchange.record
        exchange.extra = self._checks.before_authentication(exchange.headers)
        method, path = exchange.method, exchange.path
        if method == "OPTIONS" and exchange.extra and (path in self._paths or path in MODEL_PATHS):
            record.path = None
            return await send_json(exchange.send, 204, None, exchange.extra)
        if method in ("GET", "HEAD") and path in HEALTH:
            record.path = None
            return await send_json(exchange.send, 200, {"status": "healthy"}, exchange.extra)
        endpoint = exchange.endpoint = self._paths.get(path) if method == "POST" else None
        record.decision.operation = OPERATIONS.get(endpoint.name, endpoint.name) if endpoint else ""
        if endpoint is None and not (method == "GET" and self._models.serves(path)):
            raise Refusal(404, "not_found", f"not found; supported endpoints: {', '.join(self._listed)}")
        key = exchange.key = self._authenticator.authenticate(exchange.headers)
        record.caller.key, record.caller.key_id = key.name, digests.key_id(key.digest)
        if endpoint is None:
            listed, headers = self._models.answer(key, path)
            record.path = None
            return await send_json(exchange.send, 200, listed, [*headers, *exchange.extra])
        with self._checks.body_budget.reserved(record) as reserve:
            body = await request_checks.read_body(
                exchange.headers, exchange.receive, self.policy.gateway.max_body, reserve
            )
            record.timing.body = clock()
            await self._admitted(exchange, body)

    async def _admitted(self, exchange: Exchange, body: dict[str, Any]) -> None:
        """Admit the request and serve it within its mode's total time."""
        context = None
        try:
            async with asyncio.timeout(None) as budget:
                context, handed = self._admitter.admit(exchange, body, budget)
                self._recorder.admitted(exchange.record, self.policy.modes[context.admitted.mode], handed)
                self._active.add(context)
                try:
                    with watch_disconnect(context, exchange.scope, exchange.receive):
                        await self._in_turn(exchange.scope, context, handed)
                finally:
                    self._active.discard(context)
                    self._limits.rate_limiter.leave(*context.slots)
                    context.record.truncated = context.routing.truncated
                    context.record.override = bool(context.routing.audited)
        except TimeoutError:
            self._out_of_time(context)

    async def _in_turn(self, scope: Message, context: RequestContext, body: Mapping[str, Any]) -> None:
        """Wait for one of the worker's places, then serve the request."""
        record, timing, began = context.record, context.record.timing, clock()
        try:
            async with self._limits.admission:
                timing.queued = clock() - began
                await self._backend.serve(scope, context, body)
        finally:
            timing.queued = timing.queued or clock() - began
            if context.disconnected.is_set() and not context.response.ended:
                record.failed(Outcome.CLIENT_LEFT, "")

    def _out_of_time(self, context: RequestContext | None) -> None:
        """End a request whose budget is used up."""
        if context is None or not context.response.begun:
            raise STOPPING if context and context.stopping else OUT_OF_TIME from None
        if not context.response.ended and not context.disconnected.is_set():
            # The response has begun, so it can only be cut; an exception makes the server do that.
            context.record.failed(Outcome.STOPPING if context.stopping else Outcome.CUT, "cut")
            raise RuntimeError("the response was cut") from None
