"""A Docker engine that answers: use it, start it, or install it from the distribution's packages."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from io3ops.adapters.docker_engine import EngineState
from io3ops.adapters.machine import Machine
from io3ops.adapters.packages import PIN, SOURCE
from io3ops.console import Step
from io3ops.errors import (
    EngineDenied,
    EngineMissing,
    EngineNotRunning,
    EngineTooOld,
    InstallFailed,
    Io3opsError,
    PluginMissing,
)
from io3ops.tools import Tools

# Debian's testing suite carries an engine that runs on the stable ones (same C library floor).
NEWER_SUITE = "forky"
FROM_NEWER = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "tini-static")
DAEMON_LOG = Path("/var/log/dockerd.log")


@dataclass(frozen=True, kw_only=True)
class Install:
    """What will be installed. `suite` set: from that pinned suite instead of the distribution's own."""

    packages: tuple[str, ...]
    suite: str = ""

    def text(self) -> str:
        origin = f" from Debian {self.suite} (pinned to these packages in {SOURCE} and {PIN})" if self.suite else ""
        return f"{', '.join(self.packages)}{origin}"


def refusal(state: EngineState, machine: Machine, policy: str) -> Io3opsError | None:
    """Why the engine can neither be used nor be made usable here; None when it can. Pure."""
    linux = machine.system == "Linux"
    if state.kind == "denied":
        return EngineDenied(
            state.detail,
            hint="sudo usermod -aG docker $USER, log in again, then run `make up` (or use rootless Docker)",
        )
    if state.kind == "too_old":
        return EngineTooOld(
            f"the Docker engine is too old: {state.detail}",
            hint="upgrade Docker; io3ops does not replace an engine that others may use",
        )
    may_install = linux and policy != "never" and machine.distribution in ("debian", "ubuntu")
    if state.kind in ("missing", "stopped_without_daemon") and not may_install:
        if not linux:
            return EngineMissing(
                "there is no Docker engine",
                hint="install Docker Desktop, OrbStack or Colima, start it, then run `make up`",
            )
        why = (
            "IO3OPS_INSTALL_DOCKER=never forbids installing one"
            if policy == "never"
            else "io3ops can install one on Debian and Ubuntu only"
        )
        return EngineMissing(
            f"there is no Docker engine, and {why}",
            hint="install Docker Engine 25 or newer with Compose and Buildx, then run `make up`",
        )
    if state.kind in ("no_compose", "no_buildx") and not may_install:
        name = state.kind.removeprefix("no_")
        return PluginMissing(
            f"the Docker {name.capitalize()} plugin is missing or too old: {state.detail}",
            hint=f"install docker-{name}-plugin, then run `make up`",
        )
    return None


def choose_install(machine: Machine, candidates: dict[str, str]) -> Install:
    """Which packages, given the versions that the distribution itself offers. Pure."""
    own_engine = _major(candidates.get("docker.io", ""))
    if machine.distribution == "ubuntu":
        return Install(packages=("docker.io", "docker-compose-v2", "docker-buildx", "iptables"))
    if own_engine >= 25 and _major(candidates.get("docker-compose", "")) >= 2:
        return Install(packages=("docker.io", "docker-cli", "docker-compose", "docker-buildx", "iptables"))
    return Install(packages=(*FROM_NEWER, "iptables"), suite=NEWER_SUITE)


def observe(tools: Tools) -> EngineState:
    """The engine's state; `stopped_without_daemon` when only the client is installed."""
    state = tools.engine.probe()
    local = not tools.settings.docker_host or tools.settings.docker_host.startswith("unix://")
    if state.kind == "stopped" and local and tools.machine.system == "Linux" and not tools.processes.which("dockerd"):
        return EngineState(kind="stopped_without_daemon", detail="only the `docker` client is installed")
    return state


def require(tools: Tools, hint: str) -> None:
    """Raises the engine's error when it cannot be asked; installs and starts nothing."""
    state = observe(tools)
    if state.kind in ("missing", "stopped_without_daemon"):
        raise EngineMissing("there is no Docker engine", hint="`make up` installs one, or says what to install")
    if state.kind != "ready":
        raise refusal(state, tools.machine, "never") or EngineNotRunning(
            f"the Docker engine does not answer: {state.detail}", hint=hint
        )


def ensure(tools: Tools, state: EngineState, step: Step) -> EngineState:
    """Install and start what is missing. Raises one of the engine errors."""
    refused = refusal(state, tools.machine, tools.settings.install_docker)
    if refused:
        raise refused
    if state.kind in ("missing", "stopped_without_daemon", "no_compose", "no_buildx"):
        _install(tools, step)
        state = observe(tools)
    if state.kind == "stopped":
        state = _start(tools, step)
    if state.kind != "ready":
        raise refusal(state, tools.machine, "never") or EngineNotRunning(
            f"the Docker engine does not answer: {state.detail}", hint=f"look into {DAEMON_LOG}"
        )
    step.outcome = state.detail
    return state


def _install(tools: Tools, step: Step) -> None:
    packages = tools.packages
    show = step.activity("apt")
    if not packages.usable():
        raise InstallFailed(
            "Docker must be installed, and this user may not do that without a password",
            hint="run `sudo apt-get install docker.io docker-compose docker-buildx` (Engine 25 or newer), then `make up`",
        )
    packages.update(show)
    chosen = choose_install(tools.machine, {name: packages.candidate(name) for name in ("docker.io", "docker-compose")})
    step.note(f"installing {chosen.text()}; IO3OPS_INSTALL_DOCKER=never forbids this")
    if chosen.suite:
        mirror = tools.settings.debian_mirror or packages.mirror(tools.machine.codename)
        packages.add_pinned_suite(chosen.suite, mirror, FROM_NEWER)
        packages.update(show)
    packages.install(chosen.packages, show)


def _start(tools: Tools, step: Step) -> EngineState:
    machine, run = tools.machine, tools.processes.run
    if tools.settings.docker_host and not tools.settings.docker_host.startswith("unix://"):
        raise EngineNotRunning(
            f"nothing answers at DOCKER_HOST={tools.settings.docker_host}",
            hint="start that engine or unset DOCKER_HOST",
        )
    if machine.system == "Darwin":
        step.note("starting Docker Desktop")
        run(["open", "-ga", "Docker"])
        return _wait(tools, 90)
    if machine.systemd:
        started = run(tools.packages.as_root(["systemctl", "start", "docker"]), timeout=60)
        if not started.ok:
            raise EngineNotRunning(
                "the Docker engine is stopped and could not be started",
                details=started.tail(4),
                hint="sudo systemctl start docker",
            )
        return _wait(tools, 30)
    if not machine.root:
        raise EngineNotRunning("the Docker engine is stopped", hint="start it (`sudo dockerd`), then run `make up`")
    step.note(f"starting dockerd (no systemd here); its log is {DAEMON_LOG}")
    with open(DAEMON_LOG, "ab") as log:
        tools.processes.daemon(["dockerd"], log)
    return _wait(tools, 40)


def _wait(tools: Tools, seconds: float) -> EngineState:
    deadline = time.monotonic() + seconds
    while True:
        state = tools.engine.probe()
        if state.kind != "stopped" or time.monotonic() > deadline:
            return state
        time.sleep(0.2)


def _major(version: str) -> int:
    head = version.split(":")[-1].split(".")[0]
    return int(head) if head.isdecimal() else 0
