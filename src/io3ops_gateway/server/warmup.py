"""Requests that a starting worker sends itself, before anybody else does: the first of a kind is several times slower.

`warm_up` reaches no model: LiteLLM answers with a text that it is given. `try_modes` calls the model of every mode that has a
local one. Touches nothing but the app it is handed.
"""

import asyncio
from typing import Any

import orjson

from io3ops_gateway.asgi import Message
from io3ops_gateway.edge.app import Edge
from io3ops_gateway.errors import StartError
from io3ops_shared.names import INTERNAL

SECONDS = 50.0
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "ok"}], "max_tokens": 1}),
    "embeddings": ("/v1/embeddings", {"input": "ok"}),
}


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
