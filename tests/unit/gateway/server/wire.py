"""One connection on uvicorn's real protocol and httptools' real parser, over a transport without a socket and a clock that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import uvicorn

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.server.http_protocol import ConnectionState, LimitedHttp


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still until a test moves it."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Transport(asyncio.Transport):
    """Keeps what is written. A close reaches the protocol in the next turn of the loop, as with a socket."""

    def __init__(self, loop: Loop) -> None:
        super().__init__({"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 4000)})
        self.written = b""
        self.closed = self.aborted = self.paused = False
        self.lost: Callable[[Exception | None], None] | None = None
        self._loop = loop

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            assert self.lost is not None
            self._loop.call_soon(self.lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class App:
    """An ASGI app that keeps its requests, and responds when a test lets it. `reads`: it reads the body first."""

    def __init__(self) -> None:
        self.scopes: list[Message] = []
        self.bodies: list[bytes] = []
        self.disconnects = 0
        self.reads = True
        self.streams = False
        self.may_respond = asyncio.Event()
        self.may_respond.set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body, more = b"", self.reads
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(body)
        if self.streams:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await self.may_respond.wait()
        if not self.streams:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Wire:
    """A client's connection to `app`. `state`: of the server that has it."""

    def __init__(self, state: ConnectionState | None = None) -> None:
        self.loop = Loop()
        self.app = App()
        self.state = state or ConnectionState()
        config = uvicorn.Config(
            self.app, http=LimitedHttp, ws="none", log_config=None, access_log=False, timeout_keep_alive=75
        )
        self.connection = LimitedHttp(config, self.state, {}, self.loop)
        self.transport = Transport(self.loop)
        self.transport.lost = self.connection.connection_lost
        self.connection.connection_made(self.transport)

    def receive(self, data: bytes) -> None:
        """Let bytes of the client arrive."""
        self.connection.data_received(data)
        self.settle()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.now += seconds
        self.settle()

    def settle(self) -> None:
        """Run everything that is due now."""

        async def turns() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def lose(self) -> None:
        """Let the client close its connection."""
        self.transport.close()
        self.settle()

    def end(self) -> None:
        """Close the loop, and everything that still waits in it."""
        self.app.may_respond.set()
        if not self.transport.closed:
            self.lose()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.settle()
        self.loop.close()

    @property
    def statuses(self) -> list[int]:
        """The status of each response that was written."""
        return [int(part[:3]) for part in self.transport.written.split(b"HTTP/1.1 ")[1:]]

    @property
    def open(self) -> bool:
        return not self.transport.closed
