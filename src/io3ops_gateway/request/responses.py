"""How an answer reads: what happened to the request in its headers, refusals in the words of OpenAI and Anthropic, errors tidied up. Pure."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from io3ops_gateway.asgi import Headers, Send
from io3ops_gateway.errors import Refusal
from io3ops_gateway.policy import endpoints
from io3ops_gateway.policy.endpoints import Endpoint
from io3ops_gateway.request.context import RequestContext

# LiteLLM puts the lines of its own program into some errors; as JSON text they end with the quote.
_TRACE = re.compile(rb'(?:\\n)*Traceback \(most recent call last\):(?:[^"\\]|\\.)*')
# What it adds about its own settings, which nobody here has written and nobody may change.
_ADVICE = re.compile(rb'(?:\\n)*LiteLLM: model group (?:[^"\\]|\\.)*')
# LiteLLM begins its messages with the class of the failure. But a server may have written the whole message, so only known ones count.
_CLASS = re.compile(
    rb'"message": ?"(?:litellm\.)+(API(?:Connection|ResponseValidation)?Error|(?:Authentication|BadGateway|BadRequest|BudgetExceeded'
    rb"|ContentPolicyViolation|ContextWindowExceeded|ImageFetch|InternalServer|InvalidRequest|JSONSchemaValidation|MidStreamFallback"
    rb"|NotFound|OpenAI|PaymentRequired|PermissionDenied|RateLimit|RejectedRequest|ServiceUnavailable|UnprocessableEntity"
    rb"|UnsupportedParams)Error|Timeout)\b"
)
_UNPRINTABLE = re.compile("[^ -~]")

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable",
    504: "timeout_error",
}
STOPPING = Refusal(503, "stopping", "the gateway stops, and the answer was not finished; send the request again", 1)


def tidy(body: bytes) -> bytes:
    """An error without the lines of LiteLLM's program and its advice about its settings."""
    return _ADVICE.sub(b"", _TRACE.sub(b"", body))


def kind(body: bytes, status: int) -> str:
    """The class of an error, for the log: ours, or LiteLLM's. Never its text, which may repeat the prompt."""
    found = _CLASS.search(body)
    return found[1].decode() if found else f"http_{status}" if status else "upstream_error"


def facts(context: RequestContext, status: int) -> Headers:
    """What happened to a request, for its answer."""
    found = {
        "mode": context.admitted.mode,
        "data-class": context.admitted.data_class,
        "data-class-from": context.admitted.data_class_from,
        "attempts": str(context.routing.attempts),
    }
    if context.routing.deployment:
        found["deployment"] = context.routing.deployment
        if status < 400:
            found["served"] = "local" if context.routing.local else "cloud"
    if context.admitted.override_reason:
        found["override"] = "audited" if context.routing.audited else "not used"
    if context.routing.truncated:
        found["truncated"] = "true"
    if context.admitted.ignored:
        found["ignored"] = ",".join(context.admitted.ignored)[:500]
    return [
        # uvicorn breaks an answer off at a control character, and a field of the request may be called anything.
        (f"x-io3-{n}".encode(), (v if v.isascii() and v.isprintable() else _UNPRINTABLE.sub("?", v)).encode())
        for n, v in found.items()
    ]


async def refuse(send: Send, refused: Refusal, endpoint: Endpoint | None, more: Headers) -> None:
    """Answer with an error of ours."""
    body = error_body_for(refused, endpoint)
    if refused.retry_after:
        more = [*more, (b"retry-after", str(max(1, round(refused.retry_after + 0.5))).encode())]
    if refused.status in (400, 408, 413):
        # What is left of the body must not be taken for the next request.
        more = [*more, (b"connection", b"close")]
    await answer(send, refused.status, body, more)


def error_body(refused: Refusal) -> dict[str, Any]:
    """OpenAI's shape of an error."""
    error = {"message": refused.message, "type": KINDS.get(refused.status, "invalid_request_error"), "param": None}
    return {"error": {**error, "code": refused.code}}


def error_body_for(refused: Refusal, endpoint: Endpoint | None) -> dict[str, Any]:
    """The same in the words of its endpoint: Anthropic's shape takes OpenAI's fields beside its own."""
    return error_body(refused) | ({"type": "error"} if endpoint is endpoints.MESSAGES else {})


def error_event(refused: Refusal, endpoint: Endpoint) -> bytes:
    """The same in the middle of a stream, in the words of its endpoint."""
    if endpoint is endpoints.MESSAGES:
        said: dict[str, Any] = {"type": "error", "error": {"type": "api_error", "message": refused.message}}
    elif endpoint is endpoints.RESPONSES:
        said = {"type": "error", "code": refused.code, "message": refused.message, "param": None}
    else:
        return b"data: " + orjson.dumps(error_body(refused)) + b"\n\n"
    return b"event: error\ndata: " + orjson.dumps(said) + b"\n\n"


async def answer(send: Send, status: int, body: Mapping[str, Any] | None, more: Headers) -> None:
    """Send a whole JSON answer; None: without a body."""
    data = b"" if body is None else orjson.dumps(body)
    headers = [(b"content-type", b"application/json")] if data else []
    length = (b"content-length", str(len(data)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length, *more]})
    await send({"type": "http.response.body", "body": data})
