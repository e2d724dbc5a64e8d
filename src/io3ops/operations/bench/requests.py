"""The requests of `io3ops bench`: the chosen modes, and the same request on both paths. Pure.

No prompt of the user is sent and nothing leaves: the prompt is ours, every request is marked internal, and a mode that only a
cloud serves is not called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from io3ops.errors import CheckFailed, SettingInvalid
from io3ops.operations.bench.numbers import What
from io3ops.operations.models.models import EGRESS_URL
from io3ops.routing.plan import RUNTIME_URL, Deployment, Plan
from io3ops.routing.problems import did_you_mean
from io3ops_shared.times import format_duration

GATEWAY_URL = "http://gateway:4000"
PROMPT = "Explain in detail how a lighthouse works."
# A short answer, and the same one every time as far as the runtime supports it: we measure the path, not the model.
SENT: Mapping[str, Any] = {"temperature": 0, "seed": 7, "max_tokens": 16}
# LiteLLM's translation of OpenAI's parameters, so that the runtime gets the same request on both paths.
OLLAMA_WORDS = {n: n for n in ("temperature", "top_p", "seed", "stop")}
OLLAMA_WORDS |= {"max_tokens": "num_predict", "frequency_penalty": "repeat_penalty"}
# Requests per client in a burst. Embeddings are so fast that one each would only measure the start of the burst.
EACH: Mapping[What, int] = {"chat": 1, "stream": 1, "embeddings": 4}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The user's options. `modes`: () for the first local one of each task; `seconds`: time limit of the measurement."""

    modes: tuple[str, ...]
    rounds: int
    parallel: int
    seconds: float

    @property
    def bursts(self) -> int:
        """The number of bursts: fewer than rounds, because one takes longer, but at least the 6 that a result needs."""
        return min(self.rounds, max(6, self.rounds // 4))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of request, as sent on each path. Without `direct`, `why` gives the reason."""

    mode: str
    what: What
    deployment: str
    gateway: Mapping[str, Any]
    direct: Mapping[str, Any] | None
    why: str = ""


def choose(plan: Plan, names: Sequence[str]) -> tuple[tuple[Deployment, ...], tuple[str, ...]]:
    """Return the first local deployments of the chosen modes, and notes about the others. Raises CheckFailed or SettingInvalid."""
    wanted = _named(plan, names)
    local = [m for m in plan.modes if plan.group(m, "internal") and plan.task(m) in ("chat", "embeddings")]
    if not names:
        first = {plan.task(mode): mode for mode in reversed(local)}
        wanted = [mode for mode in local if mode in first.values()]
    cloud = [m for m in (wanted if names else plan.modes) if not plan.group(m, "internal")]
    other = [f"{m} ({plan.task(m)})" for m in wanted if m not in (*local, *cloud)]
    notes = [f"not called, because only a cloud serves it: {', '.join(cloud)}"] if cloud else []
    notes += [f"not called, because only chat and embeddings are measured: {', '.join(other)}"] if other else []
    groups = [plan.group(mode, "internal") for mode in wanted if mode in local]
    if not groups:
        hint = "`io3ops routes` lists the modes"
        raise CheckFailed("there is no mode to measure", details="\n".join(notes), hint=hint)
    return tuple(g.deployments[0] for g in groups if g), tuple(notes)


def _named(plan: Plan, names: Sequence[str]) -> list[str]:
    aliases = {alias: m.name for m in plan.policies for alias in m.aliases}
    chosen = list(dict.fromkeys(aliases.get(name, name) for name in names))
    for name in chosen:
        if name not in plan.modes:
            raise SettingInvalid(
                f"unknown mode {name!r}{did_you_mean(name, plan.modes)}", hint="`io3ops routes` lists the modes"
            )
    return chosen


def cases(plan: Plan, deployment: Deployment, owner: str) -> tuple[Case, ...]:
    """Return the kinds of request to one deployment: chat and streamed chat, or embeddings."""
    # A probe of the owner is internal, and does not count against the mode's rate limits.
    headers = {"Authorization": f"Bearer {owner}", "x-io3-data-class": "internal", "x-io3-probe": "bench"}
    listed = []
    kinds: tuple[What, ...] = ("chat", "stream") if deployment.task == "chat" else ("embeddings",)
    for what in kinds:
        path, body = _openai(what, deployment.mode, [{"role": "user", "content": PROMPT}], SENT)
        direct, why = _direct(plan, deployment, what)
        gateway = {"url": f"{GATEWAY_URL}/v1{path}", "body": body, "headers": headers, "proxy": ""}
        listed.append(
            Case(mode=deployment.mode, what=what, deployment=deployment.name, gateway=gateway, direct=direct, why=why)
        )
    return tuple(listed)


def _direct(plan: Plan, deployment: Deployment, what: What) -> tuple[dict[str, Any] | None, str]:
    """Return the request that the gateway would send to the runtime, or why it cannot be sent directly."""
    if deployment.key:
        return None, f"{deployment.provider} needs an API key, which only the gateway has"
    policy = plan.policy(deployment.mode)
    parameters = {**dict(deployment.parameters), **dict(policy.parameters), **SENT, **dict(policy.forced)}
    messages = [{"role": "system", "content": policy.system_prompt}] if policy.system_prompt else []
    messages.append({"role": "user", "content": PROMPT})
    make = _ollama if deployment.kind == "ollama" else _served
    path, body = make(deployment, what, messages, parameters)
    # A runtime outside the stack is called through the egress proxy on both paths, so that only the gateway differs.
    proxy = "" if deployment.url == RUNTIME_URL else EGRESS_URL
    return {"url": f"{deployment.url}{path}", "body": body, "headers": {}, "proxy": proxy}, ""


def _openai(what: What, model: str, messages: list[Any], parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if what == "embeddings":
        return "/embeddings", {"model": model, "input": PROMPT}
    streamed = {"stream": True, "stream_options": {"include_usage": True}} if what == "stream" else {}
    return "/chat/completions", {"model": model, "messages": messages, **parameters, **streamed}


def _served(
    deployment: Deployment, what: What, messages: list[Any], parameters: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    return _openai(what, deployment.runtime_name, messages, parameters)


def _ollama(
    deployment: Deployment, what: What, messages: list[Any], parameters: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return the request that the gateway would send: another window, keep-alive or `shift` would reload the model."""
    body = {"model": deployment.runtime_name, "keep_alive": format_duration(deployment.keep_alive)}
    window = {"num_ctx": deployment.context}
    if what == "embeddings":
        return "/api/embed", {**body, "input": [PROMPT], "truncate": False, "options": window}
    options = {OLLAMA_WORDS[name]: value for name, value in parameters.items() if name in OLLAMA_WORDS}
    strict = {"stream": what == "stream", "truncate": False, "shift": False}
    return "/api/chat", {**body, **strict, "messages": messages, "options": {**options, **window}}


def job(listed: Sequence[Case], options: Options, timeout: float) -> dict[str, Any]:
    """Return the input of `measure.py`."""
    entries = []
    for case in listed:
        ways = ({"direct": case.direct} if case.direct else {}) | {"gateway": case.gateway}
        entries.append({"mode": case.mode, "what": case.what, "each": EACH[case.what], "ways": ways})
    limits: dict[str, Any] = {"rounds": options.rounds, "bursts": options.bursts}
    limits |= {"parallel": options.parallel, "seconds": options.seconds}
    return {**limits, "timeout": timeout, "cases": entries}
