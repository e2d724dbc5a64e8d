"""`io3ops health`: one line per layer, from the engine outwards; the first failing layer explains the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from io3ops.adapters.docker_engine import EngineStatus
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

# A line that was lost so long ago: the log is written again, or nobody asks for anything.
RECENT_SECONDS = 120
OBSERVER_CHECK = ["/usr/bin/python3", "-I", "-S", "/opt/io3ops/io3ops_observer/healthcheck.py"]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One check of one layer. `state`: ok, failed, or skipped because a layer below failed."""

    layer: str
    state: str
    detail: str
    hint: str = ""


class _Broken(Exception):
    """A layer is not well: its detail and what to do."""

    def __init__(self, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


@dataclass(frozen=True)
class _Look:
    """What the checks look at; the table is read and rendered once for all of them."""

    tools: Tools

    @cached_property
    def config(self) -> Config:
        return config_operation.load(self.tools.settings)

    @property
    def plan(self) -> Plan:
        return self.config.plan

    @property
    def needs_keys(self) -> bool:
        """Whether the table enables a provider with a key; a table with problems is another probe's."""
        try:
            return bool(self.plan.secrets)
        except Io3opsError:
            return False

    @property
    def observed(self) -> bool:
        """Whether the table has an observer; a table with problems is another probe's."""
        try:
            return self.plan.observe.on
        except Io3opsError:
            return False

    def gateway(self) -> GatewayHttp:
        return GatewayHttp(self.tools.settings.base_url, owner_key.read(self.tools.settings))


def health(tools: Tools, *, deep: bool = False) -> tuple[Probe, ...]:
    """Never raises Io3opsError: what is wrong is in the probes. `deep` adds a real round trip per mode."""
    probes: list[Probe] = []
    checks: list[tuple[str, Callable[[_Look], str], tuple[str, ...]]] = [
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
    look = _Look(tools)
    if look.needs_keys:
        checks.insert(2, ("provider keys", _provider_keys, ("table",)))
    if look.observed:
        checks.append(("observer", _observer, ("containers",)))
    if deep:
        checks.append(("round trip", _round_trip, ("modes listed", "models present")))
    for layer, check, needs in checks:
        broken = [p.layer for p in probes if p.layer in needs and p.state != "ok"]
        if broken:
            probes.append(Probe(layer=layer, state="skipped", detail=f"needs: {', '.join(broken)}"))
            continue
        try:
            probes.append(Probe(layer=layer, state="ok", detail=check(look)))
        except _Broken as found:
            probes.append(Probe(layer=layer, state="failed", detail=found.detail, hint=found.hint))
        except Io3opsError as error:
            probes.append(Probe(layer=layer, state="failed", detail=f"{error.code} {error.message}", hint=error.hint))
    return tuple(probes)


def _provider_keys(look: _Look) -> str:
    plan = look.plan
    missing = provider_key_files.missing_keys(look.tools.settings, plan)
    if missing:
        raise _Broken(f"missing: {', '.join(missing)}; what needs them is left out", f"io3ops secrets set {missing[0]}")
    return ", ".join(plan.secrets)


def healthy(probes: tuple[Probe, ...]) -> bool:
    return all(p.state == "ok" for p in probes)


def _table(look: _Look) -> str:
    plan = look.plan
    return f"{len(plan.modes)} modes, {len(plan.models)} models"


def _config(look: _Look) -> str:
    config = look.config
    if config.hand_edited:
        raise _Broken("runtime/litellm.yaml was edited by hand", "io3ops render-config shows the edit")
    if not config.rendered.current:
        raise _Broken("runtime/litellm.yaml is not what runtime/routing.yaml says", "io3ops apply")
    return "litellm.yaml is what the table says"


def _engine(look: _Look) -> str:
    state = engine.observe(look.tools)
    if state.status is not EngineStatus.READY:
        raise _Broken(state.detail, "make up")
    return state.detail


def _containers(look: _Look) -> str:
    found = project.own_containers(look.tools)
    wanted = project.services(look.plan)
    down = [f"{s} ({found[s].status})" if s in found else s for s in wanted if s not in found or not found[s].running]
    if down:
        raise _Broken(f"not running: {', '.join(down)}", "make up")
    sick = [s for s in wanted if found[s].health == "unhealthy"]
    if sick:
        raise _Broken(f"unhealthy: {', '.join(sick)}", f"io3ops logs {sick[0]}; make up restarts it")
    return ", ".join(
        f"{s} {found[s].health or found[s].status}" + (f", restarted {found[s].restarts}x" if found[s].restarts else "")
        for s in wanted
    )


def _folders(look: _Look) -> str:
    found = project.own_containers(look.tools)
    wanted = {s: found[s] for s in project.services(look.plan)}
    if other := mounts.stale(look.tools, wanted):
        raise _Broken(mounts.cause(look.tools.settings, other), "io3ops up")
    return "the containers have those that are there"


def _runtime(look: _Look) -> str:
    plan = look.plan
    said = []
    for url in dict.fromkeys(m.url for m in plan.models if m.kind == "ollama"):
        with models.runtime_api(look.tools, url) as api:
            said.append(f"Ollama {api.version()} at {url}, seen from the gateway")
    return "; ".join(said) or "no Ollama in the table"


def _present(look: _Look) -> str:
    found = models.states(look.tools, look.plan)
    missing = [s.name for s in found if s.missing]
    if missing:
        raise _Broken(f"missing: {', '.join(missing)}", "io3ops pull")
    return f"{len(found)} of {len(found)}"


def _loaded(look: _Look) -> str:
    plan = look.plan
    found = models.first_choices(plan, models.states(look.tools, plan))
    cold = [s.planned.model.name for s in found if not s.ready]
    if cold:
        return f"not loaded: {', '.join(cold)}; the next request waits for it (`make up` loads it)"
    return ", ".join(f"{s.planned.model.name} {s.loaded.memory / 1e6:,.0f} MB{_where(s)}" for s in found if s.loaded)


def _where(state: models.ModelState) -> str:
    loaded = state.loaded
    if not loaded or not loaded.memory:
        return ""
    return " on the GPU" if loaded.vram >= loaded.memory else " on the CPU" if not loaded.vram else " on CPU and GPU"


def _live(look: _Look) -> str:
    client = look.gateway()
    try:
        if not client.live():
            raise _Broken(f"{look.tools.settings.base_url} does not answer", "io3ops logs gateway")
    finally:
        client.close()
    return look.tools.settings.base_url


def _ready(look: _Look) -> str:
    client = look.gateway()
    try:
        if not client.ready():
            raise _Broken("it answers, and says it is not ready", "io3ops logs gateway")
    finally:
        client.close()
    return "ready"


def _modes(look: _Look) -> str:
    plan = look.plan
    client = look.gateway()
    try:
        smoke.check_modes(client, plan)
        if client.serves()[1] != digests.of_config(look.config.text):
            raise _Broken("it serves another table than runtime/routing.yaml", "io3ops apply")
    finally:
        client.close()
    return ", ".join(plan.modes)


def _request_log(look: _Look) -> str:
    if not look.plan.log.requests:
        return "the table wants none"
    where = look.tools.settings.logs.relative_to(look.tools.settings.root)
    container = project.own_containers(look.tools)["gateway"].id
    said = look.tools.control.status(look.tools.engine.command(), container)
    lost, ago = said.get("lost", 0), said.get("lost_ago", 0)
    if lost and ago < RECENT_SECONDS:
        hint = f"free space, or mend {where}; answers are not affected; io3ops logs gateway says why"
        raise _Broken(f"{lost} lines could not be written, the last {ago} s ago", hint)
    return f"{where}/requests.jsonl" + (f"; {lost} lines were lost since the gateway started" if lost else "")


def _observer(look: _Look) -> str:
    found = project.own_containers(look.tools)["observer"]
    code, said = look.tools.engine.execute(found.id, OBSERVER_CHECK)
    if code:
        raise _Broken(f"it has not read the log to its end: {said.strip()}", "io3ops logs observer")
    places = [f"metrics at http://127.0.0.1:{look.plan.observe.metrics_port}/metrics"] * bool(
        look.plan.observe.metrics_port
    )
    places += [f"traces to {look.plan.observe.otlp_url}"] * bool(look.plan.observe.otlp_url)
    return f"has read the log to its end; {', '.join(places)}"


def _round_trip(look: _Look) -> str:
    checks = smoke.smoke(look.tools.settings, look.plan, owner_key.read(look.tools.settings))
    failed = smoke.failure(checks)
    if failed:
        raise _Broken(failed.details.replace("\n", "; "), "io3ops logs")
    return ", ".join(f"{c.mode} {c.seconds:.2f} s" for c in checks)
