"""The full path: serve a request through LiteLLM's own app, with its router, retries and fallbacks.

Calls the ASGI app in this process and rewrites its response: the gateway's headers, errors in the endpoint's shape, no provider's key.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from io3ops_gateway.asgi import App, Headers, Message, Receive, Send
from io3ops_gateway.errors import Refusal
from io3ops_gateway.litellm_proxy.sse_events import EndlessEventError, EventSplitter
from io3ops_gateway.policy import context_window
from io3ops_gateway.policy.embedding_formats import formatted
from io3ops_gateway.policy.endpoints import CHAT, EMBEDDINGS
from io3ops_gateway.request import error_responses
from io3ops_gateway.request.context import CURRENT, AdmittedRequest, RequestContext
from io3ops_gateway.request.error_responses import STOPPING
from io3ops_gateway.request.record import new_record
from io3ops_gateway.request.response_headers import x_io3_headers
from io3ops_gateway.request.response_writer import ResponseWriter
from io3ops_shared.names import INTERNAL, OWNER, PUBLIC
from io3ops_shared.policy import ModePolicy
from io3ops_shared.request_log.schema import Outcome, RequestPath

# Request headers for LiteLLM. Every other header, known or yet to be invented, ends here.
PASSED = frozenset({b"accept", b"anthropic-version", b"anthropic-beta"})
# Response headers for the client. The others that LiteLLM and providers send name addresses, costs and accounts.
ANSWERED = frozenset({b"content-type", b"content-length", b"retry-after", b"cache-control", b"x-accel-buffering"})
# The first bytes of an error event.
FAILED = (b'data: {"error"', b"event: error", b"event: response.failed")
# The first bytes of a stream's last event. A stream whose prompt was cut must not end with it.
ENDED = (b"data: [DONE]", b"event: message_stop", b"event: response.completed", b"event: response.incomplete")
# The error of a stream that is cut because its event does not end.
ENDLESS = Refusal(502, "upstream_cut", "the model's server sent an endless event")
# LiteLLM's name, in its errors, for a prompt that does not fit the model's window.
OVERLONG = b"ContextWindowExceededError"
# A warm-up request may take at least this long.
WARMUP_SECONDS = 50.0


class FullPath:
    """Serves admitted requests through LiteLLM.

    `inner_key`: LiteLLM's master key, made at the start and known only to this process. `hide`: removes the providers' keys from a
    response. `why`: says why no deployment of a group could be tried.
    """

    def __init__(self, app: App, inner_key: str, hide: Callable[[bytes], bytes], why: Callable[[str], str]) -> None:
        self._app = app
        self._hide = hide
        self._why = why
        self._authorization = (b"authorization", f"Bearer {inner_key}".encode())

    def inner(self, scope: Message, body: bytes) -> Message:
        """Return the scope of LiteLLM's request: known headers, and a key that only this process knows."""
        passed = [(name, value) for name, value in scope["headers"] if name in PASSED]
        length = (b"content-length", str(len(body)).encode())
        own = [(b"content-type", b"application/json"), length, (b"host", b"localhost"), self._authorization]
        return {**scope, "headers": [*passed, *own], "query_string": b""}

    async def __call__(self, scope: Message, context: RequestContext, fields: Mapping[str, Any]) -> None:
        """Serve one admitted request. `fields`: its body, as the edge hands it on.

        Raises:
            Refusal: 400, the body is nested too deeply.
            TimeoutError: the request's budget ended.
        """
        body = _json(fields)
        response = _Response(self, context, fields.get("encoding_format"))
        context.record.path = RequestPath.FULL
        try:
            await self._call(scope, context, body, response.send)
            if context.budget.expired() and not context.response.ended:
                # LiteLLM took the end of its time for a failure of its own.
                raise TimeoutError
        except EndlessEventError:
            # The client has been told; the exception only ends LiteLLM's call.
            return
        except (asyncio.CancelledError, TimeoutError):
            if context.response.begun and context.stopping and not context.disconnected.is_set():
                await response.end_early()
            raise

    def warm_up(self, mode: ModePolicy, answer: object) -> App:
        """Return LiteLLM's app for one warm-up request of `mode`: the body goes in as it is, and LiteLLM answers with `answer`.

        No client can send such a request.
        """
        return self._warmup(mode, mode.groups[INTERNAL], may_leave=False, warmup=answer)

    def warm_provider(self, mode: ModePolicy, model: str, *, may_leave: bool) -> App:
        """Return LiteLLM's app for one warm-up request that goes as far as the provider's HTTP client, and no further.

        `model`: the router's name for a group, or the id of one deployment, which no client can ask for.
        """
        return self._warmup(mode, model, may_leave=may_leave, unsent=True)

    def _warmup(self, mode: ModePolicy, model: str, *, may_leave: bool, **kind: Any) -> App:
        async def app(scope: Message, receive: Receive, send: Send) -> None:
            admitted = AdmittedRequest(
                endpoint=CHAT,
                key=OWNER,
                mode=mode.name,
                requested_model=model,
                group=model,
                data_class=PUBLIC if may_leave else INTERNAL,
                data_class_from="default",
                may_leave=may_leave,
            )
            # No client waits, and a mode's own time may be meant for a quicker machine than this one is while it starts.
            async with asyncio.timeout(max(mode.total, WARMUP_SECONDS)) as budget:
                record = new_record(scope["headers"])
                context = RequestContext(admitted, budget, ResponseWriter(send, []), record, **kind)
                await self._call(scope, context, (await receive())["body"], send)

        return app

    async def _call(self, scope: Message, context: RequestContext, body: bytes, send: Send) -> None:
        """Call LiteLLM's app, with `context` as the current request."""
        token = CURRENT.set(context)
        try:
            await self._app(self.inner(scope, body), _Request(body, context.disconnected).receive, send)
        finally:
            CURRENT.reset(token)

    def revised(self, context: RequestContext, status: int, body: bytes, vectors: object) -> tuple[int, bytes]:
        """Return (status, body) of a whole response as the client gets it. `vectors`: the requested format of embeddings."""
        if status >= 400 or context.admitted.may_leave:
            # In a local model's text, a string that looks like a key is the user's own.
            body = self._hide(body)
        if status >= 400:
            return self._error(context, status, error_responses.tidy(body))
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError:
            return status, body
        if isinstance(payload, dict):
            if "model" in payload:
                # After a fallback LiteLLM names the provider's model; applications know only modes.
                payload["model"] = context.admitted.requested_model
            if context.admitted.endpoint is EMBEDDINGS and isinstance(payload.get("data"), list):
                payload["data"] = formatted(payload["data"], vectors) or payload["data"]
        return status, orjson.dumps(payload)

    def _error(self, context: RequestContext, status: int, body: bytes) -> tuple[int, bytes]:
        """Return (status, body) of LiteLLM's error as the client gets it: two kinds are replaced by errors of ours."""
        record, admitted, routing = context.record, context.admitted, context.routing
        record.failed(Outcome.ERROR, error_responses.kind(body, status))
        if status == 429 and not routing.attempts:
            # LiteLLM answers 429 when no deployment is available, and clients would retry in a loop.
            record.error = "no_model"
            message = f"no model of mode {admitted.mode} can be tried now: {self._why(admitted.group)}"
            return 503, orjson.dumps(error_responses.error_body(Refusal(503, "no_model", message)))
        if status == 400 and OVERLONG in body:
            # One message for all providers, which quotes nothing of the prompt.
            record.error = context_window.CODE
            refused = routing.overlong or context_window.refusal("", 0, 0)
            return status, orjson.dumps(error_responses.error_body_for(refused, admitted.endpoint))
        return status, body

    def event(self, context: RequestContext, event: bytes) -> bytes:
        """Return one event of a stream as the client gets it."""
        if context.routing.overlong and event.startswith(ENDED):
            refused, context.routing.overlong = context.routing.overlong, None
            context.record.failed(Outcome.ERROR, refused.code)
            return error_responses.error_event(refused, context.admitted.endpoint)
        failed = event.startswith(FAILED)
        if failed or context.admitted.may_leave:
            event = self._hide(event)
        if not failed:
            return event
        context.record.failed(Outcome.CUT, error_responses.kind(event, 0))
        return error_responses.tidy(event)


class _Request:
    """The request that LiteLLM reads: the whole body at once, then nothing until the client disconnects."""

    def __init__(self, body: bytes, disconnected: asyncio.Event) -> None:
        self._body = body
        self._disconnected = disconnected
        self._received = False

    async def receive(self) -> Message:
        if self._received:
            await self._disconnected.wait()
            return {"type": "http.disconnect"}
        self._received = True
        return {"type": "http.request", "body": self._body, "more_body": False}


def _json(fields: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError:
        raise Refusal(400, "too_deep", "the body is nested too deeply") from None


class _Response:
    """LiteLLM's response on its way to the client: passed on part by part, or held until it is whole.

    `vectors`: the format of embeddings that the client asked for.
    """

    def __init__(self, path: FullPath, context: RequestContext, vectors: object) -> None:
        self._path = path
        self._context = context
        self._response = context.response
        self._vectors = vectors
        # Of a response that is a stream.
        self._events: EventSplitter | None = None
        # The headers of a response that is held.
        self._held: Headers | None = None
        self._parts = bytearray()

    async def send(self, message: Message) -> None:
        """Take one ASGI message of LiteLLM's app."""
        if not self._response.begun and self._context.budget.expired():
            # LiteLLM responds even to a call that was cancelled.
            return
        if message["type"] == "http.response.start":
            await self._start(message["status"], message["headers"])
            return
        body, last = message.get("body", b""), not message.get("more_body")
        if self._events is not None:
            await self._pass_on(self._events, body, last=last)
        elif self._held is None:
            await self._response.write(body, last=last)
        else:
            self._parts.extend(body)
            if last:
                await self._finish(self._held)

    async def _pass_on(self, splitter: EventSplitter, part: bytes, *, last: bool) -> None:
        """Send the events that a part completes: only in a whole event are its kind and a provider's key certain to be seen."""
        try:
            events = splitter.add(part)
        except EndlessEventError:
            self._context.record.failed(Outcome.CUT, ENDLESS.code)
            await self._response.write(error_responses.error_event(ENDLESS, self._context.admitted.endpoint), last=True)
            raise
        if last and (rest := splitter.rest()):
            events.append(rest)
        if events or last:
            body = b"".join(self._path.event(self._context, event) for event in events)
            await self._response.write(body, last=last)

    async def _start(self, status: int, headers: Headers) -> None:
        context = self._context
        self._response.begin(status)
        context.budget.reschedule(None)
        kept = [(name, value) for name, value in headers if name in ANSWERED]
        context.record.stream = any(n == b"content-type" and v.startswith(b"text/event-stream") for n, v in kept)
        head = [*kept, *x_io3_headers(context, status)]
        # Held until they are whole: errors, which speak of LiteLLM; what may repeat a provider's key; the model's name after a
        # fallback; and embeddings.
        changed = context.routing.attempts > 1 or context.admitted.endpoint is EMBEDDINGS
        if status >= 400:
            self._held = head
        elif context.record.stream:
            self._events = EventSplitter()
            await self._response.start(head)
        elif context.admitted.may_leave or (changed and (b"content-type", b"application/json") in kept):
            self._held = head
        else:
            await self._response.start(head)

    async def _finish(self, held: Headers) -> None:
        status, body = self._path.revised(self._context, self._response.status, bytes(self._parts), self._vectors)
        self._held = None
        self._response.begin(status)
        length = (b"content-length", str(len(body)).encode())
        await self._response.start([*((n, v) for n, v in held if n != b"content-length"), length])
        await self._response.write(body, last=True)

    async def end_early(self) -> None:
        """End a response that has begun, because the gateway stops: a stream gets an error event, any other is cut."""
        if self._events is not None and not self._response.ended:
            self._context.record.failed(Outcome.STOPPING, STOPPING.code)
            await self._response.write(
                error_responses.error_event(STOPPING, self._context.admitted.endpoint), last=True
            )
