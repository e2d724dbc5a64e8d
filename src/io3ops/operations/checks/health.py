"""`io3ops health`: checks each layer, from the table and the engine outwards. The first layer that fails explains the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from io3ops.adapters.docker_engine import Container, EngineStatus
from io3ops.adapters.gateway_http import GatewayHttp
from io3ops.errors import Io3opsError
from io3ops.operations.lifecycle import smoke
from io3ops.operations.models import models
from io3ops.operations.stack import engine, mounts, owner_key, project
from io3ops.operations.table import config as config_operation
from io3ops.operations.table import provider_key_files
from io3ops.operations.table.config import Config
from io3ops.routing.plan import Plan
from io3ops.tools import Tools
from io3ops_shared import digests

# A lost line of the request log that is older than this no longer counts as a fault.
RECENT_SECONDS = 120
OBSERVER_CHECK = ["/usr/bin/python3", "-I", "-S", "/opt/io3ops/io3ops_observer/healthcheck.py"]


class State(StrEnum):
    """The result of a check. SKIPPED: a layer that it needs has failed."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


MARKS = {State.OK: "✓", State.FAILED: "✗", State.SKIPPED: "-"}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The check of one layer, for people: its result, and what to do about a failure."""

    layer: str
    state: State
    detail: str
    hint: str = ""


class _Broken(Exception):
    """A check found a fault: its description, and what to do."""

    def __init__(self, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


@dataclass(frozen=True)
class _Context:
    """What the checks need. The table is read and rendered once for all of them."""

    tools: Tools

    @cached_property
    def config(self) -> Config:
        """The table. Raises TableInvalid."""
        return config_operation.load(self.tools.settings)

    @property
    def plan(self) -> Plan:
        """The table's plan. Raises TableInvalid."""
        return self.config.plan

    @property
    def needs_keys(self) -> bool:
        """Whether the table enables a provider with a key; false for a table with problems, which another check reports."""
        try:
            return bool(self.plan.secrets)
        except Io3opsError:
            return False

    @property
    def observed(self) -> bool:
        """Whether the table has an observer; false for a table with problems, which another check reports."""
        try:
            return self.plan.observe.on
        except Io3opsError:
            return False

    def gateway(self) -> GatewayHttp:
        """Open the gateway's endpoint with the owner's key."""
        return GatewayHttp(self.tools.settings.base_url, owner_key.read(self.tools.settings))


def health(tools: Tools, *, deep: bool = False) -> tuple[Probe, ...]:
    """Check every layer. `deep` adds a real request per mode. Never raises Io3opsError: the probes contain the faults."""
    probes: list[Probe] = []
    checks: list[tuple[str, Callable[[_Context], str], tuple[str, ...]]] = [
        ("table", _table, ()),
        ("config", _config, ("table",)),
        ("engine", _engine, ()),
        ("containers", _containers, ("table", "engine")),
        ("folders", _folders, ("containers",)),
        ("runtime API", _runtime, ("containers",)),
        ("models present", _present, ("runtime API",)),
        ("models loaded", _loaded, ("models present",)),
        ("gateway live", _live, ("containers",)),
        ("gateway ready", _ready, ("gateway live",)),
        ("modes listed", _modes, ("gateway ready",)),
        ("request log", _request_log, ("gateway live",)),
    ]
    context = _Context(tools)
    if context.needs_keys:
        checks.insert(2, ("provider keys", _provider_keys, ("table",)))
    if context.observed:
        checks.append(("observer", _observer, ("containers",)))
    if deep:
        checks.append(("round trip", _round_trip, ("modes listed", "models present")))
    for layer, check, needs in checks:
        broken = [p.layer for p in probes if p.layer in needs and p.state is not State.OK]
        if broken:
            probes.append(Probe(layer=layer, state=State.SKIPPED, detail=f"needs: {', '.join(broken)}"))
            continue
        try:
            probes.append(Probe(layer=layer, state=State.OK, detail=check(context)))
        except _Broken as fault:
            probes.append(Probe(layer=layer, state=State.FAILED, detail=fault.detail, hint=fault.hint))
        except Io3opsError as error:
            probes.append(
                Probe(layer=layer, state=State.FAILED, detail=f"{error.code} {error.message}", hint=error.hint)
            )
    return tuple(probes)


def _provider_keys(context: _Context) -> str:
    plan = context.plan
    missing = provider_key_files.missing_keys(context.tools.settings, plan)
    if missing:
        detail = f"not set: {', '.join(missing)}; their deployments are skipped"
        raise _Broken(detail, f"io3ops secrets set {missing[0]}")
    return ", ".join(plan.secrets)


def healthy(probes: tuple[Probe, ...]) -> bool:
    """Return whether every check passed."""
    return all(p.state is State.OK for p in probes)


def text(probes: tuple[Probe, ...]) -> str:
    """Render the checks for people, with a hint for each failure."""
    lines = []
    for probe in probes:
        lines.append(f"{MARKS[probe.state]} {probe.layer:<15} {probe.detail}")
        if probe.hint and probe.state is State.FAILED:
            lines.append(f"  {'':<15} hint: {probe.hint}")
    return "\n".join(lines)


def _table(context: _Context) -> str:
    plan = context.plan
    return f"{len(plan.modes)} modes, {len(plan.models)} models"


def _config(context: _Context) -> str:
    config = context.config
    if config.hand_edited:
        raise _Broken("runtime/litellm.yaml was edited by hand", "`io3ops render-config` shows the edit")
    if not config.rendered.current:
        raise _Broken("runtime/litellm.yaml does not match runtime/routing.yaml", "io3ops apply")
    return "litellm.yaml matches the table"


def _engine(context: _Context) -> str:
    state = engine.observe(context.tools)
    if state.status is not EngineStatus.READY:
        raise _Broken(state.detail, "make up")
    return state.detail


def _containers(context: _Context) -> str:
    containers = project.own_containers(context.tools)
    wanted = project.services(context.plan)
    down = [
        f"{s} ({containers[s].status})" if s in containers else s
        for s in wanted
        if s not in containers or not containers[s].running
    ]
    if down:
        raise _Broken(f"not running: {', '.join(down)}", "make up")
    sick = [s for s in wanted if containers[s].health == "unhealthy"]
    if sick:
        raise _Broken(f"unhealthy: {', '.join(sick)}", f"`io3ops logs {sick[0]}` may say why; `make up` restarts it")
    return ", ".join(_container(containers[s]) for s in wanted)


def _container(container: Container) -> str:
    restarted = f", restarted {container.restarts}x" if container.restarts else ""
    return f"{container.service} {container.health or container.status}{restarted}"


def _folders(context: _Context) -> str:
    containers = project.own_containers(context.tools)
    wanted = {s: containers[s] for s in project.services(context.plan)}
    if stale := mounts.stale(context.tools, wanted):
        raise _Broken(mounts.cause(context.tools.settings, stale), "io3ops up")
    return "every container has the current ones"


def _runtime(context: _Context) -> str:
    plan = context.plan
    versions = []
    for url in dict.fromkeys(m.url for m in plan.models if m.kind == "ollama"):
        with models.runtime_api(context.tools, url) as api:
            versions.append(f"Ollama {api.version()} at {url}, called from the gateway")
    return "; ".join(versions) or "no Ollama in the table"


def _present(context: _Context) -> str:
    states = models.states(context.tools, context.plan)
    missing = [s.name for s in states if s.missing]
    if missing:
        raise _Broken(f"missing: {', '.join(missing)}", "io3ops pull")
    return f"{len(states)} of {len(states)}"


def _loaded(context: _Context) -> str:
    plan = context.plan
    states = models.first_choices(plan, models.states(context.tools, plan))
    cold = [s.planned.model.name for s in states if not s.ready]
    if cold:
        return f"not loaded: {', '.join(cold)}; the next request waits for it (`make up` loads it)"
    return ", ".join(f"{s.planned.model.name} {s.loaded.memory / 1e6:,.0f} MB{_where(s)}" for s in states if s.loaded)


def _where(state: models.ModelState) -> str:
    loaded = state.loaded
    if not loaded or not loaded.memory:
        return ""
    return " on the GPU" if loaded.vram >= loaded.memory else " on the CPU" if not loaded.vram else " on CPU and GPU"


def _live(context: _Context) -> str:
    client = context.gateway()
    try:
        if not client.live():
            raise _Broken(f"{context.tools.settings.base_url} does not answer", "io3ops logs gateway")
    finally:
        client.close()
    return context.tools.settings.base_url


def _ready(context: _Context) -> str:
    client = context.gateway()
    try:
        if not client.ready():
            raise _Broken("it answers, but reports that it is not ready", "io3ops logs gateway")
    finally:
        client.close()
    return "ready"


def _modes(context: _Context) -> str:
    plan = context.plan
    client = context.gateway()
    try:
        smoke.check_modes(client, plan)
        if client.serves()[1] != digests.of_config(context.config.text):
            raise _Broken("it serves another table than runtime/routing.yaml", "io3ops apply")
    finally:
        client.close()
    return ", ".join(plan.modes)


def _request_log(context: _Context) -> str:
    if not context.plan.log.requests:
        return "switched off in the table"
    where = context.tools.settings.logs.relative_to(context.tools.settings.root)
    container = project.own_containers(context.tools)["gateway"].id
    status = context.tools.control.status(context.tools.engine.command(), container)
    lost, ago = status.get("lost", 0), status.get("lost_ago", 0)
    if lost and ago < RECENT_SECONDS:
        hint = f"free some space, or repair {where}; `io3ops logs gateway` says why; answers are not affected"
        raise _Broken(f"{lost} lines could not be written, the last one {ago} s ago", hint)
    return f"{where}/requests.jsonl" + (f"; {lost} lines were lost since the gateway started" if lost else "")


def _observer(context: _Context) -> str:
    observer = project.own_containers(context.tools)["observer"]
    code, output = context.tools.engine.execute(observer.id, OBSERVER_CHECK)
    if code:
        raise _Broken(f"it has not read the whole log: {output.strip()}", "io3ops logs observer")
    places = [f"metrics at http://127.0.0.1:{context.plan.observe.metrics_port}/metrics"] * bool(
        context.plan.observe.metrics_port
    )
    places += [f"traces to {context.plan.observe.otlp_url}"] * bool(context.plan.observe.otlp_url)
    return f"has read the whole log; {', '.join(places)}"


def _round_trip(context: _Context) -> str:
    checks = smoke.smoke(context.tools.settings, context.plan, owner_key.read(context.tools.settings))
    failed = smoke.failure(checks)
    if failed:
        raise _Broken(failed.details.replace("\n", "; "), "io3ops logs")
    return ", ".join(f"{c.mode} {c.seconds:.2f} s" for c in checks)
