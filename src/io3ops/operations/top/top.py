"""`io3ops top`: show what each layer does now. Each part has a thread of its own, so one that hangs does not delay the others.

Touches the engine's and the runtime's API, `docker exec` into the gateway, and the request log. Sends nothing to a model.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from io3ops.adapters.container_view import ContainerView, Load
from io3ops.console import printable
from io3ops.errors import Io3opsError
from io3ops.operations.logs import lines as log_lines
from io3ops.operations.models import models
from io3ops.operations.stack import project
from io3ops.operations.table import config
from io3ops.operations.top.numbers import (
    LAST,
    MINUTE,
    Ended,
    Failure,
    Layer,
    Model,
    Snapshot,
    cpu,
    ended,
    failure,
    rates,
)
from io3ops.tools import Tools
from io3ops_shared.log_files.file_follower import Follower
from io3ops_shared.request_log.files import CURRENT, FULL

EVERY = 1.0
# Ollama logs a line for each query.
MODELS_EVERY = 5.0
# Seconds that one answer may take. An answer older than `OLD` is shown as late.
PATIENCE = 3
OLD = 2 * PATIENCE
# Between the first two CPU samples of a container.
FIRST_LOOK = 0.3
# How many lines to read back at most, to find the last failures.
BACK = 20_000


class Part:
    """The last result of one thread, or the reason why there is none. Other threads read it."""

    def __init__(self) -> None:
        self.value: Any = None
        self.problem = ""
        self.time: float | None = None
        self.first = threading.Event()

    def answered(self, value: Any) -> None:
        self.value, self.problem, self.time = value, "", time.monotonic()
        self.first.set()

    def failed(self, problem: str) -> None:
        self.value, self.problem, self.time = None, printable(problem, 200), time.monotonic()
        self.first.set()

    def trouble(self, now: float) -> str:
        if self.time is None:
            return "no answer yet"
        late = now - self.time
        return self.problem or (f"no answer for {late:.0f} s" if late > OLD else "")


class Top:
    """Watches the stack with four threads, from `begin` to `close`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._over = threading.Event()
        self._parts = {name: Part() for name in ("containers", "gateway", "models", "requests")}
        looks: dict[str, Callable[[Part], None]] = {
            "containers": self._containers, "gateway": self._gateway, "models": self._models, "requests": self._requests
        }  # fmt: skip
        self._threads = [
            threading.Thread(target=self._run, args=(look, self._parts[name]), daemon=True)
            for name, look in looks.items()
        ]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until each part has answered once, at most so many seconds."""
        end = time.monotonic() + seconds
        for part in self._parts.values():
            part.first.wait(max(0.0, end - time.monotonic()))

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            # A thread that hangs in a call ends with this process.
            thread.join(0.5)

    def snapshot(self) -> Snapshot:
        part, clock = self._parts, time.monotonic()
        problems = {name: one.trouble(clock) for name, one in part.items()}
        layers = tuple(layer for layer, _ in (part["containers"].value or {}).values())
        if not problems["containers"] and not any(layer.state == "running" for layer in layers):
            problems["containers"] = "the stack does not run: make up"
        if not any(layer.name == "gateway" and layer.state == "running" for layer in layers):
            # The gateway cannot be asked, and `containers` says so already.
            problems["gateway"] = problems["models"] = ""
        status = part["gateway"].value or {}
        total, modes, failures = part["requests"].value or (None, (), ())
        return Snapshot(
            time=time.time(),
            project=self._tools.settings.project,
            layers=layers,
            models=part["models"].value or (),
            running=_count(status.get("running")),
            waiting=_count(status.get("waiting")),
            total=total,
            modes=modes,
            failures=failures,
            problems={name: problem for name, problem in problems.items() if problem},
        )

    def _run(self, look: Callable[[Part], None], part: Part) -> None:
        """Call `look` again and again: it returns when it cannot go on."""
        while not self._over.is_set():
            try:
                look(part)
            except Io3opsError as error:
                part.failed(error.message)
            except Exception as error:  # noqa: BLE001  a layer that goes away may answer anything, and the view must stay
                part.failed(f"{type(error).__name__}: {error}")
            self._over.wait(EVERY)

    def _containers(self, part: Part) -> None:
        view = ContainerView(self._tools.engine, seconds=PATIENCE)
        before: dict[str, Load] = {}
        try:
            while not self._over.is_set():
                containers = project.own_containers(self._tools)
                running = [c.id for c in containers.values() if c.running]
                now = {container: load for container in running if (load := view.load(container))}
                if now.keys() - before.keys() and not self._over.wait(FIRST_LOOK):
                    before = now
                    now = {container: load for container in running if (load := view.load(container))}
                part.answered({name: (_layer(name, c, before, now), c.id) for name, c in sorted(containers.items())})
                before = now
                self._over.wait(EVERY)
        finally:
            view.close()

    def _gateway_id(self) -> str:
        """Return the id of the gateway's container while it runs, else ''."""
        self._parts["containers"].first.wait(OLD)
        layer, container = (self._parts["containers"].value or {}).get("gateway", (None, ""))
        return container if layer and layer.state == "running" else ""

    def _gateway(self, part: Part) -> None:
        container = self._gateway_id()
        docker = self._tools.engine.command()
        part.answered(self._tools.control.status(docker, container, seconds=PATIENCE) if container else None)

    def _models(self, part: Part) -> None:
        if not self._gateway_id():
            part.answered(())
            return
        plan = config.load(self._tools.settings).plan
        urls = dict.fromkeys(m.url for m in plan.models if m.kind == "ollama")
        with contextlib.ExitStack() as connections:
            # Keep the connection: each one costs a process in the gateway's container.
            apis = [connections.enter_context(models.runtime_api(self._tools, url, timeout=PATIENCE)) for url in urls]
            while not self._over.is_set() and self._gateway_id():
                loaded = [m for api in apis for m in api.loaded()]
                part.answered(tuple(Model(name=m.name, memory=m.memory, vram=m.vram, until=m.until) for m in loaded))
                self._over.wait(MODELS_EVERY)

    def _requests(self, part: Part) -> None:
        recent: deque[Ended] = deque()
        failures: deque[Failure] = deque(maxlen=LAST)
        try:
            file = Follower(self._tools.settings.logs / CURRENT, FULL)
        except OSError as error:
            part.failed(f"the request log cannot be read: {error.strerror or error}")
            return
        try:
            for line in reversed(list(_recent(file.before()))):
                _take(line, recent, failures)
            while not self._over.is_set():
                for line in filter(None, map(log_lines.request_line, file.lines())):
                    _take(line, recent, failures)
                now = time.time()
                while recent and recent[0].time < now - MINUTE:
                    recent.popleft()
                part.answered((*rates(recent, now), tuple(failures)[::-1]))
                self._over.wait(EVERY)
        finally:
            file.close()


def _recent(lines: Iterator[bytes]) -> Iterator[log_lines.Line]:
    """Yield the lines of the last minute, and earlier ones until there are enough failures to show; the last one first."""
    begin, bad = time.time() - MINUTE, 0
    for count, raw in enumerate(lines):
        line = log_lines.request_line(raw)
        if line is None or line.record is None:
            continue
        if line.time < begin and (bad >= LAST or count >= BACK):
            return
        bad += failure(line.record, line.time) is not None
        yield line


def _take(line: log_lines.Line, recent: deque[Ended], failures: deque[Failure]) -> None:
    if line.record is not None:
        recent.append(ended(line.record, line.time))
        if bad := failure(line.record, line.time):
            failures.append(bad)


def _layer(name: str, container: Any, before: dict[str, Load], now: dict[str, Load]) -> Layer:
    load = now.get(container.id)
    return Layer(
        name=name,
        state=container.status,
        health=container.health,
        cpu=cpu(before.get(container.id), load) if load else None,
        memory=load.memory if load else None,
        limit=load.limit or None if load else None,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
