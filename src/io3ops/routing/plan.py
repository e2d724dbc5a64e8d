"""Table -> Plan: every decision the renderer, the gateway's policy and the stack need, as data. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from io3ops.routing.table import LOOPBACK, Mode, Model, Provider, Table

RUNTIME_URL = "http://runtime:11434"
HOST_ALIAS = "host.docker.internal"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One model in one mode, as the gateway will know it. `order`: its step, from 1; times in seconds.

    `alone`: the only one of its mode; `shared`: it has its step with others, by `weight`.
    """

    id: str
    mode: str
    order: int
    weight: int
    model: str
    kind: str
    provider: str
    local: bool
    runtime_name: str
    url: str
    embeddings: bool
    context: int
    keep_alive: float
    timeout: float
    first_token: float
    key: str
    parameters: tuple[tuple[str, Any], ...]
    alone: bool
    shared: bool


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """A model that some mode uses. `url`: its provider as the gateway's container sees it."""

    model: Model
    kind: str
    runtime_name: str
    url: str
    in_stack: bool
    modes: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What follows from a table: modes in its order, deployments in the order in which they are tried."""

    deployments: tuple[Deployment, ...]
    models: tuple[PlannedModel, ...]
    policies: tuple[Mode, ...]
    balance: str = "weight"

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.policies)

    @property
    def runs_runtime(self) -> bool:
        return any(m.in_stack for m in self.models)

    @property
    def external_urls(self) -> tuple[str, ...]:
        return tuple(sorted({m.url for m in self.models if not m.in_stack}))

    @cached_property
    def digest(self) -> str:
        return _digest([[asdict(d) for d in self.deployments], [asdict(m) for m in self.policies], self.balance])

    @cached_property
    def _chains(self) -> dict[str, tuple[Deployment, ...]]:
        found: dict[str, list[Deployment]] = {m.name: [] for m in self.policies}
        for deployment in self.deployments:
            found[deployment.mode].append(deployment)
        return {name: tuple(chain) for name, chain in found.items()}

    @cached_property
    def _policies(self) -> dict[str, Mode]:
        return {m.name: m for m in self.policies}

    def chain(self, mode: str) -> tuple[Deployment, ...]:
        return self._chains[mode]

    def policy(self, mode: str) -> Mode:
        return self._policies[mode]

    def embeds(self, mode: str) -> bool:
        return self.chain(mode)[0].embeddings

    def steps(self, mode: str) -> tuple[tuple[Deployment, ...], ...]:
        """The chain by steps; the members of one step share its load."""
        orders = dict.fromkeys(d.order for d in self.chain(mode))
        return tuple(tuple(d for d in self.chain(mode) if d.order == order) for order in orders)


def make_plan(table: Table) -> Plan:
    """The plan of a valid table; same table, same plan. Providers that are not enabled have no part in it."""
    used: dict[str, list[str]] = {}
    deployments: list[Deployment] = []
    for mode in table.modes:
        active = [
            (order, name, weight)
            for order, step in enumerate(mode.steps, 1)
            for name, weight in step.members
            if table.provider(table.model(name).provider).enabled
        ]
        for order, name, weight in active:
            used.setdefault(name, []).append(mode.name)
            shared = len(mode.steps[order - 1].members) > 1
            deployments.append(_deployment(table, mode, order, name, weight, alone=len(active) == 1, shared=shared))
    models = []
    for model in table.models:
        if model.name in used:
            provider = table.provider(model.provider)
            models.append(
                PlannedModel(
                    model=model,
                    kind=provider.kind,
                    runtime_name=runtime_name(model),
                    url=container_url(provider),
                    in_stack=provider.kind == "ollama" and not provider.url,
                    modes=tuple(used[model.name]),
                )
            )
    return Plan(tuple(deployments), tuple(models), table.modes, table.balance)


def _deployment(
    table: Table, mode: Mode, order: int, name: str, weight: int, *, alone: bool, shared: bool
) -> Deployment:
    model = table.model(name)
    provider = table.provider(model.provider)
    return Deployment(
        id=f"{mode.name}.{order}.{name}",
        mode=mode.name,
        order=order,
        weight=weight,
        model=name,
        kind=provider.kind,
        provider=provider.name,
        local=provider.local,
        runtime_name=runtime_name(model) if provider.kind == "ollama" else model.source.name,
        url=container_url(provider),
        embeddings=model.embeds,
        context=model.context,
        keep_alive=model.keep_alive,
        timeout=mode.step,
        first_token=min(mode.first_token, mode.step),
        key=provider.key,
        parameters=model.parameters,
        alone=alone,
        shared=shared,
    )


def runtime_name(model: Model) -> str:
    """The model's name in Ollama.

    A model we make ourselves carries a digest of its recipe: when the file, window or template in the
    table changes, the name changes, so an old copy is never mistaken for the new one.
    """
    if not model.made_here:
        name = model.source.name
        return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"
    recipe = [model.source.sha256, model.source.path, model.context, model.template, list(model.stop)]
    return f"io3ops/{model.name}:{_digest(recipe)[:12]}"


def container_url(provider: Provider) -> str:
    """The provider as seen from the gateway's container: the host's loopback has another name there."""
    if provider.kind == "ollama" and not provider.url:
        return RUNTIME_URL
    parts = urlsplit(provider.url)
    if parts.hostname in LOOPBACK:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return f"{parts.scheme}://{HOST_ALIAS}:{port}{parts.path.rstrip('/')}"
    return provider.url


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
