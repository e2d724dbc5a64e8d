"""Error bodies and refusals, in the formats of OpenAI and Anthropic, without LiteLLM's internals. Touches the connection that it is handed."""

import re
from typing import Any

import orjson

from io3ops_gateway.asgi import Headers, Send
from io3ops_gateway.errors import Refusal
from io3ops_gateway.policy import endpoints
from io3ops_gateway.policy.endpoints import Endpoint
from io3ops_gateway.request.response_writer import send_json

# LiteLLM puts Python tracebacks into some errors. In JSON they end with the closing quote.
_TRACE = re.compile(rb'(?:\\n)*Traceback \(most recent call last\):(?:[^"\\]|\\.)*')
# Its advice about its own settings, which no user of ours can change.
_ADVICE = re.compile(rb'(?:\\n)*LiteLLM: model group (?:[^"\\]|\\.)*')
# LiteLLM's messages begin with the class of the failure. A server may have written the whole message, so accept only known classes.
_CLASS = re.compile(
    rb'"message": ?"(?:litellm\.)+(API(?:Connection|ResponseValidation)?Error|(?:Authentication|BadGateway|BadRequest|BudgetExceeded'
    rb"|ContentPolicyViolation|ContextWindowExceeded|ImageFetch|InternalServer|InvalidRequest|JSONSchemaValidation|MidStreamFallback"
    rb"|NotFound|OpenAI|PaymentRequired|PermissionDenied|RateLimit|RejectedRequest|ServiceUnavailable|UnprocessableEntity"
    rb"|UnsupportedParams)Error|Timeout)\b"
)

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable",
    504: "timeout_error",
}
STOPPING = Refusal(
    503, "stopping", "the gateway is stopping before the response was complete; send the request again", 1
)


def tidy(body: bytes) -> bytes:
    """Return an error's body without LiteLLM's tracebacks and its advice about its settings."""
    return _ADVICE.sub(b"", _TRACE.sub(b"", body))


def kind(body: bytes, status: int) -> str:
    """Return the class of an error, for the log; never its text, which may repeat the prompt."""
    found = _CLASS.search(body)
    return found[1].decode() if found else f"http_{status}" if status else "upstream_error"


async def refuse(send: Send, refused: Refusal, endpoint: Endpoint | None, more: Headers) -> None:
    """Send a refusal as the response."""
    body = error_body_for(refused, endpoint)
    if refused.retry_after:
        more = [*more, (b"retry-after", str(max(1, round(refused.retry_after + 0.5))).encode())]
    if refused.status in (400, 408, 413):
        # The rest of the body must not be read as the next request.
        more = [*more, (b"connection", b"close")]
    await send_json(send, refused.status, body, more)


def error_body(refused: Refusal) -> dict[str, Any]:
    """Return an error in OpenAI's format."""
    error = {"message": refused.message, "type": KINDS.get(refused.status, "invalid_request_error"), "param": None}
    return {"error": {**error, "code": refused.code}}


def error_body_for(refused: Refusal, endpoint: Endpoint | None) -> dict[str, Any]:
    """Return an error in its endpoint's format. Anthropic's has OpenAI's fields beside its own."""
    return error_body(refused) | ({"type": "error"} if endpoint is endpoints.MESSAGES else {})


def error_event(refused: Refusal, endpoint: Endpoint) -> bytes:
    """Return an error as an event of a stream, in its endpoint's format."""
    if endpoint is endpoints.MESSAGES:
        said: dict[str, Any] = {"type": "error", "error": {"type": "api_error", "message": refused.message}}
    elif endpoint is endpoints.RESPONSES:
        said = {"type": "error", "code": refused.code, "message": refused.message, "param": None}
    else:
        return b"data: " + orjson.dumps(error_body(refused)) + b"\n\n"
    return b"event: error\ndata: " + orjson.dumps(said) + b"\n\n"
