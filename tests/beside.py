"""The parts that tests start beside a stack: recorders, a second gateway, a neighbour on the network. They run through testcontainers.

No `io3ops` command knows them. Each has the label of the stack's project, so that `Clone.remove` removes what a failed test left, and
the next run what a killed one left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import docker.errors
import httpx
from testcontainers.core.config import ConnectionMode, testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.waiting_utils import WaitStrategy, WaitStrategyTarget
from tests import projects
from tests.clone import PATIENCE, Clone, until

LABEL = projects.LABELS[1]

# Ryuk, which removes what a killed run left, is an image of its own, and the tests need no registry: tests/projects.py does its work,
# by the label.
testcontainers_config.ryuk_disabled = True
# Ports are published on loopback, also where the tests themselves run in a container.
testcontainers_config.connection_mode_override = ConnectionMode.docker_host
testcontainers_config.tc_host_override = "127.0.0.1"
# testcontainers' own waits take the product of the two as their timeout.
testcontainers_config.sleep_time = 0.05
testcontainers_config.max_tries = int(PATIENCE / testcontainers_config.sleep_time)


class Part(DockerContainer):
    """A container beside the stack of `clone`, named after its project; use it as a context manager.

    `networks`: the first is the one that it is created on; `host`, `none` and `bridge` are the engine's own. `aliases` and `address`
    count on the first. `port` is published on a free port of loopback. `mounts`: path here -> path there, read-only. `options` are
    those of the engine's API, as docker-py names them.
    """

    def __init__(
        self,
        clone: Clone,
        name: str,
        image: str,
        command: Sequence[str] = (),
        *,
        networks: Sequence[str],
        aliases: Sequence[str] = (),
        address: str | None = None,
        port: int | None = None,
        mounts: Mapping[Path | str, str] | None = None,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        ready: WaitStrategy | None = None,
        **options: Any,
    ) -> None:
        super().__init__(image, env=dict(env or {}), name=f"{clone.project}-{name}")
        self.port = port
        if port is not None:
            # testcontainers' own way publishes a port on every address of the machine.
            cast(dict[str, Any], self.ports)[f"{port}/tcp"] = ("127.0.0.1", None)
        for here, there in (mounts or {}).items():
            self.with_volume_mapping(here, there)
        if command:
            self.with_command(list(command))
        if ready is not None:
            self.waiting_for(ready)
        if aliases or address or networks[1:]:
            endpoint = self.get_docker_client().client.api.create_endpoint_config
            first = {networks[0]: endpoint(aliases=list(aliases), ipv4_address=address)}
            options["networking_config"] = first | {network: endpoint() for network in networks[1:]}
        if "entrypoint" in options:
            # The image's check is of another program than the one that runs.
            options.setdefault("healthcheck", {"test": ["NONE"]})
        self.with_kwargs(network=networks[0], labels={LABEL: clone.project, **(labels or {})}, **options)

    @property
    def name(self) -> str:
        return cast(str, self.get_wrapped_container().name)

    @property
    def published(self) -> int:
        """The port on loopback."""
        assert self.port is not None, "it publishes none"
        return self.get_exposed_port(self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.published}"

    def state(self) -> dict[str, Any]:
        self.reload()
        found: dict[str, Any] = self.get_wrapped_container().attrs
        return found

    def health(self) -> str:
        return str(self.state()["State"]["Health"]["Status"])

    def said(self) -> str:
        """Its output and its errors, as text."""
        return "".join(stream.decode(errors="replace") for stream in self.get_logs())

    def stop(self, force: bool = True, delete_volume: bool = True) -> None:
        # A test may have removed it.
        with suppress(docker.errors.NotFound):
            super().stop(force, delete_volume)
        self.get_docker_client().client.close()


class Ready(WaitStrategy):
    """Wait until a check of the part is true. A part that ends meanwhile is not waited for, and a failure shows what it said."""

    def __init__(self, what: str, check: Callable[[Part], bool]) -> None:
        super().__init__()
        self.what, self.check = what, check

    def wait_until_ready(self, container: WaitStrategyTarget) -> None:
        assert isinstance(container, Part)

        def ready() -> bool:
            state = container.state()["State"]
            assert state["Status"] != "exited", (
                f"{container.name} ended with {state['ExitCode']}, still not: {self.what}"
            )
            return self.check(container)

        try:
            until(f"{container.name} {self.what}", ready)
        except AssertionError as error:
            error.add_note(f"what {container.name} said:\n{container.said()[-3000:]}")
            raise


def answers(path: str) -> Ready:
    """Its published port answers a GET of this path with 200."""

    def check(part: Part) -> bool:
        try:
            return httpx.get(part.url + path, trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    return Ready(f"answers {path}", check)


def prints(word: str) -> Ready:
    return Ready(f"prints {word!r}", lambda part: word in part.said())


@contextmanager
def network(clone: Clone, name: str, *options: str) -> Iterator[str]:
    """A network beside the stack's own; its name."""
    full = f"{clone.project}-{name}"
    made = clone.docker("network", "create", "--label", f"{LABEL}={clone.project}", *options, full)
    assert made.returncode == 0, made.stderr
    try:
        yield full
    finally:
        clone.docker("network", "rm", full)
