"""The kinds of values that the table knows: each reads a YAML node, and describes itself as JSON Schema. Pure.

One description serves the parser, the editors' schema, the defaults that can be read back, and the docs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import yaml

from io3ops.routing.problems import did_you_mean
from io3ops.routing.source import TAG, Reader
from io3ops_shared.times import DURATION_FORMS, DURATION_PATTERN, format_duration, parse_duration

Schema = dict[str, Any]


class Kind(Protocol):
    """`read` gives the value, or None after it reported a problem."""

    def read(self, reader: Reader, node: yaml.Node, where: str) -> Any: ...

    def schema(self) -> Schema: ...


def _scalar(reader: Reader, node: yaml.Node, where: str, tag: str, wanted: str) -> str | None:
    if isinstance(node, yaml.ScalarNode) and node.tag == TAG + tag:
        return str(node.value)
    quote = "; put it in quotes" if tag == "str" and isinstance(node, yaml.ScalarNode) else ""
    shown = f"{node.value!r} " if isinstance(node, yaml.ScalarNode) and len(node.value) < 40 else ""
    reader.problem(node, where, f"{shown}must be {wanted}{quote}")
    return None


@dataclass(frozen=True, kw_only=True)
class Text:
    """`check` returns what is wrong with a value, or ''."""

    check: Callable[[str], str] = lambda _: ""
    pattern: str = ""

    def read(self, reader: Reader, node: yaml.Node, where: str) -> str | None:
        value = _scalar(reader, node, where, "str", "text")
        if value is None:
            return None
        wrong = self.check(value)
        if wrong:
            reader.problem(node, where, wrong)
            return None
        return value

    def schema(self) -> Schema:
        return {"type": "string"} | ({"pattern": self.pattern} if self.pattern else {})


@dataclass(frozen=True)
class Choice:
    values: tuple[str, ...]

    def read(self, reader: Reader, node: yaml.Node, where: str) -> str | None:
        value = _scalar(reader, node, where, "str", f"one of {', '.join(self.values)}")
        if value is not None and value not in self.values:
            reader.problem(node, where, f"{value!r} is not allowed{did_you_mean(value, self.values)}")
            return None
        return value

    def schema(self) -> Schema:
        return {"enum": list(self.values)}


@dataclass(frozen=True)
class Whole:
    low: int
    high: int

    def read(self, reader: Reader, node: yaml.Node, where: str) -> int | None:
        value = node.value if isinstance(node, yaml.ScalarNode) and node.tag == TAG + "int" else ""
        # YAML reads 010 as 8 and 1_0 as 10; nobody who writes a limit means that.
        if not re.fullmatch(r"0|[1-9][0-9]{0,17}", value):
            reader.problem(node, where, f"must be a whole number from {self.low} to {self.high}")
            return None
        if not self.low <= int(value) <= self.high:
            reader.problem(node, where, f"{value} is outside {self.low} to {self.high}")
            return None
        return int(value)

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Number:
    low: float
    high: float

    def read(self, reader: Reader, node: yaml.Node, where: str) -> float | None:
        value = node.value if isinstance(node, yaml.ScalarNode) else ""
        # PyYAML reads 1e-07 as text; a table says what it looks like.
        if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?([eE][-+]?[0-9]{1,3})?", value) or (
            isinstance(node, yaml.ScalarNode) and node.style
        ):
            reader.problem(node, where, f"must be a number from {self.low:g} to {self.high:g}")
            return None
        number = float(value)
        if not self.low <= number <= self.high:
            reader.problem(node, where, f"{value} is outside {self.low:g} to {self.high:g}")
            return None
        return int(number) if re.fullmatch(r"-?[0-9]+", value) else number

    def schema(self) -> Schema:
        return {"type": "number", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Flag:
    def read(self, reader: Reader, node: yaml.Node, where: str) -> bool | None:
        # Only these two: YAML 1.1 also takes `no`, `off` and `y`, and people are surprised by each.
        if isinstance(node, yaml.ScalarNode) and node.tag == TAG + "bool" and node.value in ("true", "false"):
            return bool(node.value == "true")
        reader.problem(node, where, "must be true or false")
        return None

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Duration:
    """A duration like 30s, 10m or 1h30m; the value is in seconds."""

    low: float
    high: float

    def read(self, reader: Reader, node: yaml.Node, where: str) -> float | None:
        value = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            wrong = str(error) if value else f"must be a duration like {DURATION_FORMS}"
            reader.problem(node, where, wrong)
            return None
        if not self.low <= seconds <= self.high:
            reader.problem(
                node, where, f"{value} is outside {format_duration(self.low)} to {format_duration(self.high)}"
            )
            return None
        return seconds

    def schema(self) -> Schema:
        return {"type": "string", "pattern": DURATION_PATTERN}


@dataclass(frozen=True)
class Listed:
    """A list of values of one kind; each keeps its node, because later checks want to point at it."""

    item: Kind

    def read(self, reader: Reader, node: yaml.Node, where: str) -> tuple[tuple[Any, yaml.Node], ...] | None:
        if not isinstance(node, yaml.SequenceNode):
            reader.problem(node, where, "must be a list, e.g. [a, b]")
            return None
        found = ((self.item.read(reader, entry, f"{where}[{i}]"), entry) for i, entry in enumerate(node.value))
        return tuple((value, entry) for value, entry in found if value is not None)

    def schema(self) -> Schema:
        return {"type": "array", "items": self.item.schema()}


@dataclass(frozen=True, kw_only=True)
class Field:
    """One key. `default` holds when neither the entry nor `defaults:` sets it; `inherits`: `defaults:` may."""

    name: str
    kind: Kind
    doc: str
    default: Any = None
    required: bool = False
    inherits: bool = False


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value and where it comes from: `line 12`, `defaults, line 4` or `built in`. `node` is None for the last."""

    value: Any
    origin: str
    node: yaml.Node | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The settings of one mapping, by key, and the mapping's own node."""

    node: yaml.Node
    settings: dict[str, Setting] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.settings[key].value

    def at(self, key: str) -> yaml.Node:
        """The node to point at for a key: its value, or the mapping when it was not written."""
        return self.settings[key].node or self.node

    def written(self, key: str) -> bool:
        return self.settings[key].node is not None


@dataclass(frozen=True)
class Section:
    """A mapping with a fixed set of keys."""

    fields: tuple[Field, ...]
    doc: str = ""

    def read(self, reader: Reader, node: yaml.Node, where: str, defaults: Entry | None = None) -> Entry | None:
        if not isinstance(node, yaml.MappingNode):
            reader.problem(node, where, "must be a mapping (`key: value` lines)")
            return None
        known = {f.name: f for f in self.fields}
        entry = Entry(node=node)
        written = set()
        for key, key_node, value_node in reader.pairs(node, where):
            written.add(key)
            if key not in known:
                reader.problem(key_node, where, f"unknown key {key!r}{did_you_mean(key, known)}")
                continue
            kind = known[key].kind
            place = f"{where}.{key}" if where else key
            inherited = defaults.settings.get(key) if defaults else None
            if isinstance(kind, Section):
                value = kind.read(reader, value_node, place, inherited.value if inherited else None)
            else:
                value = kind.read(reader, value_node, place)
            if value is not None:
                line = value_node.start_mark.line + 1
                entry.settings[key] = Setting(value=value, origin=f"line {line}", node=value_node)
        for unset in self.fields:
            if unset.required and unset.name not in written:
                reader.problem(node, where, f"{unset.name!r} is missing")
            # In the language's order, not the writer's: what reads them back is easier to compare.
            setting = entry.settings.pop(unset.name, None)
            entry.settings[unset.name] = setting or self._inherited(reader, node, unset, defaults)
        return entry

    def _inherited(self, reader: Reader, node: yaml.Node, unset: Field, defaults: Entry | None) -> Setting:
        found = defaults.settings.get(unset.name) if defaults and unset.inherits else None
        if found is not None and found.value is not None:
            value = _from_defaults(found.value) if isinstance(found.value, Entry) else found.value
            return Setting(value=value, origin=_as_default(found.origin))
        if isinstance(unset.kind, Section):
            empty = yaml.MappingNode(TAG + "map", [], node.start_mark, node.end_mark)
            return Setting(value=unset.kind.read(reader, empty, ""), origin="built in")
        return Setting(value=unset.default, origin="built in")

    def schema(self) -> Schema:
        properties = {f.name: f.kind.schema() | {"description": _describe(f)} for f in self.fields}
        required = [f.name for f in self.fields if f.required]
        return {"type": "object", "additionalProperties": False, "properties": properties} | (
            {"required": required} if required else {}
        )


def _from_defaults(entry: Entry) -> Entry:
    settings = {key: Setting(value=s.value, origin=_as_default(s.origin)) for key, s in entry.settings.items()}
    return Entry(node=entry.node, settings=settings)


def _as_default(origin: str) -> str:
    """`line 4` of the `defaults:` section as the entries that inherit it see it."""
    return origin if origin == "built in" else f"defaults, {origin.removeprefix('defaults, ')}"


def _describe(found: Field) -> str:
    if found.default is None or isinstance(found.default, (tuple, dict)):
        return found.doc
    shown = (
        format_duration(found.default)
        if isinstance(found.kind, Duration)
        else str(found.default).lower()
        if isinstance(found.default, bool)
        else found.default
    )
    return f"{found.doc} Default: {shown}."


@dataclass(frozen=True)
class Named:
    """A mapping from free names to sections."""

    section: Section
    check: Callable[[str], str]

    def read(
        self, reader: Reader, node: yaml.Node, where: str, defaults: Entry | None = None
    ) -> dict[str, Entry] | None:
        if not isinstance(node, yaml.MappingNode):
            reader.problem(node, where, "must be a mapping (`name:` and its keys)")
            return None
        if not node.value:
            reader.problem(node, where, "must have at least one entry")
        found = {}
        for name, key_node, value_node in reader.pairs(node, where):
            wrong = self.check(name)
            if wrong:
                reader.problem(key_node, where, wrong)
            entry = self.section.read(reader, value_node, f"{where}.{name}", defaults)
            if entry is not None and not wrong:
                found[name] = entry
        return found

    def schema(self) -> Schema:
        return {"type": "object", "minProperties": 1, "additionalProperties": self.section.schema()}


def only(fields: Iterable[Field]) -> tuple[Field, ...]:
    """The fields that `defaults:` may set, none of them required there."""
    return tuple(f for f in fields if f.inherits)
