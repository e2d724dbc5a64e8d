"""Requests that a starting worker sends itself before clients do: the first request of a kind is several times slower.

`warm_up` reaches no model: LiteLLM responds with a given text. `warm_providers` reaches none either: it goes through the client of each kind
of provider, which sends nothing. `try_modes` calls the model of every mode that has a local one. Touches the app it is handed and, in
`warm_providers`, this process's HTTP clients and logging.
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

# For the model of a mode to answer, in `try_modes`.
MODE_SECONDS = 50.0
# A short request (path, body) for each task.
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "ok"}], "max_tokens": 1}),
    "embeddings": ("/v1/embeddings", {"input": "ok"}),
}
# The requests for a kind of provider, by task. Each endpoint imports and prepares something of its own; one stream does so for all streams.
PROVIDER_CALLS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "chat": (
        REQUESTS["chat"],
        (REQUESTS["chat"][0], {**REQUESTS["chat"][1], "stream": True}),
        ("/v1/completions", {"prompt": "ok", "max_tokens": 1}),
        ("/v1/responses", {"input": "ok", "max_output_tokens": 16}),
        ("/v1/messages", REQUESTS["chat"][1]),
    ),
    "embeddings": (REQUESTS["embeddings"],),
    "images": (("/v1/images/generations", {"prompt": "ok"}),),
    "speech": (("/v1/audio/speech", {"input": "ok", "voice": "alloy"}),),
    "moderations": (("/v1/moderations", {"input": "ok"}),),
}
# A worker must be ready within `rollout.START_SECONDS`; a provider that is not warm by then is only slower.
PROVIDERS_SECONDS = 20.0


async def warm_up(edge: Edge) -> None:
    """Send requests through all of LiteLLM, streamed and not, which it answers without a model.

    Raises:
        StartError: it responds with an error, so it would do the same to every client.
    """
    for task, (path, body) in REQUESTS.items():
        mode = next((m for m in edge.policy.modes.values() if m.task == task and INTERNAL in m.groups), None)
        if mode is None:
            continue
        app = edge.warm_up(mode, "ok" if task == "chat" else [0.5, 0.5])
        for more in ({}, {"stream": True}) if task == "chat" else ({},):
            status, response = await call(app, path, {**body, "model": mode.groups[INTERNAL], **more})
            if status != 200:
                what = f"the warm-up of mode {mode.name} failed: {_error(status, response)}"
                raise StartError(what, "`io3ops logs gateway` shows more")


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
    """Return why a request failed; "" when it did not."""
    try:
        status, response = await call(app, path, body)
    except Exception as error:  # noqa: BLE001  LiteLLM and the libraries of providers raise anything
        return one_line(error)
    return "" if status == 200 else _error(status, response)


@contextmanager
def _without_litellms_log() -> Iterator[None]:
    """Log nothing while the block runs: LiteLLM logs a page for each failure, and `_warn` writes one line."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)


def _warn(reason: str) -> None:
    print(f"gateway: a provider's first call may be slow: {reason}", file=sys.stderr, flush=True)


async def try_modes(edge: Edge) -> None:
    """Send one short request to the model of each mode that serves internal prompts, all at the same time.

    Raises:
        StartError: naming each mode that fails.
    """
    modes = [mode for mode in edge.policy.modes.values() if mode.task in REQUESTS and INTERNAL in mode.groups]
    failures = [failure for failure in await asyncio.gather(*(_mode_failure(edge, mode) for mode in modes)) if failure]
    if failures:
        hint = "correct runtime/routing.yaml, or read the log of the model's server (`io3ops logs`)"
        raise StartError("; ".join(failures), hint)


async def _mode_failure(edge: Edge, mode: ModePolicy) -> str:
    """Return why the model of a mode does not answer; "" when it does."""
    path, body = REQUESTS[mode.task]
    try:
        async with asyncio.timeout(MODE_SECONDS):
            status, response = await call(edge.owned, path, {**body, "model": f"{mode.name}:{INTERNAL}"})
    except TimeoutError:
        return f"mode {mode.name}: no answer within {MODE_SECONDS:g} s"
    return "" if status == 200 else f"mode {mode.name}: {_error(status, response)}"


class _Call:
    """One request to an ASGI app in this process, whose client never disconnects, and its response."""

    def __init__(self, body: bytes) -> None:
        self.status = 0
        self.parts = bytearray()
        self._body = body
        self._received = False

    async def receive(self) -> Message:
        if self._received:
            await asyncio.Event().wait()
        self._received = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.parts.extend(message.get("body", b""))


async def call(app: App, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    """Send one POST to an ASGI app in this process. Return (status, body) of its response."""
    data = orjson.dumps(body)
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
    made = _Call(data)
    await app(scope, made.receive, made.send)
    return made.status, bytes(made.parts)


def _error(status: int, response: bytes) -> str:
    """Put an error response into one line, whatever its shape."""
    try:
        message = orjson.loads(response)["error"]["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = response[:200].decode("utf-8", "replace")
    return f"HTTP {status}: {' '.join(str(message).split())[:300]}"
