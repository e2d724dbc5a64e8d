"""The routing table: bytes -> Document (settings with their places) -> frozen Table, or every problem at once. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from io3ops.routing.kinds import Entry, Setting
from io3ops.routing.language import DEFAULTS, GATEWAY, LOCAL_KINDS, LOGS, OBSERVE, TASKS, TOP
from io3ops.routing.problems import Problem, did_you_mean
from io3ops.routing.source import Reader, parse_nodes
from io3ops_shared.policy import GatewaySettings, LogSettings
from io3ops_shared.times import format_duration

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Where models run. `url` empty: the runtime container of this stack. `key`: the name of a secret."""

    name: str
    kind: str = "ollama"
    url: str = ""
    local: bool = True
    enabled: bool = True
    key: str = ""
    api_version: str = ""
    region: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model's bytes come from: kind `ollama` (library tag), `pypi`, `gguf` or `external` (never fetched).

    `sha256` is of the wheel or the file; `path` in a wheel is a GGUF file, or a folder of safetensors when it
    ends with '/'.
    """

    kind: str
    name: str
    version: str = ""
    sha256: str = ""
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model on one provider. `context` in tokens, `context_said`: by the table itself; times in seconds; sizes in MB (10^6 bytes), 0 when not known.

    `template` (Ollama's template language) and `stop` belong to a model that is made here of a file; one
    from a library brings its own.
    """

    name: str
    provider: str
    source: Source
    context: int
    context_said: bool
    capabilities: tuple[str, ...]
    keep_alive: float
    load_timeout: float
    parameters: tuple[tuple[str, Any], ...]
    template: str
    stop: tuple[str, ...]
    download_mb: int
    memory_mb: int

    @property
    def task(self) -> str:
        """What requests it answers: one of TASKS."""
        return next((task for task in TASKS if task in self.capabilities), "chat")

    @property
    def made_here(self) -> bool:
        """Whether we build it of a file, so that its name is ours to choose."""
        return self.source.kind in ("pypi", "gguf")


@dataclass(frozen=True, kw_only=True)
class Step:
    """Models that share a step of a chain, with their weights."""

    members: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A public name and its policy. `data_class` '': it says nothing. Times in seconds; `step_times`: one attempt, for each step; `total` 0: as long as these take; limits 0: none.

    `fallbacks`: (kind of failure, mode) pairs. `parameters` are defaults, `forced` are not to be overridden. `truncation`: what
    becomes of a prompt longer than the window, `refuse` or `flag`.
    """

    name: str
    purpose: str
    data_class: str
    steps: tuple[Step, ...]
    fallbacks: tuple[tuple[str, str], ...]
    first_token: float
    step_times: tuple[float, ...]
    total: float
    retries: tuple[tuple[str, int], ...]
    cooldown_failures: int
    cooldown_pause: float
    requests_per_minute: int
    tokens_per_minute: int
    parallel: int
    parameters: tuple[tuple[str, Any], ...]
    forced: tuple[tuple[str, Any], ...]
    system_prompt: str
    tools: bool
    images: bool
    truncation: str
    record_internal: bool
    aliases: tuple[str, ...]

    @property
    def longest(self) -> float:
        """Seconds for all attempts together: what the table says, else as long as the steps take."""
        return self.total or sum(self.step_times)

    @property
    def chain(self) -> tuple[str, ...]:
        """Every model, in the order in which it may be tried."""
        return tuple(model for step in self.steps for model, _ in step.members)


@dataclass(frozen=True, kw_only=True)
class Observe:
    """Who may watch. `metrics_port` 0: no metrics; `otlp_url` '': no traces."""

    metrics_port: int = 0
    otlp_url: str = ""

    @property
    def on(self) -> bool:
        return bool(self.metrics_port or self.otlp_url)


@dataclass(frozen=True)
class Table:
    """The whole routing policy. `data_class`: of what nobody marked; `overrides`: (key's name, modes) pairs."""

    providers: tuple[Provider, ...]
    models: tuple[Model, ...]
    modes: tuple[Mode, ...]
    title: str = ""
    balance: str = "weight"
    data_class: str = "internal"
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    log: LogSettings = field(default_factory=LogSettings)
    overrides: tuple[tuple[str, tuple[str, ...]], ...] = ()
    observe: Observe = field(default_factory=Observe)

    @cached_property
    def _models(self) -> dict[str, Model]:
        return {m.name: m for m in self.models}

    @cached_property
    def _providers(self) -> dict[str, Provider]:
        return {p.name: p for p in self.providers}

    def model(self, name: str) -> Model:
        return self._models[name]

    def provider(self, name: str) -> Provider:
        return self._providers[name]


@dataclass(frozen=True)
class Document:
    """What stands in a table's text, with its places, before anything was held against anything else."""

    providers: dict[str, Entry] = field(default_factory=dict)
    models: dict[str, Entry] = field(default_factory=dict)
    modes: dict[str, Entry] = field(default_factory=dict)
    title: str = ""
    balance: str = "weight"
    defaults: Entry | None = None
    gateway: Entry | None = None
    logs: Entry | None = None
    overrides: dict[str, Entry] = field(default_factory=dict)
    observe: Entry | None = None


def read_document(data: bytes) -> tuple[Document | None, list[Problem]]:
    """The settings of a table, and the problems that each shows by itself."""
    root, problems = parse_nodes(data)
    if root is None:
        return None, problems
    reader = Reader()
    known = {f.name: f for f in TOP.fields}
    nodes = {}
    for key, key_node, value in reader.pairs(root, ""):
        if key in known:
            nodes[key] = value
        else:
            reader.problem(key_node, "", f"unknown key {key!r}{did_you_mean(key, known)}")
    for key in known:
        if known[key].required and key not in nodes:
            reader.problem(root, "", f"{key!r} is missing")
    plain = {
        key: known[key].kind.read(reader, nodes[key], key) or known[key].default if key in nodes else known[key].default
        for key in ("version", "title", "balance")
    }
    defaults = DEFAULTS.read(reader, nodes["defaults"], "defaults") if "defaults" in nodes else None
    found: dict[str, dict[str, Entry]] = {}
    for key in ("providers", "models", "modes"):
        named: Any = known[key].kind
        found[key] = (named.read(reader, nodes[key], key, defaults) or {}) if key in nodes else {}
    gateway = GATEWAY.read(reader, nodes["gateway"], "gateway") if "gateway" in nodes else None
    logs = LOGS.read(reader, nodes["logs"], "logs") if "logs" in nodes else None
    observe = OBSERVE.read(reader, nodes["observe"], "observe") if "observe" in nodes else None
    named_overrides: Any = known["overrides"].kind
    overrides = named_overrides.read(reader, nodes["overrides"], "overrides") if "overrides" in nodes else None
    return (
        Document(
            **found,
            title=plain["title"],
            balance=plain["balance"],
            defaults=defaults,
            gateway=gateway,
            logs=logs,
            overrides=overrides or {},
            observe=observe,
        ),
        reader.problems,
    )


def build(document: Document) -> Table:
    """The table of a document; what is missing or wrong in it was reported, so stand-ins do."""
    return Table(
        providers=tuple(_provider(name, entry) for name, entry in document.providers.items()),
        models=tuple(_model(name, entry) for name, entry in document.models.items()),
        modes=tuple(_mode(name, entry) for name, entry in document.modes.items()),
        title=document.title,
        balance=document.balance,
        data_class=(document.defaults["data_class"] if document.defaults else "") or "internal",
        gateway=_gateway(document.gateway),
        log=_log_settings(document.logs),
        overrides=tuple((name, _values(entry["modes"])) for name, entry in document.overrides.items()),
        observe=_observe(document.observe),
    )


def _observe(entry: Entry | None) -> Observe:
    if entry is None:
        return Observe()
    return Observe(metrics_port=entry["metrics_port"] or 0, otlp_url=entry["otlp_url"].rstrip("/"))


def _gateway(entry: Entry | None) -> GatewaySettings:
    if entry is None:
        return GatewaySettings()
    return GatewaySettings(
        hosts=_values(entry["hosts"]),
        origins=_values(entry["origins"]),
        max_body=entry["max_body_mb"] * 1_000_000,
        **{name: entry[name] for name in ("lane", "workers", "parallel", "queue", "queue_timeout")},
    )


def _log_settings(entry: Entry | None) -> LogSettings:
    return LogSettings(**{key: setting.value for key, setting in entry.settings.items()}) if entry else LogSettings()


def _provider(name: str, entry: Entry) -> Provider:
    kind, url = entry["kind"] or "ollama", entry["url"].rstrip("/")
    here = kind in LOCAL_KINDS and ((kind == "ollama" and not url) or urlsplit(url).hostname in LOOPBACK)
    # What is not known to be local is cloud.
    local = entry["locality"] == "local" or (not entry["locality"] and here)
    enabled = entry["enabled"] if entry["enabled"] is not None else local
    return Provider(
        name=name,
        kind=kind,
        url=url,
        local=local,
        enabled=enabled,
        key=entry["key"],
        api_version=entry["api_version"],
        region=entry["region"],
    )


def _model(name: str, entry: Entry) -> Model:
    source: Entry = entry["source"]
    kind = next((k for k in ("ollama", "pypi", "gguf", "external") if source and source.settings[k].value), "external")
    value = (source[kind] if source else "") or ""
    package, _, version = value.partition("==") if kind == "pypi" else (value, "", "")
    return Model(
        name=name,
        provider=entry["provider"] or "",
        source=Source(
            kind=kind,
            name=package,
            version=version,
            sha256=source["sha256"] if source else "",
            path=source["path"] if source else "",
        ),
        context=entry["context"],
        context_said=entry.settings["context"].origin != "built in",
        capabilities=_values(entry["capabilities"]),
        keep_alive=entry["keep_alive"],
        load_timeout=entry["load_timeout"],
        parameters=_parameters(entry["parameters"]),
        template=entry["template"],
        stop=_values(entry["stop"]),
        download_mb=entry["download_mb"],
        memory_mb=entry["memory_mb"],
    )


def _mode(name: str, entry: Entry) -> Mode:
    timeouts, cooldown, limits = entry["timeouts"], entry["cooldown"], entry["limits"]
    retries = entry["retries"]
    return Mode(
        name=name,
        purpose=entry["purpose"],
        data_class=entry["data_class"],
        steps=tuple(Step(members=tuple((m, w) for m, w, _ in step.members)) for step in entry["chain"] or ()),
        fallbacks=tuple((kind, s.value) for kind, s in entry["fallbacks"].settings.items() if s.value),
        first_token=timeouts["first_token"],
        step_times=_values(timeouts["steps"]) or (_step(timeouts),) * len(entry["chain"] or ()),
        total=timeouts["total"] or 0,
        retries=tuple((kind, s.value) for kind, s in retries.settings.items() if s.value),
        cooldown_failures=cooldown["failures"],
        cooldown_pause=cooldown["pause"],
        requests_per_minute=limits["requests_per_minute"] or 0,
        tokens_per_minute=limits["tokens_per_minute"] or 0,
        parallel=limits["parallel"] or 0,
        parameters=_parameters(entry["parameters"]),
        forced=_parameters(entry["forced"]),
        system_prompt=entry["system_prompt"],
        tools=entry["allow"]["tools"],
        images=entry["allow"]["images"],
        truncation=entry["truncation"],
        record_internal=entry["record_internal"],
        aliases=_values(entry["aliases"]),
    )


def _step(timeouts: Entry) -> float:
    """The time of a step: what nobody wrote fits into the total that somebody wrote."""
    step: float = timeouts["step"]
    return min(step, timeouts["total"] or step) if timeouts.settings["step"].origin == "built in" else step


def _values(listed: tuple[tuple[Any, Any], ...] | None) -> tuple[Any, ...]:
    return tuple(value for value, _ in listed or ())


def _parameters(entry: Entry) -> tuple[tuple[str, Any], ...]:
    found = ((key, s.value) for key, s in entry.settings.items() if s.value is not None)
    return tuple((key, _values(value) if key == "stop" else value) for key, value in found)


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """One value of the table and where it comes from: `line 12`, `defaults, line 4`, `built in`."""

    path: str
    value: str
    origin: str


def resolved(document: Document) -> tuple[Resolved, ...]:
    """Every value that is in effect, in the table's order; what is neither set nor has a default is left out."""
    rows = [Resolved(path="balance", value=document.balance, origin="table")]
    said = (
        document.defaults.settings["data_class"] if document.defaults else Setting(value="internal", origin="built in")
    )
    rows.append(Resolved(path="defaults.data_class", value=said.value, origin=said.origin))
    if document.gateway:
        rows += _rows("gateway", document.gateway)
    if document.logs:
        rows += _rows("logs", document.logs)
    if document.observe:
        rows += _rows("observe", document.observe)
    for part in ("overrides", "providers", "models", "modes"):
        for name, entry in getattr(document, part).items():
            rows += _rows(f"{part}.{name}", entry)
    return tuple(rows)


def _rows(path: str, entry: Entry) -> Iterator[Resolved]:
    for key, setting in entry.settings.items():
        if isinstance(setting.value, Entry):
            yield from _rows(f"{path}.{key}", setting.value)
        elif setting.value not in (None, "", ()):
            yield Resolved(path=f"{path}.{key}", value=_text(key, setting), origin=setting.origin)


_TIMES = ("keep_alive", "load_timeout", "first_token", "step", "total", "pause")


def _text(key: str, setting: Setting) -> str:
    value = setting.value
    if key == "chain":
        steps = ("+".join(f"{m}:{w}" if len(s.members) > 1 else m for m, w, _ in s.members) for s in value)
        return " → ".join(steps)
    if key in _TIMES:
        return format_duration(value)
    if isinstance(value, tuple):
        return ", ".join(map(format_duration if key == "steps" else str, _values(value)))
    return str(value).lower() if isinstance(value, bool) else str(value)
