"""`io3ops pull` and `io3ops models`: the gap between the table's models and the runtime's."""

from __future__ import annotations

from dataclasses import dataclass

from io3ops.console import Console
from io3ops.operations import config, models
from io3ops.operations.down import compose_variables
from io3ops.tools import Tools


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One model of the table. Sizes in MB; `state`: missing, installed, loaded, or loaded with another window."""

    model: str
    name: str
    state: str
    size: int
    memory: int
    context: int
    digest: str
    modes: tuple[str, ...]


def pull(tools: Tools, console: Console) -> tuple[str, ...]:
    """The names of the models that were fetched. The stack must run: the runtime is reached through it."""
    plan = config.load(tools.settings).plan
    missing = tuple(s for s in models.states(tools, plan) if s.missing)
    if not missing:
        console.skip("models", f"{len(plan.models)} of {len(plan.models)} installed")
        return ()
    with console.step("models", f"fetch {', '.join(s.name for s in missing)}: not installed") as step:
        models.fetch(tools, missing, compose_variables(tools), step)
        step.outcome = "installed"
    return tuple(s.name for s in missing)


def list_models(tools: Tools) -> tuple[ModelRow, ...]:
    return tuple(_row(state) for state in models.states(tools, config.load(tools.settings).plan))


def _row(state: models.ModelState) -> ModelRow:
    word = (
        "missing"
        if state.missing
        else "loaded"
        if state.ready
        else "loaded with another window"
        if state.loaded
        else "installed"
    )
    return ModelRow(
        model=state.planned.model.name,
        name=state.name,
        state=word,
        size=state.installed.size // 10**6 if state.installed else 0,
        memory=state.loaded.memory // 10**6 if state.loaded else 0,
        context=state.planned.model.context,
        digest=state.installed.digest[:12] if state.installed else "",
        modes=state.planned.modes,
    )


def models_text(rows: tuple[ModelRow, ...]) -> str:
    lines = [f"{'model':<14} {'state':<10} {'disk MB':>8} {'memory MB':>10} {'window':>7}  {'digest':<12}  modes"]
    lines += [
        f"{r.model:<14} {r.state:<10} {r.size:>8,} {r.memory:>10,} {r.context:>7}  {r.digest:<12}  {', '.join(r.modes)}"
        for r in rows
    ]
    return "\n".join(lines)
