"""What the translations of the fast lane share: where a request goes, what is plain enough for it, how an answer is written. Pure.

A request is plain when every field of it was seen to give the same call and the same answer as LiteLLM's own code does
(tests/integration/test_codec_against_litellm.py). Whatever else a client sends is LiteLLM's to handle.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from io3ops_shared.request_log.schema import OPENAI_FINISH_REASONS

REASONS = OPENAI_FINISH_REASONS
# Thoughts that a model wrote into its text, and what it said after them.
THOUGHT = re.compile(r"<(?:think|thinking|budget:thinking)>(.*?)</(?:think|thinking|budget:thinking)>(.*)", re.DOTALL)
NO_DETAILS = {"completion_tokens_details": None, "prompt_tokens_details": None}


class UnrecognisedResponse(Exception):
    """The upstream says what is not understood, and nothing of its answer was handed on: LiteLLM may still serve the request."""


class TruncatedResponse(Exception):
    """The upstream ended before its answer did."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A deployment. `kind`: ollama or openai_compatible; `model`: the provider's name for it; `parameters`: what its entry adds to a request."""

    kind: str
    task: str
    url: str
    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What an answer to this client carries. `count`: tokens of a text; `prompt`: of the request: for what an upstream does not say."""

    asked: str
    now: int
    new_id: Callable[[str], str]
    count: Callable[[str], int] | None = None
    prompt: Callable[[], int] | None = None


@dataclass(slots=True)
class Facts:
    """What is known of a request when it has ended. `timings`: the upstream's own, in its own words."""

    prompt: int | None = None
    completion: int | None = None
    finish_reason: str = ""
    timings: dict[str, int] = field(default_factory=dict)


class Call(Protocol):
    """One translated request. `begun`: something was handed on; `finished`: the upstream has said all; `failed`: an error event was the last."""

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
        """The upstream has said its last word, whether it closes the connection or not."""
        ...

    def counted(self) -> tuple[int, int]:
        """(prompt, completion): tokens so far, by our own count; for an upstream that did not say, or not yet."""

    def answer(self, data: bytes) -> bytes | None:
        """A whole answer in the client's words; None: not understood."""

    def events(self, chunk: bytes) -> list[bytes]:
        """The events that these bytes complete.

        Raises:
            UnrecognisedResponse: nothing was handed on yet, and the upstream reports an error or is not understood.
        """

    def end(self) -> list[bytes]:
        """The last events, after the upstream has ended.

        Raises:
            TruncatedResponse: it ended in the middle.
        """


class UnstreamedCall:
    """What calls have in common whose answers are never streamed."""

    stream = begun = finished = failed = closed = False

    def __init__(self, path: str, body: bytes, *, reply: Reply) -> None:
        self.path = path
        self.body = body
        self.facts = Facts()
        self._reply = reply

    def events(self, chunk: bytes) -> list[bytes]:
        """There are none."""
        raise UnrecognisedResponse("this answer is not streamed")

    def end(self) -> list[bytes]:
        """There is none."""
        raise UnrecognisedResponse("this answer is not streamed")

    def counted(self) -> tuple[int, int]:
        """A guess that is rather too high than none."""
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
    """A tool_choice of which LiteLLM itself thinks nothing."""
    if isinstance(value, dict):
        named = value.get("function")
        return value.get("type") == "function" and isinstance(named, dict) and isinstance(named.get("name"), str)
    return value in ("auto", "none", "required")


def is_tools(value: object) -> bool:
    """Functions that the client runs itself."""
    return isinstance(value, list) and all(
        isinstance(tool, dict) and tool.get("type") == "function" and isinstance(tool.get("function"), dict)
        for tool in value
    )


def is_stream_options(value: object) -> bool:
    return isinstance(value, dict) and all(
        name in ("include_usage", "include_obfuscation") and isinstance(flag, bool) for name, flag in value.items()
    )


def plain(fields: Mapping[str, Any], checks: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any] | None:
    """The fields that say something, None when one of them is unknown or of another kind than expected."""
    found = {name: value for name, value in fields.items() if value is not None}
    return found if all(name in checks and checks[name](value) for name, value in found.items()) else None


def text_of(content: object) -> str | None:
    """A message's text, its parts joined; None when there is more in it than text."""
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
