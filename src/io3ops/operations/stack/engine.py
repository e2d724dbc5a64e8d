"""Provides a Docker engine that answers: uses it, starts it, or installs it from the distribution's packages."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from io3ops.adapters.docker_engine import EngineState, EngineStatus
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

# Debian's testing suite has an engine that also runs on the stable ones: it needs no newer C library.
NEWER_SUITE = "forky"
FROM_NEWER = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "tini-static")
DAEMON_LOG = Path("/var/log/dockerd.log")
INSTALLABLE = (EngineStatus.MISSING, EngineStatus.NO_DAEMON, EngineStatus.NO_COMPOSE, EngineStatus.NO_BUILDX)


@dataclass(frozen=True, kw_only=True)
class Install:
    """The packages to install. `suite`: a newer suite that they come from, '' for the distribution's own."""

    packages: tuple[str, ...]
    suite: str = ""

    def text(self) -> str:
        """Return the packages and their origin for people."""
        origin = f" from Debian {self.suite} (pinned to these packages in {SOURCE} and {PIN})" if self.suite else ""
        return f"{', '.join(self.packages)}{origin}"


def refusal(state: EngineState, machine: Machine, policy: str) -> Io3opsError | None:
    """Return the error of an engine that io3ops can neither use nor repair here, else None. Pure."""
    linux = machine.system == "Linux"
    if state.status is EngineStatus.DENIED:
        return EngineDenied(
            state.detail,
            hint="run `sudo usermod -aG docker $USER` and log in again, or use rootless Docker; then run `make up`",
        )
    if state.status is EngineStatus.TOO_OLD:
        return EngineTooOld(
            f"the Docker engine is too old: {state.detail}",
            hint="upgrade Docker; io3ops does not replace an engine that other programs may use",
        )
    may_install = linux and policy != "never" and machine.distribution in ("debian", "ubuntu")
    if state.status in (EngineStatus.MISSING, EngineStatus.NO_DAEMON) and not may_install:
        if not linux:
            return EngineMissing(
                "no Docker engine found",
                hint="install Docker Desktop, OrbStack or Colima, start it, then run `make up`",
            )
        why = (
            "IO3OPS_INSTALL_DOCKER=never forbids installing one"
            if policy == "never"
            else "io3ops can install one on Debian and Ubuntu only"
        )
        return EngineMissing(
            f"no Docker engine found, and {why}",
            hint="install Docker Engine 25 or newer with Compose and Buildx, then run `make up`",
        )
    if state.status in (EngineStatus.NO_COMPOSE, EngineStatus.NO_BUILDX) and not may_install:
        name = state.status.removeprefix("no_")
        return PluginMissing(
            f"the Docker {name.capitalize()} plugin is missing or too old: {state.detail}",
            hint=f"install docker-{name}-plugin, then run `make up`",
        )
    return None


def choose_install(machine: Machine, candidates: dict[str, str]) -> Install:
    """Choose the packages. `candidates`: the versions that the distribution offers, by package. Pure."""
    own_engine = _major(candidates.get("docker.io", ""))
    if machine.distribution == "ubuntu":
        return Install(packages=("docker.io", "docker-compose-v2", "docker-buildx", "iptables"))
    if own_engine >= 25 and _major(candidates.get("docker-compose", "")) >= 2:
        return Install(packages=("docker.io", "docker-cli", "docker-compose", "docker-buildx", "iptables"))
    return Install(packages=(*FROM_NEWER, "iptables"), suite=NEWER_SUITE)


def observe(tools: Tools) -> EngineState:
    """Return the engine's state; NO_DAEMON when only the client is installed."""
    state = tools.engine.probe()
    local = not tools.settings.docker_host or tools.settings.docker_host.startswith("unix://")
    if (
        state.status is EngineStatus.STOPPED
        and local
        and tools.machine.system == "Linux"
        and not tools.processes.which("dockerd")
    ):
        return EngineState(status=EngineStatus.NO_DAEMON, detail="only the `docker` client is installed")
    return state


def require(tools: Tools, hint: str) -> None:
    """Raise the engine's error unless it is ready; install and start nothing."""
    state = observe(tools)
    if state.status in (EngineStatus.MISSING, EngineStatus.NO_DAEMON):
        raise EngineMissing("no Docker engine found", hint="`make up` installs one, or says what to install")
    if state.status is not EngineStatus.READY:
        raise refusal(state, tools.machine, "never") or EngineNotRunning(
            f"the Docker engine does not answer: {state.detail}", hint=hint
        )


def ensure(tools: Tools, state: EngineState, step: Step) -> EngineState:
    """Install and start the engine as needed; return its state. Raises one of the engine errors."""
    refused = refusal(state, tools.machine, tools.settings.install_docker)
    if refused:
        raise refused
    if state.status in INSTALLABLE:
        _install(tools, step)
        state = observe(tools)
    if state.status is EngineStatus.STOPPED:
        state = _start(tools, step)
    if state.status is not EngineStatus.READY:
        raise refusal(state, tools.machine, "never") or EngineNotRunning(
            f"the Docker engine does not answer: {state.detail}", hint=f"{DAEMON_LOG} may say why"
        )
    step.outcome = state.detail
    return state


def _install(tools: Tools, step: Step) -> None:
    packages = tools.packages
    show = step.activity("apt")
    if not packages.usable():
        raise InstallFailed(
            "Docker must be installed, but this user needs a password for that",
            hint="run `sudo apt-get install docker.io docker-compose docker-buildx` (Engine 25 or newer), then run `make up`",
        )
    packages.update(show)
    chosen = choose_install(tools.machine, {name: packages.candidate(name) for name in ("docker.io", "docker-compose")})
    step.note(f"installing {chosen.text()}; IO3OPS_INSTALL_DOCKER=never would forbid it")
    if chosen.suite:
        mirror = tools.settings.debian_mirror or packages.mirror(tools.machine.codename)
        packages.add_pinned_suite(chosen.suite, mirror, FROM_NEWER)
        packages.update(show)
    packages.install(chosen.packages, show)


def _start(tools: Tools, step: Step) -> EngineState:
    machine, run = tools.machine, tools.processes.run
    if tools.settings.docker_host and not tools.settings.docker_host.startswith("unix://"):
        raise EngineNotRunning(
            f"no Docker engine answers at DOCKER_HOST={tools.settings.docker_host}",
            hint="start that engine, or unset DOCKER_HOST",
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
                hint="run `sudo systemctl start docker`, then `make up`",
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
        if state.status is not EngineStatus.STOPPED or time.monotonic() > deadline:
            return state
        time.sleep(0.2)


def _major(version: str) -> int:
    head = version.split(":")[-1].split(".")[0]
    return int(head) if head.isdecimal() else 0
