"""The Docker engine, through the Docker SDK: images, containers, and whether it answers at all."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from io3ops.adapters.process import Processes
from io3ops.errors import EngineLost

MIN_ENGINE = (25, 0)
MIN_COMPOSE = (2, 24)
AGAIN = "start it again (`make up` does); nothing is lost: models, key and config are kept"


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """kind: ready, missing (no docker command), stopped, denied, too_old, no_compose, no_buildx."""

    kind: str
    version: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container of the stack as the engine sees it. `key`, `ca`: the digests that it was started with."""

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
        return self.status == "running"


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network of the engine. `project` and `name`: Compose's, '' for others. `nowhere`: the default route that it gives, '' when it
    is Docker's own; `bridge`: its device on the engine's host."""

    id: str
    project: str
    name: str
    subnets: tuple[str, ...]
    nowhere: str
    ipv6: bool
    bridge: str


class DockerEngine:
    """The engine that the `docker` command would talk to."""

    def __init__(self, processes: Processes, docker_host: str) -> None:
        self._processes = processes
        self._docker_host = docker_host
        self._client: Any = None

    def command(self) -> str:
        return self._processes.which("docker") or "docker"

    def probe(self) -> EngineState:
        """Whether this stack can run here; never raises."""
        if not self._processes.which("docker"):
            return EngineState(kind="missing", detail="there is no `docker` command")
        self._client = None
        try:
            version = self._connect().version()
        except Exception as error:
            return self._why_silent(error)
        number = str(version.get("Version", ""))
        if _numbers(number) < MIN_ENGINE:
            return EngineState(kind="too_old", version=number, detail=f"engine {number}, needed {_dotted(MIN_ENGINE)}")
        compose = self._processes.run([self.command(), "compose", "version", "--short"])
        if not compose.ok or _numbers(compose.output) < MIN_COMPOSE:
            found = compose.output.strip() if compose.ok else "none"
            return EngineState(
                kind="no_compose", version=number, detail=f"Compose {found}, needed {_dotted(MIN_COMPOSE)}"
            )
        if not self._processes.run([self.command(), "buildx", "version"]).ok:
            return EngineState(kind="no_buildx", version=number, detail="Buildx none")
        return EngineState(kind="ready", version=number, detail=f"engine {number}, Compose {compose.output.strip()}")

    def info(self) -> dict[str, Any]:
        with answering():
            return dict(self._connect().info())

    def image_id(self, reference: str) -> str | None:
        import docker.errors

        with answering():
            try:
                return str(self._connect().images.get(reference).id)
            except docker.errors.ImageNotFound:
                return None

    def images(self, repository: str) -> tuple[str, ...]:
        with answering():
            return tuple(tag for image in self._connect().images.list(repository) for tag in image.tags)

    def registry_answers(self, reference: str, timeout: int) -> tuple[bool, str]:
        """Whether the engine's image registry serves `reference`, asked for at most `timeout` seconds."""
        import docker

        try:
            client: Any = docker.DockerClient(base_url=self._host(), version="auto", timeout=timeout)
            client.api.inspect_distribution(reference)
        except Exception as error:
            return False, " ".join(str(getattr(error, "explanation", None) or error).split())[:200]
        return True, ""

    def pull(self, reference: str, on_progress: Callable[[int, int], None]) -> None:
        """Pull an image; `on_progress(bytes done, bytes known)`. The SDK's errors pass through `answering`."""
        repository, _, tag = reference.partition(":")
        layers: dict[str, tuple[int, int]] = {}
        with answering():
            for event in self._connect().api.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in event:
                    raise EngineLost(f"pulling {reference} failed: {event['error']}", hint="run the same command again")
                detail = event.get("progressDetail") or {}
                if detail.get("total") and event.get("status") == "Downloading":
                    layers[event["id"]] = (detail["current"], detail["total"])
                    on_progress(sum(c for c, _ in layers.values()), sum(t for _, t in layers.values()))

    def containers(self, project: str) -> dict[str, Container]:
        """The project's containers by service name, stopped ones too."""
        with answering():
            found = self._connect().containers.list(
                all=True, filters={"label": f"com.docker.compose.project={project}"}, ignore_removed=True
            )
            return {c.service: c for c in map(_container, found) if c.service}

    def inspect(self, container: str) -> dict[str, Any]:
        """Everything that the engine tells about a container to whoever may ask it."""
        with answering():
            return dict(self._connect().containers.get(container).attrs)

    def tail(self, container: str, lines: int) -> str:
        with answering():
            written: bytes = self._connect().containers.get(container).logs(tail=lines)
            # Programs colour their lines even when nobody watches; in an error they would recolour the terminal.
            return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", written.decode("utf-8", "replace")).rstrip()

    def execute(self, container: str, argv: list[str], *, errors: bool = True) -> tuple[int, str]:
        """Run a command in a container; (exit code, output). `errors`: with what it says on stderr, in any order and mid-line."""
        with answering():
            code, output = self._connect().containers.get(container).exec_run(argv, stderr=errors)
            return int(code or 0), output.decode("utf-8", "replace")

    def unpause(self, container: str) -> None:
        with answering():
            self._connect().containers.get(container).unpause()

    def volumes(self, project: str) -> tuple[str, ...]:
        with answering():
            found = self._connect().volumes.list(filters={"label": f"com.docker.compose.project={project}"})
            return tuple(v.name for v in found)

    def networks(self) -> tuple[Network, ...]:
        """Every network, whoever made it."""
        with answering():
            return tuple(map(_network, self._connect().api.networks()))

    def remove_network(self, network: str) -> tuple[str, ...]:
        """Remove a network, whatever is on it; the names of what still was."""
        with answering():
            found = self._connect().networks.get(network)
            left = sorted((found.attrs.get("Containers") or {}).items())
            for container, _ in left:
                found.disconnect(container, force=True)
            found.remove()
            return tuple(str(entry.get("Name", "")) for _, entry in left)

    def remove_networks(self, project: str) -> None:
        """Those left over from an overlay that is no longer used: Compose itself does not know them any more."""
        with answering():
            for network in self._connect().networks.list(filters={"label": f"com.docker.compose.project={project}"}):
                network.remove()

    def client(self, seconds: int) -> Any:
        """A connection of its own, for one thread; `seconds`: how long an answer may take. The SDK's errors pass through."""
        import docker

        return docker.DockerClient(base_url=self._host(), version="auto", timeout=seconds)

    def _connect(self) -> Any:
        if self._client is None:
            self._client = self.client(60)
        return self._client

    def _host(self) -> str:
        # The SDK alone ignores `docker context`, and so misses Docker Desktop, Colima and rootless engines.
        if self._docker_host:
            return self._docker_host
        shown = self._processes.run(
            [self.command(), "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"], timeout=10
        )
        return shown.output.strip() if shown.ok and shown.output.strip() else "unix:///var/run/docker.sock"

    def _why_silent(self, error: Exception) -> EngineState:
        host = self._host()
        path = host.removeprefix("unix://")
        if host.startswith("unix://") and os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
            return EngineState(kind="denied", detail=f"this user may not use {path}")
        return EngineState(kind="stopped", detail=f"nothing answers at {host}")


@contextlib.contextmanager
def answering(hint: str = AGAIN, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """The SDK's errors as EngineLost. `also`: what else means that the engine is lost."""
    import docker.errors
    import requests

    lost: tuple[type[Exception], ...] = (docker.errors.DockerException, requests.RequestException, *also)
    try:
        yield
    except docker.errors.APIError as error:
        raise EngineLost(
            f"the engine refused: {error.explanation or error}", hint="`docker info` shows its state"
        ) from None
    except lost as error:
        raise EngineLost(f"the Docker engine stopped answering: {type(error).__name__}", hint=hint) from None


def _container(found: Any) -> Container:
    state = found.attrs["State"]
    labels = found.attrs["Config"].get("Labels") or {}
    return Container(
        id=found.id,
        # A container of `docker compose run` is a helper, not the service itself.
        service=""
        if labels.get("com.docker.compose.oneoff") == "True"
        else labels.get("com.docker.compose.service", ""),
        status=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=state.get("ExitCode", 0),
        restarts=found.attrs.get("RestartCount", 0),
        image=found.attrs["Config"]["Image"],
        working_dir=labels.get("com.docker.compose.project.working_dir", ""),
        oom_killed=bool(state.get("OOMKilled")),
        key=labels.get("io3ops.key", ""),
        started=state.get("StartedAt", ""),
        ca=labels.get("io3ops.ca", ""),
        ports=tuple(
            int(b["HostPort"])
            for bound in (found.attrs["NetworkSettings"].get("Ports") or {}).values()
            for b in bound or ()
        ),
    )


def _network(found: dict[str, Any]) -> Network:
    labels = found.get("Labels") or {}
    configs = (found.get("IPAM") or {}).get("Config") or ()
    options = found.get("Options") or {}
    return Network(
        id=found["Id"],
        project=labels.get("com.docker.compose.project", ""),
        name=labels.get("com.docker.compose.network", ""),
        subnets=tuple(config["Subnet"] for config in configs if config.get("Subnet")),
        nowhere=next(
            (aux for c in configs if (aux := (c.get("AuxiliaryAddresses") or {}).get("DefaultGatewayIPv4"))), ""
        ),
        ipv6=bool(found.get("EnableIPv6")),
        bridge=options.get("com.docker.network.bridge.name") or f"br-{found['Id'][:12]}",
    )


def _numbers(text: str) -> tuple[int, ...]:
    head = text.strip().lstrip("v").split("+")[0].split("-")[0]
    return tuple(int(part) for part in head.split(".") if part.isdecimal())


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
