"""Requests that a starting worker sends itself, to an app in LiteLLM's place; and what clients are told when a worker ends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway import contexts

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.edge.app import Edge
from io3ops_gateway.errors import StartError
from io3ops_gateway.limits.rate_limits import Ledger, RateLimiter
from io3ops_gateway.policy.client_keys import KeyRing
from io3ops_gateway.policy.endpoints import CHAT, EXTRA, MESSAGES, RESPONSES, paths
from io3ops_gateway.policy.policy import Policy
from io3ops_gateway.request import error_responses
from io3ops_gateway.request.context import CURRENT, RequestContext
from io3ops_gateway.request.error_responses import STOPPING
from io3ops_gateway.server import mode_checks, self_request, warmup
from io3ops_shared.policy import Deployment, ModePolicy

STREAM = [(b"content-type", b"text/event-stream; charset=utf-8")]


def a_mode(name: str, **words: Any) -> ModePolicy:
    return ModePolicy(name=name, **({"groups": {"internal": name, "public": f"{name}:public"}} | words))


MODES = {
    "far": a_mode("far", groups={"public": "far:public"}),
    "near": a_mode("near", limits={"requests_per_minute": 1}),
    "open": a_mode("open", data_class="public"),
    "vec": a_mode("vec", task="embeddings"),
    "judge": a_mode("judge", task="moderations"),
}


class Inner:
    """In LiteLLM's place: responds to each mode with its status in `statuses`, else with 200."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.runs: list[RequestContext] = []
        self.statuses: dict[str, int] = {}
        self.hangs: set[str] = set()
        self.keys: set[bytes] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        body = json.loads((await receive())["body"])
        context = CURRENT.get()
        assert context is not None
        self.asked.append((scope["path"], body))
        self.runs.append(context)
        self.keys |= {value for name, value in scope["headers"] if name == b"authorization"}
        if context.admitted.mode in self.hangs:
            await asyncio.Event().wait()
        status = self.statuses.get(context.admitted.mode, 200)
        data = b"{}" if status == 200 else json.dumps({"error": {"message": f"no\n{context.admitted.mode}"}}).encode()
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
        )
        await send({"type": "http.response.body", "body": data})


def an_edge(inner: Any, folder: Path, modes: dict[str, ModePolicy] | None = None, **words: Any) -> Edge:
    policy = Policy(modes=MODES if modes is None else modes, aliases={}, **words)
    ring = KeyRing("sk-owner", folder / "keys.json")
    limiter = RateLimiter(Ledger(), worker=0, clock=lambda: 0.0)
    return contexts.an_edge(inner, policy, ring, limiter, owner_key="sk-owner", config="d1")


def test_a_warm_up_goes_through_all_of_litellm_and_to_no_model(tmp_path: Path) -> None:
    """One mode of a task, streamed and not. The response comes with the request, and the group is that of internal prompts."""
    inner = Inner()
    asyncio.run(warmup.warm_up(an_edge(inner, tmp_path)))
    assert [(p, b["model"], b.get("stream", False)) for p, b in inner.asked] == [
        ("/v1/chat/completions", "near", False),
        ("/v1/chat/completions", "near", True),
        ("/v1/embeddings", "vec", False),
    ]
    assert [run.warmup for run in inner.runs] == ["ok", "ok", [0.5, 0.5]]
    assert not any(run.admitted.may_leave for run in inner.runs) and inner.keys == {b"Bearer sk-inside"}
    assert CURRENT.get() is None


def test_a_gateway_without_local_modes_has_nothing_to_warm_up(tmp_path: Path) -> None:
    inner = Inner()
    edge = an_edge(inner, tmp_path, {"far": MODES["far"], "judge": MODES["judge"]})
    asyncio.run(warmup.warm_up(edge))
    asyncio.run(mode_checks.check_modes(edge))
    assert inner.asked == []


def test_a_warm_up_that_fails_ends_the_start(tmp_path: Path) -> None:
    inner = Inner()
    inner.statuses["near"] = 500
    with pytest.raises(StartError, match="the warm-up of mode near failed: HTTP 500: no near"):
        asyncio.run(warmup.warm_up(an_edge(inner, tmp_path)))


def an_edge_with_providers(inner: Any, folder: Path) -> Edge:
    """`openai` is in a chain behind a local model, twice, and has two more tasks."""
    modes = {name: MODES[name] for name in ("near", "vec", "judge")}
    members = {"near": ("n.1",), "near:public": ("n.1", "n.2", "n.3"), "vec": (), "vec:public": ("v.1",)}
    members |= {"judge": (), "judge:public": ("j.1",)}
    deployments = {
        name: Deployment(name=name, provider="p", local=name == "n.1", url="https://x", kind=kind)
        for name, kind in {"n.1": "ollama", "n.2": "openai", "n.3": "openai", "v.1": "openai", "j.1": "openai"}.items()
    }
    return an_edge(inner, folder, modes, members=members, deployments=deployments)


def test_each_kind_of_provider_is_warmed_up_once_for_each_task_and_sends_nothing(tmp_path: Path) -> None:
    """Also a kind that never comes first in a chain."""
    inner = Inner()
    asyncio.run(warmup.warm_providers(an_edge_with_providers(inner, tmp_path)))
    chat = ["chat/completions", "chat/completions", "completions", "responses", "messages"]
    expected = [(f"/v1/{path}", name) for name in ("n.1", "n.2") for path in chat]
    expected += [("/v1/embeddings", "v.1"), ("/v1/moderations", "judge:public")]
    assert [(path, body["model"]) for path, body in inner.asked] == expected
    for run, (_, model) in zip(inner.runs, expected, strict=True):
        assert run.unsent and run.admitted.group == run.admitted.requested_model == model
    assert [run.admitted.may_leave for run in inner.runs] == [False] * 5 + [True] * 7
    assert CURRENT.get() is None


def test_providers_are_warmed_up_at_every_endpoint() -> None:
    served = paths({endpoint.task for endpoint in EXTRA.values()})
    asked = {(path, task) for task, calls in warmup.PROVIDER_CALLS.items() for path, _ in calls}
    assert asked == {(path, endpoint.task) for path, endpoint in served.items() if path.startswith("/v1/")}


def test_a_provider_that_cannot_be_warmed_up_fails_no_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = Inner()
    inner.statuses["vec"] = 500

    async def broken(scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] == "/v1/responses":
            raise KeyError("output")
        await inner(scope, receive, send)

    asyncio.run(warmup.warm_providers(an_edge_with_providers(broken, tmp_path)))
    told = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("gateway: a provider's first call may be slow: ") for line in told] == [
        "ollama at /v1/responses: KeyError: 'output'",
        "openai at /v1/responses: KeyError: 'output'",
        "openai at /v1/embeddings: HTTP 500: no vec",
    ]


def test_a_provider_that_hangs_fails_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warmup, "PROVIDERS_SECONDS", 0.02)
    inner = Inner()
    inner.hangs.add("near")
    asyncio.run(warmup.warm_providers(an_edge_with_providers(inner, tmp_path)))
    assert "not all warmed up within 0.02 s" in capsys.readouterr().err
    assert len(inner.asked) == 1


def test_each_mode_with_a_model_for_internal_prompts_is_called_once(tmp_path: Path) -> None:
    """Through the edge, as the owner's test: as internal whatever the mode's class, and counted towards no limit."""
    inner = Inner()
    edge = an_edge(inner, tmp_path)
    for _ in range(2):
        asyncio.run(mode_checks.check_modes(edge))
    assert sorted(run.admitted.mode for run in inner.runs) == sorted(["near", "open", "vec"] * 2), "even past its limit"
    assert all(run.admitted.key == "owner" and run.slots == () and run.warmup is None for run in inner.runs)
    assert {(run.admitted.data_class, run.admitted.may_leave) for run in inner.runs} == {("internal", False)}
    assert {run.admitted.group for run in inner.runs} == {"near", "open", "vec"}


def test_every_mode_that_fails_is_named(tmp_path: Path) -> None:
    inner = Inner()
    inner.statuses |= {"near": 500, "vec": 404}
    with pytest.raises(StartError) as found:
        asyncio.run(mode_checks.check_modes(an_edge(inner, tmp_path)))
    assert found.value.what == "mode near: HTTP 500: no near; mode vec: HTTP 404: no vec"


def test_a_mode_that_hangs_has_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode_checks, "MODE_SECONDS", 0.02)
    inner = Inner()
    inner.hangs.add("open")
    with pytest.raises(StartError, match=r"mode open: no answer within 0\.02 s;"):
        asyncio.run(mode_checks.check_modes(an_edge(inner, tmp_path)))


@pytest.mark.parametrize("answer", [b"", b"no json", b"[]", b'{"error": "x"}', b'{"error": null}', b"\xff"])
def test_an_error_of_any_shape_is_a_reason(answer: bytes) -> None:
    assert self_request.error_text(502, answer).startswith("HTTP 502: ")


# -- clients, and the end of a worker


class Connection:
    """`http_protocol.LimitedHttp`, as far as the edge sees it."""

    def __init__(self) -> None:
        self.gone = False
        self.when_gone: Any = None

    def leave(self) -> None:
        self.gone = True
        if self.when_gone is not None:
            self.when_gone()


class Asking:
    """One request and its response. `app`: in LiteLLM's place; `meanwhile(asking)` runs beside it."""

    def __init__(self, folder: Path, app: Any, meanwhile: Any = None, *, path: str = "chat/completions") -> None:
        self.edge = an_edge(app, folder, {"near": a_mode("near")})
        self.connection = Connection()
        self.sent: list[Message] = []
        self.error: Exception | None = None
        self.reached = asyncio.Event()
        fields: dict[str, Any] = {"responses": {"input": "x"}, "messages": {"messages": [], "max_tokens": 5}}
        body = {"model": "near", **fields.get(path, {"messages": []})}

        async def receive() -> Message:
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

        async def send(message: Message) -> None:
            self.sent.append(message)
            self.reached.set()

        async def run() -> None:
            scope = {
                "type": "http", "method": "POST", "path": f"/v1/{path}", "query_string": b"", "io3_connection": self.connection,
                "headers": [(b"host", b"localhost"), (b"authorization", b"Bearer sk-owner")],
            }  # fmt: skip
            task = asyncio.create_task(self.edge(scope, receive, send))
            if meanwhile is not None:
                await meanwhile(self)
            try:
                await asyncio.wait_for(task, 5)
            except RuntimeError as error:
                self.error = error

        asyncio.run(run())

    @property
    def data(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent if m["type"] == "http.response.body")


async def hangs(_scope: Message, _receive: Receive, _send: Send) -> None:
    await asyncio.Event().wait()


async def streams(_scope: Message, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": STREAM})
    await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
    await asyncio.Event().wait()


async def half(_scope: Message, _receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"100")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"half', "more_body": True})
    await asyncio.Event().wait()


async def _until_it_streams(asking: Asking) -> None:
    await asking.reached.wait()
    while not asking.data:
        await asyncio.sleep(0)


async def the_end(asking: Asking) -> None:
    await _until_it_streams(asking)
    asking.edge.end()
    # Told once, however often it ends.
    asking.edge.end()


async def the_end_at_once(asking: Asking) -> None:
    while not asking.edge._active:
        await asyncio.sleep(0)
    asking.edge.end()


def test_at_the_end_a_client_without_a_response_is_told_to_retry(tmp_path: Path) -> None:
    asking = Asking(tmp_path, hangs, the_end_at_once)
    assert asking.sent[0]["status"] == 503 and (b"retry-after", b"2") in asking.sent[0]["headers"]
    assert json.loads(asking.data)["error"]["code"] == "stopping" and not asking.edge._active


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("chat/completions", b'data: {"error":{"message":"the gateway is stopping'),
        ("responses", b'event: error\ndata: {"type":"error","code":"stopping"'),
        ("messages", b'event: error\ndata: {"type":"error","error":{"type":"api_error"'),
    ],
)
def test_at_the_end_a_stream_gets_an_error_in_the_format_of_its_endpoint(
    tmp_path: Path, path: str, event: bytes
) -> None:
    asking = Asking(tmp_path, streams, the_end, path=path)
    assert asking.data.startswith(b"data: {}\n\n" + event) and asking.data.endswith(b"\n\n")
    assert asking.data.count(b"the gateway is stopping") == 1 and asking.error is None
    assert not asking.sent[-1].get("more_body"), "and ends in good order"


def test_at_the_end_half_a_response_can_only_be_cut(tmp_path: Path) -> None:
    asking = Asking(tmp_path, half, the_end)
    assert asking.data == b'{"half' and "the response was cut" in str(asking.error)


def test_a_client_that_disconnects_ends_its_call(tmp_path: Path) -> None:
    async def leaves(asking: Asking) -> None:
        await _until_it_streams(asking)
        asking.connection.leave()

    asking = Asking(tmp_path, streams, leaves)
    assert asking.error is None and asking.data == b"data: {}\n\n", "there is nobody to tell"
    assert not asking.edge._active and asking.connection.when_gone is None


def test_a_client_that_disconnected_before_it_was_admitted_costs_nothing(tmp_path: Path) -> None:
    async def left(asking: Asking) -> None:
        asking.connection.leave()

    assert not Asking(tmp_path, hangs, left).edge._active


def test_only_the_owner_is_told_which_configuration_serves(tmp_path: Path) -> None:
    def listed(key: bytes) -> dict[bytes, bytes]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": [(b"host", b"localhost"), (b"x-api-key", key)]}  # fmt: skip
        asyncio.run(an_edge(Inner(), tmp_path)(scope, None, send))  # type: ignore[arg-type]  # nothing may be received
        return dict(sent[0]["headers"])

    assert listed(b"sk-owner")[b"x-io3-config"] == b"d1"
    assert b"x-io3-config" not in listed(b"sk-other")


def test_an_error_has_the_shape_that_clients_know() -> None:
    assert set(error_responses.error_body(STOPPING)["error"]) == {"message", "type", "param", "code"}
    for endpoint in (CHAT, MESSAGES, RESPONSES):
        assert error_responses.error_event(STOPPING, endpoint).endswith(b"\n\n")
