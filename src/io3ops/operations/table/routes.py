"""`io3ops routes`, `explain` and `graph`: show the table. They need no running stack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from io3ops.adapters import files
from io3ops.errors import SettingInvalid
from io3ops.operations.table import config
from io3ops.operations.table.provider_key_files import missing_keys
from io3ops.routing import explain as explaining
from io3ops.routing import graph as drawing
from io3ops.routing.language import DataClass, Unset
from io3ops.routing.plan import Plan
from io3ops.routing.problems import did_you_mean
from io3ops.routing.table import Resolved, read_document, resolved
from io3ops.settings import Settings
from io3ops_shared.times import format_duration


@dataclass(frozen=True, kw_only=True)
class Route:
    """One mode, as text. `data_class` in parentheses is the table's default."""

    mode: str
    data_class: str
    chain: str
    fallbacks: str
    limits: str
    time: str
    aliases: str


def routes(settings: Settings) -> tuple[Route, ...]:
    """Return every mode, in the table's order. Raises TableInvalid."""
    plan = config.load(settings).plan
    return tuple(_route(plan, name) for name in plan.modes)


def _route(plan: Plan, name: str) -> Route:
    mode = plan.policy(name)
    steps = (
        " + ".join(f"{d.model} ×{d.weight}" if d.weight > 1 else d.model for d in step)
        for step in plan.widest(name).steps
    )
    limits = [
        f"{value:,} {word}"
        for value, word in (
            (mode.requests_per_minute, "requests/min"),
            (mode.tokens_per_minute, "tokens/min"),
            (mode.parallel, "concurrent"),
        )
        if value
    ]
    return Route(
        mode=name,
        data_class=mode.data_class or f"({plan.data_class})",
        chain=" → ".join(steps),
        fallbacks=", ".join(f"{kind.replace('_', ' ')}: {target}" for kind, target in mode.fallbacks),
        limits=", ".join(limits),
        time=f"{' + '.join(dict.fromkeys(map(format_duration, mode.step_times)))} per step, {format_duration(mode.longest)} in total",
        aliases=", ".join(mode.aliases),
    )


def routes_text(rows: tuple[Route, ...]) -> str:
    """Render the modes for people."""
    wide = max(len(r.mode) for r in rows)
    lines = []
    for row in rows:
        lines.append(f"{row.mode:<{wide}}  {row.data_class:<10}  {row.chain}")
        more = [("fallback", row.fallbacks), ("limits", row.limits), ("time", row.time), ("aliases", row.aliases)]
        lines += [f"{'':<{wide}}  {name:<10}  {value}" for name, value in more if value]
    return "\n".join(lines)


def all_values(settings: Settings) -> tuple[Resolved, ...]:
    """Return every value in effect and its origin. Raises TableInvalid."""
    config.load(settings)
    document, _ = read_document(files.read_bytes(settings.table) or b"")
    assert document is not None
    return resolved(document)


def values_text(rows: tuple[Resolved, ...]) -> str:
    """Render the values for people; long ones are shortened."""
    wide = max(len(r.path) for r in rows)
    short = (
        r.value if "\n" not in r.value and len(r.value) <= 60 else f"{r.value.splitlines()[0][:50]} …" for r in rows
    )
    return "\n".join(f"{r.path:<{wide}}  {value:<40}  {r.origin}" for r, value in zip(rows, short, strict=True))


def explain(
    settings: Settings, mode: str, *, data_class: DataClass | Unset, fail: tuple[str, ...], status: str
) -> explaining.Explanation:
    """Predict the path of a request. `fail`: names of deployments, models or providers that fail, or `all`.

    Raises SettingInvalid for a mode or a name that the table does not have; TableInvalid.
    """
    plan = config.load(settings).plan
    failing = _failing(plan, fail)
    missing = missing_keys(settings, plan)
    name = _mode_named(plan, mode)
    path = explaining.explain(plan.without_keys(missing), name, data_class=data_class, fail=failing, status=status)
    left_out = tuple(f"{d.name} ({d.key})" for d in plan.widest(name).deployments if d.key in missing)
    return replace(path, left_out=left_out)


def _mode_named(plan: Plan, name: str) -> str:
    aliases = {alias: mode.name for mode in plan.policies for alias in mode.aliases}
    if name not in plan.modes and name not in aliases:
        raise SettingInvalid(
            f"unknown mode {name!r}{did_you_mean(name, plan.modes)}", hint="`io3ops routes` lists the modes"
        )
    return name if name in plan.modes else aliases[name]


def _failing(plan: Plan, names: tuple[str, ...]) -> set[str]:
    """Return the deployments that the names stand for."""
    failing: set[str] = set()
    for name in names:
        matching = {d.name for d in plan.deployments if name in ("all", d.name, d.model, d.provider)}
        if not matching:
            near = did_you_mean(name, {n for d in plan.deployments for n in (d.name, d.model)})
            raise SettingInvalid(
                f"unknown deployment, model or provider {name!r}{near}", hint="name one of the table's, or `all`"
            )
        failing |= matching
    return failing


def graph(settings: Settings, picture: Literal["svg", "mermaid"]) -> str:
    """Return the routing picture. Raises TableInvalid."""
    plan = config.load(settings).plan
    return drawing.svg(plan) if picture == "svg" else drawing.mermaid(plan)
