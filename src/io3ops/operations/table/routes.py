"""`io3ops routes`, `explain`, `graph`: what the table says, without asking anything that runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from io3ops.adapters import files
from io3ops.errors import SettingInvalid
from io3ops.operations.table import config
from io3ops.operations.table.provider_key_files import keyless
from io3ops.routing import explain as explaining
from io3ops.routing import graph as drawing
from io3ops.routing.plan import Plan
from io3ops.routing.problems import did_you_mean
from io3ops.routing.table import Resolved, read_document, resolved
from io3ops.settings import Settings
from io3ops_shared.times import format_duration


@dataclass(frozen=True, kw_only=True)
class Route:
    """One mode, as the table has it."""

    mode: str
    data_class: str
    chain: str
    fallbacks: str
    limits: str
    time: str
    aliases: str


def routes(settings: Settings) -> tuple[Route, ...]:
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
            (mode.parallel, "at once"),
        )
        if value
    ]
    return Route(
        mode=name,
        data_class=mode.data_class or f"({plan.data_class})",
        chain=" → ".join(steps),
        fallbacks=", ".join(f"{kind.replace('_', ' ')}: {target}" for kind, target in mode.fallbacks),
        limits=", ".join(limits),
        time=f"{' + '.join(dict.fromkeys(map(format_duration, mode.step_times)))} a step, {format_duration(mode.longest)} in all",
        aliases=", ".join(mode.aliases),
    )


def routes_text(rows: tuple[Route, ...]) -> str:
    wide = max(len(r.mode) for r in rows)
    lines = []
    for row in rows:
        lines.append(f"{row.mode:<{wide}}  {row.data_class:<10}  {row.chain}")
        more = [("fallback", row.fallbacks), ("limits", row.limits), ("time", row.time), ("aliases", row.aliases)]
        lines += [f"{'':<{wide}}  {name:<10}  {value}" for name, value in more if value]
    return "\n".join(lines)


def all_values(settings: Settings) -> tuple[Resolved, ...]:
    """Every value in effect and where it comes from. Raises TableInvalid."""
    config.load(settings)
    document, _ = read_document(files.read_bytes(settings.table) or b"")
    assert document is not None
    return resolved(document)


def values_text(rows: tuple[Resolved, ...]) -> str:
    wide = max(len(r.path) for r in rows)
    short = (
        r.value if "\n" not in r.value and len(r.value) <= 60 else f"{r.value.splitlines()[0][:50]} …" for r in rows
    )
    return "\n".join(f"{r.path:<{wide}}  {value:<40}  {r.origin}" for r, value in zip(rows, short, strict=True))


def explain(
    settings: Settings, mode: str, *, data_class: str, fail: tuple[str, ...], status: str
) -> explaining.Explanation:
    """Raises SettingInvalid for a mode or deployment that the table does not have."""
    plan = config.load(settings).plan
    if mode not in plan.modes:
        aliased = next((m.name for m in plan.policies if mode in m.aliases), "")
        if not aliased:
            raise SettingInvalid(
                f"there is no mode {mode!r}{did_you_mean(mode, plan.modes)}", hint="`io3ops routes` lists them"
            )
        mode = aliased
    known = {d.name: d for d in plan.deployments}
    failing: set[str] = set()
    for name in fail:
        found = {name} if name in known else {d.name for d in plan.deployments if name in (d.model, d.provider, "all")}
        found = set(known) if name == "all" else found
        if not found:
            raise SettingInvalid(
                f"there is no deployment, model or provider {name!r}{did_you_mean(name, [*known, *{d.model for d in known.values()}])}",
                hint="name one, or `all`",
            )
        failing |= found
    missing = keyless(settings, plan)
    found_way = explaining.explain(plan.without_keys(missing), mode, data_class=data_class, fail=failing, status=status)
    left_out = tuple(f"{d.name} ({d.key})" for d in plan.widest(mode).deployments if d.key in missing)
    return replace(found_way, left_out=left_out)


def graph(settings: Settings, kind: str) -> str:
    plan = config.load(settings).plan
    return drawing.svg(plan) if kind == "svg" else drawing.mermaid(plan)
