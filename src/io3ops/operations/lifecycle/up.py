"""`io3ops up`: an ordered list of steps. Each first decides, as data, whether it is needed and why; then it acts.

`--dry-run` walks the same list and only prints the decisions, so the two cannot differ.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from io3ops.adapters import files
from io3ops.adapters.docker_engine import Container, EngineState, EngineStatus, Network
from io3ops.adapters.gateway_http import GatewayHttp
from io3ops.console import Console, Step
from io3ops.errors import EngineLost, Io3opsError
from io3ops.operations.lifecycle import smoke
from io3ops.operations.models import models
from io3ops.operations.stack import (
    build_images,
    engine,
    images,
    mounted_files,
    mounts,
    observe,
    owner_key,
    ownership,
    project,
    reload,
    subnets,
    validate,
    waiting,
)
from io3ops.operations.stack.project import compose_variables
from io3ops.operations.table import config as config_operation
from io3ops.operations.table import provider_key_files
from io3ops.operations.table.config import Config
from io3ops.settings import Settings
from io3ops.tools import Tools
from io3ops_shared import digests


class StepName(StrEnum):
    """The steps of `up`, in the order of a first start."""

    ENGINE = "engine"
    PORT = "port"
    KEY = "key"
    CONFIG = "config"
    IMAGES = "images"
    STACK = "stack"
    RUNTIME = "runtime"
    MODELS = "models"
    GATEWAY = "gateway"
    PRELOAD = "preload"
    SMOKE = "smoke"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a step must act, and why or why not."""

    needed: bool
    cause: str


@dataclass(kw_only=True)
class Run:
    """What one `up` has found and done so far."""

    tools: Tools
    config: Config
    engine: EngineState
    dry: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
    containers: Mapping[str, Container] = field(default_factory=dict)
    images: images.Images | None = None
    variables: dict[str, str] = field(default_factory=dict)
    key: str = ""
    models: tuple[models.ModelState, ...] = ()
    checks: tuple[smoke.Check, ...] = ()
    # Folders that were replaced on the host while a container keeps the old one, by service.
    stale: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    # Networks that differ from the variables. Those of an older release have a way out.
    misshapen: tuple[Network, ...] = ()
    # The steps that acted, or would act in a dry run.
    acted: list[StepName] = field(default_factory=list)

    def look(self) -> None:
        """Ask the engine again for its properties and containers."""
        self.info = self.tools.engine.info()
        self.containers = self.tools.engine.containers(self.tools.settings.project)

    @property
    def owner(self) -> tuple[int, int] | None:
        """(uid, gid) of the gateway's files; None before the engine answers."""
        return ownership.key_owner(self.info) if self.info else None

    @property
    def ready_engine(self) -> bool:
        """Whether the engine can be used."""
        return self.engine.status is EngineStatus.READY

    def running(self, service: str) -> bool:
        """Return whether a service's container runs."""
        container = self.containers.get(service)
        return bool(container and container.running)


@dataclass(frozen=True, kw_only=True)
class UpStep:
    """One step. `decide` only observes; `act` is called when the decision needs it."""

    name: StepName
    decide: Callable[[Run], Decision]
    act: Callable[[Run, Step], None]


def up(tools: Tools, console: Console, *, dry_run: bool = False) -> Run:
    """Bring the stack into the state that the table describes. After a failure, a second call continues.

    Raises the error of the first step that fails; the containers keep running.
    """
    run = start(tools, console, dry_run=dry_run)
    walk(run, console, tuple(step_named(name) for name in MODELS_FIRST) if _serves(run) else STEPS)
    if not dry_run:
        remember(run)
    return run


def start(tools: Tools, console: Console, *, dry_run: bool = False) -> Run:
    """Read the table and the key, and observe the engine. Raises TableInvalid or KeyFileUnsafe."""
    config = config_operation.load(tools.settings)
    for warning in config.warnings:
        console.note(f"warning: {warning}")
    for name in provider_key_files.missing_keys(tools.settings, config.plan):
        console.note(
            f"warning: the API key {name!r} is not set, so its deployments are skipped: `io3ops secrets set {name}`"
        )
    # Read the key before anything is installed or built: a faulty file must fail at once, not after minutes.
    key = files.read_key(tools.settings.key_file) or ""
    run = Run(tools=tools, config=config, engine=engine.observe(tools), dry=dry_run, key=key)
    if run.ready_engine:
        run.look()
    return run


def _serves(run: Run) -> bool:
    """Return whether the running stack can fetch the new table's models while the old table keeps serving."""
    plan = run.config.plan
    if not (run.running("gateway") and run.running("runtime")) or plan.external_urls:
        return False
    try:
        run.models = models.states(run.tools, plan)
    except Io3opsError:
        # The stack runs but does not work, so repair it first.
        return False
    return True


def applied_copy(settings: Settings) -> Path:
    """Return the path of the last litellm.yaml that passed its checks; `io3ops apply` restores it when a newer one fails."""
    return settings.state / "applied" / "litellm.yaml"


def remember(run: Run) -> None:
    """Keep a copy of the configuration that has passed its checks."""
    files.write_atomic(applied_copy(run.tools.settings), run.config.text.encode())


def step_named(name: StepName) -> UpStep:
    """Return a step by its name."""
    return next(step for step in STEPS if step.name == name)


def walk(run: Run, console: Console, steps: tuple[UpStep, ...]) -> None:
    """Decide and act, step by step. Raises the error of the first step that fails, or EngineLost when the engine caused it."""
    try:
        _walk(run, console, steps)
    except EngineLost:
        raise
    except Io3opsError as error:
        # Without the engine, the gateway, a build or Compose fail too. Name the layer that caused it.
        if run.ready_engine and run.tools.engine.probe().status is EngineStatus.STOPPED:
            raise EngineLost(
                "the Docker engine stopped answering during the command",
                details=error.message,
                hint="run `make up`, which starts it and continues; models, key and configuration are kept",
            ) from None
        raise


def _walk(run: Run, console: Console, steps: tuple[UpStep, ...]) -> None:
    for step in steps:
        decision = step.decide(run)
        if not decision.needed or run.dry:
            console.skip(step.name, decision.cause if not decision.needed else f"would act: {decision.cause}")
            if decision.needed:
                # The following steps must decide as if this one had acted.
                run.acted.append(step.name)
            continue
        with console.step(step.name, decision.cause) as progress:
            step.act(run, progress)
        run.acted.append(step.name)


def _engine(run: Run) -> Decision:
    if not run.ready_engine:
        refused = engine.refusal(run.engine, run.tools.machine, run.tools.settings.install_docker)
        if refused:
            raise refused
    return Decision(needed=not run.ready_engine, cause=run.engine.detail)


def _ensure_engine(run: Run, step: Step) -> None:
    run.engine = engine.ensure(run.tools, run.engine, step)
    run.look()


def _ports(run: Run) -> Decision:
    project.check_owner(run.tools.settings, run.containers)
    project.check_port(run.tools.settings, run.containers)
    observe.check_port(run.tools.settings, run.config.plan, run.containers.get("observer"))
    gateway, port = run.containers.get("gateway"), run.tools.settings.port
    ours = gateway is not None and gateway.running and port in gateway.ports
    return Decision(needed=False, cause=f"127.0.0.1:{port} is {'used by our gateway' if ours else 'free'}")


def _key(run: Run) -> Decision:
    if not run.key:
        return Decision(needed=True, cause="there is no key yet")
    return Decision(needed=False, cause=f"{run.tools.settings.key_file.relative_to(run.tools.settings.root)} exists")


def _make_key(run: Run, step: Step) -> None:
    run.key = owner_key.ensure(run.tools.settings, run.owner)
    step.outcome = f"made {run.tools.settings.key_file.relative_to(run.tools.settings.root)} (0600)"


def _config(run: Run) -> Decision:
    if run.config.current:
        return Decision(needed=False, cause="runtime/litellm.yaml matches the table")
    if run.config.hand_edited:
        raise config_operation.hand_edit_error(run.tools.settings, run.config)
    missing = run.config.rendered.on_disk is None
    return Decision(needed=True, cause="runtime/litellm.yaml is missing" if missing else "the table changed")


def _render(run: Run, step: Step) -> None:
    taken = ""
    if run.running("gateway") and run.images is not None:
        if _stays(run):
            # The running gateway tests the file and switches to it before it is written. Clients do not notice a failure.
            step.activity("config")("testing it in the running gateway")
            _hand_over(run)
            taken = "the running gateway switched to it; "
        else:
            # A working file is replaced only by one that LiteLLM can load.
            step.activity("config")("testing it with LiteLLM's own loader")
            validate.validate(run.tools, run.config, run.images.gateway.tag)
    step.outcome = f"{taken}wrote {', '.join(config_operation.write(run.tools.settings, run.config))}"


def _images(run: Run) -> Decision:
    if not run.ready_engine:
        return Decision(needed=True, cause="to be decided once the engine answers")
    run.images = images.decide(
        run.tools,
        runs_runtime=run.config.plan.runs_runtime,
        outside=bool(run.config.plan.outside or run.config.plan.collector),
        gpu=project.gpu_overlay(run.tools.settings, run.tools.machine, run.info),
    )
    missing = run.images.missing
    verb = {images.Origin.BUILD: "build", images.Origin.OFFICIAL: "pull"}
    causes = "; ".join(f"{verb[i.origin]} {i.name}: {i.cause}" for i in missing)
    return Decision(needed=bool(missing), cause=causes or "inputs unchanged")


def _make_images(run: Run, step: Step) -> None:
    assert run.images is not None
    build_images.build(run.tools, run.images, step)


def _stack(run: Run) -> Decision:
    if not run.ready_engine or run.images is None:
        return Decision(needed=True, cause="to be decided once the engine answers")
    run.variables = project.variables(run.tools, run.config, run.images, run.info, run.key)
    wanted = project.services(run.config.plan)
    run.misshapen = subnets.misshapen(run.tools.settings, run.variables, run.tools.engine.networks())
    paused = [s for s in wanted if s in run.containers and run.containers[s].status == "paused"]
    if paused:
        return Decision(needed=True, cause=f"unpause {', '.join(paused)}")
    down = [s for s in wanted if not run.running(s)]
    run.stale = mounts.stale(run.tools, {s: run.containers[s] for s in wanted if run.running(s)})
    surplus = [s for s in run.containers if s not in wanted]
    written, _ = files.read_env(run.tools.settings.env_file)
    if down:
        return Decision(needed=True, cause=f"start {', '.join(down)}")
    if run.misshapen:
        names = ", ".join(network.name for network in run.misshapen)
        return Decision(needed=True, cause=f"replace the network {names}: it has a way out, or its addresses changed")
    if surplus:
        return Decision(needed=True, cause=f"remove {', '.join(surplus)}: the table does not need it")
    changed = [k for k, v in project.persistent(run.variables, run.tools.settings).items() if written.get(k) != v]
    if changed:
        return Decision(needed=True, cause=f"changed: {', '.join(changed)}")
    if run.stale:
        return Decision(needed=True, cause=mounts.cause(run.tools.settings, run.stale))
    if mounted_files.on_disk(run.tools.settings) != mounted_files.wanted(run.tools.settings, run.config.plan):
        return Decision(needed=True, cause="the containers' files changed: provider keys, allowed hosts or names")
    if run.owner and (paths := ownership.wrongly_owned(run.tools.settings, run.owner)):
        shown = ", ".join(str(path.relative_to(run.tools.settings.root)) for path in paths[:3])
        return Decision(needed=True, cause=f"change the owner of {shown}{', …' if len(paths) > 3 else ''}")
    # `.env` has the wanted state; the containers show the actual one.
    gateway = run.containers["gateway"]
    if (gateway.key, gateway.image) != (run.variables["IO3OPS_KEY_FINGERPRINT"], run.images.gateway.tag):
        return Decision(needed=True, cause="the gateway runs with an old key or image")
    if run.tools.settings.port not in gateway.ports:
        return Decision(needed=True, cause=f"the gateway is not published on port {run.tools.settings.port}")
    sick = [s for s in wanted if _sick(run.containers[s])]
    return Decision(
        needed=bool(sick), cause=f"restart {', '.join(sick)}: unhealthy" if sick else f"{', '.join(wanted)} run"
    )


def _sick(container: Container) -> bool:
    """Return whether a container is unhealthy, or starts again and again."""
    looping = container.restarts > 0 and container.health == "starting"
    return container.status == "restarting" or (container.running and (looping or container.health == "unhealthy"))


def _start(run: Run, step: Step) -> None:
    settings = run.tools.settings
    owner_key.ensure(settings, run.owner)
    files.sync_folder(settings.state / "ca", files.ca_certificates(settings.ca_dir))
    if run.config.plan.observe.on:
        files.private_folder(settings.logs, run.owner)
    for path in (settings.keys_file, settings.audit_file):
        files.private_folder(path.parent, run.owner)
    for folder in (settings.logs, settings.recording, settings.content):
        files.private_folder(folder, run.owner)
    mounted_files.write(settings, mounted_files.wanted(settings, run.config.plan), run.owner)
    for path in ownership.owned_files(settings):
        # The gateway may remove an old log in the meantime.
        with contextlib.suppress(FileNotFoundError):
            files.own(path, run.owner, follow=path.is_dir())
    if run.owner:
        for folder in (settings.state / "ca", settings.table.parent):
            files.let_read(folder, run.owner)
    sick = [s for s in project.services(run.config.plan) if s in run.containers and _sick(run.containers[s])]
    for container in run.containers.values():
        if container.status == "paused":
            run.tools.engine.unpause(container.id)
    for network in run.misshapen:
        _replace(run, network, step)
    if run.stale:
        # Compose does not notice that the folder behind a bind mount was replaced.
        step.note(f"recreated for their replaced folders: {', '.join(run.stale)}")
        run.tools.compose.up(tuple(run.stale), run.variables, recreate=True)
    run.tools.compose.up(project.services(run.config.plan), run.variables)
    for service in sick:
        run.tools.compose.restart(service, run.variables)
    # Compose keeps a service that the table no longer needs: it is only not requested in this call.
    for service in [s for s in run.containers if s not in project.services(run.config.plan)]:
        run.tools.compose.remove(service, run.variables)
    # Write `.env` last. Written earlier, it would make a failed start look like a finished one.
    files.write_env(settings.env_file, project.persistent(run.variables, settings))
    run.look()
    step.outcome = "containers started"


def _replace(run: Run, network: Network, step: Step) -> None:
    """Remove a network, so that Compose makes it again. Only newer versions replace it themselves, and not with foreign containers on it."""
    service = subnets.WALLED[network.name][1]
    if service in run.containers:
        # Also a stopped container, which could not start without its old network.
        run.tools.compose.remove(service, run.variables)
    others = run.tools.engine.remove_network(network.id)
    step.note(f"recreating the network {network.name}, and {service} with it")
    if others:
        step.note(f"disconnected from {network.name}: {', '.join(others)}")


def _stays(run: Run) -> bool:
    """Return whether the gateway's container can switch to the new table without being replaced."""
    assert run.images is not None
    wanted = project.variables(run.tools, run.config, run.images, run.info, run.key)
    gateway = run.containers["gateway"]
    expected = (wanted["IO3OPS_KEY_FINGERPRINT"], wanted["IO3OPS_CA_DIGEST"], run.images.gateway.tag)
    written, _ = files.read_env(run.tools.settings.env_file)
    same = all(written.get(name) == wanted[name] for name in ("COMPOSE_FILE", "IO3OPS_UID", "IO3OPS_GID"))
    port = run.tools.settings.port in gateway.ports
    # A gateway that starts again and again cannot be asked; perhaps just because its file is an old one.
    answers = gateway.status == "running" and gateway.health == "healthy"
    return (gateway.key, gateway.ca, gateway.image) == expected and same and port and answers


def _hand_over(run: Run) -> None:
    reload.hand_over(run.tools, run.containers["gateway"].id, run.config.text)


def _restarts(run: Run, service: str) -> int:
    container = run.containers.get(service)
    return container.restarts if container else 0


def _runtime(run: Run) -> Decision:
    if not run.config.plan.runs_runtime:
        return Decision(needed=False, cause=f"external: {', '.join(run.config.plan.external_urls)}")
    container = run.containers.get("runtime")
    if container and container.running and container.health == "healthy":
        return Decision(needed=False, cause="healthy")
    return Decision(needed=True, cause="wait until Ollama answers")


def _wait_runtime(run: Run, step: Step) -> None:
    runtime = waiting.Waiting(service="runtime", what="Ollama", ready=lambda c: c.health == "healthy")
    waiting.wait(run.tools, runtime, _restarts(run, "runtime"), step.activity("runtime"))
    step.outcome = "healthy"


def _models(run: Run) -> Decision:
    if not run.running("gateway") or (run.dry and StepName.STACK in run.acted):
        return Decision(needed=True, cause="to be decided once the runtime answers")
    run.models = models.states(run.tools, run.config.plan)
    missing = [s for s in run.models if s.missing]
    if not missing:
        return Decision(needed=False, cause=f"{len(run.models)} of {len(run.models)} installed")
    sizes = sum(s.planned.model.download_mb for s in missing)
    return Decision(
        needed=True, cause=f"fetch {', '.join(s.planned.model.name for s in missing)} ({sizes:,} MB): not installed"
    )


def _fetch(run: Run, step: Step) -> None:
    missing = tuple(s for s in run.models if s.missing)
    models.fetch(run.tools, missing, run.variables or compose_variables(run.tools), step)
    step.outcome = f"installed {', '.join(s.planned.model.name for s in missing)}"


def _gateway(run: Run) -> Decision:
    if StepName.STACK not in run.acted and run.running("gateway"):
        client = GatewayHttp(run.tools.settings.base_url, run.key)
        try:
            if client.ready():
                if client.serves()[1] != digests.of_config(run.config.text):
                    return Decision(needed=True, cause="it serves another configuration than the table's")
                return Decision(needed=False, cause=f"lists {', '.join(run.config.plan.modes)}")
        finally:
            client.close()
    return Decision(needed=True, cause="wait until it is ready and lists the modes")


def _wait_gateway(run: Run, step: Step) -> None:
    client = GatewayHttp(run.tools.settings.base_url, run.key)
    try:
        gateway = waiting.Waiting(service="gateway", what="the gateway", ready=lambda _: client.ready())
        waiting.wait(run.tools, gateway, _restarts(run, "gateway"), step.activity("gateway"))
        serves = client.serves()[1]
    finally:
        client.close()
    if serves != digests.of_config(run.config.text):
        _hand_over(run)
    # Use a new connection: the old workers keep serving the previous one until it closes.
    client = GatewayHttp(run.tools.settings.base_url, run.key)
    try:
        smoke.check_modes(client, run.config.plan)
    finally:
        client.close()
    step.outcome = f"lists {', '.join(run.config.plan.modes)}"


def _preload(run: Run) -> Decision:
    if not run.running("gateway") or (run.dry and (StepName.STACK in run.acted or StepName.MODELS in run.acted)):
        return Decision(needed=True, cause="to be decided once the models are installed")
    if StepName.MODELS in run.acted:
        run.models = models.states(run.tools, run.config.plan)
    cold = [s for s in models.first_choices(run.config.plan, run.models) if not s.ready]
    cause = f"load {', '.join(s.planned.model.name for s in cold)}" if cold else "models are loaded"
    return Decision(needed=bool(cold), cause=cause)


def _load(run: Run, step: Step) -> None:
    cold = tuple(s for s in models.first_choices(run.config.plan, run.models) if not s.ready)
    models.preload(run.tools, cold, step)
    step.outcome = f"loaded {', '.join(s.planned.model.name for s in cold)}"


def _smoke(run: Run) -> Decision:
    passed = files.read_bytes(applied_copy(run.tools.settings))
    if run.acted or passed != run.config.text.encode():
        return Decision(needed=True, cause="one short call per mode")
    return Decision(needed=False, cause="nothing changed; `io3ops smoke` runs it at any time")


def _call_modes(run: Run, step: Step) -> None:
    run.checks = smoke.smoke(run.tools.settings, run.config.plan, run.key, step.activity("calling"))
    failed = smoke.failure(run.checks)
    if failed:
        raise failed
    step.outcome = f"{len(run.checks)} of {len(run.checks)} modes answer"


STEPS = (
    UpStep(name=StepName.ENGINE, decide=_engine, act=_ensure_engine),
    UpStep(name=StepName.PORT, decide=_ports, act=lambda _run, _step: None),
    UpStep(name=StepName.KEY, decide=_key, act=_make_key),
    UpStep(name=StepName.CONFIG, decide=_config, act=_render),
    UpStep(name=StepName.IMAGES, decide=_images, act=_make_images),
    UpStep(name=StepName.STACK, decide=_stack, act=_start),
    UpStep(name=StepName.RUNTIME, decide=_runtime, act=_wait_runtime),
    UpStep(name=StepName.MODELS, decide=_models, act=_fetch),
    UpStep(name=StepName.GATEWAY, decide=_gateway, act=_wait_gateway),
    UpStep(name=StepName.PRELOAD, decide=_preload, act=_load),
    UpStep(name=StepName.SMOKE, decide=_smoke, act=_call_modes),
)

# The order for a running stack: it switches to the table only when the models are there, so a failed download changes nothing.
MODELS_FIRST: tuple[StepName, ...] = (
    StepName.ENGINE,
    StepName.PORT,
    StepName.KEY,
    StepName.IMAGES,
    StepName.MODELS,
    StepName.PRELOAD,
    StepName.CONFIG,
    StepName.STACK,
    StepName.RUNTIME,
    StepName.GATEWAY,
    StepName.SMOKE,
)
