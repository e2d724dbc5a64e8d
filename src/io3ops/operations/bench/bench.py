"""`io3ops bench`: measures the running stack, comparing direct calls to the runtime with calls through the gateway.

`io3ops_gateway/scripts/measure.py` sends the requests, from a temporary container in the stack's network: both paths begin at
the same place and end at the same model.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from io3ops.errors import ContainerDied, GatewayError
from io3ops.operations.bench.numbers import Answer, Report, Sample, report
from io3ops.operations.bench.requests import Case, Options, cases, choose, job
from io3ops.operations.stack import images, owner_key, project
from io3ops.operations.table import config
from io3ops.tools import Tools

PYTHON = "/opt/gateway/bin/python"
SCRIPT = "/opt/io3ops/io3ops_gateway/scripts/measure.py"


@dataclass
class _Results:
    """The measuring program's results so far."""

    samples: list[Sample] = field(default_factory=list)
    warm: list[dict[str, Any]] = field(default_factory=list)
    done: dict[str, Any] = field(default_factory=dict)


def bench(tools: Tools, options: Options, show: Callable[[str], None] = lambda _: None) -> Report:
    """Measure the running stack.

    Raises ContainerDied when it does not run; CheckFailed when there is nothing to measure; GatewayError when no mode answers.
    """
    plan = config.load(tools.settings).plan
    chosen, notes = choose(plan, options.modes)
    containers = project.own_containers(tools)
    missing = [s for s in project.services(plan) if s not in containers or not containers[s].running]
    if missing:
        raise ContainerDied(f"not running: {', '.join(missing)}", hint="`make up` starts the stack")
    listed = [case for deployment in chosen for case in cases(plan, deployment, owner_key.read(tools.settings))]
    results = _measure(tools, listed, job(listed, options, tools.settings.load_timeout), show)
    refused = [w for w in results.warm if w["error"] and w["way"] == "gateway"]
    if len(refused) == len(listed):
        raise GatewayError(
            "no mode answers through the gateway",
            details="\n".join(f"{listed[w['case']].mode}, {listed[w['case']].what}: {w['error']}" for w in refused),
            hint="`io3ops health --deep` shows which layer fails; if you changed the table, run `io3ops apply`",
        )
    # Count a first request that failed as an error too; its path was not measured.
    samples = [*(_failed(listed[w["case"]], w) for w in refused), *results.samples]
    notes = (*notes, *one_way(listed, results.warm), *elsewhere(listed, results.samples))
    return report(samples, notes, results.done["seconds"], cut=results.done["cut"])


# -- pure


def one_way(listed: Sequence[Case], warm: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a note for each case that was measured through the gateway only, with the reason."""
    notes = [f"{c.mode}, {c.what}: measured through the gateway only: {c.why}" for c in listed if c.why]
    served = {first["case"] for first in warm if first["way"] == "gateway" and not first["error"]}
    for first in warm:
        case = listed[first["case"]]
        if first["error"] and first["way"] == "direct" and first["case"] in served and case.direct:
            why = f"{case.direct['url']} does not answer from the stack's network ({first['error']})"
            notes.append(f"{case.mode}, {case.what}: measured through the gateway only: {why}")
    return notes


def elsewhere(listed: Sequence[Case], samples: Sequence[Sample]) -> list[str]:
    """Return a note for each case that another deployment than the first, which the direct calls use, served in part."""
    first = {(c.mode, c.what): c.deployment for c in listed}
    served = {(s.mode, s.what, a.served) for s in samples for a in s.answers if s.way == "gateway" and a.served}
    return [
        f"{m}, {w}: {n} served some requests instead of {first[m, w]}" for m, w, n in sorted(served) if n != first[m, w]
    ]


# -- what must be run


def _measure(tools: Tools, listed: Sequence[Case], task: Mapping[str, Any], show: Callable[[str], None]) -> _Results:
    network = f"{tools.settings.project}_runtime"
    name = f"{tools.settings.project}-bench-{secrets.token_hex(4)}"
    outside = any(c.direct and c.direct["proxy"] for c in listed)
    # --init: as process 1 the program would ignore signals.
    options = ["--interactive", "--init", "--name", name]
    options += ["--network", f"{tools.settings.project}_egress"] if outside else []
    argv = images.contained(tools, images.gateway_image(tools), PYTHON, network=network, options=options)
    results = _Results()
    try:
        done = tools.processes.stream(
            # The task contains the key, and stdin is the only place where no other program can read it.
            [*argv, "-I", SCRIPT],
            lambda line: _read(line, listed, results, show),
            stdin=json.dumps(task).encode() + b"\n",
        )
    except BaseException:
        tools.processes.run([tools.engine.command(), "rm", "--force", name])
        raise
    if not done.ok or not results.done:
        raise GatewayError(
            f"the measuring program ended early (exit code {done.code})", details=done.tail(4), hint="run it again"
        )
    return results


def _read(line: str, listed: Sequence[Case], results: _Results, show: Callable[[str], None]) -> None:
    """Read one line of the measuring program's output."""
    if not line.startswith('{"kind": '):
        return
    event = json.loads(line)
    kind = event.pop("kind")
    if kind == "progress":
        show(event["text"])
    elif kind == "warm":
        results.warm.append(event)
    elif kind == "sample":
        results.samples.append(_sample(listed[event["case"]], event))
    else:
        results.done = event


def _sample(case: Case, event: Mapping[str, Any]) -> Sample:
    fields = {name: event[name] for name in ("at_once", "round", "way", "seconds")}
    return Sample(mode=case.mode, what=case.what, **fields, answers=tuple(Answer(**a) for a in event["answers"]))


def _failed(case: Case, first: Mapping[str, Any]) -> Sample:
    """Return the sample of a first request that failed."""
    answer = {name: first[name] for name in ("seconds", "first", "tokens", "served", "error")}
    return _sample(
        case, {"at_once": 1, "round": -1, "way": first["way"], "seconds": first["seconds"], "answers": [answer]}
    )
