"""What is seen of one request on its way, for its line in the request log. Touches the clock.

Every word that a client or a server may choose is let in only in a shape that can carry no text: names of clients, ids, reasons, errors.
"""

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from io3ops_gateway.asgi import Headers, Message, Send
from io3ops_shared.policy import Deployment
from io3ops_shared.request_log.schema import FINISH_REASONS, Outcome

# The outcome of a request whose client has gone.
CLIENT_LEFT = Outcome.CLIENT_LEFT
REQUEST_ID = b"x-request-id"
_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
# A product and its version: letters, then digits with dots. A key or another secret has another shape.
_CLIENT = re.compile(rb"([A-Za-z][A-Za-z/_-]{0,30}?)[/ ]v?([0-9]{1,5}(?:\.[0-9]{1,5}){0,3})\b")
# No count of tokens is larger; and what is cannot be written.
MOST_TOKENS = 1 << 53
# Of an answer that is recorded: the recorder keeps less than that, so the rest of a long stream takes no memory.
MOST_KEPT = 1_000_000
clock = time.perf_counter


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt at one deployment; moments of `clock`. `status` 0: none came back; `error`: the class of the failure; `timings`: Ollama's own,
    in nanoseconds."""

    deployment: Deployment
    begun: float
    ended: float = 0.0
    status: int = 0
    error: str = ""
    timings: Mapping[str, int] = field(default_factory=dict)

    def end(self, status: int = 0, error: str = "") -> None:
        """It is over; what was said first holds."""
        self.ended = self.ended or clock()
        self.status = self.status or status
        self.error = self.error or error


@dataclass(slots=True, eq=False)
class RequestRecord:
    """One request. `time`: of the wall's clock; `begun`, `body`, `first`, `ended`: moments of `clock`, 0 when not reached; `queued`: seconds. `path`: edge, lane or full.

    `prompt`, `completion`, `cached`: tokens, None when nobody said; `told`: LiteLLM has told of the call's end; `chosen`: the client
    has chosen the id.
    """

    id: str
    time: float
    begun: float
    operation: str = ""
    client: str = ""
    key: str = ""
    key_id: str = ""
    mode: str = ""
    data_class: str = ""
    data_class_from: str = ""
    path: str = "edge"
    outcome: str = ""
    error: str = ""
    status: int = 0
    stream: bool = False
    body: float = 0.0
    queued: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    finish: str = ""
    cost: float = 0.0
    override: bool = False
    truncated: bool = False
    recorded: bool = False
    told: bool = False
    chosen: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    # What `io3ops record` keeps of question and answer; None: nothing. Neither is for the log.
    question: Mapping[str, Any] | None = None
    kept: bytearray | None = None

    @property
    def onward(self) -> str:
        """The id, for a local server's own log: vLLM takes it for its own, and clients may choose one twice."""
        return f"{self.id}-{random.getrandbits(32):08x}" if self.chosen else self.id

    def attempt(self, deployment: Deployment) -> Attempt:
        """Another attempt begins; the one before is over, and what it told of its answer is not told of the next one's."""
        now = clock()
        self.prompt = self.completion = self.cached = None
        self.finish = ""
        if self.attempts and not self.attempts[-1].ended:
            self.attempts[-1].end(error="failed")
        self.attempts.append(Attempt(deployment, now))
        return self.attempts[-1]

    def used(self, prompt: object, completion: object) -> None:
        """Tokens, as a server or LiteLLM tells them."""
        if is_count(prompt):
            self.prompt = prompt
        if is_count(completion):
            self.completion = completion

    def reason(self, found: object) -> None:
        """Why an answer ended, in a server's word."""
        if not self.outcome:
            self.finish = found if isinstance(found, str) and found in FINISH_REASONS else self.finish

    def failed(self, outcome: str, error: str) -> None:
        """What came of it, when that is not an answer; what was said first holds."""
        if not self.outcome:
            self.outcome, self.error = outcome, self.error or error

    def sent(self, send: Send) -> Send:
        """`send`, with the request's id on the answer, and what is sent noted."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                # An answer to whoever has left is none.
                self.status = 0 if self.outcome == CLIENT_LEFT else message["status"]
                message = {**message, "headers": [*message["headers"], (REQUEST_ID, self.id.encode())]}
            elif (body := message.get("body")) and self.outcome != CLIENT_LEFT:
                self.first = self.first or clock()
                self.bytes_out += len(body)
                if self.kept is not None and len(self.kept) <= MOST_KEPT:
                    self.kept += body
            await send(message)

        return sending


def new_record(headers: Headers) -> RequestRecord:
    """A request whose head was just read: with the id that the client gave it, when that can be one, else with one of ours."""
    now = time.time()
    given, client = b"", ""
    for name, value in headers:
        if name == REQUEST_ID:
            given = value
        elif name == b"user-agent":
            client = product(value)
    if _ID.fullmatch(given):
        return RequestRecord(given.decode(), now, clock(), client=client, chosen=True)
    return RequestRecord(new_id(now), now, clock(), client=client)


def new_id(now: float) -> str:
    """A UUID of version 7 without its dashes: sorts by time, and is a trace's id elsewhere. `now` in seconds."""
    # Not secret; Python seeds this anew in each forked process.
    chance = random.getrandbits(80)
    return f"{int(now * 1000) & 0xFFFFFFFFFFFF:012x}7{chance >> 68:03x}{8 | chance >> 66 & 3:x}{chance & (1 << 60) - 1:015x}"


def product(agent: bytes) -> str:
    """Product and version of a user agent; `other`, when it does not begin with them."""
    found = _CLIENT.match(agent)
    return f"{found[1].decode()} {found[2].decode()}" if found else "other"


def is_count(found: object) -> TypeGuard[int]:
    """Whether it is a number of tokens."""
    return type(found) is int and 0 <= found < MOST_TOKENS
