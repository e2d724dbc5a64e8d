"""Makes the adapters, once per run, and passes them to the operations. Tests pass stand-ins in the same way."""

from __future__ import annotations

from dataclasses import dataclass

from io3ops.adapters import machine
from io3ops.adapters.compose import Compose
from io3ops.adapters.docker_engine import DockerEngine
from io3ops.adapters.download import Downloads
from io3ops.adapters.gateway_control import GatewayControl
from io3ops.adapters.packages import Packages
from io3ops.adapters.process import Processes
from io3ops.adapters.pypi import PypiModels
from io3ops.adapters.relay import Relay
from io3ops.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Tools:
    """All adapters that an operation may use."""

    settings: Settings
    machine: machine.Machine
    processes: Processes
    packages: Packages
    engine: DockerEngine
    compose: Compose
    relay: Relay
    control: GatewayControl
    pypi: PypiModels
    downloads: Downloads


def make_tools(settings: Settings) -> Tools:
    """Make every adapter for one run."""
    here = machine.look()
    # Foreign COMPOSE_* and PYTHON* variables would change what our programs do.
    environment = {k: v for k, v in settings.environment.items() if not k.startswith(("COMPOSE_", "PYTHON"))}
    if settings.docker_host:
        environment["DOCKER_HOST"] = settings.docker_host
    processes = Processes(environment, settings.root)
    engine = DockerEngine(processes, settings.docker_host)
    return Tools(
        settings=settings,
        machine=here,
        processes=processes,
        packages=Packages(processes, here.root),
        engine=engine,
        compose=Compose(processes, settings.root, engine.command),
        relay=Relay(processes),
        control=GatewayControl(processes),
        pypi=PypiModels(processes, settings.cache / "models"),
        downloads=Downloads(settings.cache / "models", settings.root),
    )
