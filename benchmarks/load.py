"""Runs in a container: sends requests and says how long they took. One job, as JSON on standard input; one answer out.

The client is plain sockets: the less it does itself, the less of it is in every figure. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, cast

PATIENCE = 120


# Whole names: LiteLLM passes its provider's headers on under names that end in these.
CHUNKED, LENGTH, LAST = b"\r\ntransfer-encoding: chunked", b"\r\ncontent-length:", b"\r\nconnection: close"


class Gone(Exception):
    """The other side closed the connection before it answered anything."""


class Refused(Exception):
    """An answer that is none: its status and text."""


class Target:
    """Where requests go, as one kept-alive connection; the request is the same bytes each time."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.address = (given["host"], given["port"])
        body = json.dumps(given["body"]).encode()
        headers = {"Host": f"{given['host']}:{given['port']}", "Content-Type": "application/json", **given["headers"]}
        lines = [f"POST {given['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self.request = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
        self._socket: socket.socket | None = None

    def connect(self, timeout: float = PATIENCE, patience: float | None = None) -> None:
        """Connect within `timeout` seconds. `patience`: the limit of each read and write after that; `timeout` when None."""
        self._socket = socket.create_connection(self.address, timeout)
        self._socket.settimeout(timeout if patience is None else patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None

    def ask(self) -> tuple[float, float, bytes]:
        """Seconds to the first byte of the body, seconds to its last, and the body as it was sent."""
        for again in (True, False):
            if self._socket is None:
                self.connect()
            try:
                return self._ask()
            except (Gone, ConnectionError):
                # A server may close a connection after so many requests: that is no answer, and no failure yet.
                self.close()
                if not again:
                    raise
        raise AssertionError

    def _ask(self) -> tuple[float, float, bytes]:
        assert self._socket
        receive = self._socket.recv
        started = time.perf_counter()
        self._socket.sendall(self.request)
        found = b""
        while b"\r\n\r\n" not in found:
            found += (more := receive(65536))
            if not more:
                raise Gone
        head, _, body = found.partition(b"\r\n\r\n")
        head = head.lower() + b"\r\n"
        while not body:
            body = receive(65536)
        first = time.perf_counter()
        if CHUNKED in head:
            while not body.endswith(b"\r\n0\r\n\r\n"):
                body += (more := receive(65536))
                if not more:
                    raise ConnectionError(f"{self.address[0]} cut its answer off: {head.decode()}{body[-500:]!r}")
        else:
            length = int(head.partition(LENGTH)[2].partition(b"\r\n")[0])
            while len(body) < length:
                body += (more := receive(65536))
                if not more:
                    raise ConnectionError(f"{self.address[0]} cut its answer off: {head.decode()}{body[-500:]!r}")
        ended = time.perf_counter()
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise Refused(f"{self.address[0]} answered {head.decode()}{body[:2000].decode(errors='replace')}")
        if LAST in head:
            self.close()
        return first - started, ended - started, body


def ready(job: dict[str, Any]) -> dict[str, Any]:
    """The time of day at which a server that is about to be started has answered its first request."""
    print("polling", flush=True)
    deadline = time.monotonic() + PATIENCE
    while True:
        target = Target(job["target"])
        try:
            target.connect(timeout=5, patience=PATIENCE)
            target.ask()
            return {"at": time.time()}
        except (OSError, Gone) as error:
            last: Exception = error
        except Refused as error:
            # A server that listens before it is ready says so for a while; one that says no says it for ever.
            last = error
            deadline = min(deadline, time.monotonic() + 10)
        finally:
            target.close()
        if time.monotonic() > deadline:
            raise SystemExit(f"{job['target']['host']} did not get ready: {last}")
        time.sleep(0.02)


def paired(job: dict[str, Any]) -> dict[str, Any]:
    """Requests to all targets in turns, each round beginning with another: what else the machine does falls on all."""
    targets = {name: Target(given) for name, given in job["targets"].items()}
    refused: dict[str, str] = {}
    for name, target in targets.items():
        try:
            target.ask()
        except Refused as error:
            refused[name] = str(error)
    names = [name for name in targets if name not in refused]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(job["warm"] + job["requests"]):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            first, total, body = targets[name].ask()
            if job["stream"] and not (b"[DONE]" in body or b'"done":true' in body):
                raise SystemExit(f"{name}: a stream without its end: {body[-200:]!r}")
            if number >= job["warm"]:
                times[name].append((first, total))
    return {"times": times, "refused": refused}


class Line(asyncio.Protocol):
    """One of many connections of `count`: asks again as soon as it was answered."""

    def __init__(self, shared: Counter) -> None:
        self._shared = shared
        self._found = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of it.
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def _next(self) -> None:
        if self._shared.take():
            self._transport.write(self._shared.target.request)
        else:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._found += data
        head, gap, body = self._found.partition(b"\r\n\r\n")
        if not gap:
            return
        head = head.lower() + b"\r\n"
        if CHUNKED in head:
            if not self._found.endswith(b"0\r\n\r\n"):
                return
        elif len(body) < int(head.partition(LENGTH)[2].partition(b"\r\n")[0]):
            return
        self._found = b""
        self._shared.answered(b" 200 " in head.partition(b"\r\n")[0])
        if LAST in head:
            self._transport.close()
        else:
            self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        self._shared.lost()


class Counter:
    """So many requests over so many connections. A connection that is closed is opened again."""

    def __init__(self, target: Target, requests: int, connections: int) -> None:
        self.target = target
        self._left = requests
        self._open = connections
        self._requests = requests
        self.good = self.bad = 0
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._opening: set[asyncio.Task[None]] = set()

    def take(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def answered(self, good: bool) -> None:
        self.good += good
        self.bad += not good

    def lost(self) -> None:
        if self._left > 0:
            self.dial()
            return
        self._open -= 1
        if self._open == 0 and not self._ended.done():
            self._ended.set_result(None)

    def dial(self) -> None:
        task = self._loop.create_task(self._dial())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _dial(self) -> None:
        host, port = self.target.address
        try:
            await self._loop.create_connection(lambda: Line(self), host, port)
        except OSError as error:
            if not self._ended.done():
                self._ended.set_exception(error)

    async def run(self, connections: int) -> None:
        for _ in range(connections):
            self.dial()
        await self._ended


async def _count(job: dict[str, Any]) -> dict[str, Any]:
    shared = Counter(Target(job["target"]), job["requests"], job["connections"])
    started = time.perf_counter()
    await shared.run(job["connections"])
    seconds = time.perf_counter() - started
    # Neither good nor bad: asked, and the connection was closed instead.
    return {"seconds": seconds, "good": shared.good, "failed": job["requests"] - shared.good}


def count(job: dict[str, Any]) -> dict[str, Any]:
    """A number of requests, many at a time."""
    with contextlib.suppress(ImportError):
        import uvloop

        found: dict[str, Any] = uvloop.run(_count(job))
        return found
    return asyncio.run(_count(job))


def usage(_job: dict[str, Any]) -> dict[str, Any]:
    """What all processes of this container's process namespace hold and have used, without this one.

    Memory as PSS counts it, save that a file's pages count in full, though another container may map the same file:
    anonymous and shared pages are divided among those who share them, pages of files are those of the process with
    the most, since forked processes map the same files.
    """
    memory = ticks = files = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        try:
            rolled = _kilobytes(folder / "smaps_rollup")
            memory += rolled["Pss_Anon"] + rolled["Pss_Shmem"]
            files = max(files, _kilobytes(folder / "status").get("RssFile", 0))
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return {"bytes": 1024 * (memory + files), "cpu": ticks / os.sysconf("SC_CLK_TCK")}


def _kilobytes(path: Path) -> dict[str, int]:
    rows = (row.split() for row in path.read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) == 3 and row[2] == "kB"}


JOBS = {"ready": ready, "paired": paired, "count": count, "usage": usage}

if __name__ == "__main__":
    gc.disable()
    asked = json.load(sys.stdin)
    print(json.dumps(JOBS[asked["do"]](asked)))
