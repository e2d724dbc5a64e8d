"""The edge around an app that only records what it gets: checks, authentication, admission and every end of a request."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway import contexts

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.edge import request_checks
from io3ops_gateway.limits.rate_limits import Ledger, RateLimiter
from io3ops_gateway.policy.client_keys import KeyRing
from io3ops_gateway.policy.policy import Policy
from io3ops_gateway.request.context import CURRENT, RequestContext
from io3ops_gateway.request_log.recorder import RequestRecorder
from io3ops_shared.policy import Deployment, GatewaySettings, ModePolicy

REASON = b"the customer agreed: ticket 4711"
PNG = {"type": "image_url", "image_url": {"url": "https://elsewhere/x.png"}}
LITELLMS = [
    (b"content-type", b"application/json"),
    (b"x-litellm-model-api-base", b"https://api.openai.com"),
    (b"x-litellm-response-cost", b"1"),
    (b"llm_provider-openai-organization", b"mine"),
    (b"server", b"uvicorn"),
    (b"set-cookie", b"a=b"),
    (b"x-io3-data-class", b"public"),
    (b"access-control-allow-origin", b"*"),
    (b"retry-after", b"7"),
]


def a_mode(name: str, **words: Any) -> ModePolicy:
    return ModePolicy(name=name, **({"groups": {"internal": name, "public": name}} | words))


POLICY = Policy(
    modes={
        "near": a_mode("near", data_class="internal"),
        "open": a_mode("open", groups={"internal": "open", "public": "open:public"}, data_class="public"),
        "quiet": a_mode("quiet", groups={"internal": "quiet", "public": "quiet:public"}),
        "far": a_mode("far", groups={"public": "far:public"}, data_class="public"),
        "strict": a_mode("strict", groups={"internal": "strict", "public": "strict:public"}, data_class="internal"),
        "one": a_mode("one", limits={"parallel": 1, "requests_per_minute": 50}),
        "short": a_mode("short", total=0.02),
        "vec": a_mode("vec", task="embeddings"),
        "judge": a_mode("judge", task="moderations"),
    },
    aliases={"gpt-4o": "open", "claude:latest": "near"},
    deployments={
        "open:public.1.g": Deployment(name="open.1.g", provider="cloud", local=False, url="https://c", key="c")
    },
    overrides={"alice": frozenset({"strict", "far", "open"}), "owner": frozenset({"strict"})},
    gateway=GatewaySettings(hosts=("box.lan",), origins=("http://localhost:3000",), max_body=2_000_000),
)
KEYS: dict[str, dict[str, Any]] = {
    "alice": {},
    "inner": {"data_class": "internal"},
    "outer": {"data_class": "public"},
    "narrow": {"modes": ["near", "one"]},
    "few": {"limits": {"requests_per_minute": 1}},
    "gone": {"revoked": "2026-11-24T10:00:00Z"},
}


class Inner:
    """LiteLLM's place. Remembers the requests; `does` says how it answers."""

    def __init__(self) -> None:
        self.scopes: list[Message] = []
        self.bodies: list[dict[str, Any]] = []
        self.runs: list[RequestContext] = []
        self.does: Callable[[Message, Receive, Send], Awaitable[None]] = self.answer
        self.headers = LITELLMS

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            message = await receive()
            assert message["more_body"] is False
            self.bodies.append(json.loads(message["body"]))
            context = CURRENT.get()
            assert context is not None
            self.runs.append(context)
        await self.does(scope, receive, send)

    async def answer(self, _scope: Message, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": b'{"ok":', "more_body": True})
        await send({"type": "http.response.body", "body": b"1}"})


class Answer:
    def __init__(self, sent: list[Message]) -> None:
        self.sent = sent
        starts = [m for m in sent if m["type"] == "http.response.start"]
        assert len(starts) == 1, sent
        self.status: int = starts[0]["status"]
        self.pairs: list[tuple[bytes, bytes]] = starts[0]["headers"]
        self.headers = {n.decode(): v.decode() for n, v in self.pairs}
        assert len(self.headers) == len(self.pairs), "no header twice"
        self.data = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")

    @property
    def body(self) -> Any:
        return json.loads(self.data)

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


class House:
    """An edge with everything around it."""

    def __init__(self, folder: Path, policy: Policy = POLICY, hide: Callable[[bytes], bytes] = bytes) -> None:
        self.inner = Inner()
        entries = {
            name: {"sha256": hashlib.sha256(f"sk-{name}".encode()).hexdigest(), "created": "x", **more}
            for name, more in KEYS.items()
        }
        (folder / "keys.json").write_text(json.dumps({"version": 1, "keys": entries}))
        self.now = 1000.0
        self.limiter = RateLimiter(Ledger(), worker=0, clock=lambda: self.now)
        self.edge = contexts.an_edge(
            self.inner, policy, KeyRing("sk-owner", folder / "keys.json"), self.limiter, hide=hide
        )

    def ask(
        self,
        path: str = "/v1/chat/completions",
        body: Any = None,
        *,
        key: str | None = "owner",
        method: str = "POST",
        headers: Iterable[tuple[bytes, bytes]] = (),
        host: bytes | None = b"localhost:4000",
        raw_path: bytes | None = None,
        chunks: list[Message] | None = None,
        leaves: bool = False,
        **scope: Any,
    ) -> Answer:
        if body is None:
            body = {"model": "near", "messages": []}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = [*headers]
        if host is not None:
            given.append((b"host", host))
        if key is not None:
            given.append((b"authorization", f"Bearer sk-{key}".encode()))
        arriving = [{"type": "http.request", "body": data, "more_body": False}] if chunks is None else list(chunks)
        body_is_whole = bool(arriving) and not arriving[-1].get("more_body", False)
        sent: list[Message] = []

        async def receive() -> Message:
            if arriving:
                return arriving.pop(0)
            if not body_is_whole or leaves:
                return {"type": "http.disconnect"}
            # As a server does: a client that waits for its answer says nothing more.
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        asked = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode() if raw_path is None else raw_path,
            "query_string": b"",
            "headers": given,
            **scope,
        }
        asyncio.run(self.edge(asked, receive, send))
        return Answer(sent)

    def chat(self, model: str = "near", /, key: str = "owner", headers: Any = (), **body: Any) -> Answer:
        return self.ask(body={"model": model, "messages": [], **body}, key=key, headers=headers)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# -- the host


@pytest.mark.parametrize(
    "host",
    [b"localhost", b"localhost:4000", b"LOCALHOST:80", b"127.0.0.1", b"127.0.0.1:65535", b"[::1]", b"[::1]:4000", b"gateway:4000",
     b"host.docker.internal:4000", b"box.lan", b"box.lan:4000", b"Box.Lan"],
)  # fmt: skip
def test_local_and_configured_host_names_are_accepted(house: House, host: bytes) -> None:
    assert house.ask(host=host).status == 200
    assert house.ask("/health", method="GET", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [b"evil.example", b"evil.example:4000", b"localhost.evil.example", b"127.0.0.1.nip.io", b"localhost.", b"localhost:",
     b"localhost:x", b"localhost:4000:4000", b"localhost:-1", b":4000", b"", b" localhost", b"::1", b"::1:4000", b"[::1", b"::1]",
     b"[localhost]", b"[localhost]:4000", b"[::1]evil:4000", b"[::2]", b"0.0.0.0", b"127.0.0.2", b"127.1", b"2130706433", b"10.0.0.5:4000",
     b"evil@localhost", b"localhost@evil", b"localhost/", b"localhost#.evil", b"xbox.lan", b"box.lan.evil", b"loc\xe0lhost",
     b"localhost,evil.example", b"localhost evil.example", b"[", b"]", b"[]", b"[]:1", b"localhost:\xb2"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/health", "/v1/models", "/nothing"])
def test_any_other_host_name_is_refused_first(house: House, host: bytes, path: str) -> None:
    """DNS rebinding: a web page's own name that points here."""
    for method in ("GET", "POST", "OPTIONS"):
        found = house.ask(path, method=method, host=host)
        assert (found.status, found.code) == (421, "wrong_host")
    assert house.inner.scopes == []


def test_a_missing_or_repeated_host_header_is_refused(house: House) -> None:
    assert house.ask(host=None).code == "wrong_host"
    assert house.ask(headers=[(b"host", b"localhost")]).code == "wrong_host"
    assert house.ask(headers=[(b"host", b"evil.example")]).code == "wrong_host"


# -- web pages


@pytest.mark.parametrize(
    "origin",
    [b"http://evil.example", b"null", b"", b"http://localhost:4000", b"http://localhost", b"http://localhost:30000", b"https://localhost:3000",
     b"http://localhost:3000/", b"HTTP://LOCALHOST:3000", b"http://localhost:3000.evil.example", b"http://evil@localhost:3000",
     b"http://localhost:3000 http://evil", b"*", b"http://127.0.0.1:3000", b"http://localhost:3000\xff"],
)  # fmt: skip
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/health"), ("OPTIONS", "/v1/models")])  # fmt: skip
def test_a_web_page_that_is_not_allowed_is_refused(house: House, origin: bytes, method: str, path: str) -> None:
    found = house.ask(path, method=method, headers=[(b"origin", origin)])
    assert (found.status, found.code) == (403, "wrong_origin")
    assert not any(name.startswith("access-control") for name in found.headers)
    assert house.inner.scopes == []


def test_an_allowed_page_may_read_answers_and_refusals(house: House) -> None:
    page = [(b"origin", b"http://localhost:3000")]
    for found in (
        house.ask(headers=page),
        house.ask(key="wrong", headers=page),
        house.ask("/v1/models", method="GET", headers=page),
    ):
        assert found.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert found.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in found.headers
    assert "access-control-allow-origin" not in house.ask().headers, "LiteLLM's own `*` does not get out"


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/chat/completions", "/v1/models", "/models", "/v1/moderations"]
)
def test_a_preflight_needs_no_key_and_reaches_no_model(house: House, path: str) -> None:
    asked = [
        (b"origin", b"http://localhost:3000"),
        (b"access-control-request-headers", b"authorization,x-io3-data-class"),
    ]
    found = house.ask(path, b"", method="OPTIONS", key=None, headers=asked)
    assert (found.status, found.data) == (204, b"") and "content-type" not in found.headers
    assert found.headers["access-control-allow-headers"] == "authorization,x-io3-data-class"
    assert "POST" in found.headers["access-control-allow-methods"]
    assert house.inner.scopes == []


def test_a_preflight_without_an_origin_or_for_an_unknown_path_is_not_found(house: House) -> None:
    assert house.ask(method="OPTIONS").status == 404
    page = [(b"origin", b"http://localhost:3000")]
    assert house.ask("/v1/files", method="OPTIONS", headers=page).status == 404


# -- paths and methods


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


# -- keys


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/models", "/v1/models/near", "/models"])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer sk-wrong")],
        [(b"authorization", b"Bearer sk-gone")],
        [(b"authorization", b"Bearer sk-inside")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"sk-owner")],
        [(b"authorization", b"Basic sk-owner")],
        [(b"authorization", b"Bearersk-owner")],
        [(b"authorization", b"Digest sk-owner")],
        [(b"authorization", b"Bearer sk-owner"), (b"x-api-key", b"sk-alice")],
        [(b"authorization", b"Basic eDp5"), (b"x-api-key", b"sk-owner")],
        [(b"authorization", b"Bearer sk-owner"), (b"authorization", b"Bearer sk-wrong")],
        [(b"x-goog-api-key", b"sk-owner")],
        [(b"cookie", b"token=sk-owner")],
        [(b"proxy-authorization", b"Bearer sk-owner")],
    ],
)
def test_without_exactly_one_valid_key_nothing_is_served(
    house: House, path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    method = "GET" if "models" in path else "POST"
    found = house.ask(path, method=method, key=None, headers=headers, query_string=b"api_key=sk-owner&key=sk-owner")
    assert (found.status, found.code) == (401, "invalid_api_key")
    assert found.body["error"]["type"] == "authentication_error" and found.body["error"]["message"]
    assert (found.body.get("type") == "error") is (path == "/v1/messages"), "Anthropic's shape for Anthropic's clients"
    assert b"sk-" not in found.data and house.inner.scopes == []


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer sk-owner"),
        (b"authorization", b"bearer sk-owner "),
        (b"x-api-key", b"sk-owner"),
        (b"api-key", b"sk-owner"),
    ],
)
def test_a_key_is_read_from_every_header_that_sdks_use(house: House, header: tuple[bytes, bytes]) -> None:
    assert house.ask(key=None, headers=[header]).status == 200


def test_the_body_of_an_unauthenticated_client_is_not_read(house: House) -> None:
    found = house.ask(key="wrong", chunks=[{"type": "http.request", "body": b"{", "more_body": True}] * 3)
    assert found.status == 401


def test_a_key_may_use_only_its_modes(house: House) -> None:
    assert house.chat("near", key="narrow").status == 200
    assert house.chat("near:internal", key="narrow").status == 200
    assert house.chat("claude:latest", key="narrow").status == 200
    for model in ("open", "gpt-4o", "open:internal"):
        found = house.chat(model, key="narrow")
        assert (found.status, found.code) == (403, "mode_not_allowed")
    assert len(house.inner.scopes) == 3


def test_a_key_lists_only_its_modes(house: House) -> None:
    assert house.ask("/v1/models", method="GET").status == house.ask("/v1/models/near", method="GET").status == 200
    every = house.ask("/v1/models", method="GET").body
    assert [m["id"] for m in every["data"]] == list(POLICY.modes) and every["object"] == "list"
    assert {m["owned_by"] for m in every["data"]} == {"io3ops"}
    assert [m["id"] for m in house.ask("/models", method="GET", key="narrow").body["data"]] == ["near", "one"]
    assert house.ask("/v1/models/near", method="GET", key="narrow").body["id"] == "near"
    for path in (
        "/v1/models/open",
        "/v1/models/",
        "/v1/models/near/",
        "/models/open:public",
        "/v1/models/" + "x" * 9999,
    ):
        found = house.ask(path, method="GET", key="narrow")
        assert (found.status, found.code) == (404, "model_not_found") and len(found.data) < 500
    assert house.inner.scopes == []


def test_a_models_path_has_exactly_one_spelling(house: House) -> None:
    for path in ("/v1/models/x/models/near", "/v1/models//models/near"):
        assert house.ask(path, method="GET").status == 404


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/v1/models/near"])
def test_the_list_of_models_is_read_only(house: House, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "HEAD"):
        assert house.ask(path, method=method).status == 404


def test_limits_of_a_key_and_of_a_mode_apply(house: House) -> None:
    assert house.chat("near", key="few").status == 200
    house.now += 20
    found = house.chat("open", key="few")
    assert (found.status, found.code, found.body["error"]["type"]) == (429, "limit", "rate_limit_error")
    assert 41 <= int(found.headers["retry-after"]) <= 42
    assert house.chat("near", key="alice").status == 200
    house.now += 41
    assert house.chat("near", key="few").status == 200


# -- the body


@pytest.mark.parametrize(
    "kind", [b"application/json", b"Application/JSON", b"application/json; charset=utf-8", b" application/json ;x"]
)
def test_json_is_accepted(house: House, kind: bytes) -> None:
    assert house.ask(headers=[(b"content-type", kind)]).status == 200


@pytest.mark.parametrize(
    "kind",
    [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"", b"application/jsonx", b"text/json",
     b"application/json, text/plain", b"application/vnd.api+json", b"text/plain; application/json"],
)  # fmt: skip
def test_content_types_of_web_forms_are_refused(house: House, kind: bytes) -> None:
    for headers in ([(b"content-type", kind)], [(b"content-type", b"application/json"), (b"content-type", kind)]):
        found = house.ask(headers=headers)
        assert (found.status, found.code) == (415, "not_json")
    assert house.inner.scopes == []


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"deflate", b"zstd", b"identity, gzip", b"x"])
def test_an_encoded_body_is_refused(house: House, coding: bytes) -> None:
    found = house.ask(headers=[(b"content-encoding", coding)])
    assert (found.status, found.code) == (415, "encoded") and house.inner.scopes == []


@pytest.mark.parametrize("coding", [b"", b"identity", b" Identity "])
def test_an_identity_encoding_is_accepted(house: House, coding: bytes) -> None:
    assert house.ask(headers=[(b"content-encoding", coding)]).status == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b"null", b"1", b'"x"', b"true", b'[{"model": "near"}]', b'{"model": "near"', b'{"model": "near"}{}',
     b'{"model": NaN}', b'{"model": "\xff"}', b"\xef\xbb\xbf{}", b"{'model': 'near'}", b"model=near", b"[" * 5000, b'{"a":"\\ud800"}'],
)  # fmt: skip
def test_a_body_that_is_not_a_json_object_is_refused(house: House, body: bytes) -> None:
    found = house.ask(body=body)
    assert (found.status, found.code) == (400, "not_json") and house.inner.scopes == []
    assert found.headers["connection"] == "close", "what is left of the body must not be the next request"


def test_a_body_may_be_exactly_as_long_as_the_limit(house: House) -> None:
    def sized(size: int) -> bytes:
        frame = b'{"model":"near","messages":[],"user":"%s"}'
        return frame % (b"x" * (size - len(frame) + 2))

    limit = POLICY.gateway.max_body
    exact, over = sized(limit), sized(limit + 1)
    assert house.ask(body=exact, headers=[(b"content-length", str(limit).encode())]).status == 200
    assert house.ask(body=exact).status == 200
    for found in (
        house.ask(body=over),
        house.ask(body=b"{}", headers=[(b"content-length", str(limit + 1).encode())]),
        house.ask(chunks=[{"type": "http.request", "body": over[:limit], "more_body": True},
                          {"type": "http.request", "body": over[limit:], "more_body": True}]),
    ):  # fmt: skip
        assert (found.status, found.code) == (413, "too_large")
        assert found.headers["connection"] == "close" and "2 MB" in found.body["error"]["message"]
    assert len(house.inner.scopes) == 2


def test_an_endless_body_is_refused_at_the_limit(house: House) -> None:
    """A client that announces nothing and never stops: refused as soon as the limit is passed."""
    found = house.ask(chunks=[{"type": "http.request", "body": b" " * 500_000, "more_body": True}] * 1000)
    assert found.status == 413


def test_a_body_may_come_in_pieces(house: House) -> None:
    pieces: list[Message] = [
        {"type": "http.request", "body": bytes([c]), "more_body": True} for c in b'{"model":"near"}'
    ]
    assert house.ask(chunks=[*pieces, {"type": "http.request"}]).status == 200
    assert house.inner.bodies == [{"model": "near"}]


def test_an_incomplete_body_is_refused(house: House) -> None:
    found = house.ask(chunks=[{"type": "http.request", "body": b'{"model":"near"}', "more_body": True}])
    assert (found.status, found.code) == (400, "cut") and house.inner.scopes == []


def test_a_body_that_does_not_arrive_times_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_checks, "BODY_SECONDS", 0.01)

    async def receive() -> Message:
        await asyncio.sleep(10)
        return {}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"x-api-key", b"sk-owner")]
    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": headers}
    asyncio.run(house.edge(scope, receive, send))
    assert (Answer(sent).status, Answer(sent).code) == (408, "too_slow")


@pytest.mark.parametrize(
    "model", [None, 1, "", [], ["near"], "near,near", "other", "near.1.a", "open:public.1.g", "near:secret", "*"]
)
def test_an_unknown_mode_is_not_found(house: House, model: object) -> None:
    found = house.ask(body={"model": model, "messages": []})
    assert (found.status, found.code) == (404, "model_not_found")
    assert found.body["error"]["type"] == "not_found_error"
    assert house.ask(body={"messages": []}).status == 404 and house.inner.scopes == []


def nested(depth: int) -> bytes:
    return b'{"model":"open","user":"x","response_format":' + b"[" * depth + b"]" * depth + b"}"


def test_a_body_nested_as_deep_as_any_client_needs_is_served(house: House) -> None:
    for depth in (200, 253):
        assert house.ask(body=nested(depth)).status == 200


@pytest.mark.parametrize("depth", [254, 300, 900, 1020])
def test_a_body_nested_too_deep_is_refused_and_holds_no_slot(house: House, depth: int) -> None:
    body = nested(depth).replace(b"open", b"one")
    try:
        first = house.ask(body=body)
    except Exception as error:
        assert house.chat("one").status == 200, f"the slot is lost after {type(error).__name__}"
        raise
    assert first.status == 400 and house.chat("one").status == 200


def test_a_content_length_that_is_not_a_number_is_refused(house: House) -> None:
    assert house.ask(headers=[(b"content-length", b"many")]).status == 400


# -- what LiteLLM sees


def test_only_known_fields_are_handed_on_and_the_others_are_listed(house: House) -> None:
    body = {
        "model": "near", "messages": [{"role": "user", "content": "x"}], "temperature": 0, "stream": True,
        "fallbacks": ["open"], "api_base": "https://evil", "api_key": "sk-x", "mock_response": "x", "num_retries": 9,
        "metadata": {"a": 1}, "litellm_metadata": {}, "tags": ["a"], "extra_body": {"api_base": "https://evil"},
        "new\r\nx-evil: 1": 1,
    }  # fmt: skip
    found = house.ask(body=body)
    assert house.inner.bodies == [{k: body[k] for k in ("model", "messages", "temperature", "stream")}]
    assert found.headers["x-io3-ignored"] == "api_base,api_key,fallbacks,mock_response,new??x-evil: 1,num_retries"


def test_the_list_of_ignored_fields_is_bounded(house: House) -> None:
    fields: dict[str, Any] = {f"{'x' * 100}{i}": 1 for i in range(1000)}
    assert len(house.chat(**fields).headers["x-io3-ignored"]) <= 500
    assert "x-io3-ignored" not in house.chat().headers


def test_only_known_headers_are_handed_on_with_the_inner_key_and_without_a_query(house: House) -> None:
    given = [
        (b"accept", b"text/event-stream"), (b"anthropic-version", b"2023-06-01"), (b"anthropic-beta", b"x"),
        (b"content-type", b"application/json; charset=utf-8"), (b"content-length", b"35"), (b"transfer-encoding", b"chunked"),
        (b"x-litellm-timeout", b"1"), (b"x-litellm-tags", b"a"), (b"x-litellm-api-key", b"sk-owner"), (b"x-io3-data-class", b"internal"),
        (b"x-api-key", b"sk-owner"), (b"api-key", b"sk-owner"), (b"openai-organization", b"o"), (b"cookie", b"c"), (b"x-forwarded-for", b"1.1.1.1"),
        (b"x-forwarded-host", b"evil"), (b"x-original-url", b"/key/generate"), (b"x-rewrite-url", b"/ui"), (b"forwarded", b"host=evil"),
        (b"user-agent", b"u"), (b"traceparent", b"t"), (b"connection", b"upgrade"), (b"upgrade", b"h2c"), (b"expect", b"100-continue"),
        (b"origin", b"http://localhost:3000"), (b"referer", b"r"), (b"langfuse_trace_id", b"x"),
    ]  # fmt: skip
    found = house.ask(
        headers=given, query_string=b"api-version=1&model=open&key=sk-owner", root_path="", client=("127.0.0.1", 1)
    )
    assert found.status == 200
    (scope,) = house.inner.scopes
    length = len(json.dumps(house.inner.bodies[0], separators=(",", ":")))
    assert sorted(scope["headers"]) == sorted(
        [
            (b"accept", b"text/event-stream"),
            (b"anthropic-version", b"2023-06-01"),
            (b"anthropic-beta", b"x"),
            (b"content-type", b"application/json"),
            (b"content-length", str(length).encode()),
            (b"host", b"localhost"),
            (b"authorization", b"Bearer sk-inside"),
        ]
    )
    assert scope["query_string"] == b""
    assert b"sk-owner" not in repr(scope).encode()


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"open","model":"near","messages":[]}',
        b'{"model":"quiet:internal","model":"quiet:public","messages":[]}',
        b'{"model":"quiet","mod\\u0065l":"quiet:public","messages":[]}',
        b'{"model":"quiet","messages":[],"metadata":{"data_class":"internal","data_class":"public"}}',
        b'{"model":"quiet","messages":[],"metadata":{"data_class":"internal","data\\u005fclass":"public"}}',
        b'{"model":"quiet","messages":[],"metadata":{"data_class":"internal"},"metadata":{"data_class":"public"}}',
        b'{"model":"quiet","messages":[],"metadata":{"data_class":"internal"},"metadata":null}',
        b'{"model":"quiet","messages":[],"extra_body":{"tags":["internal"],"tags":[]}}',
        b'{"model":"quiet","messages":[{"role":"user","content":"a","content":"b"}]}',
        # Escaped quotes elsewhere must not hide the missing ones.
        b'{"model":"quiet","messages":[{"role":"user","content":"\\u0022\\u0022\\u0022\\u0022"}],"data_class":"internal","data_class":"public"}',
        b'{"model":"quiet","messages":[{"role":"user","content":"\\"\\""}],"data_class":"internal","data_class":"public"}',
    ],
)
def test_a_body_with_a_duplicate_key_is_refused(house: House, body: bytes) -> None:
    """Parsers take the first, the last or both: where such a prompt may go cannot be known."""
    found = house.ask(body=body)
    assert (found.status, found.code) == (400, "duplicate_key") and house.inner.bodies == []


@pytest.mark.parametrize(
    "content",
    [
        "\\u0022model\\u0022:\\u0022",
        '\\"model\\":1,\\"model\\":2',
        "\\\\\\\\u0022",
        "\\u00e9\\n\\t\\/",
        "\\ud83d\\ude00",
    ],
)
def test_quotes_and_escapes_in_a_prompt_are_not_duplicate_keys(house: House, content: str) -> None:
    body = f'{{"model":"near","seed":1.50,"messages":[{{"role":"user","content":"{content}"}},{{"role":"user","content":""}}]}}'
    assert house.ask(body=body.encode()).status == 200
    assert house.inner.bodies[0]["messages"][0]["content"] == json.loads(f'"{content}"')


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("base64", "AAAAPwAAoL8="), ("float", [0.5, -1.25]), (None, [0.5, -1.25])],
)
def test_embeddings_through_litellm_have_the_format_that_was_asked_for(
    house: House, wanted: str | None, expected: object
) -> None:
    """LiteLLM drops the field for Ollama and hands on a list."""

    async def answer(_scope: Message, _receive: Receive, send: Send) -> None:
        data = json.dumps({"object": "list", "model": "m", "data": [{"index": 0, "embedding": [0.5, -1.25]}]}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data[:9], "more_body": True})
        await send({"type": "http.response.body", "body": data[9:]})

    house.inner.does = answer
    asked = {"model": "vec", "input": "x"} | ({"encoding_format": wanted} if wanted else {})
    found = house.ask("/v1/embeddings", asked)
    assert found.status == 200 and found.body["data"] == [{"index": 0, "embedding": expected}]
    assert found.headers["content-length"] == str(len(found.data))


def test_an_unknown_format_of_embeddings_is_refused(house: House) -> None:
    found = house.ask("/v1/embeddings", {"model": "vec", "input": "x", "encoding_format": "int8"})
    assert (found.status, found.code) == (400, "bad_request") and "encoding_format" in found.body["error"]["message"]


@pytest.mark.parametrize(
    ("error", "begun", "said"),
    [
        (RuntimeError("a secret"), False, ("error", "RuntimeError")),
        (RuntimeError("a secret"), True, ("cut", "RuntimeError")),
        (asyncio.CancelledError(), True, ("stopping", "CancelledError")),
    ],
)
def test_an_unexpected_error_is_logged_as_one(
    house: House, error: BaseException, begun: bool, said: tuple[str, str]
) -> None:
    lines: list[bytes] = []

    async def broken(_scope: Message, _receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    house.edge._recorder = RequestRecorder(lines.append, Nothing())
    house.edge._backend.full_path._app = broken
    with pytest.raises(type(error)):
        house.chat()
    (line,) = map(json.loads, lines)
    assert (line["outcome"], line["error"]) == said and b"secret" not in lines[0]


class Nothing:
    """A recorder that wants nothing."""

    def wants(self, *_: object) -> bool:
        return False

    def keep(self, *_: object) -> bool:
        return False

    def close(self, seconds: float = 1.0) -> bool:
        return True


def test_a_disconnect_cancels_the_call_and_frees_its_place(house: House) -> None:
    ended: list[str] = []

    async def forever(_scope: Message, _receive: Receive, _send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    house.inner.does = forever
    # The server throws this answer away: there is nobody.
    assert house.ask(leaves=True).status == 504 and ended == ["cancelled"]


def test_after_the_body_the_app_receives_only_the_disconnect(house: House) -> None:
    heard: list[Message] = []

    async def listen(_scope: Message, receive: Receive, send: Send) -> None:
        heard.append(await receive())
        await house.inner.answer({}, receive, send)

    house.inner.does = listen
    house.ask(leaves=True)
    assert heard == [{"type": "http.disconnect"}]


def test_the_mode_is_applied(tmp_path: Path) -> None:
    modes = {"m": a_mode("m", forced={"max_tokens": 5}, system_prompt="P", denied=("tools",))}
    house = House(tmp_path, Policy(modes=modes, aliases={}))
    house.ask("/v1/responses", {"model": "m", "input": "x", "store": True})
    assert house.inner.bodies == [
        {"model": "m", "input": "x", "store": False, "max_output_tokens": 5, "instructions": "P"}
    ]
    assert house.ask(body={"model": "m", "messages": [], "tools": [{}]}).code == "tools_not_allowed"


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "background", "prompt"])
def test_a_conversation_kept_by_a_provider_is_refused(house: House, name: str) -> None:
    found = house.ask("/v1/responses", {"model": "open", "input": "x", name: "x"})
    assert (found.status, found.code) == (400, "stateless") and house.inner.scopes == []


# -- the class of a request, its group, its answer


def run(house: House, found: Answer) -> tuple[str, str, str, bool]:
    """(class, source, group, leaves) of the last request, held against its answer."""
    assert found.status == 200, found.data
    context = house.inner.runs[-1]
    assert found.headers["x-io3-data-class"] == context.admitted.data_class
    assert found.headers["x-io3-data-class-from"] == context.admitted.data_class_from
    assert found.headers["x-io3-mode"] == context.admitted.mode
    return (
        context.admitted.data_class,
        context.admitted.data_class_from,
        context.admitted.group,
        context.admitted.may_leave,
    )


@pytest.mark.parametrize(
    ("model", "key", "said", "expected"),
    [
        ("near", "owner", "", ("internal", "mode", "near", False)),
        ("near", "outer", "public", ("internal", "mode", "near", False)),
        ("near", "inner", "internal", ("internal", "request", "near", False)),
        ("open", "owner", "", ("public", "mode", "open:public", True)),
        ("open", "inner", "", ("internal", "key", "open", False)),
        ("open", "inner", "public", ("internal", "key", "open", False)),
        ("open", "outer", "internal", ("internal", "request", "open", False)),
        ("quiet", "owner", "", ("internal", "default", "quiet", False)),
        ("quiet", "outer", "", ("public", "key", "quiet:public", True)),
        ("quiet", "owner", "public", ("public", "request", "quiet:public", True)),
        ("quiet", "inner", "public", ("internal", "key", "quiet", False)),
        ("strict", "outer", "public", ("internal", "mode", "strict", False)),
    ],
)
def test_an_internal_prompt_goes_to_the_local_group(
    house: House, model: str, key: str, said: str, expected: tuple[str, str, str, bool]
) -> None:
    marked = [(b"x-io3-data-class", said.encode())] if said else []
    assert run(house, house.chat(model, key=key, headers=marked)) == expected
    if said:
        assert run(house, house.chat(f"{model}:{said}", key=key)) == expected
        assert run(house, house.chat(model, key=key, metadata={"data_class": said})) == expected
        # A tag makes a prompt internal and never public.
        tagged = expected if said == "internal" else run(house, house.chat(model, key=key))
        assert run(house, house.chat(model, key=key, tags=[said])) == tagged


def test_an_unmarked_prompt_leaves_only_when_the_table_allows_it(tmp_path: Path) -> None:
    modes = {"quiet": POLICY.modes["quiet"]}
    house = House(tmp_path, Policy(modes=modes, aliases={}, data_class="public"))
    assert run(house, house.chat("quiet")) == ("public", "default", "quiet:public", True)
    assert run(house, house.chat("quiet:internal")) == ("internal", "request", "quiet", False)
    assert Policy(modes=modes, aliases={}).data_class == "internal"


def test_aliases_and_suffixes_lead_to_their_mode(house: House) -> None:
    assert run(house, house.chat("gpt-4o")) == ("public", "mode", "open:public", True)
    assert run(house, house.chat("gpt-4o:internal")) == ("internal", "request", "open", False)
    assert run(house, house.chat("claude:latest")) == ("internal", "mode", "near", False)
    assert [r.admitted.requested_model for r in house.inner.runs] == ["gpt-4o", "gpt-4o:internal", "claude:latest"]
    assert house.inner.bodies[0]["model"] == "gpt-4o", "the hook compares it"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([(b"x-io3-data-class", b"secret")], {}),
        ([(b"x-io3-data-class", b"internal"), (b"x-io3-data-class", b"public")], {}),
        ([(b"x-io3-data-class", b"public")], {"metadata": {"data_class": "internal"}}),
        ([], {"metadata": "internal"}),
        ([], {"tags": [1]}),
        ([(b"x-io3-data-class", b"internal")], {"model": "open:public"}),
    ],
)
def test_a_mark_that_is_unclear_is_refused(
    house: House, headers: list[tuple[bytes, bytes]], body: dict[str, Any]
) -> None:
    found = house.ask(body={"model": "open", "messages": [], **body}, headers=headers)
    assert found.status == 400 and house.inner.scopes == []


def test_an_internal_prompt_in_a_cloud_only_mode_is_refused(house: House) -> None:
    for found in (house.chat("far:internal"), house.chat("far", key="inner")):
        assert (found.status, found.code) == (403, "stays_local")
        assert found.body["error"]["type"] == "permission_error"
    assert house.inner.scopes == [] and house.chat("far").status == 200


def test_nothing_is_fetched_for_a_prompt_that_is_internal_for_any_reason(house: House) -> None:
    linked = [{"role": "user", "content": [PNG]}]
    for found in (
        house.chat("near", messages=linked),
        house.chat("open", key="inner", messages=linked),
        house.chat("open:internal", messages=linked),
        house.chat("quiet", messages=linked),
        house.chat("near", messages=[], web_search_options={}),
        house.chat("near", tools=[{"type": "web_search"}]),
    ):
        assert found.status == 400 and found.code in ("link_not_allowed", "tool_not_allowed")
    assert house.inner.scopes == []
    assert house.chat("open", messages=linked, tools=[{"type": "web_search"}]).status == 200


def test_the_response_has_our_headers_and_none_of_litellms(house: House) -> None:
    async def serve(_scope: Message, receive: Receive, send: Send) -> None:
        context = CURRENT.get()
        assert context is not None
        context.routing.attempts, context.routing.deployment, context.routing.local = 3, "open.2.g", False
        await house.inner.answer({}, receive, send)

    house.inner.does = serve
    found = house.chat("open", headers=[(b"x-request-id", b"mine-1")])
    assert found.headers == {
        "content-type": "application/json",
        "content-length": "8",
        "retry-after": "7",
        "x-request-id": "mine-1",
        "x-io3-mode": "open",
        "x-io3-data-class": "public",
        "x-io3-data-class-from": "mode",
        "x-io3-attempts": "3",
        "x-io3-deployment": "open.2.g",
        "x-io3-served": "cloud",
    }
    assert found.data == b'{"ok":1}'


def _says(house: House, status: int, body: bytes, *, attempts: int) -> Any:
    async def serve(_scope: Message, _receive: Receive, send: Send) -> None:
        context = CURRENT.get()
        assert context is not None
        context.routing.attempts, context.routing.deployment = attempts, "open.2.g" if attempts else ""
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body[:9], "more_body": True})
        await send({"type": "http.response.body", "body": body[9:]})

    house.inner.does = serve
    return house.chat("open")


def test_an_error_reveals_nothing_of_litellms_settings_or_code(house: House) -> None:
    text = (
        "OpenAIException - Connection error.\\n\\nLiteLLM: model group 'open:public' failed with the error above. Add a fallbacks entry"
        ' for \\"it\\" (Router fallbacks)'
    )
    found = _says(house, 500, f'{{"error":{{"message":"{text}","code":"500"}}}}'.encode(), attempts=2)
    assert found.status == 500 and found.body["error"] == {
        "message": "OpenAIException - Connection error.",
        "code": "500",
    }
    assert int(found.headers["content-length"]) == len(found.data)
    assert "x-io3-served" not in found.headers and found.headers["x-io3-deployment"] == "open.2.g"


def test_when_no_model_can_be_tried_the_client_gets_no_rate_limit_error(house: House) -> None:
    """LiteLLM's 429 for it makes SDKs try again at once."""
    found = _says(house, 429, b'{"error":{"message":"No deployments available for selected model"}}', attempts=0)
    assert (found.status, found.code) == (503, "no_model") and "mode open" in found.body["error"]["message"]
    assert _says(house, 429, b'{"error":{"message":"slow down"}}', attempts=1).status == 429, "a provider's own stays"


def test_a_response_after_a_fallback_names_the_requested_model(house: House) -> None:
    found = _says(house, 200, b'{"model":"ollama_chat/io3ops/x:1","choices":[]}', attempts=2)
    assert found.body == {"model": "open", "choices": []} and int(found.headers["content-length"]) == len(found.data)


def test_the_owners_test_of_a_mode_does_not_count_towards_its_limits(house: House) -> None:
    for _ in range(60):
        assert house.chat("one", headers=[(b"x-io3-probe", b"smoke")]).status == 200
    for _ in range(50):
        assert house.chat("one").status == 200
    assert house.chat("one").status == 429
    assert house.chat("one", key="alice", headers=[(b"x-io3-probe", b"smoke")]).status == 429, "only the owner's"


def test_without_an_attempt_no_deployment_is_named(house: House) -> None:
    found = house.chat("near")
    assert found.headers["x-io3-attempts"] == "0"
    assert "x-io3-served" not in found.headers and "x-io3-deployment" not in found.headers


def test_a_local_response_is_labelled_local(house: House) -> None:
    async def serve(_scope: Message, receive: Receive, send: Send) -> None:
        context = CURRENT.get()
        assert context is not None
        context.routing.deployment = "near.1.a"
        await house.inner.answer({}, receive, send)

    house.inner.does = serve
    assert house.chat("near").headers["x-io3-served"] == "local"


def test_a_providers_key_is_masked_in_responses_that_may_contain_it(tmp_path: Path) -> None:
    house = House(tmp_path, hide=lambda data: data.replace(b"ok", b"**"))
    assert house.chat("open").data == b'{"**":1}'
    assert house.chat("near").data == b'{"ok":1}', "a local answer is not searched"


# -- overrides


def test_an_override_lets_one_request_out(house: House) -> None:
    found = house.chat("strict", key="alice", headers=[(b"x-io3-override", REASON)])
    assert run(house, found) == ("internal", "mode", "strict:public", True)
    assert (
        house.inner.runs[0].admitted.override_reason == REASON.decode()
        and found.headers["x-io3-override"] == "not used"
    )
    assert run(house, house.chat("strict", key="alice")) == ("internal", "mode", "strict", False), "and no other"
    assert house.inner.runs[1].admitted.override_reason == ""
    assert run(house, house.chat("far:internal", key="alice", headers=[(b"x-io3-override", REASON)]))[3] is True
    assert run(house, house.chat("strict", key="owner", metadata={"override_reason": REASON.decode()}))[3] is True


def test_a_used_override_is_reported_as_audited(house: House) -> None:
    async def serve(_scope: Message, receive: Receive, send: Send) -> None:
        context = CURRENT.get()
        assert context is not None
        context.routing.audited.add("cloud")
        await house.inner.answer({}, receive, send)

    house.inner.does = serve
    found = house.chat("strict", key="alice", headers=[(b"x-io3-override", REASON)])
    assert found.headers["x-io3-override"] == "audited"


@pytest.mark.parametrize(
    ("model", "key"),
    [("near", "alice"), ("quiet", "alice"), ("strict", "outer"), ("strict", "inner"), ("far:internal", "owner"), ("open", "owner"),
     ("near", "owner"), ("claude:latest", "alice")],
)  # fmt: skip
def test_only_named_keys_in_named_modes_may_override(house: House, model: str, key: str) -> None:
    for more in ({"headers": [(b"x-io3-override", REASON)]}, {"metadata": {"override_reason": REASON.decode()}}):
        found = house.chat(model, key=key, **more)
        assert (found.status, found.code) == (403, "override_not_allowed")
    assert house.inner.scopes == []


def test_an_override_of_a_public_prompt_is_ignored(house: House) -> None:
    found = house.chat("open", key="alice", headers=[(b"x-io3-override", REASON)])
    assert run(house, found) == ("public", "mode", "open:public", True)
    assert house.inner.runs[0].admitted.override_reason == "" and "x-io3-override" not in found.headers


@pytest.mark.parametrize(
    "reason",
    [b"", b" ", b"too short", b"x" * 301, b"a" * 9 + b" ", b"reason\nwith a line end", b"reason with \x07 a bell", b"reason with \xe2\x80\xae a turn",
     b"  123456789  "],
)  # fmt: skip
def test_an_override_needs_a_readable_reason(house: House, reason: bytes) -> None:
    for more in ({"headers": [(b"x-io3-override", reason)]}, {"metadata": {"override_reason": reason.decode()}}):
        found = house.chat("strict", key="alice", **more)
        assert (found.status, found.code) == (400, "bad_override")
    assert house.inner.scopes == []


@pytest.mark.parametrize("reason", [True, 1, ["a reason in a list"], {"a": "reason in a mapping"}, False, 0])
def test_a_reason_that_is_not_text_is_refused(house: House, reason: object) -> None:
    assert house.chat("strict", key="alice", metadata={"override_reason": reason}).code == "bad_override"


def test_two_different_reasons_are_refused_and_equal_ones_count_as_one(house: House) -> None:
    twice = [(b"x-io3-override", REASON), (b"x-io3-override", b"another reason altogether")]
    assert house.chat("strict", key="alice", headers=twice).code == "bad_override"
    both = {"headers": twice[:1], "metadata": {"override_reason": "another reason altogether"}}
    assert house.chat("strict", key="alice", **both).code == "bad_override"
    same = {"headers": twice[:1], "metadata": {"override_reason": REASON.decode()}}
    assert run(house, house.chat("strict", key="alice", **same))[3] is True


def test_a_reason_in_other_places_overrides_nothing(house: House) -> None:
    words = REASON.decode()
    for more in (
        {"override_reason": words},
        {"user": words},
        {"headers": [(b"x-override", REASON)]},
        {"override": True},
    ):
        assert run(house, house.chat("strict", key="alice", **more))[3] is False


@pytest.mark.parametrize("length", [10, 300])
def test_the_shortest_and_longest_reason(house: House, length: int) -> None:
    assert house.chat("strict", key="alice", headers=[(b"x-io3-override", b"x" * length)]).status == 200


# -- ends of a request


def test_the_slot_comes_back_after_an_answer_and_after_a_refusal(house: House) -> None:
    for _ in range(3):
        assert house.chat("one").status == 200
        assert house.chat("one", tags=[1]).status == 400
        assert house.chat("one", messages=[{"content": [PNG]}]).status == 400


@pytest.mark.parametrize("error", [RuntimeError("x"), OSError("x"), ValueError("x"), asyncio.CancelledError()])
@pytest.mark.parametrize("begun", [False, True])
def test_the_slot_comes_back_when_the_app_fails(house: House, error: BaseException, begun: bool) -> None:
    async def fail(_scope: Message, _receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    house.inner.does = fail
    with pytest.raises(type(error)):
        house.chat("one")
    assert CURRENT.get() is None
    house.inner.does = house.inner.answer
    assert house.chat("one").status == 200


def test_the_slot_comes_back_when_the_client_leaves(house: House) -> None:
    """The server cancels the task, or a send fails."""

    async def scene() -> None:
        entered = asyncio.Event()

        async def wait(*_: object) -> None:
            entered.set()
            await asyncio.sleep(10)

        house.inner.does = wait
        headers = [(b"host", b"localhost"), (b"x-api-key", b"sk-owner")]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b'{"model":"one","messages":[]}'}

        async def send(message: Message) -> None:
            sent.append(message)

        task = asyncio.create_task(house.edge(scope, receive, send))
        await entered.wait()
        second = asyncio.create_task(house.edge(scope, receive, send))
        await second
        assert Answer(sent).code == "limit", "while the first runs, there is none free"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def gone(_message: Message) -> None:
            raise OSError("the client is gone")

        house.inner.does = house.inner.answer
        with pytest.raises(OSError, match="the client is gone"):
            await house.edge(scope, receive, gone)

    asyncio.run(scene())
    assert house.chat("one").status == 200


def test_the_total_time_ends_a_request_that_has_not_begun_to_answer(house: House) -> None:
    async def wait(*_: object) -> None:
        await asyncio.sleep(10)

    house.inner.does = wait
    found = house.chat("short")
    assert (found.status, found.code) == (504, "out_of_time") and found.body["error"]["type"] == "timeout_error"
    house.inner.does = house.inner.answer
    assert house.chat("short").status == 200


def test_an_answer_that_has_begun_is_not_cut_by_the_total_time(house: House) -> None:
    async def slowly(_scope: Message, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.06)
        await send({"type": "http.response.body", "body": b"late"})

    house.inner.does = slowly
    assert house.chat("short").data == b"late"


def test_a_timeout_after_the_response_began_sends_no_second_response(house: House) -> None:
    async def break_off(_scope: Message, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise TimeoutError

    house.inner.does = break_off
    with pytest.raises(RuntimeError, match="the response was cut"):
        house.chat("one")
    house.inner.does = house.inner.answer
    assert house.chat("one").status == 200


def test_an_app_that_answers_its_own_cancellation_is_out_of_time(house: House) -> None:
    """LiteLLM makes an answer (499) of a cancelled call."""

    async def answer_late(_scope: Message, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await house.inner.answer({}, receive, send)

    house.inner.does = answer_late
    assert house.chat("short").status == 504


def test_no_context_outlives_its_request(house: House) -> None:
    """A server may serve the next one in the same context."""

    async def scene() -> None:
        headers = [(b"host", b"localhost"), (b"x-api-key", b"sk-owner")]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}

        async def receive() -> Message:
            return {"type": "http.request", "body": b'{"model":"open","messages":[]}'}

        async def send(_message: Message) -> None:
            return

        await house.edge(scope, receive, send)
        assert len(house.inner.runs) == 1 and CURRENT.get() is None

    asyncio.run(scene())


def test_an_app_that_sends_nothing_gets_no_response_made_up(house: House) -> None:
    """The server makes a 500 of it; it is not out of time."""

    async def nothing(*_: object) -> None:
        return

    house.inner.does = nothing
    with pytest.raises(AssertionError, match=r"\[\]"):
        house.chat("one")
    house.inner.does = house.inner.answer
    assert house.chat("one").status == 200


def test_refusals_have_openais_format(house: House) -> None:
    found = house.chat("other")
    assert set(found.body) == {"error"} and set(found.body["error"]) == {"message", "type", "param", "code"}
    assert found.headers["content-type"] == "application/json"
    assert int(found.headers["content-length"]) == len(found.data)
    assert "connection" not in found.headers, "the body was read: the connection may live on"
