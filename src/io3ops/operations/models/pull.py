"""`io3ops pull` and `io3ops models`: the differences between the table's models and the runtime's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from io3ops.adapters.ollama_api import InstalledModel
from io3ops.console import Console
from io3ops.operations.models import models
from io3ops.operations.stack.project import compose_variables
from io3ops.operations.table import config
from io3ops.routing.plan import RUNTIME_URL
from io3ops.tools import Tools


class State(StrEnum):
    """The state of a model in its runtime. OTHER_WINDOW: the next request loads it again."""

    MISSING = "missing"
    INSTALLED = "installed"
    LOADED = "loaded"
    OTHER_WINDOW = "loaded with another window"


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One model of the table. Sizes in MB, `context` in tokens."""

    model: str
    name: str
    state: State
    size: int
    memory: int
    context: int
    digest: str
    modes: tuple[str, ...]


def pull(tools: Tools, console: Console) -> tuple[str, ...]:
    """Fetch the missing models and return their names. The stack must run, because the runtime is reached through it."""
    plan = config.load(tools.settings).plan
    missing = tuple(s for s in models.states(tools, plan) if s.missing)
    if not missing:
        console.skip("models", f"{len(plan.models)} of {len(plan.models)} installed")
        return ()
    names = ", ".join(s.planned.model.name for s in missing)
    size = sum(s.planned.model.download_mb for s in missing)
    with console.step("models", f"fetch {names} ({size:,} MB): not installed") as step:
        models.fetch(tools, missing, compose_variables(tools), step)
        step.outcome = f"installed {names}"
    return tuple(s.name for s in missing)


def list_models(tools: Tools) -> tuple[ModelRow, ...]:
    """Return every model of the table that runs on an Ollama."""
    return tuple(_row(state) for state in models.states(tools, config.load(tools.settings).plan))


def _state(state: models.ModelState) -> State:
    if state.missing:
        return State.MISSING
    if state.ready:
        return State.LOADED
    return State.OTHER_WINDOW if state.loaded else State.INSTALLED


def _row(state: models.ModelState) -> ModelRow:
    return ModelRow(
        model=state.planned.model.name,
        name=state.name,
        state=_state(state),
        size=state.installed.size // 10**6 if state.installed else 0,
        memory=state.loaded.memory // 10**6 if state.loaded else 0,
        context=state.planned.model.context,
        digest=state.installed.digest[:12] if state.installed else "",
        modes=state.planned.modes,
    )


def unused_models(tools: Tools) -> tuple[InstalledModel, ...]:
    """Return the models in the stack's runtime that no mode uses: those of an earlier table or recipe."""
    plan = config.load(tools.settings).plan
    if not plan.runs_runtime:
        return ()
    used = {m.runtime_name for m in plan.models if m.in_stack}
    with models.runtime_api(tools, RUNTIME_URL) as api:
        return tuple(m for m in api.installed() if m.name not in used)


def prune_models(tools: Tools, unused: tuple[InstalledModel, ...]) -> None:
    """Delete models from the stack's runtime."""
    with models.runtime_api(tools, RUNTIME_URL) as api:
        for model in unused:
            api.delete(model.name)


def models_text(rows: tuple[ModelRow, ...], unused: tuple[InstalledModel, ...]) -> str:
    """Render the models for people."""
    wide = max(len(r.model) for r in rows)
    lines = [f"{'model':<{wide}}  {'state':<9} {'disk MB':>8} {'mem MB':>7} {'window':>7}  modes"]
    for row in rows:
        lines.append(
            f"{row.model:<{wide}}  {row.state:<9} {row.size:>8,} {row.memory:>7,} {row.context:>7}  {', '.join(row.modes)}"
        )
    if unused:
        lines += ["", "not in the table (`io3ops models --prune` removes them):"]
        lines += [f"  {m.name}  {m.size // 10**6:,} MB" for m in unused]
    return "\n".join(lines)
