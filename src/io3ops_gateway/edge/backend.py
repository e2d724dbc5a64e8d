"""Serves an admitted request through the fast lane when it can, otherwise through LiteLLM. Touches what those two touch."""

from collections.abc import Mapping
from typing import Any

from io3ops_gateway.asgi import App, Message
from io3ops_gateway.fast_lane.lane import Lane
from io3ops_gateway.litellm_proxy.app import FullPath
from io3ops_gateway.request.context import RequestContext


class Backend:
    """Serves requests. `app`: LiteLLM's. `lane`: None when the table disables it."""

    def __init__(self, app: App, full_path: FullPath, lane: Lane | None = None) -> None:
        self.app = app
        self.full_path = full_path
        self._lane = lane

    async def serve(self, scope: Message, context: RequestContext, body: Mapping[str, Any]) -> None:
        """Serve one request.

        Raises:
            Refusal: the prompt may not go to any model that could serve it.
            TimeoutError: the request's budget ended.
        """
        lane = self._lane
        if lane is None:
            await self.full_path(scope, context, body)
            return
        planned = lane.plan(context.admitted, body)
        if planned and await lane.serve(*planned, context):
            return
        await self.full_path(scope, context, body)
        lane.observe(context)
