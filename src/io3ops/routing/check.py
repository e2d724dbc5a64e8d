"""Checks between the parts of a table: unknown names, steps that are never reached, prompts that would leave. Pure."""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

import yaml

from io3ops.routing.formats import is_cloud_tag
from io3ops.routing.language import (
    CLOUD_KINDS,
    CLOUD_URLS,
    FAILURE_KINDS,
    LOCAL_KINDS,
    SOURCE_KINDS,
    TASKS,
    Document,
    FailureKind,
    ModeEntry,
    ModelEntry,
    ProviderEntry,
    SourceEntry,
    Task,
)
from io3ops.routing.plan import origin
from io3ops.routing.problems import Problem, Severity, did_you_mean
from io3ops.routing.source import Reader
from io3ops.routing.table import LOOPBACK, Mode, Model, Provider, Table
from io3ops_shared.times import format_duration

IN_STACK = ("runtime", "runtime-public", "gateway", "egress", "observer", "outlet", "loader")
_CLOUD_HOSTS = {urlsplit(url).hostname for url in CLOUD_URLS.values()}


def check(document: Document, table: Table) -> list[Problem]:
    """Return every problem between the parts of a table; errors stop a render, warnings do not."""
    reader = Reader()
    for provider in table.providers:
        _provider(reader, document.providers.value[provider.name], provider)
    _shared_addresses(reader, document, table)
    for model in table.models:
        _model(reader, document.models.value[model.name], model, table)
    _windows(reader, document, table)
    # A provider without a locality was reported; problems that follow from it would only repeat that.
    undecided = {p.name for p in table.providers if _undecided(document.providers.value[p.name], p)}
    modes = {m.name: m for m in table.modes}
    owners: dict[str, str] = {}
    for mode in table.modes:
        entry = document.modes.value[mode.name]
        _chain(reader, entry, mode, table, undecided)
        if table.balance == "least_busy" and any(weight != 1 for step in mode.steps for _, weight in step.members):
            reader.problem(
                entry.at(entry.chain), f"modes.{mode.name}.chain", "weights have no effect with `balance: least_busy`"
            )
        _budgets(reader, entry, mode)
        _fallbacks(reader, entry, mode, modes, table)
        _aliases(reader, entry, mode, modes, owners)
    _cycles(reader, document, modes)
    _deployment_names(reader, document, table)
    _overrides(reader, document, table)
    _observe(reader, document, table)
    return reader.problems


# -- providers


def _server(url: str) -> tuple[str, int]:
    """Return the host and port of an address. A dot at the end of a name changes nothing."""
    _, host, port = origin(url)
    return host.rstrip("."), port


def _shared_addresses(reader: Reader, document: Document, table: Table) -> None:
    """Report an address that is local and a cloud: the proxy of internal prompts would lead to that cloud."""
    local = {_server(p.url): p.name for p in table.providers if p.local and p.url}
    for provider in table.providers:
        if not provider.local and provider.url and (other := local.get(_server(provider.url))):
            entry = document.providers.value[provider.name]
            message = f"providers.{other} has the same address and is local; a server is either local or a cloud"
            reader.problem(entry.at(entry.url), f"providers.{provider.name}", message)


def _provider(reader: Reader, entry: ProviderEntry, provider: Provider) -> None:
    where = f"providers.{provider.name}"
    url_node = entry.at(entry.url)
    if provider.kind in CLOUD_KINDS and entry.locality.value == "local":
        reader.problem(
            entry.at(entry.locality), where, f"{provider.kind} is a cloud service; it cannot be declared local"
        )
    if provider.kind in ("openai_compatible", "azure") and not provider.url and not entry.mentions("url"):
        reader.problem(entry.node, where, f"{provider.kind} needs a `url`")
    if provider.kind == "ollama":
        _ollama(reader, entry, provider, where)
    if provider.local and _server(provider.url)[0] in _CLOUD_HOSTS:
        reader.problem(url_node, where, "this address is a cloud service; it cannot be declared local")
    if _undecided(entry, provider):
        message = "an unknown address counts as cloud; if this machine is yours, add `locality: local`"
        reader.problem(url_node, where, message)
        return
    if not provider.local and not provider.key and not entry.mentions("key"):
        reader.problem(entry.node, where, "a cloud provider needs `key`, the name of the secret that holds its API key")
    if not provider.local and urlsplit(provider.url).scheme == "http":
        reader.problem(url_node, where, "prompts may leave this machine only over https")
    for name, setting, kind in (("api_version", entry.api_version, "azure"), ("region", entry.region, "bedrock")):
        if provider.kind == kind and not setting.value and not entry.mentions(name):
            reader.problem(entry.node, where, f"{kind} needs {name!r}")
        elif provider.kind != kind and setting.written:
            reader.problem(entry.at(setting), f"{where}.{name}", f"applies to {kind} only")


def _ollama(reader: Reader, entry: ProviderEntry, provider: Provider, where: str) -> None:
    parts = urlsplit(provider.url)
    if parts.path.strip("/"):
        message = "the URL of an Ollama must end after the port; the gateway adds the paths"
        reader.problem(entry.at(entry.url), where, message)
    if provider.url and not (parts.scheme == "http" and parts.port is not None):
        message = "the URL of an Ollama must use plain http and an explicit port, e.g. http://localhost:11434"
        reader.problem(entry.at(entry.url), where, message)
    if provider.key:
        reader.problem(entry.at(entry.key), where, "Ollama takes no API key")


def _undecided(entry: ProviderEntry, provider: Provider) -> bool:
    """Return whether a self-hosted server has an address that is not this machine, and the table does not say whose it is."""
    return provider.kind in LOCAL_KINDS and bool(provider.url) and not provider.local and not entry.locality.value


# -- models


def _model(reader: Reader, entry: ModelEntry, model: Model, table: Table) -> None:
    where = f"models.{model.name}"
    names = [p.name for p in table.providers]
    if model.provider and model.provider not in names:
        message = f"unknown provider {model.provider!r}{did_you_mean(model.provider, names)}"
        reader.problem(entry.at(entry.provider), f"{where}.provider", message)
        return
    if not entry.source.written:
        return
    source, kind = entry.source.value, model.source.kind
    kind_node = _kind_node(source)
    _source(reader, source, f"{where}.source")
    if model.provider:
        provider = table.provider(model.provider)
        if kind != "external" and provider.kind != "ollama":
            message = f"a provider of kind {provider.kind} has its own models; write `external: NAME`"
            reader.problem(kind_node, f"{where}.source", message)
        if provider.kind == "ollama" and kind in ("ollama", "external") and is_cloud_tag(model.source.name):
            message = f"{model.source.name!r} is a cloud model: Ollama would send the prompt to another machine"
            reader.problem(kind_node, f"{where}.source", message)
    if not model.made_here:
        for name, written, node in (
            ("template", entry.template.written, entry.at(entry.template)),
            ("stop", entry.stop.written, entry.at(entry.stop)),
        ):
            if written:
                message = "applies only to a model that is made from a file (`pypi`, `gguf`)"
                reader.problem(node, f"{where}.{name}", message)
    tasks = [task for task in TASKS if task in model.capabilities]
    if len(tasks) > 1:
        message = f"a model has one task only: {' or '.join(tasks)}"
        reader.problem(entry.at(entry.capabilities), f"{where}.capabilities", message)


def _kind_node(source: SourceEntry) -> yaml.Node:
    """Return the node that names the model's file, else the whole section."""
    origins = (source.ollama, source.pypi, source.gguf, source.external)
    return source.at(next((origin for origin in origins if origin.written), source.ollama))


def _source(reader: Reader, source: SourceEntry, where: str) -> None:
    kinds = [kind for kind in SOURCE_KINDS if source.mentions(kind)]
    if len(kinds) != 1:
        reader.problem(source.node, where, f"needs exactly one of: {', '.join(SOURCE_KINDS)}")
        return
    kind = kinds[0]
    needed = {"pypi": ("sha256", "path"), "gguf": ("sha256",)}.get(kind, ())
    for name, setting in (("sha256", source.sha256), ("path", source.path)):
        if name in needed and not source.mentions(name):
            reader.problem(source.node, where, f"a `{kind}` source needs {name!r}")
        elif name not in needed and source.mentions(name):
            reader.problem(source.at(setting), f"{where}.{name}", f"does not apply to a `{kind}` source")


def _windows(reader: Reader, document: Document, table: Table) -> None:
    """Report a second window of one model file.

    Ollama runs all models that are made from one file in one process, and would reload it at every change of the window.
    """
    first: dict[tuple[str, ...], Model] = {}
    for model in table.models:
        source = model.source
        if not source.name:
            continue
        file = (source.sha256, source.path) if model.made_here else (source.name,)
        other = first.setdefault((model.provider, *file), model)
        if other.context != model.context:
            entry = document.models.value[model.name]
            message = f"{source.name!r} has a context of {other.context} in models.{other.name}; a model file has one window only"
            reader.problem(entry.at(entry.context), f"models.{model.name}.context", message)


# -- modes


def _chain(reader: Reader, entry: ModeEntry, mode: Mode, table: Table, undecided: set[str]) -> None:
    where = f"modes.{mode.name}.chain"
    names = {m.name for m in table.models}
    earlier: set[str] = set()
    known: list[tuple[Model, yaml.Node]] = []
    for step in entry.chain.value:
        for name, _, node in step:
            if name not in names:
                reader.problem(node, where, f"unknown model {name!r}{did_you_mean(name, names)}")
            elif name in earlier:
                reader.problem(node, where, f"{name!r} appears twice; the second one would never be tried")
            else:
                known.append((table.model(name), node))
            earlier.add(name)
    if known:
        _tasks(reader, entry, mode, [model for model, _ in known])
        _places(reader, entry, mode, table, known, undecided)


def _tasks(reader: Reader, entry: ModeEntry, mode: Mode, models: list[Model]) -> None:
    """Report a chain whose models are for different tasks, and settings that do not apply to its task."""
    node, where = entry.at(entry.chain), f"modes.{mode.name}.chain"
    tasks = Counter(model.task for model in models)
    embedding_models = tasks["embeddings"]
    if len(tasks) > 1:
        reader.problem(node, where, f"mixes models for {' and '.join(sorted(tasks))}")
    elif embedding_models > 1:
        message = "an embedding mode takes one model, because vectors of different models cannot be compared"
        reader.problem(node, where, message)
    if mode.name.startswith("embed") and not embedding_models:
        reader.problem(node, where, "an embedding mode needs a model with `capabilities: [embeddings]`")
    if "chat" not in tasks:
        for name, written, setting_node in (
            ("system_prompt", entry.system_prompt.written, entry.at(entry.system_prompt)),
            ("parameters", entry.parameters.written, entry.at(entry.parameters)),
            ("forced", entry.forced.written, entry.at(entry.forced)),
        ):
            if written:
                message = f"does not apply to models for {' and '.join(sorted(tasks))}"
                reader.problem(setting_node, f"modes.{mode.name}.{name}", message)


def _places(
    reader: Reader,
    entry: ModeEntry,
    mode: Mode,
    table: Table,
    known: list[tuple[Model, yaml.Node]],
    undecided: set[str],
) -> None:
    """Report steps on clouds that the mode's prompts must not reach, and steps that never serve."""
    where = f"modes.{mode.name}.chain"
    usable = {p.name: p for p in table.providers if p.name not in undecided}
    if any(model.provider not in usable for model, _ in known):
        return
    overridden = any(mode.name in modes for _, modes in table.overrides)
    for model, node in known:
        provider = usable[model.provider]
        if not provider.local and mode.data_class == "internal" and not overridden:
            message = f"this mode is internal, so it cannot use {model.name!r} on the cloud provider {provider.name!r}"
            reader.problem(node, where, message)
        elif not provider.local and provider.enabled and not mode.data_class and table.data_class == "internal":
            message = f"{model.name!r} serves only requests marked public: this mode sets no data_class, and the default is internal"
            reader.problem(node, where, message, Severity.WARNING)
        elif not provider.enabled:
            message = f"{model.name!r} is never tried: provider {provider.name!r} is not enabled"
            reader.problem(node, where, message, Severity.WARNING)
    if not any(usable[model.provider].enabled for model, _ in known):
        message = "no step can serve: every provider in this chain is disabled"
        reader.problem(entry.at(entry.chain), where, message)
    elif not any(usable[model.provider].local for model, _ in known):
        message = "has no local step: internal prompts are refused, and nothing answers without the Internet"
        reader.problem(entry.at(entry.chain), where, message, Severity.WARNING)


def _budgets(reader: Reader, entry: ModeEntry, mode: Mode) -> None:
    where = f"modes.{mode.name}.timeouts"
    timeouts, times = entry.timeouts.value, mode.step_times
    if timeouts.steps.value and len(times) != len(mode.steps):
        message = f"lists {_count(len(times), 'duration')}, but the chain has {_count(len(mode.steps), 'step')}"
        reader.problem(timeouts.at(timeouts.steps), f"{where}.steps", message)
        return
    if not times:
        return
    steps_set = not (timeouts.step.built_in and timeouts.steps.built_in)
    if not timeouts.first_token.built_in and mode.first_token > max(times):
        name, node = "step", timeouts.at(timeouts.step)
        if timeouts.first_token.written:
            name, node = "first_token", timeouts.at(timeouts.first_token)
        elif timeouts.steps.written:
            name, node = "steps", timeouts.at(timeouts.steps)
        message = (
            f"first_token ({format_duration(mode.first_token)}) is longer than step ({format_duration(max(times))})"
        )
        reader.problem(node, f"{where}.{name}", message)
    if mode.total and mode.total < sum(times) and steps_set:
        complete = sum(sum(times[: number + 1]) <= mode.total for number in range(len(times)))
        message = f"`total: {format_duration(mode.total)}` is shorter than one step ({format_duration(times[0])}), so no step is guaranteed to finish"
        if complete:
            first = "first is" if complete == 1 else f"first {complete} are"
            message = (
                f"`total: {format_duration(mode.total)}` is shorter than the {len(times)} steps together ({format_duration(sum(times))}), "
                f"so only the {first} guaranteed to finish"
            )
        reader.problem(timeouts.at(timeouts.total), f"{where}.total", message)


def _fallbacks(reader: Reader, entry: ModeEntry, mode: Mode, modes: dict[str, Mode], table: Table) -> None:
    task = _task(mode, table)
    for kind, target in mode.fallbacks:
        node, where = _fallback_node(entry, kind), f"modes.{mode.name}.fallbacks.{kind}"
        if target not in modes:
            reader.problem(node, where, f"unknown mode {target!r}{did_you_mean(target, modes)}")
        elif target == mode.name:
            reader.problem(node, where, "a mode cannot be its own fallback")
        elif task != (other := _task(modes[target], table)):
            reader.problem(node, where, f"{target!r} is for {other}, and this mode is for {task}")
        elif task == "embeddings":
            message = "an embedding mode cannot have a fallback, because vectors of different models cannot be compared"
            reader.problem(node, where, message)


def _fallback_node(entry: ModeEntry, kind: FailureKind) -> yaml.Node:
    fallbacks = entry.fallbacks.value
    settings = {
        "error": fallbacks.error,
        "context_overflow": fallbacks.context_overflow,
        "content_policy": fallbacks.content_policy,
    }
    return fallbacks.at(settings[kind])


def _task(mode: Mode, table: Table) -> Task:
    known = {m.name: m for m in table.models}
    return next((known[name].task for name in mode.chain if name in known), "chat")


def _aliases(reader: Reader, entry: ModeEntry, mode: Mode, modes: dict[str, Mode], owners: dict[str, str]) -> None:
    """Report aliases that name two modes; `owners` maps each alias to the first mode that has it."""
    where = f"modes.{mode.name}.aliases"
    for alias in entry.aliases.value:
        if alias.value in modes:
            reader.problem(entry.at(alias), where, f"{alias.value!r} is the name of a mode")
        elif alias.value in owners:
            message = f"{alias.value!r} is already an alias of {owners[alias.value]!r}"
            reader.problem(entry.at(alias), where, message)
        owners.setdefault(alias.value, mode.name)


def _cycles(reader: Reader, document: Document, modes: dict[str, Mode]) -> None:
    """Report fallbacks of one kind that lead back to where they began, each cycle once."""
    for kind in FAILURE_KINDS:
        next_mode = {m.name: dict(m.fallbacks).get(kind, "") for m in modes.values()}
        done: set[str] = set()
        for start in modes:
            path: list[str] = []
            here = start
            while here in modes and here not in done and here not in path:
                path.append(here)
                here = next_mode[here]
            if here in path and len(path[path.index(here) :]) > 1:
                cycle = [*path[path.index(here) :], here]
                node = _fallback_node(document.modes.value[cycle[-2]], kind)
                where = f"modes.{cycle[-2]}.fallbacks.{kind}"
                reader.problem(node, where, f"the fallbacks form a cycle: {' → '.join(cycle)}")
            done.update(path)


def _deployment_names(reader: Reader, document: Document, table: Table) -> None:
    """Report two deployments with one name: it is made of names that may contain dots."""
    owners: dict[str, str] = {}
    for mode in table.modes:
        for order, step in enumerate(mode.steps, 1):
            for model, _ in step.members:
                name = f"{mode.name}.{order}.{model}"
                other = owners.setdefault(name, mode.name)
                if other != mode.name:
                    entry = document.modes.value[mode.name]
                    message = (
                        f"its deployment {name} would have the name of one of mode {other!r}; rename a mode or a model"
                    )
                    reader.problem(entry.at(entry.chain), f"modes.{mode.name}.chain", message)


# -- the rest


def _overrides(reader: Reader, document: Document, table: Table) -> None:
    """Report overrides that permit nothing: of an unknown mode, or of one without an enabled cloud."""
    modes = {m.name: m for m in table.modes}
    enabled = {p.name for p in table.providers if not p.local and p.enabled}
    models = {m.name: m for m in table.models}
    for key, entry in document.overrides.value.items():
        for name in entry.modes.value:
            node, where = entry.at(name), f"overrides.{key}.modes"
            if name.value not in modes:
                reader.problem(node, where, f"unknown mode {name.value!r}{did_you_mean(name.value, modes)}")
            elif not any(m in models and models[m].provider in enabled for m in modes[name.value].chain):
                message = (
                    f"mode {name.value!r} has no step on an enabled cloud provider, so there is nothing to override"
                )
                reader.problem(node, where, message)


def _observe(reader: Reader, document: Document, table: Table) -> None:
    if not table.observe.otlp_url:
        return
    entry = document.observe.value
    parts = urlsplit(table.observe.otlp_url)
    node, where = entry.at(entry.otlp_url), "observe.otlp_url"
    if parts.path.endswith("/v1/traces"):
        reader.problem(node, where, "write the collector's address without /v1/traces, which io3ops adds")
    if parts.hostname in IN_STACK:
        reader.problem(node, where, f"{parts.hostname!r} is a container of this stack, not a collector")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        message = "traces go to another machine unencrypted; use https if the collector supports it"
        reader.problem(node, where, message, Severity.WARNING)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
