"""Prompts longer than a model's window: Ollama is asked to refuse them, refusals are put into one form, and servers that cut silently are caught. Pure.

Left alone, Ollama drops old messages, then the middle of the prompt, and while it writes the beginning, and says nothing of it.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from io3ops_gateway.errors import Refusal
from io3ops_shared.request_log.schema import AttemptError

CODE = AttemptError.CONTEXT_LENGTH_EXCEEDED
# LiteLLM knows a prompt that was too long by this phrase.
KNOWN = "This model's maximum context length is"
CHAT, EMBED = "/api/chat", "/api/embed"
# `shift` is how a model is loaded, not only how it answers: whoever asks otherwise makes Ollama load it anew.
STRICT = {"truncate": False, "shift": False}
REFUSING = (400, 413, 422, 500)
# How servers say it: llama-server, Ollama, vLLM, SGLang, TGI, LM Studio. Groups, where they say so: the prompt, the window.
SAID = (
    re.compile(r"request \((?P<prompt>\d+) tokens\) exceeds the available context size \((?P<window>\d+) tokens\)"),
    re.compile(r"maximum context length is (?P<window>\d+)"),
    re.compile(r"exceeds the available context size|exceed_context_size_error|context_length_exceeded"),
    re.compile(r"input length exceeds the context length|prompt is longer than the context length"),
    re.compile(r"longer than the (?:maximum model length(?: of (?P<window>\d+))?|model's context length)"),
    re.compile(r"exceeds the maximum allowed length|`inputs` tokens \+ `max_new_tokens` must be"),
    re.compile(r"(?:greater than|exceeds|overflows?)[^\"]{0,60}context length"),
)
TOLD = re.compile(rb'"(?:prompt_tokens|prompt_eval_count)"\s*:\s*(\d+)')
# Tokenizers differ; a server that read so much less than we count has cut.
SHARE = 0.8
# More of a text is not counted: the rest is taken to be like it.
COUNTED = 8
# Of the window, for the end of a last message that alone is too long; the rest is for the system's messages and the answer.
ENDS = (0.5, 0.25, 0.1)


def strict(path: str, body: bytes) -> tuple[bytes, bool] | None:
    """(the body with which Ollama refuses what does not fit, whether the client itself asked for a cut); None: not for Ollama's models."""
    if not path.endswith((CHAT, EMBED)) or not body.endswith(b"}"):
        return None
    chat = path.endswith(CHAT)
    asked = not chat and b'"truncate"' in body and json.loads(body).get("truncate") is True
    # Added to what stands there, not parsed and written anew: of two equal names Ollama takes the later.
    added = orjson.dumps(STRICT if chat else {"truncate": False})
    return body[:-1] + (b"," if len(body) > 2 else b"") + added[1:], asked


def refused(status: int, body: bytes) -> tuple[int, int] | None:
    """(tokens of the prompt, window), 0 for what was not said; None: the answer is no refusal of a long prompt."""
    if status not in REFUSING:
        return None
    text = body[:10_000].decode("utf-8", "replace")
    for said in SAID:
        if found := said.search(text):
            numbers = found.groupdict()
            return int(numbers.get("prompt") or 0), int(numbers.get("window") or 0)
    return None


def refusal(name: str, prompt: int, window: int, *, counted: bool = True) -> Refusal:
    """What the client is told. `counted` false: by our own estimate."""
    about = "" if counted else "some "
    sizes = f": {about}{prompt} tokens" if prompt else ""
    of = f" of {name}" if name else ""
    limit = f", and the window{of} has {window}, for prompt and answer" if window else f" for the window{of}"
    what = f"the prompt is too long{sizes}{limit}; nothing was cut"
    if not counted:
        what = f"the prompt is too long{sizes}{limit}; the model's server has read a part of it only"
    return Refusal(400, CODE, f"{what}. Shorten it, or give the model a larger `context:` in runtime/routing.yaml")


def known(refused: Refusal, window: int) -> bytes:
    """The same as an upstream's answer that LiteLLM understands."""
    limit = f"{window} tokens" if window else "exceeded"
    error = {"message": f"{KNOWN} {limit}: {refused.message}", "type": "invalid_request_error"}
    return orjson.dumps({"error": error | {"param": None, "code": CODE}})


def shorter(path: str, body: bytes, prompt: int, window: int) -> Iterator[bytes]:
    """What to ask in place of a refused body, one after the other until one is served: as Ollama itself would cut, but never with another
    `shift`. First without old messages, then with the end of the last one."""
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
    # By characters: how many tokens they are is known of all messages together only.
    whole = sum(len(m["content"]) for m in messages if isinstance(m.get("content"), str))
    fits = whole * (window / prompt) if window and prompt else len(text) / 2
    for share in ENDS:
        end = text[-max(1, round(fits * share)) :]
        yield json.dumps(fields | STRICT | {"messages": [*kept, {**last, "content": end}]}).encode()


def told(data: bytes) -> int | None:
    """How many tokens of the prompt an answer says were read; None: it does not say."""
    found = TOLD.search(data)
    return int(found.group(1)) if found else None


def estimate(body: bytes, window: int, read: int, count: Callable[[str], int]) -> int:
    """Tokens of the prompt by our own count, if they do not fit and the server has read much less; 0: nothing speaks for a cut.

    What is no longer in bytes than the window in tokens costs nothing.
    """
    if not window or len(body) <= window:
        return 0
    texts = _texts(orjson.loads(body))
    # No tokenizer makes more tokens than bytes.
    sizes = [len(text.encode("utf-8", "replace")) for text in texts]
    if max(sizes, default=0) <= window or read >= SHARE * sum(sizes):
        return 0
    counts = [_count(text, window, count) for text in texts]
    found = sum(counts)
    return found if max(counts) > window and read < SHARE * found else 0


def _count(text: str, window: int, count: Callable[[str], int]) -> int:
    part = text[: COUNTED * window]
    return round(count(part) * len(text) / len(part)) if part else 0


def _texts(fields: Mapping[str, Any]) -> list[str]:
    """The prompts of a body: one, but for a list of inputs, of which each has the window for itself."""
    given = fields.get("input", fields.get("prompt"))
    if given is not None:
        return [part for part in (given if isinstance(given, list) else [given]) if isinstance(part, str)]
    parts: list[str] = []
    for message in fields.get("messages") or ():
        content = message.get("content")
        if isinstance(content, str):
            parts.append(content)
        elif isinstance(content, list):
            parts += [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return ["\n".join(parts)]
