"""Containers' logs, starts and load, through the Docker SDK. Reads only."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from io3ops.adapters.docker_engine import DockerEngine, answering

# Characters of one line that are kept.
LONGEST = 20_000
# Further exceptions that the SDK raises when the connection breaks in the middle of an answer.
BROKEN = (AttributeError, ValueError, struct.error)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Load:
    """A container's load at one moment. `cpu`: nanoseconds since its start; `machine`: those of the whole machine; the rest in bytes."""

    cpu: int
    machine: int
    cores: int
    memory: int
    limit: int


class ContainerView:
    """One connection to the engine, for one thread. `seconds`: timeout of a single answer; streams have none."""

    def __init__(self, engine: DockerEngine, *, seconds: int) -> None:
        self._engine = engine
        self._seconds = seconds
        self._client: Any = None

    def log(self, container: str, *, since: int, tail: int | None, follow: bool) -> Stream[tuple[str, str]]:
        """Stream a container's log lines as (the engine's time in UTC, text).

        `since`: Unix time, 0 for the whole log. `tail`: only the last lines of these. `follow`: continue until the container ends.
        """
        wanted = {"since": since} if since > 0 else {}
        with _answering():
            frames = self._api().logs(
                container, stream=True, timestamps=True, follow=follow, tail="all" if tail is None else tail, **wanted
            )
        return Stream(frames, _lines(frames))

    def starts(self, project: str) -> Stream[None]:
        """Stream one item for each start of a container of the project, from the moment of the call."""
        label = f"com.docker.compose.project={project}"
        with _answering():
            events = self._api().events(decode=True, filters={"type": "container", "event": "start", "label": label})
        return Stream(events, (None for _ in events))

    def load(self, container: str) -> Load | None:
        """Return a container's load; None when it does not run."""
        with _answering():
            try:
                stats = self._api().stats(container, stream=False, one_shot=True)
                cpu, memory = stats["cpu_stats"], stats["memory_stats"]
                details = memory.get("stats") or {}
                # Like `docker stats`, exclude the file cache that the kernel can free at once.
                cache = details.get("inactive_file", details.get("total_inactive_file", 0))
                return Load(
                    cpu=int(cpu["cpu_usage"]["total_usage"]),
                    machine=int(cpu["system_cpu_usage"]),
                    cores=int(cpu.get("online_cpus") or 1),
                    memory=max(0, int(memory["usage"]) - int(cache)),
                    limit=int(memory.get("limit", 0)),
                )
            except (KeyError, TypeError, ValueError):
                return None

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _api(self) -> Any:
        if self._client is None:
            self._client = self._engine.client(self._seconds)
        return self._client.api


class Stream(Generic[T]):
    """Items as they arrive. Closing it, also from another thread, ends the iteration, which raises EngineLost when the engine
    stops answering."""

    def __init__(self, raw: Any, items: Iterator[T]) -> None:
        self._raw = raw
        self._items = items

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        with _answering():
            yield from self._items

    def close(self) -> None:
        """End the stream."""
        # The SDK fails for a stream that has already ended.
        with contextlib.suppress(Exception):
            self._raw.close()


def _lines(frames: Iterator[bytes]) -> Iterator[tuple[str, str]]:
    """Join the frames into which the engine splits a long line; the line has the time of the first one."""
    time, text = "", ""
    for frame in frames:
        head, _, rest = frame.decode("utf-8", "replace").partition(" ")
        time = time or head
        text += rest[: LONGEST - len(text)]
        if rest.endswith("\n"):
            yield time, text.rstrip("\r\n")
            time, text = "", ""
    if time:
        yield time, text


def _answering() -> contextlib.AbstractContextManager[None]:
    import urllib3

    return answering("`make up`", (urllib3.exceptions.HTTPError, OSError, *BROKEN))
