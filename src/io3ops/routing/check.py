"""What no key shows by itself: names that point nowhere, steps that are never reached, prompts that would leave. Pure."""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import urlsplit

import yaml

from io3ops.routing.kinds import Entry
from io3ops.routing.language import CLOUD_KINDS, CLOUD_URLS, LOCAL_KINDS, TASKS, cloud_tag
from io3ops.routing.problems import Problem, did_you_mean
from io3ops.routing.source import Reader
from io3ops.routing.table import LOOPBACK, Document, Mode, Model, Provider, Table
from io3ops_shared.times import format_duration

IN_STACK = ("runtime", "runtime-public", "gateway", "egress", "observer", "outlet", "loader")
_CLOUD_HOSTS = {urlsplit(url).hostname for url in CLOUD_URLS.values()}


def check(document: Document, table: Table) -> list[Problem]:
    """Every problem between the parts of a table; errors stop a render, warnings do not."""
    reader = Reader()
    for provider in table.providers:
        _provider(reader, document.providers[provider.name], provider)
    for model in table.models:
        _model(reader, document.models[model.name], model, table)
    _windows(reader, document, table)
    # What follows from an unclear or missing provider would only repeat the problem that was reported there.
    unclear = {p.name for p in table.providers if undecided(document.providers[p.name], p)}
    modes = {m.name: m for m in table.modes}
    taken: dict[str, str] = {}
    for mode in table.modes:
        entry = document.modes[mode.name]
        _chain(reader, entry, mode, table, unclear)
        if table.balance == "least_busy" and any(weight != 1 for step in mode.steps for _, weight in step.members):
            reader.problem(
                entry.at("chain"), f"modes.{mode.name}.chain", "weights have no meaning with `balance: least_busy`"
            )
        _budgets(reader, entry, mode)
        _fallbacks(reader, entry, mode, modes, table)
        _aliases(reader, entry, mode, modes, taken)
    _cycles(reader, document, modes)
    _names(reader, document, table)
    _overrides(reader, document, table)
    _observe(reader, document, table)
    return reader.problems


def _provider(reader: Reader, entry: Entry, provider: Provider) -> None:
    where = f"providers.{provider.name}"
    if provider.kind in CLOUD_KINDS and entry["locality"] == "local":
        reader.problem(entry.at("locality"), where, f"{provider.kind} is a cloud service; it cannot be declared local")
    if provider.kind in ("openai_compatible", "azure") and not provider.url and not _wrong(entry, "url"):
        reader.problem(entry.node, where, f"{provider.kind} needs a `url`")
    if provider.kind == "ollama" and urlsplit(provider.url).path.strip("/"):
        reader.problem(
            entry.at("url"), where, "the URL of an Ollama must end after the port; the gateway adds the paths"
        )
    if provider.kind == "ollama" and provider.url and not _plain_address(provider.url):
        message = "an Ollama is reached over plain http at a port that is written out, e.g. http://localhost:11434"
        reader.problem(entry.at("url"), where, message)
    if provider.kind == "ollama" and provider.key:
        reader.problem(entry.at("key"), where, "Ollama has no keys")
    if provider.local and urlsplit(provider.url).hostname in _CLOUD_HOSTS:
        reader.problem(entry.at("url"), where, "this address is a cloud service; it cannot be declared local")
    if undecided(entry, provider):
        reader.problem(
            entry.at("url"),
            where,
            "unknown means cloud: if this machine is yours, write `locality: local` beside the url",
        )
        return
    if not provider.local and not provider.key and not _wrong(entry, "key"):
        reader.problem(entry.node, where, "a cloud provider needs `key`, the name of the secret that holds it")
    if not provider.local and urlsplit(provider.url).scheme == "http":
        reader.problem(entry.at("url"), where, "prompts leave this machine only over https")
    for key, kind in (("api_version", "azure"), ("region", "bedrock")):
        if provider.kind == kind and not entry[key] and not _wrong(entry, key):
            reader.problem(entry.node, where, f"{kind} needs {key!r}")
        elif provider.kind != kind and entry.written(key):
            reader.problem(entry.at(key), f"{where}.{key}", f"belongs to {kind}")


def _plain_address(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.port is not None


def undecided(entry: Entry, provider: Provider) -> bool:
    """Software that people run themselves, at an address that is not this machine, and nobody said whose it is."""
    return provider.kind in LOCAL_KINDS and bool(provider.url) and not provider.local and not entry["locality"]


def _wrong(entry: Entry, key: str) -> bool:
    """Whether a key was written and refused already: a second problem about it would only confuse."""
    return any(isinstance(k, yaml.ScalarNode) and k.value == key for k, _ in entry.node.value)


def _model(reader: Reader, entry: Entry, model: Model, table: Table) -> None:
    where = f"models.{model.name}"
    names = [p.name for p in table.providers]
    if model.provider and model.provider not in names:
        reader.problem(
            entry.at("provider"),
            f"{where}.provider",
            f"no provider {model.provider!r}{did_you_mean(model.provider, names)}",
        )
        return
    source: Entry | None = entry["source"]
    if source is None or not source.node.value:
        return
    _source(reader, source, f"{where}.source", model)
    if model.provider:
        provider = table.provider(model.provider)
        kind = model.source.kind
        if kind != "external" and provider.kind != "ollama":
            reader.problem(
                source.at(kind), f"{where}.source", f"{provider.kind} brings its own models: write `external: NAME`"
            )
        if provider.kind == "ollama" and kind in ("ollama", "external") and cloud_tag(model.source.name):
            reader.problem(
                source.at(kind),
                f"{where}.source",
                f"{model.source.name!r} is a cloud model: Ollama would send the prompt to another machine",
            )
    if not model.made_here:
        for key in ("template", "stop"):
            if entry.written(key):
                reader.problem(
                    entry.at(key), f"{where}.{key}", "belongs to a model that is made of a file (`pypi`, `gguf`)"
                )
    tasks = [task for task in TASKS if task in model.capabilities]
    if len(tasks) > 1:
        message = f"a model is for one task: {' or '.join(tasks)}"
        reader.problem(entry.at("capabilities"), f"{where}.capabilities", message)


def _source(reader: Reader, source: Entry, where: str, model: Model) -> None:
    kinds = [kind for kind in ("ollama", "pypi", "gguf", "external") if _wrong(source, kind)]
    if len(kinds) != 1:
        reader.problem(source.node, where, "needs exactly one of: ollama, pypi, gguf, external")
        return
    kind = kinds[0]
    needed = {"pypi": ("sha256", "path"), "gguf": ("sha256",)}.get(kind, ())
    for key in ("sha256", "path"):
        if key in needed and not _wrong(source, key):
            reader.problem(source.node, where, f"a `{kind}` source needs {key!r}")
        elif key not in needed and _wrong(source, key):
            reader.problem(source.at(key), f"{where}.{key}", f"does not belong to a `{kind}` source")


def _windows(reader: Reader, document: Document, table: Table) -> None:
    """One window per model at its runtime: two would reload it on every change of mode.

    Ollama runs models that are made of the same file in one process, whatever their names.
    """
    first: dict[tuple[str, ...], Model] = {}
    for model in table.models:
        source = model.source
        if not source.name:
            continue
        same = (source.sha256, source.path) if model.made_here else (source.name,)
        other = first.setdefault((model.provider, *same), model)
        if other.context != model.context:
            reader.problem(
                document.models[model.name].at("context"),
                f"models.{model.name}.context",
                f"{source.name!r} has another window in models.{other.name} ({other.context}): one model, one window",
            )


def _chain(reader: Reader, entry: Entry, mode: Mode, table: Table, unclear: set[str]) -> None:
    where = f"modes.{mode.name}.chain"
    names = {m.name for m in table.models}
    seen: set[str] = set()
    known: list[tuple[Model, yaml.Node]] = []
    for step in entry["chain"] or ():
        for name, _, node in step.members:
            if name not in names:
                reader.problem(node, where, f"no model {name!r}{did_you_mean(name, names)}")
            elif name in seen:
                reader.problem(node, where, f"{name!r} stands twice; the second can never be reached")
            else:
                known.append((table.model(name), node))
            seen.add(name)
    if not known:
        return
    tasks = Counter(model.task for model, _ in known)
    embeds = tasks["embeddings"]
    if len(tasks) > 1:
        reader.problem(entry.at("chain"), where, f"mixes models for {' and '.join(sorted(tasks))}")
    elif embeds > 1:
        reader.problem(
            entry.at("chain"), where, "an embedding mode takes one model: vectors of two models cannot be compared"
        )
    if re.match(r"embed", mode.name) and not embeds:
        reader.problem(entry.at("chain"), where, "an embedding mode needs a model with `capabilities: [embeddings]`")
    if "chat" not in tasks:
        for key in ("system_prompt", "parameters", "forced"):
            if entry.written(key):
                message = f"has no meaning for {' and '.join(sorted(tasks))}"
                reader.problem(entry.at(key), f"modes.{mode.name}.{key}", message)
    usable = {p.name: p for p in table.providers if p.name not in unclear}
    if any(model.provider not in usable for model, _ in known):
        return
    overridden = any(mode.name in named for _, named in table.overrides)
    for model, node in known:
        provider = usable[model.provider]
        if not provider.local and mode.data_class == "internal" and not overridden:
            reader.problem(
                node,
                where,
                f"{model.name!r} is on the cloud provider {provider.name!r}, and this mode is internal: its prompts never leave",
            )
        elif not provider.local and provider.enabled and not mode.data_class and table.data_class == "internal":
            reader.problem(
                node,
                where,
                f"{model.name!r} only gets requests that are marked public: this mode says no data_class, and the default is internal",
                "warning",
            )
        elif not provider.enabled:
            reader.problem(
                node, where, f"{model.name!r} is never tried: provider {provider.name!r} is not enabled", "warning"
            )
    if not any(usable[model.provider].enabled for model, _ in known):
        reader.problem(entry.at("chain"), where, "no step can serve: every provider in it is disabled")
    elif not any(usable[model.provider].local for model, _ in known):
        reader.problem(
            entry.at("chain"),
            where,
            "has no local step: internal prompts are refused, and without the Internet it is silent",
            "warning",
        )


def _budgets(reader: Reader, entry: Entry, mode: Mode) -> None:
    where = f"modes.{mode.name}.timeouts"
    timeouts: Entry = entry["timeouts"]
    times = mode.step_times
    if timeouts.written("steps") and len(times) != len(mode.steps):
        message = f"names {len(times)} times, and the chain has {len(mode.steps)} steps"
        reader.problem(timeouts.at("steps"), f"{where}.steps", message)
        return
    given = {name for name in ("first_token", "step", "steps") if timeouts.settings[name].origin != "built in"}
    if "first_token" in given and mode.first_token > max(times, default=mode.first_token):
        key = "first_token" if timeouts.written("first_token") else "steps" if timeouts.written("steps") else "step"
        reader.problem(
            timeouts.at(key),
            f"{where}.{key}",
            f"first_token ({format_duration(mode.first_token)}) is longer than step ({format_duration(max(times))})",
        )
    if mode.total and mode.total < sum(times) and given & {"step", "steps"}:
        fit = sum(sum(times[: number + 1]) <= mode.total for number in range(len(times)))
        reader.problem(
            timeouts.at("total"),
            f"{where}.total",
            f"{format_duration(mode.total)} does not fit {len(times)} steps of {format_duration(max(times))}: only {fit} would surely be tried",
        )


def _fallbacks(reader: Reader, entry: Entry, mode: Mode, modes: dict[str, Mode], table: Table) -> None:
    for kind, target in mode.fallbacks:
        node, where = entry["fallbacks"].at(kind), f"modes.{mode.name}.fallbacks.{kind}"
        if target not in modes:
            reader.problem(node, where, f"no mode {target!r}{did_you_mean(target, modes)}")
        elif target == mode.name:
            reader.problem(node, where, "a mode cannot take over from itself")
        else:
            other = modes[target]
            if _task(mode, table) != _task(other, table):
                message = (
                    f"{target!r} answers another kind of request ({_task(other, table)}, not {_task(mode, table)})"
                )
                reader.problem(node, where, message)
            elif _task(mode, table) == "embeddings":
                reader.problem(
                    node, where, "vectors of two models cannot be compared: an embedding mode has no fallback"
                )


def _task(mode: Mode, table: Table) -> str:
    known = {m.name: m for m in table.models}
    return next((known[name].task for name in mode.chain if name in known), "chat")


def _aliases(reader: Reader, entry: Entry, mode: Mode, modes: dict[str, Mode], taken: dict[str, str]) -> None:
    for value, node in entry["aliases"] or ():
        where = f"modes.{mode.name}.aliases"
        if value in modes:
            reader.problem(node, where, f"{value!r} is a mode")
        elif value in taken:
            reader.problem(node, where, f"{value!r} is an alias of {taken[value]!r} already")
        taken.setdefault(value, mode.name)


def _names(reader: Reader, document: Document, table: Table) -> None:
    """What a deployment is called is made of names that may hold dots: no two may be called the same."""
    taken: dict[str, str] = {}
    for mode in table.modes:
        for order, step in enumerate(mode.steps, 1):
            for model, _ in step.members:
                other = taken.setdefault(f"{mode.name}.{order}.{model}", mode.name)
                if other != mode.name:
                    message = f"its deployment {mode.name}.{order}.{model} would be called like one of mode {other!r}: rename one"
                    reader.problem(document.modes[mode.name].at("chain"), f"modes.{mode.name}.chain", message)


def _overrides(reader: Reader, document: Document, table: Table) -> None:
    """An override names modes that exist and have something in the cloud; anything else would only look like a permission."""
    modes = {m.name: m for m in table.modes}
    enabled = {p.name for p in table.providers if not p.local and p.enabled}
    models = {m.name: m for m in table.models}
    for key, entry in document.overrides.items():
        for name, node in entry["modes"] or ():
            where = f"overrides.{key}.modes"
            if name not in modes:
                reader.problem(node, where, f"no mode {name!r}{did_you_mean(name, modes)}")
            elif not any(m in models and models[m].provider in enabled for m in modes[name].chain):
                reader.problem(
                    node, where, f"mode {name!r} has no step on an enabled cloud provider: nothing to override"
                )


def _observe(reader: Reader, document: Document, table: Table) -> None:
    if document.observe is None or not table.observe.otlp_url:
        return
    parts = urlsplit(table.observe.otlp_url)
    node, where = document.observe.at("otlp_url"), "observe.otlp_url"
    if parts.path.endswith("/v1/traces"):
        reader.problem(node, where, "write the collector's address without /v1/traces, which is added")
    if parts.hostname in IN_STACK:
        reader.problem(node, where, f"{parts.hostname!r} is a container of this stack, not a collector")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        message = "times and numbers of requests go to another machine unencrypted: https, where it can be had"
        reader.problem(node, where, message, "warning")


def _cycles(reader: Reader, document: Document, modes: dict[str, Mode]) -> None:
    """Fallbacks of one kind that lead back to where they came from, each reported once."""
    for kind in ("error", "context_overflow", "content_policy"):
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
                node = document.modes[cycle[-2]]["fallbacks"].at(kind)
                reader.problem(
                    node, f"modes.{cycle[-2]}.fallbacks.{kind}", f"goes round in a circle: {' → '.join(cycle)}"
                )
            done.update(path)
