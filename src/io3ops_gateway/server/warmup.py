"""Requests that a starting worker sends itself, before anybody else does: the first of a kind is several times slower.

`warm_up` reaches no model: LiteLLM answers with a text that it is given. `warm_providers` reaches none either: it goes through the client of
each kind of provider, which sends nothing. `try_modes` calls the model of every mode that has a local one. Touches the app it is handed and,
in `warm_providers`, this process's HTTP clients and logging.
"""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from io3ops_gateway.asgi import App, Message
from io3ops_gateway.edge.app import Edge
from io3ops_gateway.errors import StartError, one_line
from io3ops_gateway.litellm_proxy import http_transport
from io3ops_gateway.policy.policy import Policy
from io3ops_shared.names import INTERNAL
from io3ops_shared.policy import ModePolicy

SECONDS = 50.0
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "ok"}], "max_tokens": 1}),
    "embeddings": ("/v1/embeddings", {"input": "ok"}),
}
# What a kind of provider is asked, by task. Each endpoint imports and prepares something of its own; one stream does so for all streams.
PROVIDER_CALLS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "chat": (
        ASKED["chat"],
        (ASKED["chat"][0], {**ASKED["chat"][1], "stream": True}),
        ("/v1/completions", {"prompt": "ok", "max_tokens": 1}),
        ("/v1/responses", {"input": "ok", "max_output_tokens": 16}),
        ("/v1/messages", ASKED["chat"][1]),
    ),
    "embeddings": (ASKED["embeddings"],),
    "images": (("/v1/images/generations", {"prompt": "ok"}),),
    "speech": (("/v1/audio/speech", {"input": "ok", "voice": "alloy"}),),
    "moderations": (("/v1/moderations", {"input": "ok"}),),
}
# A worker must be ready within `rollout.START_SECONDS`; a provider that is not warm by then is only slower.
PROVIDERS_SECONDS = 20.0


async def warm_up(edge: Edge) -> None:
    """LiteLLM's whole way, streamed and not, without a model.

    Raises:
        StartError: it answers with an error, so it would answer everybody so.
    """
    for task, (path, body) in ASKED.items():
        mode = next((m for m in edge.policy.modes.values() if m.task == task and INTERNAL in m.groups), None)
        if mode is None:
            continue
        app = edge.warm_up(mode, "ok" if task == "chat" else [0.5, 0.5])
        for more in ({}, {"stream": True}) if task == "chat" else ({},):
            status, answer = await call(app, path, {**body, "model": mode.groups[INTERNAL], **more})
            if status != 200:
                raise StartError(
                    f"a rehearsal in mode {mode.name} failed: {_said(status, answer)}",
                    "`io3ops logs gateway` shows more",
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Provider:
    """One kind of provider in one task. `model`: how LiteLLM is asked for it, in a request of `mode`; `local`: not in a cloud."""

    kind: str
    mode: ModePolicy
    model: str
    local: bool


async def warm_providers(edge: Edge) -> None:
    """Make LiteLLM import and build everything that the first call of each kind of provider needs.

    At a client's first call that would take seconds in the event loop, where nothing else is served and no time limit holds.
    A provider that cannot be warmed up may still serve, so this never fails a start.
    """
    try:
        with _without_litellms_log(), http_transport.silenced():
            async with asyncio.timeout(PROVIDERS_SECONDS):
                for provider in _providers(edge.policy):
                    for path, body in PROVIDER_CALLS[provider.mode.task]:
                        app = edge.warm_provider(provider.mode, provider.model, may_leave=not provider.local)
                        if failure := await _failure(app, path, {**body, "model": provider.model}):
                            _warn(f"{provider.kind} at {path}: {failure}")
    except TimeoutError:
        _warn(f"the providers were not all warmed up within {PROVIDERS_SECONDS:g} s")


def _providers(policy: Policy) -> list[_Provider]:
    """Return each kind of provider once for each task that it has."""
    found: dict[tuple[str, str], _Provider] = {}
    for mode in policy.modes.values():
        for group in mode.groups.values():
            for name in policy.members.get(group, ()):
                deployment = policy.deployments[name]
                # By deployment, because a kind may never come first in its groups. For moderations LiteLLM takes groups only.
                model = group if mode.task == "moderations" else name
                provider = _Provider(kind=deployment.kind, mode=mode, model=model, local=deployment.local)
                found.setdefault((deployment.kind, mode.task), provider)
    return list(found.values())


async def _failure(app: App, path: str, body: dict[str, Any]) -> str:
    """Return why a request failed, '' when it did not."""
    try:
        status, answer = await call(app, path, body)
    except Exception as error:
        return one_line(error)
    return "" if status == 200 else _said(status, answer)


@contextmanager
def _without_litellms_log() -> Iterator[None]:
    """LiteLLM logs a page for each failure; `_warn` says it in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _warn(why: str) -> None:
    print(f"gateway: a provider's first call may be slow: {why}", file=sys.stderr, flush=True)


async def try_modes(edge: Edge) -> None:
    """One short call to the model of each mode that serves internal prompts, all at the same time.

    Raises:
        StartError: a mode does not answer.
    """

    async def one(name: str, path: str, body: dict[str, Any]) -> str:
        try:
            async with asyncio.timeout(SECONDS):
                status, answer = await call(edge.owned, path, {**body, "model": f"{name}:{INTERNAL}"})
        except TimeoutError:
            return f"mode {name}: no answer within {SECONDS:g} s"
        return "" if status == 200 else f"mode {name}: {_said(status, answer)}"

    tried = [
        one(m.name, *ASKED[m.task]) for m in edge.policy.modes.values() if m.task in ASKED and INTERNAL in m.groups
    ]
    failed = [found for found in await asyncio.gather(*tried) if found]
    if failed:
        raise StartError(
            "; ".join(failed), "correct runtime/routing.yaml, or see what the model's server says (`io3ops logs`)"
        )


async def call(app: Any, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    """(status, body) of one POST to an ASGI app in this process."""
    data = orjson.dumps(body)
    given = False
    status, parts = 0, bytearray()

    async def receive() -> Message:
        nonlocal given
        if given:
            await asyncio.Event().wait()
        given = True
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.extend(message.get("body", b""))

    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
    ]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers, "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0), "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    return status, bytes(parts)


def _said(status: int, answer: bytes) -> str:
    try:
        message = orjson.loads(answer)["error"]["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = answer[:200].decode("utf-8", "replace")
    return f"HTTP {status}: {' '.join(str(message).split())[:300]}"
