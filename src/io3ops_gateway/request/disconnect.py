"""Notices when the client disconnects, and cancels its request. Touches the connection it is handed."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from io3ops_gateway.asgi import Message, Receive
from io3ops_gateway.request.context import RequestContext


@contextlib.contextmanager
def watch_disconnect(context: RequestContext, scope: Message, receive: Receive) -> Iterator[None]:
    """While the block runs, end the request's budget as soon as the client is gone: its model and its place are for others."""

    def disconnected() -> None:
        context.disconnected.set()
        if not context.response.ended and not context.budget.expired():
            context.budget.reschedule(asyncio.get_running_loop().time())

    connection = scope.get("io3_connection")
    if connection is None:
        # A server without our protocol class does not call back, so ask it until it reports the disconnect.
        watcher = asyncio.create_task(_poll(receive, disconnected))
        try:
            yield
        finally:
            watcher.cancel()
    elif connection.gone:
        disconnected()
        yield
    else:
        connection.when_gone = disconnected
        try:
            yield
        finally:
            # The connection's next request may have registered its own callback already.
            if connection.when_gone is disconnected:
                connection.when_gone = None


async def _poll(receive: Receive, disconnected: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":  # noqa: ASYNC110  ASGI reports a disconnect only as a message
        # A server that repeats the body must not keep other requests from running.
        await asyncio.sleep(0)
    disconnected()
