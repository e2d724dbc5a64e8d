"""The Compose project of this clone: its variables, its services and its containers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from io3ops.adapters import files, machine
from io3ops.adapters.compose import port_hint
from io3ops.adapters.docker_engine import Container
from io3ops.errors import ForeignStack, PortTaken
from io3ops.operations.stack import mounted_files, observe, ownership, subnets
from io3ops.operations.stack.images import Images
from io3ops.operations.stack.owner_key import fingerprint
from io3ops.operations.table.config import Config
from io3ops.routing.plan import Plan
from io3ops.settings import Settings
from io3ops.tools import Tools


def gpu_overlay(settings: Settings, here: machine.Machine, info: Mapping[str, Any]) -> Literal["nvidia", "amd", ""]:
    """Return the overlay for the graphics card, '' for none. For NVIDIA the engine must support it as well."""
    if settings.gpu != "auto":
        return "" if settings.gpu == "none" else settings.gpu
    if here.nvidia and (
        "nvidia" in (info.get("Runtimes") or {}) or any("nvidia" in str(d) for d in info.get("DiscoveredDevices") or ())
    ):
        return "nvidia"
    return "amd" if here.amd else ""


def variables(tools: Tools, config: Config, images: Images, info: Mapping[str, Any], key: str) -> dict[str, str]:
    """Return the variables for Compose. They are also written to `.env`, for the user's own `docker compose`."""
    settings, plan = tools.settings, config.plan
    overlays = ["compose.yaml"]
    gpu = gpu_overlay(settings, tools.machine, info) if plan.runs_runtime else ""
    if gpu:
        overlays.append(f"compose/gpu-{gpu}.yaml")
    if plan.outside:
        overlays.append("compose/egress.yaml")
    overlays += observe.overlays(plan)
    uid, gid = ownership.container_user(info)
    found = {
        "COMPOSE_PROJECT_NAME": settings.project,
        "COMPOSE_FILE": ":".join(overlays),
        "IO3OPS_PORT": str(settings.port),
        "IO3OPS_UID": str(uid),
        "IO3OPS_GID": str(gid),
        "IO3OPS_RUNTIME_IMAGE": images.runtime.tag or "unused",
        "IO3OPS_GATEWAY_IMAGE": images.gateway.tag,
        "IO3OPS_EGRESS_IMAGE": images.egress.tag or "unused",
        "IO3OPS_RUNTIME_MEMORY": str(_runtime_memory(int(info.get("MemTotal") or tools.machine.memory))),
        # The containers do not use these digests: a changed one makes Compose recreate a container.
        "IO3OPS_KEY_FINGERPRINT": fingerprint(key) if key else "",
        "IO3OPS_CA_DIGEST": _ca_digest(settings),
        "IO3OPS_EGRESS_DIGEST": hashlib.sha256(mounted_files.egress_rules(settings, plan).encode()).hexdigest()[:16],
    }
    if gpu == "amd":
        groups = [*tools.machine.gpu_groups, 44, 44][:2]
        found |= {"IO3OPS_GPU_GID": str(groups[0]), "IO3OPS_RENDER_GID": str(groups[1])}
    found |= subnets.variables(tools, subnets.wanted(overlays))
    return found | observe.variables(settings, plan) | settings.proxies


def persistent(values: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return the variables that go to `.env`: not the proxies, nor a port that the user set there."""
    _, theirs = files.read_env(settings.env_file)
    skipped = set(settings.proxies) | ({"IO3OPS_PORT"} & set(theirs))
    return {k: v for k, v in values.items() if k not in skipped}


def compose_variables(tools: Tools) -> dict[str, str]:
    """Return enough variables for Compose to read its files, even when `.env` is missing or broken."""
    written, _ = files.read_env(tools.settings.env_file)
    images = ("IO3OPS_RUNTIME_IMAGE", "IO3OPS_GATEWAY_IMAGE", "IO3OPS_EGRESS_IMAGE")
    defaults = dict.fromkeys(images, "unused") | {"COMPOSE_FILE": "compose.yaml"}
    return defaults | written | tools.settings.proxies | {"COMPOSE_PROJECT_NAME": tools.settings.project}


def services(plan: Plan) -> tuple[str, ...]:
    """Return the services that a plan needs, in the order in which they start."""
    needed = (("runtime", plan.runs_runtime), ("egress", bool(plan.outside)))
    return (*(name for name, wanted in needed if wanted), *observe.services(plan), "gateway")


def own_containers(tools: Tools) -> dict[str, Container]:
    """Return the project's containers by service. Raises ForeignStack when they belong to another clone."""
    containers = tools.engine.containers(tools.settings.project)
    check_owner(tools.settings, containers)
    return containers


def check_owner(settings: Settings, containers: Mapping[str, Container]) -> None:
    """Raise ForeignStack when another clone runs a project of this name."""
    for container in containers.values():
        other = Path(container.working_dir) if container.working_dir else settings.root
        if other.resolve() != settings.root.resolve() and other.is_dir():
            raise ForeignStack(
                f"the clone in {container.working_dir} already runs a project named {settings.project!r}",
                hint="run `make down` there first, or set IO3OPS_PROJECT and IO3OPS_PORT here to run both",
            )


def check_port(settings: Settings, containers: Mapping[str, Container]) -> None:
    """Raise PortTaken when a program other than our gateway uses the port."""
    gateway = containers.get("gateway")
    if not (gateway and gateway.running and settings.port in gateway.ports) and not machine.port_free(settings.port):
        raise PortTaken(f"another program uses port {settings.port} on 127.0.0.1", hint=port_hint())


def _runtime_memory(total: int) -> int:
    # A model that is too large must exhaust the runtime's limit, not the machine.
    return max(total * 85 // 100, min(total, 2**31))


def _ca_digest(settings: Settings) -> str:
    found = files.ca_certificates(settings.ca_dir)
    return hashlib.sha256(b"".join(found[name] for name in sorted(found))).hexdigest()[:16] if found else ""
