"""An edge around an app that only records what it gets, and a client that asks it. Shared by the tests of this folder."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from tests.unit.gateway import contexts

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.limits.rate_limits import Ledger, RateLimiter
from io3ops_gateway.policy.client_keys import KeyRing
from io3ops_gateway.policy.policy import Policy
from io3ops_gateway.request.context import CURRENT, RequestContext
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


def outcome(house: House, found: Answer) -> tuple[str, str, str, bool]:
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
