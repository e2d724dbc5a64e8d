"""`io3ops verify-isolation`: tests what each container can reach, from inside its network, and which secrets it contains.

Every test runs twice: in the container's own network, and in an ordinary one as the control. A blocked connection proves
something only if the control gets out; the report says when it does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from io3ops.adapters import files, machine
from io3ops.adapters.docker_engine import Container
from io3ops.errors import ContainerDied, GatewayError
from io3ops.operations.stack import images, mounted_files, owner_key, project
from io3ops.operations.table import config
from io3ops.routing.plan import Origin, Plan
from io3ops.tools import Tools

SCRIPT = "/opt/io3ops/io3ops_gateway/scripts/probe.py"
# Well-known public resolvers, by address, so that the test needs no name resolution.
PUBLIC = (("1.1.1.1", 443), ("8.8.8.8", 53), ("9.9.9.9", 443))
NAMES = ("example.com", "one.one.one.one")
PUBLISHED = ("gateway", "observer")
# Targets that a proxy must refuse, whatever the table says: a foreign host, a cloud machine's metadata, the proxy itself.
FORBIDDEN = (
    ("CONNECT", "example.com:443"),
    ("GET", "http://example.com/"),
    ("GET", "http://169.254.169.254/latest/meta-data/"),
    ("CONNECT", "127.0.0.1:3128"),
    ("CONNECT", "[::1]:3128"),
    ("CONNECT", "1.1.1.1:443"),
    ("CONNECT", "runtime:11434"),
)


class State(StrEnum):
    """The result of a check. OPEN: this machine cannot decide it."""

    OK = "ok"
    FAILED = "failed"
    OPEN = "open"


MARKS = {State.OK: "✓", State.FAILED: "✗", State.OPEN: "?"}


class Check(StrEnum):
    """A check, for scripts: these words do not change. LABELS has the words for people."""

    NO_WAY_OUT = "no_way_out"
    NO_OUTSIDE_NAMES = "no_outside_names"
    NO_DEFAULT_ROUTE = "no_default_route"
    NO_VISIBLE_KEY = "no_visible_key"
    NO_CLOUD_MODELS = "no_cloud_models"
    ONLY_THE_TABLE = "only_the_table"
    RULES = "rules"
    PORTS = "ports"
    MAY_REACH = "may_reach"
    PROVIDER_KEYS = "provider_keys"
    PULLS_MODELS = "pulls_models"


LABELS = {check: check.value.replace("_", " ") for check in Check}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check of one container. `detail`: for people."""

    container: str
    check: Check
    state: State
    detail: str

    @property
    def about(self) -> str:
        """The container and the check, for people."""
        return f"{self.container}: {LABELS[self.check]}"

    def data(self) -> dict[str, str]:
        """Return the fields of the JSON output."""
        return {
            "container": self.container,
            "check": self.check,
            "about": self.about,
            "state": self.state,
            "detail": self.detail,
        }


def verify(tools: Tools) -> tuple[Finding, ...]:
    """Check every container of the running stack. Raises ContainerDied when it does not run."""
    plan = config.load(tools.settings).plan
    containers = project.own_containers(tools)
    wanted = project.services(plan)
    missing = [s for s in wanted if s not in containers or not containers[s].running]
    if missing:
        raise ContainerDied(f"not running: {', '.join(missing)}", hint="`make up` starts the stack")
    image = images.gateway_image(tools)
    targets = [*PUBLIC, *((host, 53) for host in machine.nameservers())]
    common: dict[str, Any] = {"tcp": targets, "udp": [t for t in targets if t[1] == 53], "names": NAMES}
    control = _probe(tools, image, "bridge", common)
    findings = []
    for service in wanted:
        tests = dict(common)
        if service == "gateway" and plan.outside:
            tests |= {"proxy": ["egress", 3128], "through": [*FORBIDDEN, *other_ports(plan.outside)]}
        if service == "observer" and plan.collector:
            tests |= {"proxy": ["outlet", 3128], "through": [*FORBIDDEN, *other_ports(plan.collectors)]}
        results = _probe(tools, image, f"container:{containers[service].id}", tests)
        if service not in ("egress", "outlet"):
            findings += direct(service, common, results, control)
            findings.append(default_route(service, results["ways"], control["ways"]))
        if "proxy" in tests:
            findings.append(refused(tests["proxy"][0], tests["through"], results["through"]))
    inspected = {s: tools.engine.inspect(containers[s].id) for s in wanted}
    findings += exposed(inspected, secrets_of(tools))
    findings += allowed(plan)
    if plan.outside:
        current = mounted_files.on_disk(tools.settings).egress == mounted_files.wanted(tools.settings, plan).egress
        detail = "match the table" if current else "do not match the table; `io3ops up` writes them again"
        findings.append(_finding("egress", Check.RULES, current, detail))
    if "loader" in containers and containers["loader"].running:
        detail = "runs, and has a way out while models are pulled"
        findings.append(Finding(container="loader", check=Check.PULLS_MODELS, state=State.OPEN, detail=detail))
    findings.append(_provider_keys(tools, plan, containers["gateway"]))
    return tuple(findings)


# -- pure


def direct(
    service: str, tests: Mapping[str, Any], results: Mapping[str, Any], control: Mapping[str, Any]
) -> list[Finding]:
    """Compare the direct connections from a container's network with those of the control."""
    reached = [
        f"{host}:{port} ({protocol})"
        for protocol in ("tcp", "udp")
        for (host, port), result in zip(tests[protocol], results[protocol], strict=True)
        if result == "open"
    ]
    reachable = sum(result == "open" for protocol in ("tcp", "udp") for result in control[protocol])
    if reached:
        state, detail = State.FAILED, f"reached {', '.join(reached)}"
    elif reachable:
        state, detail = State.OK, f"cannot reach {reachable} addresses that an ordinary container reaches"
    else:
        state, detail = State.OPEN, "reached nothing, but neither did an ordinary container: this machine is offline"
    way_out = Finding(container=service, check=Check.NO_WAY_OUT, state=state, detail=detail)
    names = [f"{name} ({result})" for name, result in zip(NAMES, results["names"], strict=True) if result]
    if names:
        state, detail = State.FAILED, f"resolves {', '.join(names)}"
    elif any(control["names"]):
        state, detail = State.OK, "cannot resolve names that an ordinary container resolves"
    else:
        state, detail = State.OPEN, "resolves no outside names, but neither does an ordinary container"
    return [way_out, Finding(container=service, check=Check.NO_OUTSIDE_NAMES, state=state, detail=detail)]


def default_route(service: str, routes: Sequence[Sequence[Any]], control: Sequence[Sequence[Any]]) -> Finding:
    """Report a default route that leads to a machine: it would get packets, even if none of them is answered.

    Each route: (address, device, whether a machine answers there).
    """
    found = partial(Finding, container=service, check=Check.NO_DEFAULT_ROUTE)
    usable = [f"{address} on {device}" for address, device, answers in routes if answers]
    if usable:
        detail = f"it leads to {', '.join(usable)}; `io3ops up` replaces the network"
        return found(state=State.FAILED, detail=detail)
    if routes and not any(answers for _, _, answers in control):
        # The control did not notice a machine that does exist, so this result proves nothing.
        detail = "no machine answers at its address, but neither at that of an ordinary container"
        return found(state=State.OPEN, detail=detail)
    detail = f"it leads to {', '.join(address for address, _, _ in routes)}, which no machine has" if routes else "none"
    return found(state=State.OK, detail=detail)


def refused(proxy: str, targets: Sequence[tuple[str, str]], results: Sequence[str]) -> Finding:
    """Report targets outside the table that a proxy did not refuse."""
    passed = [f"{target} ({status})" for (_, target), status in zip(targets, results, strict=True) if status != "403"]
    detail = f"not refused: {', '.join(passed)}" if passed else f"{len(targets)} targets outside the table are refused"
    return _finding(proxy, Check.ONLY_THE_TABLE, not passed, detail)


def other_ports(outside: Sequence[Origin]) -> list[tuple[str, str]]:
    """Return the table's hosts with a port that it does not name."""
    known = {(host, port) for _, host, port in outside}
    return [("CONNECT", f"{host}:22") for _, host, _ in outside if (host, 22) not in known]


def exposed(inspected: Mapping[str, Mapping[str, Any]], secrets: Mapping[str, str]) -> list[Finding]:
    """Report secrets and ports that `docker inspect` shows for each container."""
    findings = []
    for service, details in inspected.items():
        text = json.dumps(details)
        leaked = [name for name, value in secrets.items() if value and value in text]
        detail = f"`docker inspect` shows {', '.join(leaked)}" if leaked else f"none of {len(secrets)} keys"
        findings.append(_finding(service, Check.NO_VISIBLE_KEY, not leaked, detail))
        bound = [b for bindings in (details["NetworkSettings"]["Ports"] or {}).values() for b in bindings or ()]
        outside = [f"{b['HostIp'] or '*'}:{b['HostPort']}" for b in bound if b["HostIp"] not in ("127.0.0.1", "::1")]
        if outside or (service not in PUBLISHED and bound):
            shown = ", ".join(outside) or "a port of its own"
            findings.append(_finding(service, Check.PORTS, False, f"open to other machines or programs: {shown}"))
        elif bound:
            detail = f"only {', '.join(b['HostIp'] + ':' + b['HostPort'] for b in bound)}"
            findings.append(_finding(service, Check.PORTS, True, detail))
    if "runtime" in inspected:
        on = "OLLAMA_NO_CLOUD=1" in inspected["runtime"]["Config"]["Env"]
        detail = "OLLAMA_NO_CLOUD=1" if on else "OLLAMA_NO_CLOUD is not set, so it would serve `:cloud` models"
        findings.append(_finding("runtime", Check.NO_CLOUD_MODELS, on, detail))
    return findings


def allowed(plan: Plan) -> list[Finding]:
    """Report what the table allows the gateway and the observer to reach."""
    outside = ", ".join(f"{scheme}://{host}:{port}" for scheme, host, port in plan.outside)
    detail = (
        f"through the egress proxy: {outside}" if outside else "nothing: the table names no target outside the stack"
    )
    findings = [_finding("gateway", Check.MAY_REACH, True, detail)]
    if plan.observe.on:
        detail = f"through the outlet: {plan.collector}" if plan.collector else "nothing: the table names no collector"
        findings.append(_finding("observer", Check.MAY_REACH, True, detail))
    return findings


def text(findings: Sequence[Finding]) -> str:
    """Render the findings for people."""
    wide = max(len(f.about) for f in findings)
    return "\n".join(f"{MARKS[f.state]} {f.about:<{wide}}  {f.detail}" for f in findings)


def _finding(container: str, check: Check, good: bool, detail: str) -> Finding:
    return Finding(container=container, check=check, state=State.OK if good else State.FAILED, detail=detail)


# -- what the engine must be asked


def secrets_of(tools: Tools) -> dict[str, str]:
    """Return every secret of this clone by its name for people. The values are compared and never shown."""
    settings = tools.settings
    secrets = {"the owner's key": owner_key.read(settings)}
    if settings.provider_keys.is_dir():
        for path in sorted(settings.provider_keys.iterdir()):
            secrets[f"the key {path.name}"] = (files.read_bytes(path) or b"").decode("utf-8", "replace").strip()
    return secrets


def _provider_keys(tools: Tools, plan: Plan, gateway: Container) -> Finding:
    code, output = tools.engine.execute(gateway.id, ["ls", "/run/provider_keys"])
    mounted = set(output.split()) if code == 0 else set()
    surplus = sorted(mounted - set(plan.secrets))
    detail = f"{', '.join(surplus)}: no enabled provider uses it" if surplus else ", ".join(sorted(mounted)) or "none"
    return _finding("gateway", Check.PROVIDER_KEYS, not (surplus or code), detail)


def _probe(tools: Tools, image: str, network: str, tests: Mapping[str, Any]) -> dict[str, Any]:
    arguments = ["-I", "-S", SCRIPT, json.dumps(tests)]
    done = images.run_once(tools, image, "/usr/bin/python3", arguments, network=network)
    if not done.ok:
        raise GatewayError(
            "a test could not run in the network of a container", details=done.tail(4), hint="run the command again"
        )
    results: dict[str, Any] = json.loads(done.output)
    return results
