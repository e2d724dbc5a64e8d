"""Which data class a request has: internal prompts stay on machines of the user's, public ones may leave. Pure.

The mode, the key and the request may each say one. Internal wins, whoever says it; public holds when somebody says it and
nobody says internal; what nobody marked has the table's class.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from io3ops_gateway.errors import Refusal

INTERNAL, PUBLIC = "internal", "public"
CLASSES = (INTERNAL, PUBLIC)
# The headers that a request may have of ours: its mark, the reason of an override, the owner's own test of a mode.
MARK, OVERRIDE, PROBE = b"x-io3-data-class", b"x-io3-override", b"x-io3-probe"
# Where a body may carry a mark or tags: its own fields, and the places that SDKs put `metadata` in.
PLACES = ("metadata", "litellm_metadata", "extra_body")


@dataclass(frozen=True, slots=True)
class Decision:
    """The class, and who said it: mode, key, request or default."""

    data_class: str
    source: str


def mark(headers: Iterable[tuple[bytes, bytes]], body: Mapping[str, Any], suffix: str = "") -> str:
    """What the request itself says: internal, public, or '' for nothing. `suffix`: of the model's name.

    Raises:
        Refusal: 400, a mark that is neither, marks that contradict each other, or a place that cannot be read.
    """
    said = [suffix] if suffix else []
    for name, value in headers:
        if name.startswith(b"x-io3-") and name not in (MARK, OVERRIDE, PROBE):
            # A mark with a slip in its name would be no mark.
            raise Refusal(
                400,
                "unknown_header",
                f"there is no header {name[:40].decode('latin-1')!r}; a mark is {MARK.decode()!r}",
            )
        if name == MARK:
            said.append(value.decode("latin-1"))
        elif name == b"x-litellm-tags":
            said += _tags(value.decode("latin-1").split(","))
    said += _in_body(body)
    found = {_known(value) for value in said}
    if len(found) > 1:
        raise Refusal(400, "contradictory_data_class", "the request's marks contradict each other: internal and public")
    return found.pop() if found else ""


def decide(mode: str, key: str, request: str, default: str) -> Decision:
    """The class that holds, from what each of them says ('' for nothing)."""
    said = (("request", request), ("key", key), ("mode", mode))
    for wanted in CLASSES:
        for source, value in said:
            if value == wanted:
                return Decision(wanted, source)
    return Decision(default, "default")


def metadata(body: Mapping[str, Any], name: str) -> object:
    """A value in the body's metadata, wherever SDKs put that; None when it is nowhere."""
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
                raise Refusal(400, "bad_metadata", f"{place} is nested too deeply: a mark in it could not be read")
            yield from _mappings(inner, depth - 1)
        elif inner is not None:
            raise Refusal(400, "bad_metadata", f"{place} must be an object: a mark in it could not be read")


def _in_body(body: Mapping[str, Any]) -> list[Any]:
    said: list[Any] = []
    for where in _mappings(body):
        if where.get("data_class") is not None:
            said.append(where["data_class"])
        if where.get("tags") is not None:
            tags = where["tags"]
            said += _tags(tags.split(",") if isinstance(tags, str) else tags if isinstance(tags, list) else [tags])
    return said


def _tags(tags: Iterable[Any]) -> list[Any]:
    """The tags that are marks: `internal`, `public`, and whatever follows `data_class:`."""
    said: list[Any] = []
    for tag in tags:
        if not isinstance(tag, str):
            raise Refusal(400, "bad_metadata", "tags must be a list of texts: a mark among them could not be read")
        word = tag.strip().casefold()
        if word in CLASSES:
            said.append(word)
        elif word.startswith("data_class:"):
            said.append(word.removeprefix("data_class:"))
    return said


def _known(value: object) -> str:
    word = value.strip().casefold() if isinstance(value, str) else ""
    if word not in CLASSES:
        raise Refusal(400, "unknown_data_class", f"{str(value)[:40]!r} is not a data class; use internal or public")
    return word
