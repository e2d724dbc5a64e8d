"""LiteLLM's hooks, thin: they find the mode's policy and let `policy` decide. Loaded by LiteLLM by its dotted name.

Touches LiteLLM's hook interface and the state of the running request, nothing else. `Requests` wraps the app, because only
there every end of a request is seen: answered, failed, streamed to the end, or left by the client.
"""

import asyncio
import hmac
import json
import math
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger

from io3ops_gateway import policy as rules
from io3ops_gateway.settings import from_environment

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


# What a health check may ask without a key; neither calls a model.
OPEN_PATHS = ("/health/liveliness", "/health/readiness")


@dataclass(slots=True)
class Running:
    """The request that runs in this context. `mode` is '' until it was let in; `budget` ends it when time is up."""

    budget: asyncio.Timeout
    mode: str = ""


RUNNING: ContextVar[Running | None] = ContextVar("io3ops_running", default=None)


class PolicyHooks(CustomLogger):  # type: ignore[misc]
    """Applies the policy before the call, and counts what was used after it."""

    def __init__(self, policy: rules.Policy) -> None:
        super().__init__()
        self.policy = policy
        self.meter = rules.Meter(time.monotonic)

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Once per request, before any routing: alias, what is denied, limits, parameters, budget."""
        running = RUNNING.get()
        try:
            mode = self.policy.mode(data.get("model"))
            if running is None:
                raise rules.Refusal(500, "no_request", "this call came past the gateway's own door")
            data["model"] = mode.name
            rules.apply(mode, data)
            if not running.mode:
                self.meter.enter(mode)
        except rules.Refusal as refused:
            headers = {"Retry-After": str(math.ceil(refused.retry_after))} if refused.retry_after else None
            detail = {"error": {"message": refused.message, "type": "invalid_request_error", "code": refused.code}}
            raise HTTPException(refused.status, detail=detail, headers=headers) from None
        running.mode = mode.name
        running.budget.reschedule(asyncio.get_running_loop().time() + mode.total)
        return data

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """After an answer: its tokens count towards the mode's limit."""
        record = kwargs.get("standard_logging_object") or {}
        mode, tokens = record.get("model_group"), record.get("total_tokens")
        if isinstance(mode, str) and mode in self.policy.modes and isinstance(tokens, int):
            self.meter.used(mode, tokens)


class Requests:
    """Wraps the app: each request must know the key, gets a place for its state, a time budget, and gives its slot back when it has ended.

    The budget is held here because LiteLLM sleeps between retries without looking at any clock of ours. It covers
    everything until the answer begins; an answer that is being streamed is not cut.
    """

    def __init__(self, app: App, hooks: PolicyHooks, key: str) -> None:
        self._app = app
        self._hooks = hooks
        self._key = key.encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # Nothing in the table is served this way, and the policy's hooks would not see it.
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] not in OPEN_PATHS and not self._knows(scope["headers"]):
            # LiteLLM without a database answers this with "No connected db" or a bare 500.
            await _answer(
                send, 401, "the key is missing or not this gateway's", "authentication_error", "invalid_api_key"
            )
            return
        # A client's x-litellm-* headers would set time limits and retries past the table.
        scope["headers"] = [(k, v) for k, v in scope["headers"] if not k.startswith(b"x-litellm-")]
        running = None
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start" and running:
                begun = True
                running.budget.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout(None) as budget:
                running = Running(budget)
                RUNNING.set(running)
                await self._app(scope, receive, watched)
        except TimeoutError:
            if begun or not budget.expired():
                raise
            await _answer(send, 504, "the mode's total time is used up", "timeout_error", "out_of_time")
        finally:
            if running and running.mode:
                self._hooks.meter.leave(running.mode)

    def _knows(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether one of the headers in which clients send keys holds ours; compared in constant time."""
        given = [v.removeprefix(b"Bearer ") for k, v in headers if k == b"authorization" and v.startswith(b"Bearer ")]
        given += [v for k, v in headers if k in (b"x-api-key", b"api-key")]
        return any(hmac.compare_digest(value.strip(), self._key) for value in given)


async def _answer(send: Send, status: int, message: str, kind: str, code: str) -> None:
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _load() -> PolicyHooks:
    config = from_environment(os.environ).config
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return PolicyHooks(rules.from_config(yaml.load(Path(config).read_text("utf-8"), Loader=loader)))


# LiteLLM looks this name up; a policy that cannot be read stops the start.
policy = _load()
