"""Decides a request's data class: internal prompts stay on the user's machines, public ones may leave. Pure.

The mode, the key and the request may each set one. Internal wins over public, and a request that nothing marks has the table's
class. Tags can only tighten: `internal` among them is a mark, while applications use `public` for other things, so only an
explicit `data_class` makes a prompt public.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from io3ops_gateway.errors import Refusal
from io3ops_shared.names import DATA_CLASSES, INTERNAL

# Our request headers: the data class mark, the reason of an override, and the owner's test of a mode.
MARK, OVERRIDE, PROBE = b"x-io3-data-class", b"x-io3-override", b"x-io3-probe"
# Besides its top level, a body may carry a mark or tags in these fields, because SDKs put `metadata` there.
PLACES = ("metadata", "litellm_metadata", "extra_body")
TAGS = b"x-litellm-tags"
# Fields with the prompt or a schema of the client's: a `data_class` inside is content, not a mark.
CONTENT = frozenset(
    [
        "messages",
        "input",
        "prompt",
        "suffix",
        "instructions",
        "system",
        "tools",
        "functions",
        "tool_choice",
        "function_call",
        "response_format",
        "text",
        "prediction",
        "output_config",
        "output_format",
        "logit_bias",
        "guided_json",
        "guided_choice",
    ]
)
# Fields of a message that are content in the same way.
MESSAGE_CONTENT = frozenset({"content", "text", "arguments", "output", "tool_calls", "function_call", "summary"})
# Most messages have only these fields, and none of them can be a mark.
PLAIN_MESSAGE = MESSAGE_CONTENT | {
    "role",
    "name",
    "type",
    "id",
    "tool_call_id",
    "call_id",
    "status",
    "reasoning_content",
}
_DATA_CLASS = re.compile("x?(?:io3(?:ops)?|iii|litellm)?(.+)")
_FOLDED_PLACES = {name.replace("_", ""): name for name in (*PLACES, "tags", "override_reason")}


@dataclass(frozen=True, slots=True)
class Decision:
    """The data class, and its source: mode, key, request or default."""

    data_class: str
    source: str


def mark(headers: Iterable[tuple[bytes, bytes]], body: Mapping[str, Any], suffix: str = "", query: bytes = b"") -> str:
    """Return the data class that the request itself sets, '' for none. `suffix`: of the model's name. `query`: of the URL.

    Raises:
        Refusal: 400, a mark has an unknown value, marks contradict each other, metadata is malformed, or a misspelt name would
            lose a mark.
    """
    marks: list[Any] = [suffix] if suffix else []
    tags: list[Any] = []
    for name, value in headers:
        if name == MARK:
            marks.append(value.decode("latin-1"))
        elif name == TAGS:
            tags += _tags(value.decode("latin-1").split(","))
        elif _is_slip_of_a_header(name):
            shown = name[:40].decode("latin-1")
            raise Refusal(400, "unknown_header", f"unknown header {shown!r}; the data class mark is {MARK.decode()!r}")
    for where in _mappings(body):
        for field in where:
            if meant := _slip(field):
                raise _unread(field, f"write {meant!r}")
        if where.get("data_class") is not None:
            marks.append(where["data_class"])
        if where.get("tags") is not None:
            field_tags = where["tags"]
            tags += _tags(
                field_tags.split(",")
                if isinstance(field_tags, str)
                else field_tags
                if isinstance(field_tags, list)
                else [field_tags]
            )
    _check_elsewhere(body)
    if query:
        _check_query(query)
    classes = {_known(value) for value in marks}
    tagged = {_known(value) for value in tags}
    if len(classes | tagged) > 1:
        raise Refusal(400, "contradictory_data_class", "the request's marks contradict each other: internal and public")
    return next(iter(classes | (tagged & {INTERNAL})), "")


def decide(mode: str, key: str, request: str, default: str) -> Decision:
    """Return the class in effect. `mode`, `key`, `request`: the class that each sets, '' for none."""
    sources = (("request", request), ("key", key), ("mode", mode))
    for wanted in DATA_CLASSES:
        for source, value in sources:
            if value == wanted:
                return Decision(wanted, source)
    return Decision(default, "default")


def metadata(body: Mapping[str, Any], name: str) -> object:
    """Return a value of the body's metadata, in any of the fields in which SDKs put it; None when there is none."""
    for where in _mappings(body):
        if where is not body and where.get(name) is not None:
            return where[name]
    return None


def _mappings(body: Mapping[str, Any], depth: int = 2) -> Iterable[Mapping[str, Any]]:
    yield body
    for place in PLACES:
        inner = body.get(place)
        if isinstance(inner, Mapping):
            if not depth:
                raise Refusal(400, "bad_metadata", f"{place} is nested too deeply; a mark in it would not be read")
            yield from _mappings(inner, depth - 1)
        elif inner is not None:
            raise Refusal(400, "bad_metadata", f"{place} must be an object; a mark in it would not be read")


def _tags(tags: Iterable[Any]) -> Iterator[Any]:
    """Yield the class of each tag that is a mark: `internal`, `public`, and the value of `data_class:…`."""
    for tag in tags:
        if not isinstance(tag, str):
            raise Refusal(400, "bad_metadata", "tags must be a list of strings; a mark among them would not be read")
        word = tag.strip().casefold()
        if word in DATA_CLASSES:
            yield word
        elif word.startswith("data_class:"):
            yield word.removeprefix("data_class:")
        elif _slip(re.split("[:=]", word, maxsplit=1)[0]) == "data_class" or word.startswith("data_class="):
            raise _unread(tag, "write the tag as 'data_class:internal', or just 'internal'")


def _check_elsewhere(body: Mapping[str, Any]) -> None:
    """Raise Refusal for a mark in a field outside the prompt where it would not be read."""
    waiting: list[object] = [
        value for name, value in body.items() if name not in CONTENT and isinstance(value, dict | list)
    ]
    for name in ("messages", "input"):
        parts = body.get(name)
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and not part.keys() <= PLAIN_MESSAGE:
                for key in part.keys() - MESSAGE_CONTENT:
                    _check_unread(key)
                    waiting.append(part[key])
    if not waiting:
        return
    read = {id(where) for where in _mappings(body)}
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if id(value) not in read:
                for name in value:
                    _check_unread(name)
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _check_unread(name: str) -> None:
    if name == "data_class" or _slip(name) == "data_class":
        raise _unread(name, "put the mark at the top of the body or in its `metadata`")


def _check_query(query: bytes) -> None:
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name == "data_class" or _slip(name) or _is_slip_of_a_header(name.lower().encode("utf-8", "replace")):
            raise _unread(name, f"marks in the URL are not read; send the header {MARK.decode()!r}")


@lru_cache(maxsize=1024)
def _is_slip_of_a_header(name: bytes) -> bool:
    """Return whether an unknown header is a misspelling of one of ours, whose mark would be lost."""
    if name in (OVERRIDE, PROBE):
        return False
    folded = _folded(name.decode("latin-1"))
    return folded.startswith("xio3") or _near(folded, "xlitellmtags") or _is_data_class(folded)


@lru_cache(maxsize=4096)
def _slip(name: str) -> str:
    """Return the field that `name` misspells with other case, dashes, spaces or one wrong letter; '' for none."""
    if len(name) > 40 or name == "data_class" or name in _FOLDED_PLACES.values():
        return ""
    folded = _folded(name)
    return "data_class" if _is_data_class(folded) else _FOLDED_PLACES.get(folded, "")


def _folded(name: str) -> str:
    """Return only the letters and digits, without case and Unicode variants."""
    return "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())


def _is_data_class(folded: str) -> bool:
    """Return whether the letters spell `dataclass` with at most one wrong letter, with or without a header's prefix."""
    match = _DATA_CLASS.fullmatch(folded)
    return any(_near(word, "dataclass") for word in (folded, match[1] if match else ""))


def _near(word: str, wanted: str) -> bool:
    """Return whether at most one letter is missing, added, replaced, or swapped with its neighbour."""
    if abs(len(word) - len(wanted)) > 1:
        return False
    same = next((n for n, (a, b) in enumerate(zip(word, wanted, strict=False)) if a != b), min(len(word), len(wanted)))
    a, b = word[same:], wanted[same:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[1:2] + a[:1] == b[:2] and a[2:] == b[2:])


def _unread(name: str, hint: str) -> Refusal:
    return Refusal(
        400, "unread_mark", f"{name[:40]!r} looks like a data class mark, but would not be read as one; {hint}"
    )


def _known(value: object) -> str:
    word = value.strip().casefold() if isinstance(value, str) else ""
    if word not in DATA_CLASSES:
        raise Refusal(400, "unknown_data_class", f"{str(value)[:40]!r} is not a data class; use internal or public")
    return word
