"""What containers write and use, through the Docker SDK: their logs line by line, their starts, their load. Changes nothing."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from io3ops.adapters.docker_engine import DockerEngine, answering

# Of one line; the rest of it is thrown away.
LONGEST = 20_000
# What else the SDK makes of a connection that is cut in the middle of an answer.
CUT = (AttributeError, ValueError, struct.error)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Load:
    """One look at what a container uses. `cpu` and `machine`: nanoseconds since its start and since the machine's; the others in bytes."""

    cpu: int
    machine: int
    cores: int
    memory: int
    limit: int


class ContainerView:
    """A connection of its own, so that each thread may have one. `seconds`: how long a single answer may take; a stream has no limit."""

    def __init__(self, engine: DockerEngine, *, seconds: int) -> None:
        self._engine = engine
        self._seconds = seconds
        self._client: Any = None

    def log(self, container: str, *, since: int, tail: int | None, follow: bool) -> Stream[tuple[str, str]]:
        """The lines that a container wrote as (the engine's time in UTC, text). `since`: seconds, 0 is from the beginning; `tail`: of
        those only the last so many; `follow`: and all that it will write until it ends."""
        wanted = {"since": since} if since > 0 else {}
        with _answering():
            frames = self._api().logs(
                container, stream=True, timestamps=True, follow=follow, tail="all" if tail is None else tail, **wanted
            )
        return Stream(frames, _lines(frames))

    def starts(self, project: str) -> Stream[None]:
        """One item whenever a container of the project has started; it is listened to from the return on."""
        label = f"com.docker.compose.project={project}"
        with _answering():
            events = self._api().events(decode=True, filters={"type": "container", "event": "start", "label": label})
        return Stream(events, (None for _ in events))

    def load(self, container: str) -> Load | None:
        """What a container uses now; None when it does not run."""
        with _answering():
            try:
                said = self._api().stats(container, stream=False, one_shot=True)
                cpu, memory = said["cpu_stats"], said["memory_stats"]
                kept = memory.get("stats") or {}
                # As `docker stats` does: what the kernel would give back at once is not counted.
                spare = kept.get("inactive_file", kept.get("total_inactive_file", 0))
                return Load(
                    cpu=int(cpu["cpu_usage"]["total_usage"]),
                    machine=int(cpu["system_cpu_usage"]),
                    cores=int(cpu.get("online_cpus") or 1),
                    memory=max(0, int(memory["usage"]) - int(spare)),
                    limit=int(memory.get("limit", 0)),
                )
            except (KeyError, TypeError, ValueError):
                return None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _api(self) -> Any:
        if self._client is None:
            self._client = self._engine.client(self._seconds)
        return self._client.api


class Stream(Generic[T]):
    """Items as they come. `close`, also from another thread, ends whoever waits for the next. Iterating raises EngineLost when the
    engine is lost."""

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
        # Of a stream that is over, or whose end is not a socket, the SDK has nothing to close.
        with contextlib.suppress(Exception):
            self._raw.close()


def _lines(frames: Iterator[bytes]) -> Iterator[tuple[str, str]]:
    """The engine cuts a long line into frames, each with its own time; the line has the first one's."""
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

    return answering("`make up`", (urllib3.exceptions.HTTPError, OSError, *CUT))
