"""Collects what one request's line in the request log will say. Touches the clock.

Clients and servers choose some of the values: each is kept only in a shape that cannot carry text (client names, ids, reasons, errors).
"""

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from io3ops_gateway.asgi import Headers, Message, Send
from io3ops_gateway.request.usage import Usage
from io3ops_shared.policy import Deployment
from io3ops_shared.request_log.schema import AttemptError, Outcome, RequestPath

REQUEST_ID = b"x-request-id"
_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
# A product and its version: letters, then digits with dots. Keys and other secrets have another shape.
_CLIENT = re.compile(rb"([A-Za-z][A-Za-z/_-]{0,30}?)[/ ]v?([0-9]{1,5}(?:\.[0-9]{1,5}){0,3})\b")
# Bytes held of a captured answer. The recorder writes less than that, so the rest of a long stream need not take memory.
MOST_CAPTURED = 1_000_000
clock = time.perf_counter


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt at one deployment. `begun`, `ended`: moments of `clock`. `status`: 0 when no response came back. `error`: the class
    of the failure. `timings`: Ollama's own, in nanoseconds."""

    deployment: Deployment
    begun: float
    ended: float = 0.0
    status: int = 0
    error: str = ""
    timings: Mapping[str, int] = field(default_factory=dict)

    def end(self, status: int = 0, error: str = "") -> None:
        """Note how the attempt ended. The first status, error and end are kept."""
        self.ended = self.ended or clock()
        self.status = self.status or status
        self.error = self.error or error


@dataclass(slots=True, eq=False)
class Caller:
    """The client and its key; written by the edge. `client`: product and version. `key_id`: the first digits of the key's digest."""

    client: str = ""
    key: str = ""
    key_id: str = ""


@dataclass(slots=True, eq=False)
class Decision:
    """What the edge decided, as far as it got before it refused. `data_class_from`: mode, key, request or default."""

    operation: str = ""
    mode: str = ""
    data_class: str = ""
    data_class_from: str = ""


@dataclass(slots=True, eq=False)
class Timing:
    """When things happened; written by the edge. `wall`: Unix time of the begin. `queued`: seconds. The others are moments of `clock`,
    0 when not reached: the body was read, the first byte was sent, the request ended."""

    wall: float
    begun: float
    body: float = 0.0
    queued: float = 0.0
    first: float = 0.0
    ended: float = 0.0


@dataclass(slots=True, eq=False)
class Capture:
    """The content that `io3ops record` asked for; owned by `request_log.recorder`. None of it reaches the request log."""

    request: Mapping[str, Any]
    answer: bytearray = field(default_factory=bytearray)


@dataclass(slots=True, eq=False)
class RequestRecord:
    """One request, in parts that have one owner each.

    `chosen`: the client chose the id. `path`: None keeps the request out of the log. `outcome`: None while nothing failed. `status`: as sent to the client,
    0 when it left before. `override`, `truncated`: see `RoutingState`. `capture`: None when no content is to be kept; `recorded`: it was.
    """

    id: str
    timing: Timing
    caller: Caller = field(default_factory=Caller)
    decision: Decision = field(default_factory=Decision)
    usage: Usage = field(default_factory=Usage)
    attempts: list[Attempt] = field(default_factory=list)
    capture: Capture | None = None
    chosen: bool = False
    path: RequestPath | None = RequestPath.EDGE
    outcome: Outcome | None = None
    error: str = ""
    status: int = 0
    stream: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    override: bool = False
    truncated: bool = False
    recorded: bool = False

    @property
    def onward(self) -> str:
        """The id to send to a local server. vLLM takes it for its own, so one that a client chose, perhaps twice, is made unique."""
        return f"{self.id}-{random.getrandbits(32):08x}" if self.chosen else self.id

    def attempt(self, deployment: Deployment) -> Attempt:
        """Begin another attempt. End the one before, whose usage is not the next one's."""
        now = clock()
        self.usage.restart()
        if self.attempts and not self.attempts[-1].ended:
            self.attempts[-1].end(error=AttemptError.FAILED)
        self.attempts.append(Attempt(deployment, now))
        return self.attempts[-1]

    def failed(self, outcome: Outcome, error: str) -> None:
        """Note that the request failed. The first outcome is kept."""
        if not self.outcome:
            self.outcome, self.error = outcome, self.error or error

    def sent(self, send: Send) -> Send:
        """Return `send` wrapped: it adds the request's id to the response, and notes what is sent."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A client that disconnected got no response.
                self.status = 0 if self.outcome == Outcome.CLIENT_LEFT else message["status"]
                message = {**message, "headers": [*message["headers"], (REQUEST_ID, self.id.encode())]}
            elif (body := message.get("body")) and self.outcome != Outcome.CLIENT_LEFT:
                self.timing.first = self.timing.first or clock()
                self.bytes_out += len(body)
                if self.capture is not None and len(self.capture.answer) <= MOST_CAPTURED:
                    self.capture.answer += body
            await send(message)

        return sending


def new_record(headers: Headers) -> RequestRecord:
    """Begin the record of a request whose head was just read. Its id is the client's when that has a safe shape, else a new one."""
    now = time.time()
    given, client = b"", ""
    for name, value in headers:
        if name == REQUEST_ID:
            given = value
        elif name == b"user-agent":
            client = product(value)
    chosen = _ID.fullmatch(given) is not None
    return RequestRecord(given.decode() if chosen else new_id(now), Timing(now, clock()), Caller(client), chosen=chosen)


def new_id(now: float) -> str:
    """Return a UUID of version 7 without its dashes: it sorts by time, and tracing tools take it for a trace id. `now`: Unix time."""
    # Not secret; Python seeds this anew in each forked process.
    chance = random.getrandbits(80)
    return f"{int(now * 1000) & 0xFFFFFFFFFFFF:012x}7{chance >> 68:03x}{8 | chance >> 66 & 3:x}{chance & (1 << 60) - 1:015x}"


def product(agent: bytes) -> str:
    """Return the product and version with which a user agent begins; `other` when it does not begin with them."""
    match = _CLIENT.match(agent)
    return f"{match[1].decode()} {match[2].decode()}" if match else "other"
