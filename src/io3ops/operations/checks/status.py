"""`io3ops status`: what runs now, as the engine and the runtime report it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from io3ops.adapters.docker_engine import EngineStatus
from io3ops.errors import Io3opsError
from io3ops.operations.models import models
from io3ops.operations.privacy import recording as recordings
from io3ops.operations.stack import engine, project
from io3ops.operations.table import config, preset
from io3ops.tools import Tools


@dataclass(frozen=True, kw_only=True)
class Service:
    """One container; `status` and `health` in Docker's words."""

    name: str
    status: str
    health: str
    image: str


@dataclass(frozen=True, kw_only=True)
class ModeLine:
    """One mode and its models; `loaded`: whether the first one is in memory."""

    mode: str
    models: tuple[str, ...]
    loaded: bool


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of the stack.

    `drift`: litellm.yaml does not match the table. `recording`: modes whose content is recorded, with the Unix time of the end.
    `problem`: why a part is unknown.
    """

    running: bool
    project: str
    engine: str
    endpoint: str
    preset: str
    services: tuple[Service, ...]
    modes: tuple[ModeLine, ...]
    drift: bool
    recording: dict[str, float]
    problem: str


def status(tools: Tools) -> Status:
    """Return the state of the stack; `problem` describes what failed. Raises TableInvalid or ForeignStack."""
    loaded_config = config.load(tools.settings)
    plan = loaded_config.plan
    state = engine.observe(tools)
    services: tuple[Service, ...] = ()
    loaded: set[str] = set()
    problem = "" if state.status is EngineStatus.READY else state.detail
    recording: dict[str, float] = {}
    try:
        recording = recordings.look(tools.settings).modes
    except Io3opsError as error:
        problem = problem or error.message
    wanted = project.services(plan)
    if state.status is EngineStatus.READY:
        containers = project.own_containers(tools)
        services = tuple(
            Service(
                name=s,
                status=containers[s].status if s in containers else "absent",
                health=containers[s].health if s in containers else "",
                image=containers[s].image if s in containers else "",
            )
            for s in wanted
        )
        if all(s.status == "running" for s in services):
            try:
                loaded = {m.name for m in models.states(tools, plan) if m.loaded}
            except Io3opsError as error:
                problem = error.message
    return Status(
        running=bool(services) and all(s.status == "running" and s.health != "unhealthy" for s in services),
        project=tools.settings.project,
        engine=state.detail,
        endpoint=tools.settings.base_url,
        preset=preset.current(tools.settings, preset.all_presets()) or "your own table",
        services=services,
        modes=tuple(
            ModeLine(
                mode=m,
                models=tuple(d.runtime_name for d in plan.chain(m)),
                loaded=plan.chain(m)[0].runtime_name in loaded,
            )
            for m in plan.modes
        ),
        drift=not loaded_config.rendered.current,
        recording=recording,
        problem=problem,
    )


def text(state: Status) -> str:
    """Render the state for people."""
    lines = [f"engine    {state.engine}", f"project   {state.project}"]
    lines += [f"{s.name:<9} {s.status}{', ' + s.health if s.health else ''}  {s.image}" for s in state.services]
    lines += [
        f"endpoint  {state.endpoint}",
        f"table     {state.preset}{' (litellm.yaml differs; run `io3ops apply`)' if state.drift else ''}",
    ]
    lines += [f"  {m.mode:<12} {' → '.join(m.models)}{'  (loaded)' if m.loaded else ''}" for m in state.modes]
    if state.recording:
        lines.append(
            f"recording {recordings.line(state.recording, time.time())}: prompts and answers are recorded (`io3ops record off` stops it)"
        )
    if state.problem:
        lines.append(f"problem   {state.problem}")
    if not state.running:
        some = any(s.status == "running" for s in state.services)
        lines.append(f"the stack {'runs only in part' if some else 'does not run'}; `make up` starts it")
    return "\n".join(lines)
