"""`io3ops bench`: the running stack measured, direct to the runtime against through the gateway.

`io3ops_gateway/scripts/measure.py` does it, in a throw-away container in the stack's network: both ways begin in the same place and
end at the same model.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from io3ops.errors import ContainerDied, GatewayError
from io3ops.operations.bench.numbers import Answer, Report, Sample, report
from io3ops.operations.bench.requests import Case, Wish, cases, choose, job
from io3ops.operations.stack import images, owner_key
from io3ops.operations.stack import project as stack
from io3ops.operations.table import config
from io3ops.routing.plan import Plan
from io3ops.tools import Tools

PYTHON = "/opt/gateway/bin/python"
SCRIPT = "/opt/io3ops/io3ops_gateway/scripts/measure.py"


@dataclass
class _Heard:
    """What the measuring program has said so far."""

    samples: list[Sample] = field(default_factory=list)
    warm: list[dict[str, Any]] = field(default_factory=list)
    done: dict[str, Any] = field(default_factory=dict)


def bench(tools: Tools, wish: Wish, show: Callable[[str], None] = lambda _: None) -> Report:
    """Measure the running stack. Raises ContainerDied when it does not run, CheckFailed when there is nothing to measure."""
    plan = config.load(tools.settings).plan
    chosen, notes = choose(plan, wish.modes)
    found = stack.own_containers(tools)
    missing = [s for s in stack.services(plan) if s not in found or not found[s].running]
    if missing:
        raise ContainerDied(f"not running: {', '.join(missing)}", hint="`make up` starts the stack")
    listed = [case for deployment in chosen for case in cases(plan, deployment, owner_key.read(tools.settings))]
    heard = _measure(tools, plan, listed, job(listed, wish, tools.settings.load_timeout), show)
    refused = [w for w in heard.warm if w["error"] and w["way"] == "gateway"]
    if len(refused) == len(listed):
        raise GatewayError(
            "no mode answers through the gateway",
            details="\n".join(f"{listed[w['case']].mode}, {listed[w['case']].what}: {w['error']}" for w in refused),
            hint="`io3ops health --deep` shows which layer fails; `io3ops apply` hands it a changed table",
        )
    # A first request that failed is an error like others; its way was not measured.
    samples = [*(_failed(listed[w["case"]], w) for w in refused), *heard.samples]
    notes = (*notes, *one_way(listed, heard.warm), *elsewhere(listed, heard.samples))
    return report(samples, notes, heard.done["seconds"], cut=heard.done["cut"])


# -- pure


def one_way(listed: Sequence[Case], warm: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where only the gateway was measured, and why."""
    found = [f"{c.mode}, {c.what}: only the gateway is measured: {c.why}" for c in listed if c.why]
    through = {said["case"] for said in warm if said["way"] == "gateway" and not said["error"]}
    for said in warm:
        case = listed[said["case"]]
        if said["error"] and said["way"] == "direct" and said["case"] in through and case.direct:
            where = f"{case.direct['url']} does not answer from the stack's network ({said['error']})"
            found.append(f"{case.mode}, {case.what}: only the gateway is measured: {where}")
    return found


def elsewhere(listed: Sequence[Case], samples: Sequence[Sample]) -> list[str]:
    """Where the gateway sent requests to another deployment than to the first, which is the one that was asked direct."""
    first = {(c.mode, c.what): c.deployment for c in listed}
    served = {(s.mode, s.what, a.served) for s in samples for a in s.answers if s.way == "gateway" and a.served}
    return [f"{m}, {w}: {n} served a part of it, not {first[m, w]}" for m, w, n in sorted(served) if n != first[m, w]]


# -- what has to be run


def _measure(
    tools: Tools, plan: Plan, listed: Sequence[Case], asked: Mapping[str, Any], show: Callable[[str], None]
) -> _Heard:
    project = tools.settings.project
    name = f"{project}-bench-{secrets.token_hex(4)}"
    outside = any(c.direct and c.direct["proxy"] for c in listed)
    # --init: a signal ends the program, which is no process 1 then.
    options = ["--interactive", "--init", "--name", name, *(["--network", f"{project}_egress"] if outside else [])]
    argv = images.contained(tools, images.gateway_image(tools), PYTHON, network=f"{project}_runtime", options=options)
    heard = _Heard()
    try:
        done = tools.processes.stream(
            # The key is in the job: stdin is the one place where nobody else can read it.
            [*argv, "-I", SCRIPT],
            lambda line: _hear(line, listed, heard, show),
            stdin=json.dumps(asked).encode() + b"\n",
        )
    except BaseException:
        tools.processes.run([tools.engine.command(), "rm", "--force", name])
        raise
    if not done.ok or not heard.done:
        raise GatewayError(
            f"the measuring program ended early (exit code {done.code})", details=done.tail(4), hint="run it again"
        )
    return heard


def _hear(line: str, listed: Sequence[Case], heard: _Heard, show: Callable[[str], None]) -> None:
    if not line.startswith('{"kind": '):
        return
    said = json.loads(line)
    kind = said.pop("kind")
    if kind == "progress":
        show(said["text"])
    elif kind == "warm":
        heard.warm.append(said)
    elif kind == "sample":
        heard.samples.append(_sample(listed[said["case"]], said))
    else:
        heard.done = said


def _sample(case: Case, said: Mapping[str, Any]) -> Sample:
    place = {name: said[name] for name in ("at_once", "round", "way", "seconds")}
    return Sample(mode=case.mode, what=case.what, **place, answers=tuple(Answer(**a) for a in said["answers"]))


def _failed(case: Case, said: Mapping[str, Any]) -> Sample:
    answer = {n: said[n] for n in ("seconds", "first", "tokens", "served", "error")}
    return _sample(
        case, {"at_once": 1, "round": -1, "way": said["way"], "seconds": said["seconds"], "answers": [answer]}
    )
