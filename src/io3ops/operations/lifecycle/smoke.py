"""`io3ops smoke`: one real request per mode through the gateway, as an application would send it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from io3ops.adapters.gateway_http import GatewayHttp
from io3ops.errors import CheckFailed, Io3opsError, ModesDiffer
from io3ops.routing.language import DataClass
from io3ops.routing.plan import Plan
from io3ops.settings import Settings

PROMPT = "Say hello in one short sentence."


@dataclass(frozen=True, kw_only=True)
class Check:
    """The request to one mode. `detail`: the answer or the failure, for people."""

    mode: str
    ok: bool
    seconds: float
    detail: str


def check_modes(gateway: GatewayHttp, plan: Plan) -> None:
    """Raise ModesDiffer unless the gateway lists exactly the table's modes."""
    listed, expected = set(gateway.modes()), set(plan.modes)
    if listed != expected:
        missing = ", ".join(sorted(expected - listed)) or "none"
        surplus = ", ".join(sorted(listed - expected)) or "none"
        raise ModesDiffer(
            "the gateway lists other modes than runtime/routing.yaml",
            details=f"missing: {missing}\nunexpected: {surplus}",
            hint="`make up` renders the table and restarts the gateway",
        )


def smoke(
    settings: Settings, plan: Plan, key: str, show: Callable[[str], None] = lambda _: None, *, cloud: bool = False
) -> tuple[Check, ...]:
    """Call every mode, in the table's order, even when one fails. `cloud`: send public prompts, which may leave this machine."""
    gateway = GatewayHttp(settings.base_url, key)
    try:
        checks = []
        for mode in plan.modes:
            show(mode)
            checks.append(_one(settings, gateway, plan, mode, cloud=cloud))
        return tuple(checks)
    finally:
        gateway.close()


def _one(settings: Settings, gateway: GatewayHttp, plan: Plan, mode: str, *, cloud: bool) -> Check:
    started = time.monotonic()
    # Without `cloud`, a test must not leave this machine.
    data_class: DataClass = "public" if cloud and plan.group(mode, "public") else "internal"
    if plan.group(mode, data_class) is None:
        return Check(
            mode=mode, ok=True, seconds=0, detail="not called: only a cloud serves it; `io3ops smoke --cloud` calls it"
        )
    try:
        if plan.task(mode) not in ("chat", "embeddings"):
            return Check(
                mode=mode, ok=True, seconds=0, detail=f"not called: a request for {plan.task(mode)} is expensive"
            )
        if plan.task(mode) == "embeddings":
            answer = gateway.embed(mode, PROMPT, data_class=data_class, timeout=settings.load_timeout)
            content = f"{answer.dimensions} dimensions"
        else:
            answer = gateway.chat(mode, PROMPT, data_class=data_class, max_tokens=16, timeout=settings.load_timeout)
            content = f"{answer.tokens} tokens"
    except Io3opsError as error:
        return Check(mode=mode, ok=False, seconds=time.monotonic() - started, detail=error.message)
    return Check(
        mode=mode, ok=True, seconds=answer.seconds, detail=f"{content}, served by {answer.deployment or 'unknown'}"
    )


def failure(checks: tuple[Check, ...]) -> CheckFailed | None:
    """Return the error for a test with failing modes, None when all answer."""
    bad = [c for c in checks if not c.ok]
    if not bad:
        return None
    return CheckFailed(
        f"{len(bad)} of {len(checks)} modes do not answer",
        details="\n".join(f"{c.mode}: {c.detail}" for c in bad),
        hint="`io3ops health` shows which layer fails",
    )


def text(checks: tuple[Check, ...]) -> str:
    """Render the checks for people."""
    return "\n".join(f"{'✓' if c.ok else '✗'} {c.mode:<12} {c.seconds:5.2f} s  {c.detail}" for c in checks)


def junit(checks: tuple[Check, ...]) -> str:
    """Render the checks as a JUnit report, for CI."""
    cases = []
    for check in checks:
        head = f'    <testcase classname="smoke" name={quoteattr(check.mode)} time="{check.seconds:.3f}"'
        cases.append(
            f"{head}/>" if check.ok else f"{head}>\n      <failure message={quoteattr(check.detail)}/>\n    </testcase>"
        )
    failed = sum(not c.ok for c in checks)
    seconds = sum(c.seconds for c in checks)
    suite = f'  <testsuite name="io3ops smoke" tests="{len(checks)}" failures="{failed}" errors="0" skipped="0" time="{seconds:.3f}">'
    return "\n".join(
        ['<?xml version="1.0" encoding="utf-8"?>', "<testsuites>", suite, *cases, "  </testsuite>", "</testsuites>", ""]
    )
