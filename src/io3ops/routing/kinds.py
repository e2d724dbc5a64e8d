"""The kinds of values in a routing table: each reads a YAML node and describes itself as JSON Schema. Pure.

The parser, the editors' schema, `io3ops routes --resolved` and the reference in the docs all use these descriptions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast, overload

import yaml

from io3ops.routing.problems import did_you_mean
from io3ops.routing.source import TAG, Reader
from io3ops_shared.times import DURATION_FORMS, DURATION_PATTERN, format_duration, parse_duration

Schema = dict[str, Any]
BUILT_IN = "built in"
T = TypeVar("T")
E = TypeVar("E", bound="Entry")


class Kind(Protocol[T]):
    """One kind of value."""

    def read(self, reader: Reader, node: yaml.Node, where: str) -> T | None:
        """Return the value of a node; None after reporting a problem."""

    def schema(self) -> Schema:
        """Describe the kind as JSON Schema."""

    def show(self, value: T) -> str:
        """Return a value as text, as the table would write it."""


# -- single values


def _scalar(reader: Reader, node: yaml.Node, where: str, tag: str, wanted: str) -> str | None:
    if isinstance(node, yaml.ScalarNode) and node.tag == TAG + tag:
        return str(node.value)
    quote = "; put it in quotes" if tag == "str" and isinstance(node, yaml.ScalarNode) else ""
    shown = f"{node.value!r} " if isinstance(node, yaml.ScalarNode) and len(node.value) < 40 else ""
    reader.problem(node, where, f"{shown}must be {wanted}{quote}")
    return None


@dataclass(frozen=True, kw_only=True)
class Text:
    """Text. `check` returns what is wrong with a value, or ''."""

    check: Callable[[str], str] = lambda _: ""

    def read(self, reader: Reader, node: yaml.Node, where: str) -> str | None:
        value = _scalar(reader, node, where, "str", "text")
        if value is None:
            return None
        if wrong := self.check(value):
            reader.problem(node, where, wrong)
            return None
        return value

    def schema(self) -> Schema:
        return {"type": "string"}

    def show(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class Choice(Generic[T]):
    """One of a fixed set of words: the values of a Literal of strings."""

    values: tuple[T, ...]

    def read(self, reader: Reader, node: yaml.Node, where: str) -> T | None:
        words = tuple(str(value) for value in self.values)
        value = _scalar(reader, node, where, "str", f"one of {', '.join(words)}")
        if value is not None and value not in words:
            reader.problem(node, where, f"{value!r} is not allowed{did_you_mean(value, words)}")
            return None
        return cast("T | None", value)

    def schema(self) -> Schema:
        return {"enum": list(self.values)}

    def show(self, value: T) -> str:
        return str(value)


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`."""

    low: int
    high: int

    def read(self, reader: Reader, node: yaml.Node, where: str) -> int | None:
        value = node.value if isinstance(node, yaml.ScalarNode) and node.tag == TAG + "int" else ""
        # YAML reads 010 as 8 and 1_0 as 10, which is never meant as a limit.
        if not re.fullmatch(r"0|[1-9][0-9]{0,17}", value):
            reader.problem(node, where, f"must be a whole number from {self.low} to {self.high}")
            return None
        if not self.low <= int(value) <= self.high:
            reader.problem(node, where, f"must be between {self.low} and {self.high}, not {value}")
            return None
        return int(value)

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def show(self, value: int) -> str:
        return str(value)


@dataclass(frozen=True)
class Version:
    """The version of the language: exactly `known`."""

    known: int

    def read(self, reader: Reader, node: yaml.Node, where: str) -> int | None:
        value = node.value if isinstance(node, yaml.ScalarNode) and node.tag == TAG + "int" else ""
        if not re.fullmatch(r"0|[1-9][0-9]{0,17}", value):
            reader.problem(node, where, f"must be a whole number; this release reads version {self.known}")
            return None
        if int(value) != self.known:
            reader.problem(node, where, f"unsupported version {value}; this release reads version {self.known}")
            return None
        return self.known

    def schema(self) -> Schema:
        return {"type": "integer", "const": self.known}

    def show(self, value: int) -> str:
        return str(value)


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`."""

    low: float
    high: float

    def read(self, reader: Reader, node: yaml.Node, where: str) -> float | None:
        value = node.value if isinstance(node, yaml.ScalarNode) else ""
        # PyYAML reads 1e-07 as text, so the node's text decides and not its type.
        if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?([eE][-+]?[0-9]{1,3})?", value) or (
            isinstance(node, yaml.ScalarNode) and node.style
        ):
            reader.problem(node, where, f"must be a number from {self.low:g} to {self.high:g}")
            return None
        number = float(value)
        if not self.low <= number <= self.high:
            reader.problem(node, where, f"must be between {self.low:g} and {self.high:g}, not {value}")
            return None
        return int(number) if re.fullmatch(r"-?[0-9]+", value) else number

    def schema(self) -> Schema:
        return {"type": "number", "minimum": self.low, "maximum": self.high}

    def show(self, value: float) -> str:
        return str(value)


@dataclass(frozen=True)
class Flag:
    """true or false."""

    def read(self, reader: Reader, node: yaml.Node, where: str) -> bool | None:
        # YAML 1.1 also reads `no`, `off` and `y` as booleans, which surprises most people.
        if isinstance(node, yaml.ScalarNode) and node.tag == TAG + "bool" and node.value in ("true", "false"):
            return bool(node.value == "true")
        reader.problem(node, where, "must be true or false")
        return None

    def schema(self) -> Schema:
        return {"type": "boolean"}

    def show(self, value: bool) -> str:
        return str(value).lower()


@dataclass(frozen=True)
class Duration:
    """A duration such as 500ms, 30s, 10m or 1h30m; the value is in seconds."""

    low: float
    high: float

    def read(self, reader: Reader, node: yaml.Node, where: str) -> float | None:
        value = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            reader.problem(node, where, str(error) if value else f"must be a duration such as {DURATION_FORMS}")
            return None
        if not self.low <= seconds <= self.high:
            low, high = format_duration(self.low), format_duration(self.high)
            reader.problem(node, where, f"must be between {low} and {high}, not {value}")
            return None
        return seconds

    def schema(self) -> Schema:
        return {"type": "string", "pattern": DURATION_PATTERN}

    def show(self, value: float) -> str:
        return format_duration(value)


# -- lists


class Item(NamedTuple, Generic[T]):
    """One value of a list. It keeps its node, so that later checks can point at it; None in a default."""

    value: T
    node: yaml.Node | None = None


@dataclass(frozen=True)
class Listed(Generic[T]):
    """A list of values of one kind."""

    item: Kind[T]

    def read(self, reader: Reader, node: yaml.Node, where: str) -> tuple[Item[T], ...] | None:
        if not isinstance(node, yaml.SequenceNode):
            reader.problem(node, where, "must be a list, e.g. [a, b]")
            return None
        values = ((self.item.read(reader, entry, f"{where}[{i}]"), entry) for i, entry in enumerate(node.value))
        return tuple(Item(value, entry) for value, entry in values if value is not None)

    def schema(self) -> Schema:
        return {"type": "array", "items": self.item.schema()}

    def show(self, value: tuple[Item[T], ...]) -> str:
        return ", ".join(self.item.show(item.value) for item in value)


# -- mappings


@dataclass(frozen=True, kw_only=True)
class Setting(Generic[T]):
    """A value and its origin: `line 12`, `defaults, line 4` or `built in`. `node` is None unless the entry itself sets it."""

    value: T
    origin: str
    node: yaml.Node | None = None

    @property
    def written(self) -> bool:
        """Whether the entry itself sets the value."""
        return self.node is not None

    @property
    def built_in(self) -> bool:
        """Whether neither the entry nor `defaults:` sets the value."""
        return self.origin == BUILT_IN


@dataclass(frozen=True, kw_only=True)
class Key(Generic[T]):
    """Describes one key of a section.

    `default` applies when neither the entry nor `defaults:` sets the key; for a required key it only stands in after its
    absence was reported. `inherits`: `defaults:` may set it.
    """

    kind: Kind[T] | Section[Any] | Named[Any]
    doc: str
    default: T | None = None
    required: bool = False
    inherits: bool = False


@overload
def value(kind: Kind[T], doc: str, *, default: T, required: bool = False, inherits: bool = False) -> Setting[T]: ...
@overload
def value(kind: Kind[T], doc: str, *, inherits: bool = False) -> Setting[T | None]: ...
def value(kind: Kind[Any], doc: str, *, default: Any = None, required: bool = False, inherits: bool = False) -> Any:
    """Declare a key of an entry that holds one value.

    The declaration is the attribute's default in the entry's class, so a type checker sees the type of the setting.
    """
    return Key(kind=kind, doc=doc, default=default, required=required, inherits=inherits)


def section(entry: type[E], doc: str, *, required: bool = False, inherits: bool = False) -> Setting[E]:
    """Declare a key of an entry that holds a section with fixed keys."""
    return cast("Setting[E]", Key(kind=Section(entry), doc=doc, required=required, inherits=inherits))


def named(entry: type[E], check: Callable[[str], str], doc: str, *, required: bool = False) -> Setting[dict[str, E]]:
    """Declare a key of an entry that maps free names to sections; `check` returns what is wrong with a name, or ''."""
    return cast("Setting[dict[str, E]]", Key(kind=Named(entry, check), doc=doc, required=required))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Base of every section as read. A subclass declares the keys, with `value`, `section` or `named`, in their order."""

    node: yaml.MappingNode

    def settings(self) -> dict[str, Setting[Any]]:
        """Return every setting by its key."""
        return {name: getattr(self, name) for name in keys_of(type(self))}

    def setting(self, name: str) -> Setting[Any] | None:
        """Return the setting of a key; None when the section has no such key."""
        found = getattr(self, name, None)
        return found if isinstance(found, Setting) else None

    def at(self, place: Setting[Any] | Item[Any]) -> yaml.Node:
        """Return the node to point at: the value's own, or the whole section when the value is not written here."""
        return place.node or self.node

    def mentions(self, name: str) -> bool:
        """Return whether a key is written here, even with a value that was refused."""
        return any(isinstance(k, yaml.ScalarNode) and k.value == name for k, _ in self.node.value)


def keys_of(entry: type[Entry]) -> dict[str, Key[Any]]:
    """Return the declared keys of a section, in their order."""
    return {f.name: f.default for f in fields(entry) if isinstance(f.default, Key)}


def show(entry: Entry, name: str) -> str:
    """Return the value of a key that is no section, as the table would write it."""
    kind = keys_of(type(entry))[name].kind
    assert not isinstance(kind, (Section, Named)), name
    return kind.show(getattr(entry, name).value)


@dataclass(frozen=True)
class Section(Generic[E]):
    """A mapping with a fixed set of keys."""

    entry: type[E]

    def read(self, reader: Reader, node: yaml.Node, where: str, defaults: Entry | None = None) -> E | None:
        """Return the section with every key set; `defaults`: the settings of `defaults:` that it may inherit."""
        if not isinstance(node, yaml.MappingNode):
            reader.problem(node, where, "must be a mapping (`key: value` lines)")
            return None
        keys = keys_of(self.entry)
        settings: dict[str, Setting[Any]] = {}
        written = set()
        for name, key_node, value_node in reader.pairs(node, where):
            written.add(name)
            if name not in keys:
                reader.problem(key_node, where, f"unknown key {name!r}{did_you_mean(name, keys)}")
                continue
            value = _read(reader, keys[name].kind, value_node, f"{where}.{name}" if where else name, name, defaults)
            if value is not None:
                origin = f"line {value_node.start_mark.line + 1}"
                settings[name] = Setting(value=value, origin=origin, node=value_node)
        for name, declared in keys.items():
            if declared.required and name not in written:
                reader.problem(node, where, f"{name!r} is missing")
            if name not in settings:
                settings[name] = _inherited(reader, node, name, declared, defaults)
        return self.entry(node=node, **settings)

    def schema(self) -> Schema:
        keys = keys_of(self.entry)
        properties = {
            name: declared.kind.schema() | {"description": describe(declared)} for name, declared in keys.items()
        }
        required = [name for name, declared in keys.items() if declared.required]
        return {"type": "object", "additionalProperties": False, "properties": properties} | (
            {"required": required} if required else {}
        )


@dataclass(frozen=True)
class Named(Generic[E]):
    """A mapping from free names to sections."""

    entry: type[E]
    check: Callable[[str], str]

    def read(self, reader: Reader, node: yaml.Node, where: str, defaults: Entry | None = None) -> dict[str, E] | None:
        """Return the sections by name; each of them may inherit from `defaults`."""
        if not isinstance(node, yaml.MappingNode):
            reader.problem(node, where, "must be a mapping (`name:` and its keys)")
            return None
        if not node.value:
            reader.problem(node, where, "must have at least one entry")
        entries = {}
        for name, key_node, value_node in reader.pairs(node, where):
            wrong = self.check(name)
            if wrong:
                reader.problem(key_node, where, wrong)
            entry = Section(self.entry).read(reader, value_node, f"{where}.{name}", defaults)
            if entry is not None and not wrong:
                entries[name] = entry
        return entries

    def schema(self) -> Schema:
        return {"type": "object", "minProperties": 1, "additionalProperties": Section(self.entry).schema()}


def _read(reader: Reader, kind: Any, node: yaml.Node, where: str, name: str, defaults: Entry | None) -> Any:
    if isinstance(kind, Named):
        return kind.read(reader, node, where, defaults)
    if isinstance(kind, Section):
        inherited = defaults.setting(name) if defaults else None
        return kind.read(reader, node, where, inherited.value if inherited else None)
    return kind.read(reader, node, where)


def _inherited(
    reader: Reader, node: yaml.MappingNode, name: str, declared: Key[Any], defaults: Entry | None
) -> Setting[Any]:
    """Return the setting of a key that the entry does not set: from `defaults:`, else the built-in one."""
    setting = defaults.setting(name) if defaults and declared.inherits else None
    if setting is not None and setting.value is not None:
        return _as_default(setting)
    if isinstance(declared.kind, Section):
        empty = yaml.MappingNode(TAG + "map", [], node.start_mark, node.end_mark)
        return Setting(value=declared.kind.read(reader, empty, ""), origin=BUILT_IN)
    return Setting(value={} if isinstance(declared.kind, Named) else declared.default, origin=BUILT_IN)


def _as_default(setting: Setting[Any]) -> Setting[Any]:
    """Return a setting of `defaults:` as the entries that inherit it see it: from `defaults, line 4`."""
    value = setting.value
    if isinstance(value, Entry):
        inner: dict[str, Any] = {name: _as_default(found) for name, found in value.settings().items()}
        value = replace(value, **inner)
    origin = setting.origin if setting.built_in else f"defaults, {setting.origin.removeprefix('defaults, ')}"
    return Setting(value=value, origin=origin)


def describe(declared: Key[Any]) -> str:
    """Return what a key means, with its default where that is a word or a number."""
    if declared.required or declared.default in (None, "", ()) or isinstance(declared.kind, (Section, Named, Listed)):
        return declared.doc
    return f"{declared.doc} Default: {declared.kind.show(declared.default)}."
