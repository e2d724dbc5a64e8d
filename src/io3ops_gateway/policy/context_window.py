"""Prompts longer than a model's window: tells Ollama to refuse them, recognises the refusal, and detects a server that cut one. Pure.

By default Ollama silently drops old messages, then the middle of the prompt and, while it generates, the beginning.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from io3ops_gateway.errors import Refusal
from io3ops_shared.request_log.schema import AttemptError

CODE = AttemptError.CONTEXT_LENGTH_EXCEEDED
# LiteLLM recognises an over-long prompt by this phrase.
KNOWN = "This model's maximum context length is"
CHAT, EMBED = "/api/chat", "/api/embed"
# Always send the same `shift`: it is a load option, and Ollama reloads the model when it changes.
STRICT = {"truncate": False, "shift": False}
REFUSING = (400, 413, 422, 500)
# Refusals of llama-server, Ollama, vLLM, SGLang, TGI and LM Studio. Groups: the tokens of the prompt and of the window.
REFUSALS = (
    re.compile(r"request \((?P<prompt>\d+) tokens\) exceeds the available context size \((?P<window>\d+) tokens\)"),
    re.compile(r"maximum context length is (?P<window>\d+)"),
    re.compile(r"exceeds the available context size|exceed_context_size_error|context_length_exceeded"),
    re.compile(r"input length exceeds the context length|prompt is longer than the context length"),
    re.compile(r"longer than the (?:maximum model length(?: of (?P<window>\d+))?|model's context length)"),
    re.compile(r"exceeds the maximum allowed length|`inputs` tokens \+ `max_new_tokens` must be"),
    re.compile(r"(?:greater than|exceeds|overflows?)[^\"]{0,60}context length"),
)
PROMPT_TOKENS = re.compile(rb'"(?:prompt_tokens|prompt_eval_count)"\s*:\s*(\d+)')
# Tokenizers differ. A server that read less than this share of our count has cut the prompt.
SHARE = 0.8
# Count at most this many windows of a text, and extrapolate to the rest.
COUNTED = 8
# Shares of the window to try for the end of an over-long last message. System messages and the answer need the rest.
ENDS = (0.5, 0.25, 0.1)


def strict(path: str, body: bytes) -> tuple[bytes, bool] | None:
    """Return (the body with which Ollama refuses an over-long prompt, whether the client asked for a cut); None for other endpoints."""
    if not path.endswith((CHAT, EMBED)) or not body.endswith(b"}"):
        return None
    chat = path.endswith(CHAT)
    asked = not chat and b'"truncate"' in body and json.loads(body).get("truncate") is True
    # Appended instead of parsed and rewritten: of two equal names Ollama takes the later one.
    added = orjson.dumps(STRICT if chat else {"truncate": False})
    return body[:-1] + (b"," if len(body) > 2 else b"") + added[1:], asked


def refused(status: int, body: bytes) -> tuple[int, int] | None:
    """Return the (prompt, window) tokens of a refusal, each 0 when not given; None when the response does not refuse an over-long prompt."""
    if status not in REFUSING:
        return None
    text = body[:10_000].decode("utf-8", "replace")
    for pattern in REFUSALS:
        if match := pattern.search(text):
            numbers = match.groupdict()
            return int(numbers.get("prompt") or 0), int(numbers.get("window") or 0)
    return None


def refusal(name: str, prompt: int, window: int, *, counted: bool = True) -> Refusal:
    """Return the error for the client. `counted`: the server counted the tokens and refused; False: we estimated them, and it cut the prompt."""
    about = "" if counted else "about "
    sizes = f": {about}{prompt} tokens" if prompt else ""
    of = f" of {name}" if name else ""
    limit = f"; the window{of} has {window} for prompt and answer" if window else f" for the window{of}"
    effect = "nothing was cut" if counted else "the model's server read only a part of it"
    what = f"the prompt is too long{sizes}{limit}; {effect}"
    return Refusal(400, CODE, f"{what}. Shorten it, or set a larger `context:` for the model in runtime/routing.yaml")


def known(refused: Refusal, window: int) -> bytes:
    """Return the body of an upstream's error from which LiteLLM recognises an over-long prompt."""
    limit = f"{window} tokens" if window else "exceeded"
    error = {"message": f"{KNOWN} {limit}: {refused.message}", "type": "invalid_request_error"}
    return orjson.dumps({"error": error | {"param": None, "code": CODE}})


def shorter(path: str, body: bytes, prompt: int, window: int) -> Iterator[bytes]:
    """Yield shorter bodies to try in place of a refused one: first without old messages, then with the end of the last message only.

    They are cut as Ollama would cut them, but with the same `shift`.
    """
    fields = json.loads(body)
    if path.endswith(EMBED):
        yield orjson.dumps(fields | {"truncate": True})
        return
    messages = fields.get("messages") or []
    kept = [m for m in messages[:-1] if m.get("role") == "system"]
    if len(messages) > len(kept) + 1:
        yield json.dumps(fields | STRICT | {"truncate": True}).encode()
    last = messages[-1] if messages else {}
    text = last.get("content")
    if not isinstance(text, str) or not text:
        return
    # By characters, because only the token count of all messages together is known.
    whole = sum(len(m["content"]) for m in messages if isinstance(m.get("content"), str))
    fits = whole * (window / prompt) if window and prompt else len(text) / 2
    for share in ENDS:
        end = text[-max(1, round(fits * share)) :]
        yield json.dumps(fields | STRICT | {"messages": [*kept, {**last, "content": end}]}).encode()


def reported_tokens(data: bytes) -> int | None:
    """Return the prompt tokens that a response reports; None when it reports none."""
    match = PROMPT_TOKENS.search(data)
    return int(match.group(1)) if match else None


def estimate(body: bytes, window: int, read: int, count: Callable[[str], int]) -> int:
    """Return our count of the prompt's tokens when it exceeds the window and the server `read` far fewer; 0 when nothing suggests a cut.

    A prompt with no more bytes than the window has tokens is not counted at all.
    """
    if not window or len(body) <= window:
        return 0
    texts = _texts(orjson.loads(body))
    # A text never has more tokens than bytes.
    sizes = [len(text.encode("utf-8", "replace")) for text in texts]
    if max(sizes, default=0) <= window or read >= SHARE * sum(sizes):
        return 0
    counts = [_count(text, window, count) for text in texts]
    tokens = sum(counts)
    return tokens if max(counts) > window and read < SHARE * tokens else 0


def _count(text: str, window: int, count: Callable[[str], int]) -> int:
    part = text[: COUNTED * window]
    return round(count(part) * len(text) / len(part)) if part else 0


def _texts(fields: Mapping[str, Any]) -> list[str]:
    """Return the prompts of a body: one, or every entry of a list of inputs, since each entry has a window of its own."""
    prompt = fields.get("input", fields.get("prompt"))
    if prompt is not None:
        return [part for part in (prompt if isinstance(prompt, list) else [prompt]) if isinstance(part, str)]
    parts: list[str] = []
    for message in fields.get("messages") or ():
        content = message.get("content")
        if isinstance(content, str):
            parts.append(content)
        elif isinstance(content, list):
            parts += [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return ["\n".join(parts)]
