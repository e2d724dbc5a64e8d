"""Which paths and methods are served, and which endpoint serves which task."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.gateway.edge.house import Answer, House

from io3ops_gateway.asgi import Message

SERVED = {
    "chat": [
        "/v1/chat/completions",
        "/chat/completions",
        "/v1/completions",
        "/completions",
        "/v1/responses",
        "/responses",
        "/v1/messages",
    ],
    "embeddings": ["/v1/embeddings", "/embeddings"],
    "moderations": ["/v1/moderations", "/moderations"],
}
OF_TASK = {"chat": "near", "embeddings": "vec", "moderations": "judge"}


@pytest.mark.parametrize(("task", "path"), [(task, path) for task, paths in SERVED.items() for path in paths])
def test_every_endpoint_is_served(house: House, task: str, path: str) -> None:
    assert house.ask(path, {"model": OF_TASK[task]}).status == 200
    (scope,) = house.inner.scopes
    assert scope["path"] == path and scope["method"] == "POST"


@pytest.mark.parametrize(("task", "path"), [(task, path) for task, paths in SERVED.items() for path in paths])
def test_an_endpoint_serves_only_modes_of_its_task(house: House, task: str, path: str) -> None:
    """LiteLLM would send a prompt to a model that was never meant to see one."""
    for other in set(OF_TASK) - {task}:
        found = house.ask(path, {"model": OF_TASK[other]})
        assert (found.status, found.code) == (400, "wrong_endpoint")
    assert house.inner.scopes == []


def test_a_wrong_endpoint_names_the_right_one(house: House) -> None:
    found = house.ask("/v1/chat/completions", {"model": OF_TASK["embeddings"]})
    mode = OF_TASK["embeddings"]
    assert found.body["error"]["message"] == f'mode "{mode}" serves embeddings, not chat; use /v1/embeddings'


def test_an_unknown_path_is_answered_with_the_supported_ones(house: House) -> None:
    message = house.ask("/v1/audio/transcriptions", {}).body["error"]["message"]
    assert message.startswith("not found; supported endpoints: ")
    assert {"/v1/chat/completions", "/v1/models"} < set(
        message.removeprefix("not found; supported endpoints: ").split(", ")
    )


PATHS = [
    "/", "", "//", "*", "/v1", "/v1/", "/v1/chat", "/v1//chat/completions", "//v1/chat/completions", "/v1/chat//completions",
    "/v1/chat/completions/", "/v1/chat/completions/.", "/v1/chat/completions.", "/v1/chat/./completions", "/./v1/chat/completions",
    "/v1/x/../chat/completions", "/../v1/chat/completions", "/v1/chat/completions;x=1", "/v1/chat/completions?x", "/v1/chat/completions#x",
    "/V1/chat/completions", "/v1/Chat/Completions", "/v1/chat/completion\u017f", "/v1/chat/completions\u200b", "/v1/chat/completions ",
    " /v1/chat/completions", "/v1/chat/completions\0", "/v1/chat/completions\n", "/v1\\chat\\completions", "\\v1/chat/completions",
    "/v1/\uff43hat/completions", "v1/chat/completions", "http://localhost/v1/chat/completions", "/v1/chat/completions/x",
    "/openai/deployments/near/chat/completions", "/engines/near/chat/completions", "/openai/v1/chat/completions", "/messages", "/v1/complete",
    "/anthropic/v1/messages", "/v1/messages/count_tokens", "/v1/responses/resp_1", "/v1/responses/resp_1/cancel", "/openai/v1/responses",
    "/v1/images/generations", "/images/generations", "/v1/images/edits", "/v1/audio/speech", "/v1/audio/transcriptions",
    "/v1/files", "/files", "/v1/batches", "/v1/fine_tuning/jobs", "/v1/assistants", "/v1/threads", "/v1/vector_stores", "/v1/ocr", "/v1/search",
    "/v1/realtime", "/v1/mcp", "/mcp", "/mcp/", "/sse", "/vertex_ai/x", "/gemini/v1beta/models/x:generateContent", "/v1beta/models/x:generateContent",
    "/bedrock/model/x/invoke", "/azure/x", "/langfuse/x", "/cohere/v1/chat", "/assemblyai/x", "/pass_through", "/config/update", "/config/yaml",
    "/get/config/callbacks", "/key/generate", "/key/info", "/user/new", "/team/new", "/model/new", "/model/info", "/v1/model/info", "/model/delete",
    "/spend/logs", "/global/spend", "/cache/ping", "/settings", "/debug/asyncio-tasks", "/metrics", "/ui", "/ui/", "/docs", "/redoc", "/openapi.json",
    "/routes", "/test", "/utils/token_counter", "/utils/transform_request", "/queue/chat/completions", "/health/services", "/health/backlog",
    "/active/callbacks", "/login", "/sso/key/generate", "/guardrails/list", "/credentials", "/public/model_hub", "/.well-known/oauth-authorization-server",
    "/robots.txt", "/favicon.ico",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_any_other_path_is_not_found_with_or_without_a_key(house: House, path: str) -> None:
    for method in ("POST", "GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "post", "", "FOO"):
        for key in ("owner", None):
            found = house.ask(path, method=method, key=key)
            assert (found.status, found.code) == (404, "not_found"), "as if absent: no 401, no 405"
    assert house.inner.scopes == []


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/v1/chat/completions", b"/v1/chat%2fcompletions"),
        ("/v1/chat/completions", b"/v1/chat%2Fcompletions"),
        ("/v1/chat/completions", b"/v1/%63hat/completions"),
        ("/v1/chat/completions", b"/v1/chat/completions%"),
        ("/v1/models", b"/v1%2fmodels"),
        ("/health", b"/%68ealth"),
        ("/v1/models/near", b"/v1/models/ne%61r"),
    ],
)
def test_an_encoded_path_is_not_found(house: House, path: str, raw: bytes) -> None:
    for method in ("POST", "GET"):
        assert house.ask(path, method=method, raw_path=raw).status == 404
    page = [(b"origin", b"http://localhost:3000")]
    assert house.ask(path, method="OPTIONS", raw_path=raw, headers=page).status == 404


def test_a_server_without_a_raw_path_is_supported(house: House) -> None:
    scope = {"type": "http", "method": "GET", "path": "/health", "headers": [(b"host", b"localhost")]}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(house.edge(scope, lambda: asyncio.sleep(0, {}), send))
    assert Answer(sent).status == 200


@pytest.mark.parametrize(
    "method",
    ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "post", "POST ", "QUERY", "_POST", ""],
)
def test_an_endpoint_accepts_one_method(house: House, method: str) -> None:
    override = [(b"x-http-method-override", b"POST"), (b"x-method-override", b"POST")]
    assert house.ask(method=method).status == house.ask(method=method, headers=override).status == 404
    assert house.inner.scopes == []


def test_a_method_in_a_header_changes_nothing(house: House) -> None:
    house.ask(headers=[(b"x-http-method-override", b"DELETE")])
    assert house.inner.scopes[0]["method"] == "POST"


@pytest.mark.parametrize("path", ["/health", "/health/liveliness", "/health/liveness", "/health/readiness"])
def test_health_needs_no_key_and_reaches_no_model(house: House, path: str) -> None:
    for method in ("GET", "HEAD"):
        assert house.ask(path, method=method, key=None).body == {"status": "healthy"}
    assert house.ask(path, method="POST", key=None).status == 404
    assert house.inner.scopes == []


def test_a_websocket_is_closed_before_the_app_sees_it(house: House) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/realtime", "headers": [(b"host", b"localhost")]}
    asyncio.run(house.edge(scope, lambda: asyncio.sleep(0, {}), send))
    assert sent == [{"type": "websocket.close", "code": 1008}] and house.inner.scopes == []


def test_the_start_of_the_app_is_passed_on(house: House) -> None:
    async def nothing(*_: object) -> None:
        return

    house.inner.does = nothing
    asyncio.run(house.edge({"type": "lifespan"}, lambda: asyncio.sleep(0, {}), nothing))
    assert house.inner.scopes == [{"type": "lifespan"}]
