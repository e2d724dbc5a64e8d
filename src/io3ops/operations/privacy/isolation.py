"""`io3ops verify-isolation`: what the containers can reach, tried from inside their networks, and what they were given.

Each try is made twice: from the container's own network, and from a container on an ordinary one. Only where the second gets
out does the first prove anything, and the report says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from io3ops.adapters import files, machine
from io3ops.adapters.docker_engine import Container
from io3ops.errors import ContainerDied, GatewayError
from io3ops.operations.stack import images, project
from io3ops.operations.stack import owner_key as key_operation
from io3ops.operations.table import config
from io3ops.routing.plan import Plan
from io3ops.tools import Tools

SCRIPT = "/opt/io3ops/io3ops_gateway/scripts/probe.py"
# Well-known public resolvers, by number: no name has to resolve for a connection to be tried.
PUBLIC = (("1.1.1.1", 443), ("8.8.8.8", 53), ("9.9.9.9", 443))
NAMES = ("example.com", "one.one.one.one")
PUBLISHED = ("gateway", "observer")
# Must be refused by the way out, whatever the table says: a stranger, a machine's metadata, the proxy itself.
STRANGERS = (
    ("CONNECT", "example.com:443"),
    ("GET", "http://example.com/"),
    ("GET", "http://169.254.169.254/latest/meta-data/"),
    ("CONNECT", "127.0.0.1:3128"),
    ("CONNECT", "[::1]:3128"),
    ("CONNECT", "1.1.1.1:443"),
    ("CONNECT", "runtime:11434"),
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. `state`: ok, failed, or open (it could not be decided here)."""

    about: str
    state: str
    detail: str


def verify(tools: Tools) -> tuple[Finding, ...]:
    """Look at every container of the running stack. Raises ContainerDied when it does not run."""
    plan = config.load(tools.settings).plan
    found = project.own_containers(tools)
    wanted = project.services(plan)
    missing = [s for s in wanted if s not in found or not found[s].running]
    if missing:
        raise ContainerDied(f"not running: {', '.join(missing)}", hint="`make up` starts the stack")
    image = images.gateway_image(tools)
    targets = [*PUBLIC, *((host, 53) for host in machine.nameservers())]
    asking: dict[str, Any] = {"tcp": targets, "udp": [t for t in targets if t[1] == 53], "names": NAMES}
    control = _probe(tools, image, "bridge", asking)
    findings = []
    for service in wanted:
        asked = dict(asking)
        if service == "gateway" and plan.outside:
            asked |= {"proxy": ["egress", 3128], "through": [*STRANGERS, *other_ports(plan.outside)]}
        if service == "observer" and plan.collector:
            asked |= {"proxy": ["outlet", 3128], "through": [*STRANGERS, *other_ports(plan.collectors)]}
        said = _probe(tools, image, f"container:{found[service].id}", asked)
        if service not in ("egress", "outlet"):
            findings += [*direct(service, asking, said, control), way(service, said["ways"], control["ways"])]
        if "proxy" in asked:
            findings += refused(asked["proxy"][0], asked["through"], said["through"])
    inspected = {s: tools.engine.inspect(found[s].id) for s in wanted}
    findings += given(inspected, secrets_of(tools))
    findings += allowed(plan)
    if plan.outside:
        same = project.in_hand(tools.settings).egress == project.handed_out(tools.settings, plan).egress
        detail = "is what the table says" if same else "is not what the table says: `io3ops up` writes it again"
        findings.append(Finding(about="egress: its list", state="ok" if same else "failed", detail=detail))
    if "loader" in found and found["loader"].running:
        detail = "runs, and has a way out: only while models are fetched"
        findings.append(Finding(about="loader", state="open", detail=detail))
    findings.append(_provider_keys(tools, plan, found["gateway"]))
    return tuple(findings)


# -- pure


def direct(
    service: str, asked: Mapping[str, Any], said: Mapping[str, Any], control: Mapping[str, Any]
) -> list[Finding]:
    """What the tries past any proxy came to, held against the same tries from an ordinary network."""
    out = [
        f"{host}:{port} ({word})"
        for word in ("tcp", "udp")
        for (host, port), got in zip(asked[word], said[word], strict=True)
        if got == "open"
    ]
    known = sum(got == "open" for word in ("tcp", "udp") for got in control[word])
    names = [f"{name} ({got})" for name, got in zip(NAMES, said["names"], strict=True) if got]
    findings = []
    if out:
        findings.append(Finding(about=f"{service}: no way out", state="failed", detail=f"reached {', '.join(out)}"))
    elif known:
        detail = f"{known} addresses that an ordinary container reaches are out of reach"
        findings.append(Finding(about=f"{service}: no way out", state="ok", detail=detail))
    else:
        detail = "nothing was reached, and an ordinary container reaches nothing either: this machine is offline"
        findings.append(Finding(about=f"{service}: no way out", state="open", detail=detail))
    if names:
        state, detail = "failed", f"resolves {', '.join(names)}"
    elif any(control["names"]):
        state, detail = "ok", "outside names do not resolve, though an ordinary container resolves them"
    else:
        state, detail = "open", "outside names do not resolve, not in an ordinary container either"
    findings.append(Finding(about=f"{service}: no outside names", state=state, detail=detail))
    return findings


def way(service: str, ways: Sequence[Sequence[Any]], control: Sequence[Sequence[Any]]) -> Finding:
    """Whether a default route leads to somebody: then a packet gets out, answered or not."""
    about = f"{service}: no default route"
    usable = [f"{address} on {device}" for address, device, somebody in ways if somebody]
    if usable:
        return Finding(
            about=about, state="failed", detail=f"it leads to {', '.join(usable)}: `io3ops up` replaces the network"
        )
    if ways and not any(somebody for _, _, somebody in control):
        # Then it is not known whether one who has the address would have been seen.
        return Finding(about=about, state="open", detail="nobody answers there, nor on an ordinary container's")
    detail = f"it leads to {', '.join(address for address, _, _ in ways)}, which nobody has" if ways else "none"
    return Finding(about=about, state="ok", detail=detail)


def refused(proxy: str, asked: Sequence[tuple[str, str]], said: Sequence[str]) -> list[Finding]:
    """What a way out answered to targets that are in no table."""
    passed = [f"{target} ({status})" for (_, target), status in zip(asked, said, strict=True) if status != "403"]
    detail = f"not refused: {', '.join(passed)}" if passed else f"{len(asked)} targets outside the table are refused"
    return [Finding(about=f"{proxy}: only the table", state="failed" if passed else "ok", detail=detail)]


def other_ports(outside: Sequence[tuple[str, str, int]]) -> list[tuple[str, str]]:
    """The table's hosts at ports that it does not name."""
    known = {(host, port) for _, host, port in outside}
    return [("CONNECT", f"{host}:22") for _, host, _ in outside if (host, 22) not in known]


def given(inspected: Mapping[str, Mapping[str, Any]], secrets: Mapping[str, str]) -> list[Finding]:
    """What the engine knows of each container: ports, networks, and whether a secret stands where it can be read."""
    findings = []
    for service, found in inspected.items():
        text = json.dumps(found)
        leaked = [name for name, value in secrets.items() if value and value in text]
        detail = f"{', '.join(leaked)} can be read with `docker inspect`" if leaked else f"none of {len(secrets)} keys"
        findings.append(Finding(about=f"{service}: no key in sight", state="failed" if leaked else "ok", detail=detail))
        bound = [b for bindings in (found["NetworkSettings"]["Ports"] or {}).values() for b in bindings or ()]
        outside = [f"{b['HostIp'] or '*'}:{b['HostPort']}" for b in bound if b["HostIp"] not in ("127.0.0.1", "::1")]
        if outside or (service not in PUBLISHED and bound):
            shown = ", ".join(outside) or "a port of its own"
            findings.append(Finding(about=f"{service}: ports", state="failed", detail=f"open to others: {shown}"))
        elif bound:
            detail = f"only {', '.join(b['HostIp'] + ':' + b['HostPort'] for b in bound)}"
            findings.append(Finding(about=f"{service}: ports", state="ok", detail=detail))
    if "runtime" in inspected:
        on = "OLLAMA_NO_CLOUD=1" in inspected["runtime"]["Config"]["Env"]
        detail = "OLLAMA_NO_CLOUD=1" if on else "OLLAMA_NO_CLOUD is not set: it would serve `:cloud` models"
        findings.append(Finding(about="runtime: no cloud models", state="ok" if on else "failed", detail=detail))
    return findings


def allowed(plan: Plan) -> list[Finding]:
    """What the table lets the gateway reach."""
    outside = ", ".join(f"{scheme}://{host}:{port}" for scheme, host, port in plan.outside)
    detail = f"through the egress proxy: {outside}" if outside else "nothing outside the stack is in the table"
    found = [Finding(about="gateway: may reach", state="ok", detail=detail)]
    if plan.observe.on:
        where = f"through the outlet: {plan.collector}" if plan.collector else "nothing: the table names no collector"
        found.append(Finding(about="observer: may reach", state="ok", detail=where))
    return found


# -- what has to be asked


def secrets_of(tools: Tools) -> dict[str, str]:
    """Every secret of this clone by what it is called; compared, never shown."""
    settings = tools.settings
    found = {"the master key": key_operation.read(settings)}
    if settings.provider_keys.is_dir():
        for path in sorted(settings.provider_keys.iterdir()):
            found[f"the key {path.name}"] = (files.read_bytes(path) or b"").decode("utf-8", "replace").strip()
    return found


def _provider_keys(tools: Tools, plan: Plan, gateway: Container) -> Finding:
    code, output = tools.engine.execute(gateway.id, ["ls", "/run/provider_keys"])
    there = set(output.split()) if code == 0 else set()
    surplus = sorted(there - set(plan.secrets))
    detail = f"{', '.join(surplus)}: no enabled provider uses it" if surplus else ", ".join(sorted(there)) or "none"
    return Finding(about="gateway: provider keys", state="failed" if surplus or code else "ok", detail=detail)


def _probe(tools: Tools, image: str, network: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    arguments = ["-I", "-S", SCRIPT, json.dumps(asked)]
    done = images.run_once(tools, image, "/usr/bin/python3", arguments, network=network)
    if not done.ok:
        raise GatewayError(
            "a probe could not be run in the network of a container", details=done.tail(4), hint="run it again"
        )
    found: dict[str, Any] = json.loads(done.output)
    return found


def text(findings: Sequence[Finding]) -> str:
    marks = {"ok": "✓", "failed": "✗", "open": "?"}
    wide = max(len(f.about) for f in findings)
    return "\n".join(f"{marks[f.state]} {f.about:<{wide}}  {f.detail}" for f in findings)
