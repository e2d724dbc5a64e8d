"""The Compose project of this clone: its variables, its start, and the one way of waiting for it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from io3ops.adapters import files, machine, owners
from io3ops.adapters.compose import port_hint
from io3ops.adapters.docker_engine import Container
from io3ops.errors import ContainerDied, ForeignStack, Io3opsError, NotReady, PortTaken
from io3ops.operations.stack import observe, project, subnets
from io3ops.operations.stack.images import Images
from io3ops.operations.stack.owner_key import fingerprint
from io3ops.operations.table.config import Config
from io3ops.operations.table.provider_key_files import needed_keys
from io3ops.routing.egress import egress
from io3ops.routing.plan import Plan
from io3ops.settings import Settings
from io3ops.tools import Tools

# Of the container, where the engine moves all ids of its containers up: any within its map, which has 65536 at least.
REMAPPED = range(10_001, 10_101)


def container_user(info: Mapping[str, Any]) -> tuple[int, int]:
    """(uid, gid) of the gateway: never root, able to read a key file of mode 0600, and no account of this machine.

    A rootless engine maps its root to this user, so there 0 is the unprivileged one.
    """
    if _has(info, "rootless"):
        return (0, 0)
    if os.geteuid() != 0:
        return (os.geteuid(), os.getegid())
    base = _remapped(info)
    number = _inside(base) if base else owners.of_nobody()
    return (number, number)


def key_owner(info: Mapping[str, Any]) -> tuple[int, int]:
    """(uid, gid) of the key file as the host sees it: a rootless engine's root is this user."""
    found = container_user(info)
    base = _remapped(info) if os.geteuid() == 0 else None
    if base:
        return (base[0] + found[0], base[1] + found[1])
    return (os.geteuid(), os.getegid()) if found == (0, 0) else found


def _has(info: Mapping[str, Any], option: str) -> bool:
    return any(f"name={option}" in found for found in info.get("SecurityOptions") or ())


def _remapped(info: Mapping[str, Any]) -> tuple[int, int] | None:
    """(uid, gid) of the containers' root on the host, where the engine gives it an id of its own (userns-remap)."""
    # The engine says it only in the name of its folder: /var/lib/docker/165536.165536.
    uid, _, gid = str(info.get("DockerRootDir") or "").rpartition("/")[2].partition(".")
    return (int(uid), int(gid)) if _has(info, "userns") and uid.isdecimal() and gid.isdecimal() else None


def _inside(base: tuple[int, int]) -> int:
    """The id in a container that on the host is nobody's. Those of the map are lent to the engine, so no account is given one."""
    free = (n for n in REMAPPED if not owners.known(base[0] + n) and not owners.known(base[1] + n))
    return next(free, REMAPPED[0])


def belongings(settings: Settings) -> Iterator[Path]:
    """What is the gateway's user's alone, as far as it is there; folders before what is in them."""
    if settings.key_file.exists():
        yield settings.key_file
    for folder in (
        settings.provider_keys,
        settings.keys_file.parent,
        settings.audit_file.parent,
        settings.logs,
        settings.recording,
        settings.content,
        settings.handed_keys,
        settings.egress_folder,
        settings.observer_folder,
        settings.outlet_folder,
    ):
        if folder.is_dir():
            yield folder
            # The gateway writes to some of them: a link that it puts there must not lead a chown of root's elsewhere.
            yield from (
                path
                for path in sorted(folder.iterdir())
                if path.is_file() and not path.is_symlink() and not path.name.startswith(files.MARK)
            )


def strangers(settings: Settings, owner: tuple[int, int]) -> tuple[Path, ...]:
    """Those of them that belong to another user."""
    found = []
    for path in belongings(settings):
        # The gateway removes old logs meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_uid != owner[0]:
                found.append(path)
    return tuple(found)


def gpu_overlay(settings: Settings, here: machine.Machine, info: Mapping[str, Any]) -> str:
    """`nvidia`, `amd` or ''. A card alone is not enough: the engine must be able to hand it on."""
    if settings.gpu != "auto":
        return "" if settings.gpu == "none" else settings.gpu
    if here.nvidia and (
        "nvidia" in (info.get("Runtimes") or {}) or any("nvidia" in str(d) for d in info.get("DiscoveredDevices") or ())
    ):
        return "nvidia"
    return "amd" if here.amd else ""


def variables(tools: Tools, config: Config, images: Images, info: Mapping[str, Any], key: str) -> dict[str, str]:
    """What Compose must know; also written to `.env`, so that a user's own `docker compose` knows it."""
    settings, plan = tools.settings, config.plan
    overlays = ["compose.yaml"]
    gpu = gpu_overlay(settings, tools.machine, info) if plan.runs_runtime else ""
    if gpu:
        overlays.append(f"compose/gpu-{gpu}.yaml")
    if plan.outside:
        overlays.append("compose/egress.yaml")
    overlays += observe.overlays(plan)
    uid, gid = container_user(info)
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
        # Not used by the containers: a changed value makes Compose replace the gateway's.
        "IO3OPS_KEY_FINGERPRINT": fingerprint(key) if key else "",
        "IO3OPS_CA_DIGEST": _ca_digest(settings),
        "IO3OPS_EGRESS_DIGEST": hashlib.sha256(egress_text(settings, plan).encode()).hexdigest()[:16],
    }
    if gpu == "amd":
        groups = [*tools.machine.gpu_groups, 44, 44][:2]
        found |= {"IO3OPS_GPU_GID": str(groups[0]), "IO3OPS_RENDER_GID": str(groups[1])}
    found |= subnets.variables(tools, subnets.wanted(overlays))
    return found | observe.variables(settings, plan) | settings.proxies


def persistent(values: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The part of the variables that goes to `.env`. A port the user wrote there stays the user's line."""
    _, theirs = files.read_env(settings.env_file)
    skipped = set(settings.proxies) | ({"IO3OPS_PORT"} & set(theirs))
    return {k: v for k, v in values.items() if k not in skipped}


@dataclass(frozen=True, kw_only=True)
class Handed:
    """What containers are handed beside the config: by file name, the providers' keys, the proxies' lists, the observer's words."""

    keys: Mapping[str, bytes]
    egress: Mapping[str, bytes]
    observer: Mapping[str, bytes] = field(default_factory=dict)
    outlet: Mapping[str, bytes] = field(default_factory=dict)


def handed_out(settings: Settings, plan: Plan) -> Handed:
    """What a plan needs."""
    return Handed(
        keys=needed_keys(settings, plan),
        egress={"egress.conf": egress_text(settings, plan).encode()},
        observer=observe.handed_words(plan),
        outlet=observe.handed_outlet(settings, plan),
    )


def in_hand(settings: Settings) -> Handed:
    """What the containers have now."""
    return Handed(
        keys=files.read_folder(settings.handed_keys),
        egress=files.read_folder(settings.egress_folder),
        observer=files.read_folder(settings.observer_folder),
        outlet=files.read_folder(settings.outlet_folder),
    )


def hand_out(settings: Settings, handed: Handed, owner: tuple[int, int] | None) -> None:
    files.sync_private(settings.handed_keys, handed.keys, owner)
    files.sync_private(settings.egress_folder, handed.egress, owner)
    for folder, wanted in ((settings.observer_folder, handed.observer), (settings.outlet_folder, handed.outlet)):
        if wanted or folder.is_dir():
            files.sync_private(folder, wanted, owner)


def egress_text(settings: Settings, plan: Plan) -> str:
    """What the way out lets through, in its own words."""
    proxies = settings.proxies
    return egress(plan.outside, proxies["HTTPS_PROXY"], [name.strip() for name in proxies["NO_PROXY"].split(",")])


def services(plan: Plan) -> tuple[str, ...]:
    """The containers that a plan needs, in the order in which they start."""
    needed = (("runtime", plan.runs_runtime), ("egress", bool(plan.outside)))
    return (*(name for name, wanted in needed if wanted), *observe.services(plan), "gateway")


def own_containers(tools: Tools) -> dict[str, Container]:
    """The project's containers. Raises ForeignStack when they are another clone's."""
    found = tools.engine.containers(tools.settings.project)
    check_owner(tools.settings, found)
    return found


def check_owner(settings: Settings, found: Mapping[str, Container]) -> None:
    """Raises ForeignStack when another clone runs a project of this name."""
    for container in found.values():
        other = Path(container.working_dir) if container.working_dir else settings.root
        if other.resolve() != settings.root.resolve() and other.is_dir():
            raise ForeignStack(
                f"the project {settings.project!r} is already run by the clone in {container.working_dir}",
                hint="`make down` there first; or set IO3OPS_PROJECT and IO3OPS_PORT here to run both",
            )


def check_port(settings: Settings, found: Mapping[str, Container]) -> None:
    """Raises PortTaken when the port belongs to a program that is not our gateway."""
    gateway = found.get("gateway")
    if not (gateway and gateway.running and settings.port in gateway.ports) and not machine.port_free(settings.port):
        raise PortTaken(f"port {settings.port} on 127.0.0.1 is taken by another program", hint=port_hint())


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What is waited for, and how it is told apart: `ready(container)` for the service `service`."""

    service: str
    what: str
    ready: Callable[[Container], bool]


def wait(tools: Tools, waiting: Waiting, restarts: int, show: Callable[[str], None] = lambda _: None) -> float:
    """Poll until ready; the seconds it took. The only loop that waits for a container.

    Raises ContainerDied at once, with its last lines, when it ended or was restarted meanwhile
    (`restarts`: its count before), NotReady at the deadline of `wait_timeout` seconds.
    """
    started = time.monotonic()
    while True:
        container = tools.engine.containers(tools.settings.project).get(waiting.service)
        if container is None or not container.running or container.restarts > restarts:
            raise died(tools, waiting.service, container)
        if waiting.ready(container):
            return time.monotonic() - started
        waited = time.monotonic() - started
        if waited > tools.settings.wait_timeout:
            raise NotReady(
                f"{waiting.what} is not ready after {waited:.0f} s (container {container.status}, health {container.health or 'none'})",
                details=tools.engine.tail(container.id, 15),
                hint=f"`io3ops logs {waiting.service}` shows more; IO3OPS_WAIT_TIMEOUT changes the limit",
            )
        show(f"waiting for {waiting.what} ({waited:.0f} s)")
        time.sleep(0.1)


def died(tools: Tools, service: str, container: Container | None) -> ContainerDied:
    """The error for a container that ended: why, and its last lines."""
    if container is None:
        return ContainerDied(f"there is no {service} container", hint="`make up` starts the stack")
    why = "out of memory" if container.oom_killed else f"exit code {container.exit_code}"
    hint = "the lines above are its last ones"
    if container.oom_killed:
        hint = "choose smaller models (`io3ops preset`) or give the engine more memory"
    return ContainerDied(
        f"the {service} container ended instead of becoming ready ({why}); it was started again {container.restarts} times"
        if container.restarts
        else f"the {service} container ended instead of becoming ready ({why})",
        details=tools.engine.tail(container.id, 15),
        hint=hint,
    )


def _runtime_memory(total: int) -> int:
    # The machine must stay usable when a model is larger than it: the runtime dies, not the desktop.
    return max(total * 85 // 100, min(total, 2**31))


def _ca_digest(settings: Settings) -> str:
    found = files.ca_certificates(settings.ca_dir)
    return hashlib.sha256(b"".join(found[name] for name in sorted(found))).hexdigest()[:16] if found else ""


def compose_variables(tools: Tools) -> dict[str, str]:
    """Enough for Compose to read the files, also when `.env` is gone or broken."""
    written, _ = files.read_env(tools.settings.env_file)
    images = ("IO3OPS_RUNTIME_IMAGE", "IO3OPS_GATEWAY_IMAGE", "IO3OPS_EGRESS_IMAGE")
    defaults = dict.fromkeys(images, "unused") | {"COMPOSE_FILE": "compose.yaml"}
    return defaults | written | tools.settings.proxies | {"COMPOSE_PROJECT_NAME": tools.settings.project}


def gateway_user(tools: Tools, path: Path) -> tuple[int, int] | None:
    """Whom the gateway's files must belong to; None when that is not known and nothing should be changed.

    Only for root does it depend on the engine; what was handed over once is not asked again: revoking must not
    wait for an engine.
    """
    if os.geteuid() != 0:
        return project.key_owner({})
    before = files.owner(path)
    if before and before[0] != 0:
        return before
    try:
        return project.key_owner(tools.engine.info())
    except Io3opsError:
        return files.owner(tools.settings.key_file)
