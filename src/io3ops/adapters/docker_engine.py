"""The Docker engine, through the Docker SDK: its state, images, containers, networks and volumes."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from io3ops.adapters.process import Processes
from io3ops.errors import EngineLost

MIN_ENGINE = (25, 0)
MIN_COMPOSE = (2, 24)
AGAIN = "start it again (`make up` does so); nothing is lost: models, key and configuration are kept"


class EngineStatus(StrEnum):
    """Whether this stack can run on the engine, else what is missing."""

    READY = "ready"
    # There is no `docker` command.
    MISSING = "missing"
    STOPPED = "stopped"
    # There is a `docker` command, but no engine on this machine.
    NO_DAEMON = "no_daemon"
    DENIED = "denied"
    TOO_OLD = "too_old"
    NO_COMPOSE = "no_compose"
    NO_BUILDX = "no_buildx"


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """The engine's status, its version, and one line for people."""

    status: EngineStatus
    version: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container of the stack. `status` and `health` in Docker's words; `key` and `ca`: digests that it was started with."""

    id: str
    service: str
    status: str
    health: str
    exit_code: int
    restarts: int
    image: str
    working_dir: str
    oom_killed: bool
    key: str = ""
    ca: str = ""
    started: str = ""
    ports: tuple[int, ...] = ()

    @property
    def running(self) -> bool:
        """Whether its process runs; it may still be unhealthy."""
        return self.status == "running"


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network of the engine.

    `project` and `name`: those of Compose, '' for other networks. `nowhere`: the default route that it gives to containers, ''
    when Docker chooses it. `bridge`: its device on the engine's host.
    """

    id: str
    project: str
    name: str
    subnets: tuple[str, ...]
    nowhere: str
    ipv6: bool
    bridge: str


class DockerEngine:
    """The engine that the `docker` command uses. Calls raise EngineLost when it stops answering."""

    def __init__(self, processes: Processes, docker_host: str) -> None:
        self._processes = processes
        self._docker_host = docker_host
        self._client: Any = None

    def command(self) -> str:
        """Return the path of the `docker` command."""
        return self._processes.which("docker") or "docker"

    def probe(self) -> EngineState:
        """Return whether this stack can run on the engine. Never raises."""
        if not self._processes.which("docker"):
            return EngineState(status=EngineStatus.MISSING, detail="there is no `docker` command")
        self._client = None
        try:
            version = self._connect().version()
        except _failures():
            return self._why_silent()
        number = str(version.get("Version", ""))
        if _numbers(number) < MIN_ENGINE:
            detail = f"engine {number}, but {_dotted(MIN_ENGINE)} or newer is needed"
            return EngineState(status=EngineStatus.TOO_OLD, version=number, detail=detail)
        compose = self._processes.run([self.command(), "compose", "version", "--short"])
        if not compose.ok or _numbers(compose.output) < MIN_COMPOSE:
            compose_version = f"Compose {compose.output.strip()}" if compose.ok else "no Compose"
            detail = f"{compose_version}, but {_dotted(MIN_COMPOSE)} or newer is needed"
            return EngineState(status=EngineStatus.NO_COMPOSE, version=number, detail=detail)
        if not self._processes.run([self.command(), "buildx", "version"]).ok:
            return EngineState(status=EngineStatus.NO_BUILDX, version=number, detail="no Buildx")
        detail = f"engine {number}, Compose {compose.output.strip()}"
        return EngineState(status=EngineStatus.READY, version=number, detail=detail)

    def info(self) -> dict[str, Any]:
        """Return what `docker info` returns."""
        with answering():
            return dict(self._connect().info())

    def image_id(self, reference: str) -> str | None:
        """Return the id of a local image, None when there is none."""
        import docker.errors

        with answering():
            try:
                return str(self._connect().images.get(reference).id)
            except docker.errors.ImageNotFound:
                return None

    def images(self, repository: str) -> tuple[str, ...]:
        """Return the tags of a repository's local images."""
        with answering():
            return tuple(tag for image in self._connect().images.list(repository) for tag in image.tags)

    def registry_answers(self, reference: str, timeout: int) -> tuple[bool, str]:
        """Return whether the engine's image registry serves `reference`, else why not. Asks for at most `timeout` seconds."""
        import docker

        try:
            client: Any = docker.DockerClient(base_url=self._host(), version="auto", timeout=timeout)
            client.api.inspect_distribution(reference)
        except _failures() as error:
            return False, " ".join(str(getattr(error, "explanation", None) or error).split())[:200]
        return True, ""

    def pull(self, reference: str, on_progress: Callable[[int, int], None]) -> None:
        """Pull an image; call `on_progress(bytes done, bytes known)`."""
        repository, _, tag = reference.partition(":")
        layers: dict[str, tuple[int, int]] = {}
        with answering():
            for event in self._connect().api.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in event:
                    hint = "check the network, then run the same command again"
                    raise EngineLost(f"pulling {reference} failed: {event['error']}", hint=hint)
                detail = event.get("progressDetail") or {}
                if detail.get("total") and event.get("status") == "Downloading":
                    layers[event["id"]] = (detail["current"], detail["total"])
                    on_progress(sum(c for c, _ in layers.values()), sum(t for _, t in layers.values()))

    def containers(self, project: str) -> dict[str, Container]:
        """Return the project's containers by service name, including stopped ones."""
        with answering():
            listed = self._connect().containers.list(
                all=True, filters={"label": f"com.docker.compose.project={project}"}, ignore_removed=True
            )
            return {c.service: c for c in map(_container, listed) if c.service}

    def inspect(self, container: str) -> dict[str, Any]:
        """Return all that `docker inspect` shows of a container."""
        with answering():
            return dict(self._connect().containers.get(container).attrs)

    def tail(self, container: str, lines: int) -> str:
        """Return the last lines of a container's log."""
        with answering():
            written: bytes = self._connect().containers.get(container).logs(tail=lines)
            # Remove colours: in an error message they would recolour the terminal.
            return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", written.decode("utf-8", "replace")).rstrip()

    def execute(self, container: str, argv: list[str], *, errors: bool = True) -> tuple[int, str]:
        """Run a command in a container; return (exit code, output). `errors`: include stderr, which may interrupt a line of stdout."""
        with answering():
            code, output = self._connect().containers.get(container).exec_run(argv, stderr=errors)
            return int(code or 0), output.decode("utf-8", "replace")

    def unpause(self, container: str) -> None:
        """Continue a paused container."""
        with answering():
            self._connect().containers.get(container).unpause()

    def volumes(self, project: str) -> tuple[str, ...]:
        """Return the names of the project's volumes."""
        with answering():
            listed = self._connect().volumes.list(filters={"label": f"com.docker.compose.project={project}"})
            return tuple(v.name for v in listed)

    def networks(self) -> tuple[Network, ...]:
        """Return every network of the engine, including those of other projects."""
        with answering():
            return tuple(map(_network, self._connect().api.networks()))

    def remove_network(self, network: str) -> tuple[str, ...]:
        """Disconnect a network's containers and remove it; return the names of these containers."""
        with answering():
            attached = self._connect().networks.get(network)
            left = sorted((attached.attrs.get("Containers") or {}).items())
            for container, _ in left:
                attached.disconnect(container, force=True)
            attached.remove()
            return tuple(str(entry.get("Name", "")) for _, entry in left)

    def remove_networks(self, project: str) -> None:
        """Remove the project's networks. Compose leaves those of an overlay that the project no longer uses."""
        with answering():
            for network in self._connect().networks.list(filters={"label": f"com.docker.compose.project={project}"}):
                network.remove()

    def client(self, seconds: int) -> Any:
        """Return a new connection, for one thread; `seconds`: its timeout for one answer. Does not translate the SDK's errors."""
        import docker

        return docker.DockerClient(base_url=self._host(), version="auto", timeout=seconds)

    def _connect(self) -> Any:
        if self._client is None:
            self._client = self.client(60)
        return self._client

    def _host(self) -> str:
        # The SDK ignores `docker context`, so it would not find Docker Desktop, Colima and rootless engines.
        if self._docker_host:
            return self._docker_host
        shown = self._processes.run(
            [self.command(), "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"], timeout=10
        )
        return shown.output.strip() if shown.ok and shown.output.strip() else "unix:///var/run/docker.sock"

    def _why_silent(self) -> EngineState:
        host = self._host()
        path = host.removeprefix("unix://")
        if host.startswith("unix://") and os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
            return EngineState(status=EngineStatus.DENIED, detail=f"this user has no access to {path}")
        return EngineState(status=EngineStatus.STOPPED, detail=f"no engine answers at {host}")


def _failures() -> tuple[type[Exception], ...]:
    """Return what the SDK raises when the engine refuses, is silent or does not speak HTTP, and for a malformed address."""
    import docker.errors
    import requests

    return (docker.errors.DockerException, requests.RequestException, OSError, ValueError)


@contextlib.contextmanager
def answering(hint: str = AGAIN, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Translate the SDK's errors into EngineLost. `also`: further exceptions that mean the same."""
    import docker.errors
    import requests

    lost: tuple[type[Exception], ...] = (docker.errors.DockerException, requests.RequestException, *also)
    try:
        yield
    except docker.errors.APIError as error:
        raise EngineLost(
            f"the Docker engine refused: {error.explanation or error}", hint="`docker info` shows its state"
        ) from None
    except lost as error:
        raise EngineLost("the Docker engine stopped answering", details=str(error)[:400], hint=hint) from None


def _container(raw: Any) -> Container:
    state = raw.attrs["State"]
    labels = raw.attrs["Config"].get("Labels") or {}
    return Container(
        id=raw.id,
        # A container of `docker compose run` is not the service's own.
        service=""
        if labels.get("com.docker.compose.oneoff") == "True"
        else labels.get("com.docker.compose.service", ""),
        status=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=state.get("ExitCode", 0),
        restarts=raw.attrs.get("RestartCount", 0),
        image=raw.attrs["Config"]["Image"],
        working_dir=labels.get("com.docker.compose.project.working_dir", ""),
        oom_killed=bool(state.get("OOMKilled")),
        key=labels.get("io3ops.key", ""),
        started=state.get("StartedAt", ""),
        ca=labels.get("io3ops.ca", ""),
        ports=tuple(
            int(b["HostPort"])
            for bound in (raw.attrs["NetworkSettings"].get("Ports") or {}).values()
            for b in bound or ()
        ),
    )


def _network(raw: dict[str, Any]) -> Network:
    labels = raw.get("Labels") or {}
    configs = (raw.get("IPAM") or {}).get("Config") or ()
    options = raw.get("Options") or {}
    return Network(
        id=raw["Id"],
        project=labels.get("com.docker.compose.project", ""),
        name=labels.get("com.docker.compose.network", ""),
        subnets=tuple(config["Subnet"] for config in configs if config.get("Subnet")),
        nowhere=next(
            (aux for c in configs if (aux := (c.get("AuxiliaryAddresses") or {}).get("DefaultGatewayIPv4"))), ""
        ),
        ipv6=bool(raw.get("EnableIPv6")),
        bridge=options.get("com.docker.network.bridge.name") or f"br-{raw['Id'][:12]}",
    )


def _numbers(text: str) -> tuple[int, ...]:
    head = text.strip().lstrip("v").split("+")[0].split("-")[0]
    return tuple(int(part) for part in head.split(".") if part.isdecimal())


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
