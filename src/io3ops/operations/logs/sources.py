"""Where the layers' lines come from: the containers' logs, the engine's, and the request log. Each can be read back, then followed.

`past` gives what is wanted of what there is, the oldest first, and remembers where it ended; `follow` goes on from there, in threads, until
`close`. What cannot be read is said once, by `note`, and is no error.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from io3ops.adapters.container_view import ContainerView, Stream
from io3ops.adapters.process import Background
from io3ops.console import printable
from io3ops.errors import EngineLost, Io3opsError
from io3ops.operations.logs import lines as log_lines
from io3ops.operations.logs.lines import Line, Wish
from io3ops.operations.stack import engine, project
from io3ops.tools import Tools
from io3ops_shared.log_files.follow import Follower
from io3ops_shared.request_log.files import CURRENT, FULL

Put = Callable[[Line], None]
Note = Callable[[str], None]
# How often a file is looked at, and how soon an engine that was lost is asked again.
LOOK, AGAIN = 0.2, 1.0
JOURNAL = ("journalctl", "-u", "docker", "-o", "json", "--no-pager", "--quiet")
# Lines may stand a little out of order: from this far before the wanted time on, a file is not read further back.
SLACK = 60.0


class Source(Protocol):
    def past(self, wish: Wish) -> list[Line]: ...

    def follow(self, put: Put) -> None: ...

    def close(self) -> None: ...


def sources(tools: Tools, layers: Iterable[str], note: Note) -> list[Source]:
    """Raises the engine's error when a container's log is asked for and there is no engine to ask."""
    found: list[Source] = []
    containers = tuple(layer for layer in log_lines.CONTAINERS if layer in layers)
    if containers:
        engine.require(
            tools, "`io3ops logs --layer engine` shows why; `--layer requests` needs none; `make up` starts it"
        )
        found.append(ContainerLogs(tools, containers, note))
    if "engine" in layers:
        if tools.settings.docker_host and not tools.settings.docker_host.startswith("unix://"):
            note("the engine runs elsewhere (DOCKER_HOST), and so does its log")
        elif tools.machine.systemd and tools.processes.which("journalctl"):
            found.append(Journal(tools, note))
        else:
            found.append(DaemonLog(engine.DAEMON_LOG, note))
    if "requests" in layers:
        found.append(RequestLog(tools.settings.logs / CURRENT, note))
    return found


class ContainerLogs:
    """One thread hears which containers start, and one more reads each that runs, so one that is restarted or replaced is picked up again."""

    def __init__(self, tools: Tools, layers: tuple[str, ...], note: Note) -> None:
        self._tools = tools
        self._layers = layers
        self._note = note
        self._since = 0
        # The engine's time of each layer's last line; it tells what two readers of one log would both give.
        self._last: dict[str, str] = {}
        self._read: set[tuple[str, str]] = set()
        self._streams: set[Stream[Any]] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()

    def past(self, wish: Wish) -> list[Line]:
        found: list[Line] = []
        self._since = int(wish.since)
        view = ContainerView(self._tools.engine, seconds=60)
        try:
            for layer, container in project.own_containers(self._tools).items():
                if layer in self._layers:
                    found += self._past(view, layer, container.id, wish)
        finally:
            view.close()
        return found

    def _past(self, view: ContainerView, layer: str, container: str, wish: Wish) -> deque[Line]:
        lines: deque[Line] = deque(maxlen=wish.tail)
        # At least one, so that it is known where to go on; what is looked for by its id may be anywhere.
        tail = None if wish.tail is None or wish.id else max(1, wish.tail)
        try:
            with view.log(container, since=self._since, tail=tail, follow=False) as stream:
                for when, text in stream:
                    self._last[layer] = when
                    line = Line(time=log_lines.stamp(when) or 0.0, layer=layer, text=text)
                    if wish.wants(line):
                        lines.append(line)
        except EngineLost as error:
            # Some log drivers keep nothing that could be read, and a container may be removed meanwhile.
            self._note(f"{layer}: {printable(error.message, 200)}")
        return lines

    def follow(self, put: Put) -> None:
        threading.Thread(target=self._watch, args=(put,), daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self._hang_up()

    def _watch(self, put: Put) -> None:
        lost = False
        while not self._over.is_set():
            view = ContainerView(self._tools.engine, seconds=10)
            # EngineLost, or another clone runs the project now: in both cases there is nothing to read for the time being.
            with contextlib.suppress(Io3opsError), self._held(view.starts(self._tools.settings.project)) as starts:
                self._begin(put)
                if lost:
                    self._note("the engine answers again")
                lost = False
                for _ in starts:
                    self._begin(put)
            view.close()
            if not self._over.is_set():
                self._hang_up()
                if not lost:
                    self._note("the engine does not answer; the containers' lines come again when it does")
                lost = True
            self._over.wait(AGAIN)

    def _begin(self, put: Put) -> None:
        """A reader for each container that runs and has none."""
        for layer, container in project.own_containers(self._tools).items():
            life = (container.id, container.started)
            if layer in self._layers and container.running and life not in self._read:
                self._read.add(life)
                threading.Thread(target=self._reader, args=(layer, life, put), daemon=True).start()

    def _reader(self, layer: str, life: tuple[str, str], put: Put) -> None:
        view = ContainerView(self._tools.engine, seconds=10)
        since = int(log_lines.stamp(self._last.get(layer, "")) or self._since)
        # An engine that is lost is the other thread's to say.
        with (
            contextlib.suppress(EngineLost),
            self._held(view.log(life[0], since=since, tail=None, follow=True)) as stream,
        ):
            for when, text in stream:
                with self._lock:
                    seen = when <= self._last.get(layer, "")
                    if not seen:
                        self._last[layer] = when
                if not seen:
                    put(Line(time=log_lines.stamp(when) or 0.0, layer=layer, text=text))
        view.close()
        self._read.discard(life)

    @contextlib.contextmanager
    def _held(self, stream: Stream[Any]) -> Iterator[Stream[Any]]:
        """A stream that `close` can end."""
        with self._lock:
            self._streams.add(stream)
        with stream:
            try:
                if not self._over.is_set():
                    yield stream
                else:
                    raise EngineLost("nobody waits any more")
            finally:
                with self._lock:
                    self._streams.discard(stream)

    def _hang_up(self) -> None:
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.close()


class Journal:
    """The engine's log where systemd runs."""

    def __init__(self, tools: Tools, note: Note) -> None:
        self._processes = tools.processes
        self._note = note
        self._place = ("--since", f"@{time.time():.0f}")
        self._process: Background | None = None

    def past(self, wish: Wish) -> list[Line]:
        count = () if wish.tail is None or wish.id else ("-n", str(max(1, wish.tail)))
        begin = ("--since", f"@{wish.since:.0f}") if wish.since else ()
        done = self._processes.run([*JOURNAL, *count, *begin])
        entries = done.output.encode().splitlines()
        if not done.ok or (not entries and done.errors):
            self._note(f"the engine's log cannot be read: {printable(done.tail(1), 200) or 'journalctl failed'}")
        if entries and (cursor := log_lines.cursor(entries[-1])):
            self._place = ("--after-cursor", cursor)
        lines = [line for line in map(log_lines.journal_line, entries) if line and wish.wants(line)]
        return lines[max(0, len(lines) - wish.tail) :] if wish.tail is not None else lines

    def follow(self, put: Put) -> None:
        self._process = self._processes.reader([*JOURNAL, "--follow", "--no-tail", *self._place])
        self._thread = threading.Thread(target=self._read, args=(self._process, put), daemon=True)
        self._thread.start()

    def _read(self, process: Background, put: Put) -> None:
        assert process.stdout is not None
        for raw in process.stdout:
            line = log_lines.journal_line(raw)
            if line:
                put(line)

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._thread.join()
            assert self._process.stdout is not None
            self._process.stdout.close()


class _FileLog:
    """A file that is looked at now and then."""

    def __init__(self, path: Path, renamed: re.Pattern[str] | None, what: str, note: Note) -> None:
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._file: Follower | None = None
        try:
            self._file = Follower(path, renamed)
            if not path.exists():
                note(f"there is no {what} here yet ({path})")
        except OSError as error:
            note(f"the {what} cannot be read: {path}: {error.strerror or error}")

    def raw(self) -> Iterator[bytes]:
        """The last line first."""
        return self._file.before() if self._file else iter(())

    def read(self, raw: bytes) -> Line | None:
        raise NotImplementedError

    def follow(self, put: Put) -> None:
        if self._file:
            self._thread = threading.Thread(target=self._look, args=(self._file, put), daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._over.set()
        if self._thread:
            # Before its files are closed under it.
            self._thread.join()
        if self._file:
            self._file.close()

    def _look(self, file: Follower, put: Put) -> None:
        while not self._over.wait(LOOK):
            # What cannot be read now may be readable at the next look.
            with contextlib.suppress(OSError):
                for line in map(self.read, file.lines()):
                    if line:
                        put(line)


class DaemonLog(_FileLog):
    """The engine's log where it was started by `operations.engine`."""

    def __init__(self, path: Path, note: Note) -> None:
        super().__init__(path, None, "engine's log", note)
        self._time = time.time()

    def past(self, wish: Wish) -> list[Line]:
        found: list[Line] = []
        # Lines without a time, whose time is that of the line before them: it comes next, because this goes backwards.
        loose: list[Line] = []
        for raw in self.raw():
            loose.append(log_lines.daemon_line(raw, 0.0))
            when = loose[-1].time
            if not when:
                continue
            if when < wish.since - SLACK or (wish.tail is not None and len(found) >= wish.tail):
                break
            found += [line for line in (replace(line, time=when) for line in loose) if wish.wants(line)]
            loose = []
        return found[::-1]

    def read(self, raw: bytes) -> Line | None:
        line = log_lines.daemon_line(raw, self._time)
        self._time = line.time
        return line


class RequestLog(_FileLog):
    """One line for each request; needs no engine."""

    def __init__(self, path: Path, note: Note) -> None:
        super().__init__(path, FULL, "request log", note)

    def past(self, wish: Wish) -> list[Line]:
        found: list[Line] = []
        for raw in self.raw():
            if wish.tail is not None and len(found) >= wish.tail:
                break
            # Most lines of a large log are others': they need not be parsed.
            line = self.read(raw) if wish.id.encode() in raw else None
            if line and line.time < wish.since - SLACK:
                break
            if line and wish.wants(line):
                found.append(line)
        return found[::-1]

    def read(self, raw: bytes) -> Line | None:
        return log_lines.request_line(raw)
