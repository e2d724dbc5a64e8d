"""Requests that a starting worker sends itself before clients do: the first request of a kind is several times slower.

`warm_up` reaches no model: LiteLLM responds with a given text. `warm_providers` reaches none either: it goes through the client of each kind
of provider, which sends nothing. Touches the app that it is handed and, in `warm_providers`, this process's HTTP clients and logging.
"""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from io3ops_gateway.asgi import App
from io3ops_gateway.edge.app import Edge
from io3ops_gateway.errors import StartError, one_line
from io3ops_gateway.litellm_proxy import http_transport
from io3ops_gateway.policy.policy import Policy
from io3ops_gateway.server.self_request import call, error_text
from io3ops_shared.names import INTERNAL
from io3ops_shared.policy import ModePolicy

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
                what = f"the warm-up of mode {mode.name} failed: {error_text(status, response)}"
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
    return "" if status == 200 else error_text(status, response)


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
