"""What `io3ops bench` sends: which modes, and the same request both ways. Pure.

Nothing leaves: the prompt is ours, every request is marked internal, and a mode that only a cloud serves is not called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from io3ops.errors import CheckFailed, SettingInvalid
from io3ops.operations.models.models import EGRESS_URL
from io3ops.routing.plan import RUNTIME_URL, Deployment, Plan
from io3ops.routing.problems import did_you_mean
from io3ops_shared.times import format_duration

GATEWAY_URL = "http://gateway:4000"
PROMPT = "Explain in detail how a lighthouse works."
# The same answer every time, as far as the runtime can, and short: what is measured is the way, not the model.
SENT: Mapping[str, Any] = {"temperature": 0, "seed": 7, "max_tokens": 16}
# LiteLLM's translation of OpenAI's words, so that the runtime is asked for the same both ways.
OLLAMA_WORDS = {n: n for n in ("temperature", "top_p", "seed", "stop")}
OLLAMA_WORDS |= {"max_tokens": "num_predict", "frequency_penalty": "repeat_penalty"}
# Requests of one client in a burst: a vector is made so quickly that one would measure the start of the burst.
EACH = {"chat": 1, "stream": 1, "embeddings": 4}


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asked for. `modes`: none stands for the first local one of each task; `seconds`: for measuring."""

    modes: tuple[str, ...]
    rounds: int
    parallel: int
    seconds: float

    @property
    def bursts(self) -> int:
        """A burst takes as long as several rounds, and fewer than 6 pairs tell nothing."""
        return min(self.rounds, max(6, self.rounds // 4))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of request: how it is made each way. Without `direct`, `why` says why not."""

    mode: str
    what: str
    deployment: str
    gateway: Mapping[str, Any]
    direct: Mapping[str, Any] | None
    why: str = ""


def choose(plan: Plan, names: Sequence[str]) -> tuple[tuple[Deployment, ...], tuple[str, ...]]:
    """The first local deployments of the chosen modes, and what has to be said about the others."""
    wanted = _named(plan, names)
    local = [m for m in plan.modes if plan.group(m, "internal") and plan.task(m) in ("chat", "embeddings")]
    if not names:
        first = {plan.task(mode): mode for mode in reversed(local)}
        wanted = [mode for mode in local if mode in first.values()]
    cloud = [m for m in (wanted if names else plan.modes) if not plan.group(m, "internal")]
    other = [f"{m} ({plan.task(m)})" for m in wanted if m not in (*local, *cloud)]
    notes = [f"never called, only a cloud serves it: {', '.join(cloud)}"] if cloud else []
    notes += [f"not called, only chat and embeddings are measured: {', '.join(other)}"] if other else []
    groups = [plan.group(mode, "internal") for mode in wanted if mode in local]
    if not groups:
        raise CheckFailed("there is no mode to measure", details="\n".join(notes), hint="`io3ops routes` lists them")
    return tuple(g.deployments[0] for g in groups if g), tuple(notes)


def _named(plan: Plan, names: Sequence[str]) -> list[str]:
    aliases = {alias: m.name for m in plan.policies for alias in m.aliases}
    found = list(dict.fromkeys(aliases.get(name, name) for name in names))
    for name in found:
        if name not in plan.modes:
            raise SettingInvalid(
                f"there is no mode {name!r}{did_you_mean(name, plan.modes)}", hint="`io3ops routes` lists them"
            )
    return found


def cases(plan: Plan, deployment: Deployment, owner: str) -> tuple[Case, ...]:
    """Chat, streamed chat or embeddings of one deployment."""
    # The owner's probe: internal, and it takes nothing of what the mode's clients may use.
    headers = {"Authorization": f"Bearer {owner}", "x-io3-data-class": "internal", "x-io3-probe": "bench"}
    found = []
    for what in ("chat", "stream") if deployment.task == "chat" else ("embeddings",):
        path, body = _openai(what, deployment.mode, [{"role": "user", "content": PROMPT}], SENT)
        direct, why = _direct(plan, deployment, what)
        gateway = {"url": f"{GATEWAY_URL}/v1{path}", "body": body, "headers": headers, "proxy": ""}
        place = {"mode": deployment.mode, "what": what, "deployment": deployment.name}
        found.append(Case(**place, gateway=gateway, direct=direct, why=why))
    return tuple(found)


def _direct(plan: Plan, deployment: Deployment, what: str) -> tuple[dict[str, Any] | None, str]:
    """The request that the gateway makes of ours, made without it; or why it cannot be made."""
    if deployment.key:
        return None, f"{deployment.provider} wants a key, which only the gateway has"
    policy = plan.policy(deployment.mode)
    said = {**dict(deployment.parameters), **dict(policy.parameters), **SENT, **dict(policy.forced)}
    messages = [{"role": "system", "content": policy.system_prompt}] if policy.system_prompt else []
    messages.append({"role": "user", "content": PROMPT})
    make = _ollama if deployment.kind == "ollama" else _served
    path, body = make(deployment, what, messages, said)
    # Outside the stack the gateway goes through the egress proxy, and so does the direct way: only the gateway differs.
    proxy = "" if deployment.url == RUNTIME_URL else EGRESS_URL
    return {"url": f"{deployment.url}{path}", "body": body, "headers": {}, "proxy": proxy}, ""


def _openai(what: str, model: str, messages: list[Any], said: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if what == "embeddings":
        return "/embeddings", {"model": model, "input": PROMPT}
    streamed = {"stream": True, "stream_options": {"include_usage": True}} if what == "stream" else {}
    return "/chat/completions", {"model": model, "messages": messages, **said, **streamed}


def _served(
    deployment: Deployment, what: str, messages: list[Any], said: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    return _openai(what, deployment.runtime_name, messages, said)


def _ollama(
    deployment: Deployment, what: str, messages: list[Any], said: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """As the gateway asks: another window, keep-alive or `shift` would load the model anew."""
    body = {"model": deployment.runtime_name, "keep_alive": format_duration(deployment.keep_alive)}
    window = {"num_ctx": deployment.context}
    if what == "embeddings":
        return "/api/embed", {**body, "input": [PROMPT], "truncate": False, "options": window}
    options = {OLLAMA_WORDS[name]: value for name, value in said.items() if name in OLLAMA_WORDS}
    strict = {"stream": what == "stream", "truncate": False, "shift": False}
    return "/api/chat", {**body, **strict, "messages": messages, "options": {**options, **window}}


def job(listed: Sequence[Case], wish: Wish, timeout: float) -> dict[str, Any]:
    """What `measure.py` is told."""
    found = []
    for case in listed:
        ways = ({"direct": case.direct} if case.direct else {}) | {"gateway": case.gateway}
        found.append({"mode": case.mode, "what": case.what, "each": EACH[case.what], "ways": ways})
    limits = {"rounds": wish.rounds, "bursts": wish.bursts, "parallel": wish.parallel, "seconds": wish.seconds}
    return {**limits, "timeout": timeout, "cases": found}
