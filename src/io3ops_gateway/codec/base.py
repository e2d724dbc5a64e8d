"""Types and checks that the fast lane's translations share. Pure.

A request is plain when tests show that each of its fields gives the same upstream call and the same response as LiteLLM's own code
(tests/integration/test_codec_against_litellm.py). LiteLLM handles all other requests.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from io3ops_shared.request_log.schema import OPENAI_FINISH_REASONS

REASONS = OPENAI_FINISH_REASONS
# Reasoning that a model wrote into its text, and the text after it.
THOUGHT = re.compile(r"<(?:think|thinking|budget:thinking)>(.*?)</(?:think|thinking|budget:thinking)>(.*)", re.DOTALL)
NO_DETAILS = {"completion_tokens_details": None, "prompt_tokens_details": None}


class UnrecognisedResponse(Exception):
    """The upstream's response is not recognised. When none of it was relayed, LiteLLM can still serve the request."""


class TruncatedResponse(Exception):
    """The upstream closed the connection before its response was complete."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A deployment. `kind`: ollama or openai_compatible. `model`: the provider's name for it. `parameters`: the defaults of its entry."""

    kind: str
    task: str
    url: str
    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What the response to a client needs. `asked`: the model as the client wrote it. `now`: Unix time. `count`: the tokens of a text;
    `prompt`: the tokens of the request; both for upstreams that report none."""

    asked: str
    now: int
    new_id: Callable[[str], str]
    count: Callable[[str], int] | None = None
    prompt: Callable[[], int] | None = None


@dataclass(slots=True)
class Facts:
    """What a response reported, once it has ended. `timings`: the upstream's own, with its names."""

    prompt: int | None = None
    completion: int | None = None
    finish_reason: str = ""
    timings: dict[str, int] = field(default_factory=dict)


class Call(Protocol):
    """One translated request. `begun`: some of the response was relayed. `finished`: the upstream completed it. `failed`: its last event is
    an error."""

    path: str
    body: bytes
    stream: bool
    facts: Facts

    @property
    def begun(self) -> bool: ...

    @property
    def finished(self) -> bool: ...

    @property
    def failed(self) -> bool: ...

    @property
    def closed(self) -> bool:
        """Return whether the upstream sent its last event. It may keep the connection open."""
        ...

    def counted(self) -> tuple[int, int]:
        """Return the (prompt, completion) tokens so far by our own count, for an upstream that reported none yet."""

    def answer(self, data: bytes) -> bytes | None:
        """Return a whole response in the client's format; None when it is not recognised."""

    def events(self, chunk: bytes) -> list[bytes]:
        """Return the events that these bytes complete.

        Raises:
            UnrecognisedResponse: nothing was relayed yet, and the upstream reports an error or sends something unknown.
        """

    def end(self) -> list[bytes]:
        """Return the last events, after the upstream has ended its response.

        Raises:
            TruncatedResponse: the response is not complete.
        """


class UnstreamedCall:
    """A call whose response is never streamed."""

    stream = begun = finished = failed = closed = False

    def __init__(self, path: str, body: bytes, *, reply: Reply) -> None:
        self.path = path
        self.body = body
        self.facts = Facts()
        self._reply = reply

    def events(self, chunk: bytes) -> list[bytes]:  # noqa: ARG002  the argument belongs to `Call`
        """Raise UnrecognisedResponse: there is no stream."""
        raise UnrecognisedResponse("this response is not streamed")

    def end(self) -> list[bytes]:
        """Raise UnrecognisedResponse: there is no stream."""
        raise UnrecognisedResponse("this response is not streamed")

    def counted(self) -> tuple[int, int]:
        """Over-estimate (about 4 bytes per token), because the server reports no usage."""
        return len(self.body) // 4, 0


def is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_flag(value: object) -> bool:
    return isinstance(value, bool)


def is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def is_stop(value: object) -> bool:
    return isinstance(value, str) or is_texts(value)


def is_choice(value: object) -> bool:
    """Return whether LiteLLM hands on this `tool_choice` unchanged."""
    if isinstance(value, dict):
        named = value.get("function")
        return value.get("type") == "function" and isinstance(named, dict) and isinstance(named.get("name"), str)
    return value in ("auto", "none", "required")


def is_tools(value: object) -> bool:
    """Return whether all tools are functions, which the client runs itself."""
    return isinstance(value, list) and all(
        isinstance(tool, dict) and tool.get("type") == "function" and isinstance(tool.get("function"), dict)
        for tool in value
    )


def is_stream_options(value: object) -> bool:
    return isinstance(value, dict) and all(
        name in ("include_usage", "include_obfuscation") and isinstance(flag, bool) for name, flag in value.items()
    )


def plain(fields: Mapping[str, Any], checks: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any] | None:
    """Return the fields that are not null; None when one of them is unknown or fails its check."""
    present = {name: value for name, value in fields.items() if value is not None}
    return present if all(name in checks and checks[name](value) for name, value in present.items()) else None


def text_of(content: object) -> str | None:
    """Return a message's text, its parts joined; None when it contains anything else."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return None
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            return None
        if not part.keys() <= {"type", "text", "cache_control"}:
            return None
        texts.append(part["text"])
    return "".join(texts)
