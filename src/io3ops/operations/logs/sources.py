"""Reads and follows (`logs -f`) every layer's lines: container logs, the engine's log and the request log.

`past` returns the selected lines that exist, the oldest first, and remembers where it ended. `follow` continues from there, in threads,
until `close`. A source that cannot be read is reported once through `note`, and is not an error.
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
from io3ops.operations.logs.lines import Line, Selection
from io3ops.operations.stack import engine, project
from io3ops.tools import Tools
from io3ops_shared.log_files.file_follower import Follower
from io3ops_shared.request_log.files import CURRENT, FULL

Put = Callable[[Line], None]
Note = Callable[[str], None]
# How often to check a file, and how soon to try a lost engine again.
LOOK, AGAIN = 0.2, 1.0
JOURNAL = ("journalctl", "-u", "docker", "-o", "json", "--no-pager", "--quiet")
# Lines may be slightly out of order. Reading backwards ends this long before the wanted time.
SLACK = 60.0


class Source(Protocol):
    def past(self, selection: Selection) -> list[Line]: ...

    def follow(self, put: Put) -> None: ...

    def close(self) -> None: ...


def sources(tools: Tools, layers: Iterable[str], note: Note) -> list[Source]:
    """Return the sources of these layers. Raises the engine's error when a container's log is wanted and the engine does not answer."""
    chosen: list[Source] = []
    containers = tuple(layer for layer in log_lines.CONTAINERS if layer in layers)
    if containers:
        engine.require(
            tools, "`io3ops logs --layer engine` shows why; `--layer requests` needs none; `make up` starts it"
        )
        chosen.append(ContainerLogs(tools, containers, note))
    if "engine" in layers:
        if tools.settings.docker_host and not tools.settings.docker_host.startswith("unix://"):
            note("the engine runs elsewhere (DOCKER_HOST), and so does its log")
        elif tools.machine.systemd and tools.processes.which("journalctl"):
            chosen.append(Journal(tools, note))
        else:
            chosen.append(DaemonLog(engine.DAEMON_LOG, note))
    if "requests" in layers:
        chosen.append(RequestLog(tools.settings.logs / CURRENT, note))
    return chosen


class ContainerLogs:
    """Reads container logs: one thread waits for containers that start, and one more reads each running container, also after a restart."""

    def __init__(self, tools: Tools, layers: tuple[str, ...], note: Note) -> None:
        self._tools = tools
        self._layers = layers
        self._note = note
        self._since = 0
        # The engine's time of each layer's last line. Two readers of one log may meet the same line.
        self._last: dict[str, str] = {}
        self._read: set[tuple[str, str]] = set()
        self._streams: set[Stream[Any]] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()

    def past(self, selection: Selection) -> list[Line]:
        lines: list[Line] = []
        self._since = int(selection.since)
        view = ContainerView(self._tools.engine, seconds=60)
        try:
            for layer, container in project.own_containers(self._tools).items():
                if layer in self._layers:
                    lines += self._past(view, layer, container.id, selection)
        finally:
            view.close()
        return lines

    def _past(self, view: ContainerView, layer: str, container: str, selection: Selection) -> deque[Line]:
        lines: deque[Line] = deque(maxlen=selection.tail)
        # At least one line, to know where to continue. Lines with a given id may be anywhere.
        tail = None if selection.tail is None or selection.id else max(1, selection.tail)
        try:
            with view.log(container, since=self._since, tail=tail, follow=False) as stream:
                for when, text in stream:
                    self._last[layer] = when
                    line = Line(time=log_lines.stamp(when) or 0.0, layer=layer, text=text)
                    if selection.includes(line):
                        lines.append(line)
        except EngineLost as error:
            # Some log drivers keep no logs, and a container may be removed meanwhile.
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
            # Nothing can be read for now: the engine is lost, or another clone runs the project.
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
                    self._note("the engine does not answer; container logs continue when it does")
                lost = True
            self._over.wait(AGAIN)

    def _begin(self, put: Put) -> None:
        """Start a reader for each running container that has none."""
        for layer, container in project.own_containers(self._tools).items():
            life = (container.id, container.started)
            if layer in self._layers and container.running and life not in self._read:
                self._read.add(life)
                threading.Thread(target=self._reader, args=(layer, life, put), daemon=True).start()

    def _reader(self, layer: str, life: tuple[str, str], put: Put) -> None:
        view = ContainerView(self._tools.engine, seconds=10)
        since = int(log_lines.stamp(self._last.get(layer, "")) or self._since)
        # The other thread reports a lost engine.
        with (
            contextlib.suppress(EngineLost),
            self._held(view.log(life[0], since=since, tail=None, follow=True)) as stream,
        ):
            for when, text in stream:
                with self._lock:
                    is_new = when > self._last.get(layer, "")
                    if is_new:
                        self._last[layer] = when
                if is_new:
                    put(Line(time=log_lines.stamp(when) or 0.0, layer=layer, text=text))
        view.close()
        self._read.discard(life)

    @contextlib.contextmanager
    def _held(self, stream: Stream[Any]) -> Iterator[Stream[Any]]:
        """Keep a stream where `close` can end it."""
        with self._lock:
            self._streams.add(stream)
        with stream:
            try:
                if not self._over.is_set():
                    yield stream
                else:
                    raise EngineLost("the logs are no longer followed")
            finally:
                with self._lock:
                    self._streams.discard(stream)

    def _hang_up(self) -> None:
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.close()


class Journal:
    """Reads the engine's log from journald, where systemd runs."""

    def __init__(self, tools: Tools, note: Note) -> None:
        self._processes = tools.processes
        self._note = note
        self._place = ("--since", f"@{time.time():.0f}")
        self._process: Background | None = None

    def past(self, selection: Selection) -> list[Line]:
        count = () if selection.tail is None or selection.id else ("-n", str(max(1, selection.tail)))
        begin = ("--since", f"@{selection.since:.0f}") if selection.since else ()
        done = self._processes.run([*JOURNAL, *count, *begin])
        entries = done.output.encode().splitlines()
        if not done.ok or (not entries and done.errors):
            self._note(f"the engine's log cannot be read: {printable(done.tail(1), 200) or 'journalctl failed'}")
        if entries and (cursor := log_lines.cursor(entries[-1])):
            self._place = ("--after-cursor", cursor)
        lines = [line for line in map(log_lines.journal_line, entries) if line and selection.includes(line)]
        return lines[max(0, len(lines) - selection.tail) :] if selection.tail is not None else lines

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
    """Reads a log file, and checks it for new lines at intervals."""

    def __init__(self, path: Path, renamed: re.Pattern[str] | None, what: str, note: Note) -> None:
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._file: Follower | None = None
        try:
            self._file = Follower(path, renamed)
            if not path.exists():
                note(f"there is no {what} yet ({path})")
        except OSError as error:
            note(f"the {what} cannot be read: {path}: {error.strerror or error}")

    def raw(self) -> Iterator[bytes]:
        """Yield the lines that exist, the last one first."""
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
            # Wait for it before closing its files.
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
    """Reads the log of an engine that io3ops started (`operations.stack.engine`)."""

    def __init__(self, path: Path, note: Note) -> None:
        super().__init__(path, None, "engine's log", note)
        self._time = time.time()

    def past(self, selection: Selection) -> list[Line]:
        lines: list[Line] = []
        # Lines without a time get the time of the line before them, which comes next when reading backwards.
        loose: list[Line] = []
        for raw in self.raw():
            loose.append(log_lines.daemon_line(raw, 0.0))
            when = loose[-1].time
            if not when:
                continue
            if when < selection.since - SLACK or (selection.tail is not None and len(lines) >= selection.tail):
                break
            lines += [line for line in (replace(line, time=when) for line in loose) if selection.includes(line)]
            loose = []
        return lines[::-1]

    def read(self, raw: bytes) -> Line | None:
        line = log_lines.daemon_line(raw, self._time)
        self._time = line.time
        return line


class RequestLog(_FileLog):
    """Reads the request log: one line for each request. It needs no engine."""

    def __init__(self, path: Path, note: Note) -> None:
        super().__init__(path, FULL, "request log", note)

    def past(self, selection: Selection) -> list[Line]:
        lines: list[Line] = []
        for raw in self.raw():
            if selection.tail is not None and len(lines) >= selection.tail:
                break
            # Most lines of a large log belong to other requests, and need not be parsed.
            line = self.read(raw) if selection.id.encode() in raw else None
            if line and line.time < selection.since - SLACK:
                break
            if line and selection.includes(line):
                lines.append(line)
        return lines[::-1]

    def read(self, raw: bytes) -> Line | None:
        return log_lines.request_line(raw)
