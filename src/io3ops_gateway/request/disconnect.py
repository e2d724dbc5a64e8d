"""Whoever waits for an answer, and may leave. Touches the connection it is handed."""

import asyncio
import contextlib
from collections.abc import Iterator

from io3ops_gateway.asgi import Message, Receive
from io3ops_gateway.request.context import RequestContext


class DisconnectWatcher:
    """`gone`: set when the client has left; the request's budget ends with it, so that the model and the place are for others."""

    def __init__(self, context: RequestContext) -> None:
        self.gone = asyncio.Event()
        self._context = context

    @contextlib.contextmanager
    def watched(self, scope: Message, receive: Receive) -> Iterator[None]:
        """For as long as the block runs, notice when the client leaves."""
        connection = scope.get("io3_connection")
        if connection is None:
            # Another server than ours: ask it, again and again.
            watcher = asyncio.create_task(self._watch(receive))
            try:
                yield
            finally:
                watcher.cancel()
        elif connection.gone:
            self._left()
            yield
        else:
            connection.when_gone = self._left
            try:
                yield
            finally:
                # The next request of the connection may have begun already.
                if connection.when_gone == self._left:
                    connection.when_gone = None

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            # Whoever repeats the body must not keep everybody else from running.
            await asyncio.sleep(0)
        self._left()

    def _left(self) -> None:
        self.gone.set()
        budget = self._context.budget
        if not self._context.ended and not budget.expired():
            budget.reschedule(asyncio.get_running_loop().time())
