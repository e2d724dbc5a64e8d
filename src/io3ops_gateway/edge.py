"""The gateway's own door, around LiteLLM's app: who calls, what for, of which data class; everything else does not exist.

An ASGI wrapper that touches only the requests it is handed. It decides everything before LiteLLM sees a byte, and hands on a request
that it wrote itself: known fields, known headers, a key that only this process knows. Only here is every end of a request
seen: answered, failed, streamed to the end, or left by the client.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from io3ops_gateway import classes, endpoints
from io3ops_gateway import policy as rules
from io3ops_gateway.asgi import App, Message, Receive, Send
from io3ops_gateway.classes import INTERNAL, OVERRIDE, PROBE, PUBLIC
from io3ops_gateway.endpoints import Endpoint
from io3ops_gateway.errors import Refusal
from io3ops_gateway.keyring import OWNER, ClientKey, KeyRing
from io3ops_gateway.meter import Meter
from io3ops_gateway.running import RUNNING, Running

Headers = list[tuple[bytes, bytes]]

# What a health check may ask without a key. None of them calls a model.
HEALTH = ("/health", "/health/liveliness", "/health/liveness", "/health/readiness")
MODELS = ("/v1/models", "/models")
# Where this machine and its containers find the gateway; a web page that points its own name here is not among them.
HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "host.docker.internal", "gateway"})
# Handed on to LiteLLM. Every other header, known or yet to be invented, ends here.
PASSED = frozenset({b"accept", b"anthropic-version", b"anthropic-beta"})
# Answers say what we say; LiteLLM's and the provider's own headers name addresses, costs and accounts.
ANSWERED = frozenset({b"content-type", b"content-length", b"retry-after", b"cache-control", b"x-accel-buffering"})
# A whole body must arrive within this time: a client that sends a byte a minute holds memory, not a conversation.
BODY_SECONDS = 120.0
# Three bytes of JSON can become a hundred in memory: ten million empty objects were the end of the container.
PARTS = 1_000_000
# LiteLLM puts the lines of its own program into some errors; as JSON text they end with the quote.
_TRACE = re.compile(rb'(?:\\n)*Traceback \(most recent call last\):(?:[^"\\]|\\.)*')
# What it adds about its own settings, which nobody here has written and nobody may change.
_ADVICE = re.compile(rb'(?:\\n)*LiteLLM: model group (?:[^"\\]|\\.)*')
# How an error begins in the middle of a stream.
FAILED = (b'data: {"error"', b"event: error", b"event: response.failed")


class Edge:
    """Wraps LiteLLM's app. `inner_key`: what LiteLLM knows as its master key; made at the start, known to nobody
    else. `hide`: takes the providers' keys out of what is answered. `why`: why nothing of a
    group could be tried."""

    def __init__(
        self,
        app: App,
        policy: rules.Policy,
        ring: KeyRing,
        meter: Meter,
        inner_key: str,
        hide: Callable[[bytes], bytes] = bytes,
        why: Callable[[str], str] = str,
    ) -> None:
        self._app = app
        self._policy = policy
        self._ring = ring
        self._meter = meter
        self._hide = hide
        self._why = why
        self._authorization = (b"authorization", f"Bearer {inner_key}".encode())
        self._paths = endpoints.paths({mode.task for mode in policy.modes.values()})
        self._hosts = HOSTS | set(policy.door.hosts)
        self._origins = frozenset(policy.door.origins)
        self._started = int(time.time())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # Nothing in the table is served this way, and the policy's hooks would not see it.
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            await self._request(scope, receive, send)

    async def _request(self, scope: Message, receive: Receive, send: Send) -> None:
        headers: Headers = scope["headers"]
        path = scope["path"]
        more: Headers = []
        endpoint = None
        try:
            self._check_host(headers)
            more = self._cross_origin(headers)
            method = scope["method"]
            # As the client wrote it: what has to be decoded or tidied up first is not one of these few names.
            exact = scope.get("raw_path", path.encode()) == path.encode()
            if method == "OPTIONS" and exact and more and (path in self._paths or path in MODELS):
                return await _answer(send, 204, None, more)
            if method in ("GET", "HEAD") and exact and path in HEALTH:
                return await _answer(send, 200, {"status": "healthy"}, more)
            endpoint = self._paths.get(path) if method == "POST" and exact else None
            listing = method == "GET" and exact and (path in MODELS or path.startswith(("/v1/models/", "/models/")))
            if endpoint is None and not listing:
                raise Refusal(404, "not_found", "the gateway serves nothing here")
            key = self._ring.find(_keys(headers))
            if key is None:
                # LiteLLM without a database answers this with "No connected db" or a bare 500.
                raise Refusal(401, "invalid_api_key", "the key is missing or not this gateway's")
            if endpoint is None:
                return await _answer(send, 200, self._models(key, path), more)
            body = await self._body(headers, receive)
            async with asyncio.timeout(None) as budget:
                running, written = self._admit(headers, endpoint, body, key, budget)
                await self._serve(scope, receive, send, running, written, more)
        except Refusal as refused:
            await _refuse(send, refused, endpoint, more)
        except TimeoutError:
            # Only before an answer began: the budget is lifted then.
            await _refuse(send, Refusal(504, "out_of_time", "the mode's total time is used up"), endpoint, more)

    def _revised(self, running: Running, start: Message, body: bytes) -> tuple[Message, bytes]:
        """A whole answer as the client gets it, with the length that it then has."""
        if running.leaves:
            body = self._hide(body)
        if start["status"] >= 400:
            body = _tidy(body)
            if start["status"] == 429 and not running.attempts:
                # LiteLLM's word for it, which sends clients into a loop of retries.
                message = f"no model of mode {running.mode} can be tried now: {self._why(running.group)}"
                error = {"message": message, "type": "service_unavailable", "param": None, "code": "no_model"}
                start, body = {**start, "status": 503}, orjson.dumps({"error": error})
        else:
            try:
                found = orjson.loads(body)
                if isinstance(found, dict) and "model" in found:
                    # After a fallback LiteLLM names the model of the provider; applications talk to modes.
                    body = orjson.dumps({**found, "model": running.asked})
            except orjson.JSONDecodeError:
                pass
        headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        return {**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]}, body

    def _check_host(self, headers: Headers) -> None:
        given = [value for name, value in headers if name == b"host"]
        name = given[0].decode("latin-1").lower() if len(given) == 1 else ""
        host, _, port = name.rpartition(":")
        if not (port.isdecimal() and host and (host[0] == "[") == (host[-1] == "]")):
            host = name
        if host not in self._hosts:
            message = "the gateway is not called by this name; `gateway: hosts:` in runtime/routing.yaml adds one"
            raise Refusal(421, "wrong_host", message)

    def _cross_origin(self, headers: Headers) -> Headers:
        """The headers with which an allowed web page may read the answer. A page that is not allowed is refused."""
        origin = next((value.decode("latin-1") for name, value in headers if name == b"origin"), None)
        if origin is None:
            return []
        if origin not in self._origins:
            message = "web pages may not call the gateway; `gateway: origins:` in runtime/routing.yaml allows one"
            raise Refusal(403, "wrong_origin", message)
        asked = next((v for n, v in headers if n == b"access-control-request-headers"), b"authorization, content-type")
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"vary", b"Origin"),
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", asked),
            (b"access-control-expose-headers", b"*"),
        ]

    def _models(self, key: ClientKey, path: str) -> dict[str, Any]:
        names = [name for name in self._policy.modes if key.modes is None or name in key.modes]
        listed = [{"id": n, "object": "model", "created": self._started, "owned_by": "io3ops"} for n in names]
        if path in MODELS:
            return {"object": "list", "data": listed}
        wanted = path.split("/models/", 1)[1]
        for entry in listed:
            if entry["id"] == wanted:
                return entry
        raise Refusal(404, "model_not_found", f"there is no mode {wanted[:80]!r}; GET /v1/models lists them")

    async def _body(self, headers: Headers, receive: Receive) -> dict[str, Any]:
        """The request's JSON object, whole and within the limits."""
        limit = self._policy.door.max_body
        for name, value in headers:
            if name == b"content-type" and value.partition(b";")[0].strip().lower() != b"application/json":
                raise Refusal(415, "not_json", "send JSON with `Content-Type: application/json`")
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise Refusal(415, "encoded", "send the body as it is, without a Content-Encoding")
            if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                raise Refusal(415, "encoded", "send the body as it is; the one Transfer-Encoding taken is `chunked`")
            if name == b"content-length" and not value.strip().isdigit():
                raise Refusal(400, "bad_length", "the Content-Length is no number")
            if name == b"content-length" and int(value) > limit:
                raise _too_large(limit)
        data = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "cut", "the request ended in the middle")
                    data += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(data) > limit:
                        raise _too_large(limit)
        except TimeoutError:
            raise Refusal(408, "too_slow", f"the body did not arrive within {BODY_SECONDS:g} s") from None
        if len(data) > PARTS and sum(map(data.count, (b"[", b"{", b","))) > PARTS:
            why = f"a body may have {PARTS:,} commas and brackets: every part takes far more memory than text"
            raise Refusal(413, "too_many_parts", why)
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise Refusal(400, "not_json", f"the body is not JSON: {error.msg}") from None
        if not isinstance(body, dict):
            raise Refusal(400, "not_json", "the body must be a JSON object")
        return body

    def _admit(
        self, headers: Headers, endpoint: Endpoint, body: dict[str, Any], key: ClientKey, budget: asyncio.Timeout
    ) -> tuple[Running, bytes]:
        """Decide about a request, and write the one that LiteLLM gets in its place."""
        mode, suffix = self._policy.mode(body.get("model"))
        if key.modes is not None and mode.name not in key.modes:
            raise Refusal(403, "mode_not_allowed", f"this key may not use mode {mode.name}")
        if mode.task != endpoint.task:
            message = f"mode {mode.name} is for {mode.task}, and this endpoint for {endpoint.task}"
            raise Refusal(400, "wrong_endpoint", message)
        said = classes.mark(headers, body, suffix)
        found = classes.decide(mode.data_class, key.data_class, said, self._policy.data_class)
        reason = self._override(headers, body, key, mode, found.data_class)
        leaves = found.data_class == PUBLIC or bool(reason)
        group = self._policy.group(mode, PUBLIC if leaves else INTERNAL)
        handed, ignored = endpoints.kept(endpoint, body)
        endpoints.check_content(handed, internal=not leaves)
        rules.apply(mode, endpoint, handed)
        try:
            written = orjson.dumps(handed)
        except orjson.JSONEncodeError:
            raise Refusal(400, "too_deep", "the body is nested too deeply") from None
        # The owner's own test of a mode (`io3ops smoke`) takes nothing of what clients may use.
        testing = key.name == OWNER and any(name == PROBE for name, _ in headers)
        # Last: whoever takes a slot gives it back in `_serve`.
        who = () if testing else ((f"mode {mode.name}", mode.limits), (f"key {key.name}", key.limits))
        slots = self._meter.enter(*who)
        budget.reschedule(asyncio.get_running_loop().time() + mode.total)
        return (
            Running(
                budget=budget,
                key=key.name,
                slots=slots,
                mode=mode.name,
                asked=str(body["model"]),
                group=group,
                data_class=found.data_class,
                source=found.source,
                leaves=leaves,
                reason=reason,
                ignored=ignored,
            ),
            written,
        )

    def _override(
        self, headers: Headers, body: Mapping[str, Any], key: ClientKey, mode: rules.ModePolicy, data_class: str
    ) -> str:
        """The reason with which this request overrides its class; '' when it does not."""
        stated = [value.decode("utf-8", "replace") for name, value in headers if name == OVERRIDE]
        in_body = classes.metadata(body, "override_reason")
        stated += [in_body if isinstance(in_body, str) else ""] if in_body is not None else []
        if not stated:
            return ""
        reason = stated[0].strip()
        if len(set(stated)) != 1 or not 10 <= len(reason) <= 300 or not reason.isprintable():
            raise Refusal(400, "bad_override", "an override needs one reason in words, of 10 to 300 characters")
        if mode.name not in self._policy.overrides.get(key.name, ()):
            message = f"key {key.name} may not override the data class in mode {mode.name}"
            raise Refusal(403, "override_not_allowed", message)
        # What may leave anyway needs no override, and no entry in its record.
        return reason if data_class == INTERNAL else ""

    async def _serve(
        self,
        scope: Message,
        receive: Receive,
        send: Send,
        running: Running,
        body: bytes,
        more: Headers,
    ) -> None:
        given = begun = ended = False
        gone = asyncio.Event()
        held: Message | None = None
        parts = bytearray()

        async def once() -> Message:
            nonlocal given
            if given:
                await gone.wait()
                return {"type": "http.disconnect"}
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                # Whoever repeats the body must not keep everybody else from running.
                await asyncio.sleep(0)
            gone.set()
            # Nobody waits for it any longer: the model and the place are for others. LiteLLM itself goes on to the end.
            if not ended and not running.budget.expired():
                running.budget.reschedule(asyncio.get_running_loop().time())

        async def watched(message: Message) -> None:
            nonlocal begun, held, ended
            if not begun and running.budget.expired():
                # LiteLLM makes an answer of its own of a call that was ended.
                return
            if message["type"] == "http.response.start":
                begun = True
                running.budget.reschedule(None)
                kept = [(name, value) for name, value in message["headers"] if name in ANSWERED]
                message = {**message, "headers": [*kept, *_facts(running, message["status"]), *more]}
                if message["status"] >= 400 or (
                    running.attempts > 1 and (b"content-type", b"application/json") in kept
                ):
                    # Looked at as a whole: what LiteLLM says of itself, or of the name of a later step's model.
                    held = message
                    return
            elif held is not None:
                parts.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                start, whole = self._revised(running, held, bytes(parts))
                held = None
                await send(start)
                message = {**message, "body": whole}
            elif found := message.get("body"):
                found = self._hide(found) if running.leaves else found
                message = {**message, "body": _tidy(found) if found.startswith(FAILED) else found}
            ended = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        passed = [(name, value) for name, value in scope["headers"] if name in PASSED]
        length = (b"content-length", str(len(body)).encode())
        host = (b"host", b"localhost")
        inner = {
            **scope,
            "headers": [*passed, (b"content-type", b"application/json"), length, host, self._authorization],
            "query_string": b"",
        }
        token = RUNNING.set(running)
        watcher = asyncio.create_task(watch())
        try:
            await self._app(inner, once, watched)
            if running.budget.expired() and not begun:
                raise TimeoutError
        except TimeoutError:
            if gone.is_set():
                return
            if begun:
                # The answer had begun: it can only be cut, and the server does that.
                raise RuntimeError("an answer ended in the middle") from None
            raise
        finally:
            watcher.cancel()
            RUNNING.reset(token)
            self._meter.leave(*running.slots)


def _tidy(body: bytes) -> bytes:
    """An error without the lines of LiteLLM's program and its advice about its settings."""
    return _ADVICE.sub(b"", _TRACE.sub(b"", body))


def _keys(headers: Headers) -> Iterable[bytes]:
    """What stands in the headers in which clients send keys."""
    for name, value in headers:
        if name == b"authorization":
            yield value[7:] if value[:7].lower() == b"bearer " else b""
        elif name in (b"x-api-key", b"api-key"):
            yield value


def _facts(running: Running, status: int) -> Headers:
    """What happened to a request, for its answer."""
    found = {
        "mode": running.mode,
        "data-class": running.data_class,
        "data-class-from": running.source,
        "attempts": str(running.attempts),
    }
    if running.deployment:
        found["deployment"] = running.deployment
        if status < 400:
            found["served"] = "local" if running.local else "cloud"
    if running.reason:
        found["override"] = "audited" if running.audited else "not used"
    if running.ignored:
        found["ignored"] = ",".join(running.ignored)[:500]
    return [
        # uvicorn breaks an answer off at a control character, and a field of the request may be called anything.
        (f"x-io3-{n}".encode(), re.sub("[^ -~]", "?", v).encode())
        for n, v in found.items()
    ]


def _too_large(limit: int) -> Refusal:
    return Refusal(
        413, "too_large", f"a request may have {limit // 1_000_000} MB; `gateway: max_body_mb:` changes that"
    )


KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable",
    504: "timeout_error",
}


async def _refuse(send: Send, refused: Refusal, endpoint: Endpoint | None, more: Headers) -> None:
    error = {"message": refused.message, "type": KINDS.get(refused.status, "invalid_request_error"), "param": None}
    body: dict[str, Any] = {"error": {**error, "code": refused.code}}
    if endpoint is endpoints.MESSAGES:
        # Anthropic's shape; it takes OpenAI's fields beside its own.
        body["type"] = "error"
    if refused.retry_after:
        more = [*more, (b"retry-after", str(max(1, round(refused.retry_after + 0.5))).encode())]
    if refused.status in (400, 408, 413):
        # What is left of the body must not be taken for the next request.
        more = [*more, (b"connection", b"close")]
    await _answer(send, refused.status, body, more)


async def _answer(send: Send, status: int, body: Mapping[str, Any] | None, more: Headers) -> None:
    data = b"" if body is None else orjson.dumps(body)
    headers = [(b"content-type", b"application/json")] if data else []
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", str(len(data)).encode()), *more],
        }
    )
    await send({"type": "http.response.body", "body": data})
