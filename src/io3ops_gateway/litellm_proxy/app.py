"""The full path: a request through LiteLLM's own app, with its router, retries and fallbacks.

An ASGI call to the app in this process; the answer is held to what the edge says of it.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from io3ops_gateway.asgi import App, Headers, Message, Send
from io3ops_gateway.errors import Refusal
from io3ops_gateway.policy import context_window
from io3ops_gateway.policy.embedding_formats import formatted
from io3ops_gateway.policy.endpoints import EMBEDDINGS
from io3ops_gateway.request import responses
from io3ops_gateway.request.context import CURRENT, RequestContext
from io3ops_gateway.request.disconnect import DisconnectWatcher
from io3ops_gateway.request.responses import STOPPING

# Handed on to LiteLLM. Every other header, known or yet to be invented, ends here.
PASSED = frozenset({b"accept", b"anthropic-version", b"anthropic-beta"})
# Answers say what we say; LiteLLM's and the provider's own headers name addresses, costs and accounts.
ANSWERED = frozenset({b"content-type", b"content-length", b"retry-after", b"cache-control", b"x-accel-buffering"})
# How an error begins in the middle of a stream.
FAILED = (b'data: {"error"', b"event: error", b"event: response.failed")
# How one ends well; nothing that was cut may.
ENDED = (b"data: [DONE]", b"event: message_stop", b"event: response.completed", b"event: response.incomplete")
# LiteLLM's word in its errors for a prompt that does not fit.
OVERLONG = b"ContextWindowExceededError"


class FullPath:
    """`inner_key`: what LiteLLM knows as its master key; made at the start, known to nobody else. `hide`: takes the providers' keys
    out of what is answered. `why`: why nothing of a group could be tried."""

    def __init__(self, app: App, inner_key: str, hide: Callable[[bytes], bytes], why: Callable[[str], str]) -> None:
        self._app = app
        self._hide = hide
        self._why = why
        self._authorization = (b"authorization", f"Bearer {inner_key}".encode())

    def inner(self, scope: Message, body: bytes) -> Message:
        """The scope of the request that LiteLLM gets: known headers, and a key that only this process knows."""
        passed = [(name, value) for name, value in scope["headers"] if name in PASSED]
        length = (b"content-length", str(len(body)).encode())
        own = [(b"content-type", b"application/json"), length, (b"host", b"localhost"), self._authorization]
        return {**scope, "headers": [*passed, *own], "query_string": b""}

    async def __call__(
        self,
        scope: Message,
        send: Send,
        context: RequestContext,
        watcher: DisconnectWatcher,
        fields: Mapping[str, Any],
        more: Headers,
    ) -> None:
        """Serve one admitted request.

        Raises:
            Refusal: it cannot be written.
            TimeoutError: its budget ended, or the client left.
        """
        body = _written(fields)
        answer = _Answer(self, send, context, more, fields.get("encoding_format"))
        given = False

        async def once() -> Message:
            nonlocal given
            if given:
                await watcher.gone.wait()
                return {"type": "http.disconnect"}
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        context.record.path = "full"
        token = CURRENT.set(context)
        try:
            await self._app(self.inner(scope, body), once, answer.send)
            if context.budget.expired() and not context.ended:
                # LiteLLM took the end of its time for a failure of its own.
                raise TimeoutError
        except (asyncio.CancelledError, TimeoutError):
            if context.begun and context.stopping and not watcher.gone.is_set():
                await answer.tell()
            raise
        finally:
            CURRENT.reset(token)

    def revised(
        self, context: RequestContext, start: Message, body: bytes, vectors: object = None
    ) -> tuple[Message, bytes]:
        """A whole answer as the client gets it, with the length that it then has. `vectors`: the format of embeddings."""
        if context.leaves:
            body = self._hide(body)
        if start["status"] >= 400:
            body = responses.tidy(body)
            context.record.failed("error", responses.kind(body, start["status"]))
            if start["status"] == 429 and not context.attempts:
                # LiteLLM's word for it, which sends clients into a loop of retries.
                message = f"no model of mode {context.mode} can be tried now: {self._why(context.group)}"
                context.record.error = "no_model"
                start, body = (
                    {**start, "status": 503},
                    orjson.dumps(responses.error_body(Refusal(503, "no_model", message))),
                )
            elif start["status"] == 400 and OVERLONG in body:
                # The same in every mode and from every provider, and nothing of the prompt in it.
                context.record.error = context_window.CODE
                body = orjson.dumps(
                    responses.error_body_for(context.overlong or context_window.refusal("", 0, 0), context.endpoint)
                )
        else:
            try:
                found = orjson.loads(body)
                if isinstance(found, dict) and "model" in found:
                    # After a fallback LiteLLM names the model of the provider; applications talk to modes.
                    found["model"] = context.asked
                if context.endpoint is EMBEDDINGS and isinstance(found, dict) and isinstance(found.get("data"), list):
                    found["data"] = formatted(found["data"], vectors) or found["data"]
                body = orjson.dumps(found)
            except orjson.JSONDecodeError:
                pass
        headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        return {**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]}, body

    def passed_on(self, context: RequestContext, body: bytes) -> bytes:
        """A part of an answer that is not looked at as a whole."""
        if context.overlong and body.startswith(ENDED):
            refused, context.overlong = context.overlong, None
            context.record.failed("error", refused.code)
            return responses.error_event(refused, context.endpoint)
        found = self._hide(body) if context.leaves else body
        if not found.startswith(FAILED):
            return found
        context.record.failed("cut", responses.kind(found, 0))
        return responses.tidy(found)


def _written(fields: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError:
        raise Refusal(400, "too_deep", "the body is nested too deeply") from None


class _Answer:
    """LiteLLM's answer on its way to the client."""

    def __init__(
        self, path: FullPath, send: Send, context: RequestContext, more: Headers, vectors: object = None
    ) -> None:
        self._path = path
        self._send = send
        self._context = context
        self._more = more
        self._vectors = vectors
        self._streams = False
        self._held: Message | None = None
        self._parts = bytearray()

    async def send(self, message: Message) -> None:
        context = self._context
        if not context.begun and context.budget.expired():
            # LiteLLM makes an answer of its own of a call that was ended.
            return
        if message["type"] == "http.response.start":
            message = self._begin(message)
            if self._held is not None:
                return
        elif self._held is not None:
            self._parts.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            start, whole = self._path.revised(context, self._held, bytes(self._parts), self._vectors)
            self._held = None
            await self._send(start)
            message = {**message, "body": whole}
        elif found := message.get("body"):
            message = {**message, "body": self._path.passed_on(context, found)}
        context.ended = message["type"] == "http.response.body" and not message.get("more_body")
        await self._send(message)

    def _begin(self, message: Message) -> Message:
        self._context.begun, self._context.status = True, message["status"]
        self._context.budget.reschedule(None)
        kept = [(name, value) for name, value in message["headers"] if name in ANSWERED]
        self._streams = any(n == b"content-type" and v.startswith(b"text/event-stream") for n, v in kept)
        self._context.record.stream = self._streams
        message = {**message, "headers": [*kept, *responses.facts(self._context, message["status"]), *self._more]}
        # Looked at as a whole: what LiteLLM says of itself, of the name of a later step's model, and every vector.
        changed = self._context.attempts > 1 or self._context.endpoint is EMBEDDINGS
        if message["status"] >= 400 or (changed and (b"content-type", b"application/json") in kept):
            self._held = message
        return message

    async def tell(self) -> None:
        """There is no time left for an answer that has begun: say so, where that can be said."""
        if self._streams and not self._context.ended:
            self._context.ended = True
            self._context.record.failed("stopping", STOPPING.code)
            await self._send(
                {"type": "http.response.body", "body": responses.error_event(STOPPING, self._context.endpoint)}
            )
