"""What happens to a request when deployments fail: which is tried when, and what ends it. Pure; computed from the plan.

It describes the router as measured: the next step follows at once, a member of a shared step that fails is not replaced by
its neighbours, only some kinds of error are retried, and two kinds skip the rest of the chain.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from io3ops.routing.plan import Deployment, Group, Plan
from io3ops_shared.times import format_duration

# What `--status` may say, and the kind of error that the retries count.
STATUSES = {
    "400": "", "401": "", "403": "", "404": "", "408": "timeout", "timeout": "timeout", "429": "rate_limit", "500": "server_error",
    "502": "server_error", "503": "server_error", "context": "context_overflow", "content": "content_policy",
}  # fmt: skip
SPECIAL = ("context_overflow", "content_policy")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One step of the way. `share` in percent of the requests that get here; `tries` includes the first."""

    mode: str
    deployment: str
    local: bool
    fails: bool
    share: int
    tries: int
    timeout: float
    first_token: float
    why: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """`served`: the deployments that may answer; empty when every way ends in the error."""

    mode: str
    data_class: str
    attempts: tuple[Attempt, ...]
    served: tuple[str, ...]
    end: str
    total: float
    left_out: tuple[str, ...] = ()


def explain(
    plan: Plan, mode: str, *, data_class: str = "", fail: Collection[str] = (), status: str = "500"
) -> Explanation:
    """The way of one request to `mode`, marked `data_class` ('': not at all), when the deployments in `fail` (names as in
    `Deployment.name`) answer with `status` (see STATUSES)."""
    policy = plan.policy(mode)
    attempts: list[Attempt] = []
    served: list[str] = []
    seen: list[str] = []
    # Internal wins, whoever says it; a request that says nothing takes the mode's class or the table's.
    found = (
        "internal"
        if "internal" in (policy.data_class, data_class)
        else data_class or policy.data_class or plan.data_class
    )
    here, why = plan.group(mode, found), "first step"
    # The end when there is nobody to ask.
    end = "refused with 503: no model of this mode can be tried"
    if found == "internal":
        end = "refused with 403: an internal prompt stays local, and this mode has no local step"
    while here:
        seen.append(here.name)
        outcome = _walk(plan, here, fail, status, why, attempts, served)
        if outcome == "answered":
            end = "answered"
            break
        kind = STATUSES[status] if outcome == "special" else "error"
        targets = dict(here.fallbacks)
        target = targets.get(kind) or targets.get("error", "")
        if not target or target in seen:
            end = f"the client gets the error of {attempts[-1].deployment}"
            break
        why = f"fallback of {here.mode} on {'error' if kind not in targets else kind.replace('_', ' ')}"
        here = next(g for g in plan.groups if g.name == target)
    return Explanation(
        mode=mode,
        data_class=found,
        attempts=tuple(attempts),
        served=tuple(served),
        end=end,
        total=policy.longest,
    )


def _walk(
    plan: Plan, group: Group, fail: Collection[str], status: str, why: str, attempts: list[Attempt], served: list[str]
) -> str:
    """One group's chain: answered, failed, or special (the rest of the chain was skipped)."""
    retries = dict(plan.policy(group.mode).retries)
    for step in group.steps:
        weight = sum(d.weight for d in step)
        for deployment in step:
            failing = deployment.name in fail
            kind = _seen_as(deployment, status)
            attempts.append(
                Attempt(
                    mode=group.mode,
                    deployment=deployment.name,
                    local=deployment.local,
                    fails=failing,
                    share=round(100 * deployment.weight / weight),
                    tries=1 + retries.get(kind, 0) if failing else 1,
                    timeout=deployment.timeout,
                    first_token=deployment.first_token,
                    why=why,
                )
            )
            if not failing:
                served.append(deployment.name)
        failing_members = [d for d in step if d.name in fail]
        if not failing_members:
            return "answered"
        if len(failing_members) == len(step) and all(_seen_as(d, status) in SPECIAL for d in step):
            return "special"
        why = "the step before failed"
    return "failed" if all(d.name in fail for d in group.steps[-1]) else "answered"


def _seen_as(deployment: Deployment, status: str) -> str:
    kind = STATUSES[status]
    # Ollama refuses no content, so LiteLLM recognises none of it there: it is a 400 like any other.
    return "" if kind == "content_policy" and deployment.kind == "ollama" else kind


def text(found: Explanation, status: str) -> str:
    """The explanation for people."""
    lines = [f"mode {found.mode}, data class {found.data_class}, at most {format_duration(found.total)} in all", ""]
    for number, attempt in enumerate(found.attempts, 1):
        place = "local" if attempt.local else "cloud"
        share = "" if attempt.share == 100 else f", {attempt.share} % of the requests that get here"
        lines.append(f"{number}. {attempt.deployment}  ({place}; {attempt.why}{share})")
        limits = f"{format_duration(attempt.timeout)} per attempt, streams begin within {format_duration(attempt.first_token)}"
        if attempt.fails:
            again = f", {attempt.tries} attempts" if attempt.tries > 1 else ""
            lines.append(f"   fails with {status}{again}; {limits}")
        else:
            lines.append(f"   answers; {limits}")
    if found.left_out:
        lines.append(f"left out, for want of the provider's key: {', '.join(found.left_out)}")
    lines += ["", f"end: {'answered by ' + ' or '.join(found.served) if found.end == 'answered' else found.end}"]
    return "\n".join(lines)
