"""Waits until a container is ready. The only loop that does so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from io3ops.adapters.docker_engine import Container
from io3ops.errors import ContainerDied, NotReady
from io3ops.tools import Tools


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A service to wait for, its name for people, and the test of its container."""

    service: str
    what: str
    ready: Callable[[Container], bool]


def wait(tools: Tools, waiting: Waiting, restarts: int, show: Callable[[str], None] = lambda _: None) -> float:
    """Poll until the service is ready, and return the seconds that it took. `restarts`: its container's count before.

    Raises ContainerDied at once, with the last lines of its log, when the container ends or restarts; NotReady after
    `wait_timeout` seconds.
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
                hint=f"`io3ops logs {waiting.service}` shows more; on a slow machine raise IO3OPS_WAIT_TIMEOUT",
            )
        show(f"waiting for {waiting.what} ({waited:.0f} s)")
        time.sleep(0.1)


def died(tools: Tools, service: str, container: Container | None) -> ContainerDied:
    """Return the error for a container that has ended: the reason, and the last lines of its log."""
    if container is None:
        return ContainerDied(f"there is no {service} container", hint="`make up` starts the stack")
    why = "out of memory" if container.oom_killed else f"exit code {container.exit_code}"
    restarted = f" and was restarted {container.restarts} times" if container.restarts else ""
    hint = "the lines above are the last ones of its log"
    if container.oom_killed:
        hint = "choose smaller models (`io3ops preset`), or give the engine more memory"
    return ContainerDied(
        f"the {service} container ended instead of becoming ready ({why}){restarted}",
        details=tools.engine.tail(container.id, 15),
        hint=hint,
    )
