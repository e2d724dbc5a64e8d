"""Predicts the path of a request when deployments fail: which are tried in which order, and what ends it. Pure.

It models the router's measured behaviour: the next step follows at once; the other members of a shared step do not replace a
failed one; only some kinds of error are retried; two kinds of error skip the rest of the chain.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from io3ops.routing.language import DataClass, FailureKind, RetryKind, Unset
from io3ops.routing.plan import Deployment, Group, Plan
from io3ops_shared.times import format_duration

ErrorKind = RetryKind | Literal["context_overflow", "content_policy"] | Unset
# The values of `--status`, each with its kind of error for retries and fallbacks; '' when they do not distinguish it.
STATUSES: dict[str, ErrorKind] = {
    "400": "", "401": "", "403": "", "404": "", "408": "timeout", "timeout": "timeout", "429": "rate_limit", "500": "server_error",
    "502": "server_error", "503": "server_error", "context": "context_overflow", "content": "content_policy",
}  # fmt: skip
# Errors that skip the rest of the chain.
SKIPPING = ("context_overflow", "content_policy")
ANSWERED = "answered"


class _Outcome(StrEnum):
    """How the attempts in one group ended. SKIPPED: an error that skips the rest of the chain."""

    ANSWERED = "answered"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One deployment that is tried. `share`: percent of the requests that reach the step. `tries` includes the first one."""

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
    """The path of a request. `served`: the deployments that may answer; empty when the client gets an error.

    `left_out`: deployments that are skipped because their provider's API key is not set.
    """

    mode: str
    data_class: DataClass
    attempts: tuple[Attempt, ...]
    served: tuple[str, ...]
    end: str
    total: float
    left_out: tuple[str, ...] = ()


def explain(
    plan: Plan, mode: str, *, data_class: DataClass | Unset = "", fail: Collection[str] = (), status: str = "500"
) -> Explanation:
    """Return the path of one request to `mode`.

    `data_class`: that of the key or the request, '' for an unmarked one. `fail`: names of deployments (`Deployment.name`) that
    answer with `status`, a key of STATUSES.
    """
    policy = plan.policy(mode)
    attempts: list[Attempt] = []
    visited: list[str] = []
    effective = _effective_class(plan, mode, data_class)
    here, why = plan.group(mode, effective), "first step"
    end = "refused with 503: no model of this mode can be tried"
    if effective == "internal":
        end = "refused with 403: an internal prompt stays local, and this mode has no local step"
    while here:
        visited.append(here.name)
        outcome, tried = _try_group(plan, here, fail, status, why)
        attempts += tried
        if outcome is _Outcome.ANSWERED:
            end = ANSWERED
            break
        failure = _failure(status) if outcome is _Outcome.SKIPPED else "error"
        targets = dict(here.fallbacks)
        target = targets.get(failure) or targets.get("error", "")
        if not target or target in visited:
            end = f"the client gets the error of {attempts[-1].deployment}"
            break
        why = f"fallback of {here.mode} on {failure.replace('_', ' ') if failure in targets else 'error'}"
        here = next(g for g in plan.groups if g.name == target)
    return Explanation(
        mode=mode,
        data_class=effective,
        attempts=tuple(attempts),
        served=tuple(a.deployment for a in attempts if not a.fails),
        end=end,
        total=policy.longest,
    )


def _effective_class(plan: Plan, mode: str, marked: DataClass | Unset) -> DataClass:
    """Internal wins, whether the mode or the request sets it; else the request's class, the mode's, the table's."""
    policy = plan.policy(mode)
    if "internal" in (policy.data_class, marked):
        return "internal"
    return marked or policy.data_class or plan.data_class


def _try_group(
    plan: Plan, group: Group, fail: Collection[str], status: str, why: str
) -> tuple[_Outcome, list[Attempt]]:
    """Walk through one group's steps: how they ended, and what was tried."""
    retries: dict[str, int] = dict(plan.policy(group.mode).retries)
    attempts: list[Attempt] = []
    for step in group.steps:
        weight = sum(d.weight for d in step)
        for deployment in step:
            fails, kind = deployment.name in fail, _error_kind(deployment, status)
            attempts.append(
                Attempt(
                    mode=group.mode,
                    deployment=deployment.name,
                    local=deployment.local,
                    fails=fails,
                    share=round(100 * deployment.weight / weight),
                    tries=1 + retries.get(kind, 0) if fails else 1,
                    timeout=deployment.timeout,
                    first_token=deployment.first_token,
                    why=why,
                )
            )
        failing = [d for d in step if d.name in fail]
        if not failing:
            return _Outcome.ANSWERED, attempts
        if len(failing) == len(step) and all(_error_kind(d, status) in SKIPPING for d in step):
            return _Outcome.SKIPPED, attempts
        why = "the previous step failed"
    all_failed = all(d.name in fail for d in group.steps[-1])
    return _Outcome.FAILED if all_failed else _Outcome.ANSWERED, attempts


def _error_kind(deployment: Deployment, status: str) -> ErrorKind:
    kind = STATUSES[status]
    # LiteLLM never classifies an Ollama error as a content refusal, so there it is an ordinary 400.
    return "" if kind == "content_policy" and deployment.kind == "ollama" else kind


def _failure(status: str) -> FailureKind:
    """Return the fallback list that an error which skips the chain uses."""
    return "content_policy" if STATUSES[status] == "content_policy" else "context_overflow"


def text(explanation: Explanation, status: str) -> str:
    """Render an explanation for people."""
    total = format_duration(explanation.total)
    lines = [f"mode {explanation.mode}, data class {explanation.data_class}, at most {total} in total", ""]
    for number, attempt in enumerate(explanation.attempts, 1):
        place = "local" if attempt.local else "cloud"
        share = "" if attempt.share == 100 else f", {attempt.share} % of the requests that reach it"
        lines.append(f"{number}. {attempt.deployment}  ({place}; {attempt.why}{share})")
        limits = (
            f"{format_duration(attempt.timeout)} per attempt, first token within {format_duration(attempt.first_token)}"
        )
        if attempt.fails:
            again = f", {attempt.tries} attempts" if attempt.tries > 1 else ""
            lines.append(f"   fails with {status}{again}; {limits}")
        else:
            lines.append(f"   answers; {limits}")
    if explanation.left_out:
        lines.append(f"skipped, because the provider's API key is not set: {', '.join(explanation.left_out)}")
    end = f"answered by {' or '.join(explanation.served)}" if explanation.end == ANSWERED else explanation.end
    lines += ["", f"end: {end}"]
    return "\n".join(lines)
