"""Table -> Plan: every decision that the renderer, the gateway's policy and the stack need, as data. Pure.

A mode has at most two groups of deployments. The group `executor` contains only local ones: every internal prompt goes there,
and its fallbacks lead only to groups of this kind. The group `executor:public` exists when the mode can reach a cloud, and
contains the whole chain. The router therefore has no path from an internal prompt to a cloud, whatever fails.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from urllib.parse import SplitResult, urlsplit

from io3ops.routing.language import CLOUD_URLS, Balance, DataClass, FailureKind, ProviderKind, Task
from io3ops.routing.table import LOOPBACK, Mode, Model, Observe, Parameters, Provider, Table
from io3ops_shared.policy import GatewaySettings, LogSettings

RUNTIME_URL = "http://runtime:11434"
# The same container under another name: HTTP clients keep one connection pool per name, so the two data classes share none.
PUBLIC_RUNTIME_URL = "http://runtime-public:11434"
HOST_ALIAS = "host.docker.internal"
PUBLIC = ":public"
# (scheme, host, port)
Origin = tuple[str, str, int]
Fallbacks = tuple[tuple[FailureKind, str], ...]


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One model in one group, as the gateway sees it.

    `order`: its step, counted from 1. Times in seconds. `window`: tokens that fit, 0 when unknown. `alone`: it is the only one
    of its group. `shared`: others share its step, by `weight`.
    """

    id: str
    mode: str
    group: str
    order: int
    weight: int
    model: str
    kind: ProviderKind
    provider: str
    local: bool
    runtime_name: str
    url: str
    task: Task
    context: int
    window: int
    keep_alive: float
    timeout: float
    first_token: float
    key: str
    api_version: str
    region: str
    parameters: Parameters
    alone: bool
    shared: bool

    @property
    def name(self) -> str:
        """The name that users and answers see; the same in both groups."""
        return f"{self.mode}.{self.order}.{self.model}"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Deployments behind one model name of the router. `fallbacks`: pairs of failure and group."""

    name: str
    mode: str
    public: bool
    deployments: tuple[Deployment, ...]
    fallbacks: Fallbacks

    @property
    def steps(self) -> tuple[tuple[Deployment, ...], ...]:
        """The deployments by step; those of one step share its load."""
        orders = dict.fromkeys(d.order for d in self.deployments)
        return tuple(tuple(d for d in self.deployments if d.order == order) for order in orders)


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """A model that a mode uses. `url`: its provider's address, as the gateway's container sees it."""

    model: Model
    kind: ProviderKind
    runtime_name: str
    url: str
    in_stack: bool
    local: bool
    modes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that follows from a table: modes in its order, deployments in the order in which they are tried."""

    groups: tuple[Group, ...]
    models: tuple[PlannedModel, ...]
    policies: tuple[Mode, ...]
    balance: Balance = "weight"
    data_class: DataClass = "internal"
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    log: LogSettings = field(default_factory=LogSettings)
    overrides: tuple[tuple[str, tuple[str, ...]], ...] = ()
    observe: Observe = field(default_factory=Observe)

    @cached_property
    def deployments(self) -> tuple[Deployment, ...]:
        """Every deployment of every group."""
        return tuple(d for group in self.groups for d in group.deployments)

    @property
    def modes(self) -> tuple[str, ...]:
        """The public names, in the table's order."""
        return tuple(m.name for m in self.policies)

    @property
    def runs_runtime(self) -> bool:
        """Whether the stack needs a runtime of its own."""
        return any(m.in_stack for m in self.models)

    @property
    def external_urls(self) -> tuple[str, ...]:
        """The addresses of Ollamas outside the stack."""
        return tuple(sorted({m.url for m in self.models if m.kind == "ollama" and not m.in_stack}))

    @cached_property
    def outside(self) -> tuple[Origin, ...]:
        """Every origin outside the stack that the gateway may reach."""
        urls = {d.url for d in self.deployments} - {RUNTIME_URL, PUBLIC_RUNTIME_URL}
        return tuple(sorted({origin(url) for url in urls}))

    @property
    def collector(self) -> str:
        """The OpenTelemetry collector's URL, as a container sees it; '' when there is none."""
        return from_container(self.observe.otlp_url) if self.observe.otlp_url else ""

    @property
    def collectors(self) -> tuple[Origin, ...]:
        """Every origin outside the stack that the observer may reach; the gateway cannot reach them."""
        return (origin(self.collector),) if self.collector else ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of the provider keys that the gateway needs."""
        return tuple(sorted({d.key for d in self.deployments if d.key}))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that the gateway's configuration follows from."""
        parts = [asdict(g) for g in self.groups], [asdict(m) for m in self.policies], self.balance
        return _digest([*parts, self.data_class, asdict(self.gateway), asdict(self.log), self.overrides])

    @cached_property
    def _groups(self) -> dict[str, Group]:
        return {g.name: g for g in self.groups}

    @cached_property
    def _policies(self) -> dict[str, Mode]:
        return {m.name: m for m in self.policies}

    def without_keys(self, names: Collection[str]) -> Plan:
        """Return the plan without the deployments that need these provider keys: the gateway skips them when a key is missing."""
        kept = [replace(g, deployments=tuple(d for d in g.deployments if d.key not in names)) for g in self.groups]
        usable = {g.name for g in kept if g.deployments}
        groups = (replace(g, fallbacks=tuple((k, t) for k, t in g.fallbacks if t in usable)) for g in kept)
        return replace(self, groups=tuple(g for g in groups if g.name in usable))

    def policy(self, mode: str) -> Mode:
        """Return the mode as the table has it. Raises KeyError."""
        return self._policies[mode]

    def group(self, mode: str, data_class: DataClass) -> Group | None:
        """Return the group that serves a data class in a mode; None when the mode has no local model and must refuse it."""
        wide = self._groups.get(mode + PUBLIC) if data_class == "public" else None
        return wide or self._groups.get(mode)

    def widest(self, mode: str) -> Group:
        """Return the group with every deployment that may serve a mode."""
        group = self.group(mode, "public")
        assert group is not None
        return group

    def chain(self, mode: str) -> tuple[Deployment, ...]:
        """Return every deployment that may serve a mode, in the order in which they are tried."""
        return self.widest(mode).deployments

    def task(self, mode: str) -> Task:
        """Return the kind of requests that a mode answers."""
        return self.chain(mode)[0].task


def make_plan(table: Table) -> Plan:
    """Return the plan of a valid table, without the providers that are not enabled. Same table, same plan."""
    open_modes = _open_modes(table)
    chains = {m.name: _chain(table, m) for m in table.modes}
    local = {name for name, chain in chains.items() if any(is_local for *_, is_local in chain)}
    groups = []
    for mode in table.modes:
        if mode.name in local:
            kept = [entry for entry in chains[mode.name] if entry[3]]
            targets = tuple((kind, target) for kind, target in mode.fallbacks if target in local)
            groups.append(_group(table, mode, mode.name, kept, targets, public=False))
        if mode.name in open_modes:
            wide = tuple(
                (k, t + PUBLIC if t in open_modes else t) for k, t in mode.fallbacks if t in open_modes | local
            )
            groups.append(_group(table, mode, mode.name + PUBLIC, chains[mode.name], wide, public=True))
    used: dict[str, list[str]] = {}
    for mode in table.modes:
        for _, name, _, _ in chains[mode.name]:
            used.setdefault(name, []).append(mode.name)
    models = []
    for model in table.models:
        if model.name in used:
            provider = table.provider(model.provider)
            models.append(
                PlannedModel(
                    model=model,
                    kind=provider.kind,
                    runtime_name=_name_at(provider, model),
                    url=container_url(provider),
                    in_stack=provider.kind == "ollama" and not provider.url,
                    local=provider.local,
                    modes=tuple(used[model.name]),
                )
            )
    return Plan(
        groups=tuple(groups),
        models=tuple(models),
        policies=table.modes,
        balance=table.balance,
        data_class=table.data_class,
        gateway=table.gateway,
        log=table.log,
        overrides=table.overrides,
        observe=table.observe,
    )


def _chain(table: Table, mode: Mode) -> list[tuple[int, str, int, bool]]:
    """Return (step, model, weight, local) of every model of the chain whose provider is enabled."""
    chain = []
    for order, step in enumerate(mode.steps, 1):
        for name, weight in step.members:
            provider = table.provider(table.model(name).provider)
            if provider.enabled:
                chain.append((order, name, weight, provider.local))
    return chain


def _open_modes(table: Table) -> set[str]:
    """Return the modes that can reach a cloud with a public request: by a step of their own, or by a fallback."""
    overridden = {mode for _, modes in table.overrides for mode in modes}
    may = {m.name for m in table.modes if m.data_class != "internal" or m.name in overridden}
    open_modes = {
        m.name for m in table.modes if m.name in may and not all(is_local for *_, is_local in _chain(table, m))
    }
    before = None
    while before != open_modes:
        before = set(open_modes)
        open_modes |= {
            m.name for m in table.modes if m.name in may and any(target in open_modes for _, target in m.fallbacks)
        }
    return open_modes


def _group(
    table: Table,
    mode: Mode,
    name: str,
    chain: list[tuple[int, str, int, bool]],
    fallbacks: Fallbacks,
    *,
    public: bool,
) -> Group:
    sizes: dict[int, int] = {}
    for order, *_ in chain:
        sizes[order] = sizes.get(order, 0) + 1
    deployments = tuple(
        _deployment(table, mode, name, order, model, weight, alone=len(chain) == 1, shared=sizes[order] > 1)
        for order, model, weight, _ in chain
    )
    return Group(name=name, mode=mode.name, public=public, deployments=deployments, fallbacks=fallbacks)


def _deployment(
    table: Table, mode: Mode, group: str, order: int, name: str, weight: int, *, alone: bool, shared: bool
) -> Deployment:
    model = table.model(name)
    provider = table.provider(model.provider)
    url = container_url(provider)
    return Deployment(
        id=f"{group}.{order}.{name}",
        mode=mode.name,
        group=group,
        order=order,
        weight=weight,
        model=name,
        kind=provider.kind,
        provider=provider.name,
        local=provider.local,
        runtime_name=_name_at(provider, model),
        url=PUBLIC_RUNTIME_URL if url == RUNTIME_URL and group.endswith(PUBLIC) else url,
        task=model.task,
        context=model.context,
        # Ollama is told its window. The window of any other server is unknown unless the table sets it.
        window=model.context if provider.kind == "ollama" or model.context_set else 0,
        keep_alive=model.keep_alive,
        timeout=mode.step_times[order - 1],
        first_token=min(mode.first_token, mode.step_times[order - 1]),
        key=provider.key,
        api_version=provider.api_version,
        region=provider.region,
        parameters=model.parameters,
        alone=alone,
        shared=shared,
    )


def _name_at(provider: Provider, model: Model) -> str:
    return runtime_name(model) if provider.kind == "ollama" else model.source.name


def runtime_name(model: Model) -> str:
    """Return the model's name in Ollama.

    The name of a model that we make contains a digest of its recipe. A change of its file, window or template changes the
    name, so an old copy is never mistaken for the new one.
    """
    if not model.made_here:
        name = model.source.name
        return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"
    recipe = [model.source.sha256, model.source.path, model.context, model.template, list(model.stop)]
    return f"io3ops/{model.name}:{_digest(recipe)[:12]}"


def container_url(provider: Provider) -> str:
    """Return the provider's address as the gateway's container sees it."""
    if provider.kind == "ollama" and not provider.url:
        return RUNTIME_URL
    if not provider.url:
        if provider.kind == "bedrock":
            return f"https://bedrock-runtime.{provider.region}.amazonaws.com"
        return CLOUD_URLS[provider.kind]
    return from_container(provider.url)


def from_container(url: str) -> str:
    """Return a URL as a container must write it: the host's loopback has another name there."""
    parts = urlsplit(url)
    if parts.hostname in LOOPBACK:
        return f"{parts.scheme}://{HOST_ALIAS}:{_port(parts)}{parts.path.rstrip('/')}"
    return url


def origin(url: str) -> Origin:
    """Return the scheme, host and port of a URL."""
    parts = urlsplit(url)
    return parts.scheme, str(parts.hostname), _port(parts)


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
