"""A scripted model server on loopback, and a lane in front of it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.gateway.contexts import a_context

from io3ops_gateway.asgi import Message
from io3ops_gateway.codec.base import Target
from io3ops_gateway.fast_lane.lane import Lane
from io3ops_gateway.fast_lane.upstreams import Upstream
from io3ops_gateway.limits.rate_limits import Ledger, RateLimiter
from io3ops_gateway.policy.policy import Policy
from io3ops_gateway.policy.provider_keys import ProviderKeys
from io3ops_gateway.request.context import RequestContext
from io3ops_gateway.request.response_writer import ResponseWriter
from io3ops_shared.policy import Deployment

NAME = "m.1.a"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
STREAM = CHAT | {"stream": True}


@dataclass(frozen=True, kw_only=True)
class Received:
    """One request that the server received. `connection`: counts from 0."""

    line: str
    headers: Mapping[str, str]
    body: Any
    connection: int


class Connection:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        """Send a part of a chunked body; b'' ends it."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def until_gone(self) -> None:
        """Say nothing until the client closes the connection."""
        assert await self.reader.read(1) == b""

    def reset(self) -> None:
        """Break the connection off without the orderly close: with no time to linger, the kernel sends a reset."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Connection], Awaitable[None]]


class ModelServer:
    """Answers every request with `script`, which the test sets. `gone`: a client closed its connection."""

    def __init__(self) -> None:
        self.script: Script = whole({})
        self.received: list[Received] = []
        self.gone = asyncio.Event()
        self.port = 0
        self._connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self._connections = self._connections, self._connections + 1
        connection = Connection(reader, writer)
        try:
            while not writer.is_closing():
                self.received.append(await _read(reader, number))
                await self.script(connection)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.set()
            writer.close()


async def _read(reader: asyncio.StreamReader, connection: int) -> Received:
    line, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (entry.partition(":") for entry in rest)}
    body = json.loads(await reader.readexactly(int(headers["content-length"])))
    return Received(line=line, headers=headers, body=body, connection=connection)


def whole(body: Any, status: int = 200, headers: str = "") -> Script:
    """A response in one piece."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def script(connection: Connection) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {len(data)}\r\n\r\n"
        await connection.send(head.encode() + data)

    return script


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"


def stream(*parts: bytes, then: Script | None = None) -> Script:
    """A response in chunks; `then`: in place of its orderly end."""

    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD)
        for part in parts:
            await connection.chunk(part)
        await (then(connection) if then else connection.chunk(b""))

    return script


async def close(connection: Connection) -> None:
    connection.writer.close()


async def reset(connection: Connection) -> None:
    connection.reset()


async def silence(connection: Connection) -> None:
    await connection.until_gone()


def ollama_line(content: str = "", **more: Any) -> bytes:
    """One line of Ollama's stream."""
    message = {"role": "assistant", "content": content}
    return json.dumps({"model": "a", "done": False, "message": message} | more).encode() + b"\n"


COUNTS: dict[str, Any] = {"prompt_eval_count": 3, "eval_count": 2, "eval_duration": 7_000_000}
OLLAMA_DONE = ollama_line(done=True, done_reason="stop", **COUNTS)
OLLAMA_WHOLE = json.loads(ollama_line("hi", done=True, done_reason="stop", **COUNTS))


class Words:
    """Counts words, in place of LiteLLM's tokenizer."""

    def text(self, text: str) -> int:
        return len(text.split())

    def messages(self, messages: Sequence[Any]) -> int:
        return sum(len(str(message["content"]).split()) for message in messages)


class Answer:
    """What the client got. `served`: the lane served the request; None when it raised."""

    def __init__(self, context: RequestContext) -> None:
        self.context = context
        self.sent: list[Message] = []
        self.served: bool | None = None
        self.arrived = asyncio.Event()

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message.get("body"):
            self.arrived.set()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def ended(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False

    def events(self) -> list[Any]:
        """The stream's events, `[DONE]` as text."""
        found = [event.removeprefix("data: ") for event in self.body.decode().split("\n\n") if event]
        return [event if event == "[DONE]" else json.loads(event) for event in found]

    def text(self) -> str:
        """What the model said in the events that came."""
        choices = [event["choices"][0] for event in self.events() if event != "[DONE]" and event.get("choices")]
        return "".join(choice["delta"].get("content", "") for choice in choices)


class Rig:
    """A lane that may use one server for the group `m`."""

    def __init__(
        self,
        url: str,
        folder: Path,
        /,
        *,
        kind: str = "ollama",
        seconds: float = 600.0,
        first: float = 600.0,
        proxy: str | None = None,
        **deployment: Any,
    ) -> None:
        plain: dict[str, Any] = {"name": NAME, "provider": "host", "local": True, "url": url, "model": "a"}
        self.policy = Policy(modes={}, aliases={}, deployments={"id-1": Deployment(**(plain | deployment))})
        self.upstream = Upstream(
            id="id-1",
            name=NAME,
            target=Target(kind=kind, task="chat", url=url, model="a"),
            key="",
            timeout=seconds,
            first=first,
            proxy=proxy,
        )
        self.limiter = RateLimiter(Ledger(), worker=0, clock=lambda: 1000.0)
        self.lane = Lane(self.policy, {"m": self.upstream}, ProviderKeys(folder), self.limiter, Words())

    def planned(self, body: Mapping[str, Any] = CHAT, **decided: Any) -> bool:
        """Whether the lane would serve such a request now."""
        return self.lane.plan(a_context(**decided).admitted, body) is not None

    async def ask(self, body: Mapping[str, Any] = CHAT, slots: tuple[str, ...] = (), **decided: Any) -> Answer:
        """Serve one request to its end."""
        async with self.asking(body, slots, **decided) as (answer, task):
            await task
        return answer

    @asynccontextmanager
    async def asking(
        self, body: Mapping[str, Any] = CHAT, slots: tuple[str, ...] = (), *, chosen: bool = False, **decided: Any
    ) -> AsyncIterator[tuple[Answer, asyncio.Task[None]]]:
        """Begin a request as the edge does, in a task with a budget of its own. `chosen`: the client chose the request's id."""
        answer = Answer(a_context(None, slots, **decided))
        context = answer.context
        context.record.chosen = chosen
        context.response = ResponseWriter(answer.send, [])
        ready = asyncio.Event()

        async def serve() -> None:
            async with asyncio.timeout(3600) as context.budget:
                ready.set()
                planned = self.lane.plan(context.admitted, body)
                assert planned is not None
                answer.served = await self.lane.serve(*planned, context)

        task = asyncio.create_task(serve())
        try:
            await ready.wait()
            yield answer, task
        finally:
            # A failed test must not wait for a request that never ends.
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        ends = [message for message in answer.sent if message.get("more_body") is False]
        assert not ends or answer.sent.index(ends[0]) == len(answer.sent) - 1, "nothing follows the end"

    async def close(self) -> None:
        for session in self.lane._sessions.values():
            await session.close()


@asynccontextmanager
async def model_server(script: Script | None = None) -> AsyncIterator[ModelServer]:
    server = ModelServer()
    server.script = script or server.script
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


@asynccontextmanager
async def lane_to(script: Script, folder: Path, **options: Any) -> AsyncIterator[tuple[ModelServer, Rig]]:
    """A server that answers with `script`, and a lane to it."""
    async with model_server(script) as server:
        rig = Rig(server.url, folder, **options)
        try:
            yield server, rig
        finally:
            await rig.close()
