"""A gateway's parent with tiny workers: `supervisor.Supervisor` as it is, and no uvicorn and no LiteLLM behind it.

`python -m tests.mini_gateway FOLDER PORT [NAME=NUMBER ...]`: serves FOLDER/litellm.yaml; NAME is a constant of `rollout` or `control_socket`, or `stop`, or `room`. A worker
answers each line of a connection with `WORD PID GENERATION`; `hold` keeps the connection until the client says `more`. The file's
`tests:` says how workers behave: `word`, and `start`: ok, fail, exit, kill, hang, end (after it was ready); `start2`: of a worker that
takes another's place. `wait: {INDEX: FILE}`: not ready before the file is there; `deaf`: it does not listen to `stop`; `mute`: it does not say that it has left; `tardy`: it
leaves when this file is there. In the status each worker counts one that runs, and never takes it back.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import yaml

from io3ops_gateway.errors import GatewayError
from io3ops_gateway.limits.counters import Counters
from io3ops_gateway.server import control_socket, rollout, sockets, supervisor


class Serving:
    """One worker after its `go`."""

    def __init__(self, job: rollout.Job, word: str, heard: bytes, deaf: bool, mute: bool, tardy: str) -> None:
        self.job = job
        self.said = f"{word} {os.getpid()} {job.generation}\n".encode()
        self.deaf, self.mute, self.tardy = deaf, mute, tardy
        self.selector = selectors.DefaultSelector()
        self.connections: dict[socket.socket, bytes] = {}
        self.leaving = False
        self.words = heard

    def run(self) -> NoReturn:
        for listener in self.job.listeners:
            listener.listen(1024)
            listener.setblocking(False)
            self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.selector.register(self.job.channel, selectors.EVENT_READ, self.hear)
        # It may have been told more than `go`.
        self.obey(self.words)
        while not (self.leaving and not self.connections):
            for key, _ in self.selector.select(0.02 if self.tardy else None):
                key.data(key.fileobj)
            if self.tardy:
                self.obey(self.words)
        os._exit(0)

    def accept(self, listener: socket.socket) -> None:
        if self.leaving:
            return
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        self.connections[connection] = b""
        self.selector.register(connection, selectors.EVENT_READ, self.read)

    def read(self, connection: socket.socket) -> None:
        try:
            part = connection.recv(4096)
            self.connections[connection] += part
            while b"\n" in self.connections[connection]:
                line, _, self.connections[connection] = self.connections[connection].partition(b"\n")
                if line != b"hold":
                    connection.sendall(self.said)
        except OSError:
            part = b""
        if not part:
            self.selector.unregister(connection)
            del self.connections[connection]
            connection.close()

    def hear(self, channel: socket.socket) -> None:
        part = channel.recv(4096)
        self.words += part
        self.obey(part)

    def obey(self, part: bytes) -> None:
        if b"stop\n" in self.words and not self.deaf:
            os._exit(0)
        if not part:
            os._exit(0)
        tardy = self.tardy and not Path(self.tardy).exists()
        if b"drain\n" in self.words and not self.leaving and not tardy:
            self.leaving = True
            for listener in self.job.listeners:
                self.selector.unregister(listener)
                listener.close()
            if not self.mute:
                self.job.channel.sendall(b'{"event": "left"}\n')


def work(job: rollout.Job, counters: Counters) -> NoReturn:
    counters.worker(job.index).running(+1)
    said: dict[str, Any] = yaml.safe_load(job.config.read_bytes()).get("tests") or {}
    mark = job.config.with_suffix(f".{job.index}.begun")
    start = said.get("start2", "ok") if mark.exists() else said.get("start", "ok")
    mark.touch()
    while (file := said.get("wait", {}).get(job.index)) and not Path(file).exists():
        time.sleep(0.01)
    if start == "fail":
        failed = b'{"event": "failed", "what": "LiteLLM did not start: no", "hint": "mend it", "code": 78}\n'
        job.channel.sendall(failed)
        os._exit(78)
    elif start == "exit":
        os._exit(3)
    elif start == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif start == "raise":
        raise RuntimeError("nobody expected this")
    while start == "hang":
        time.sleep(60)
    job.channel.sendall(b'{"event": "ready"}\n')
    heard = b""
    while b"go\n" not in heard:
        part = job.channel.recv(4096)
        heard += part
        if not part or b"stop\n" in heard:
            os._exit(0)
    if start == "end":
        os._exit(4)
    deaf, mute, tardy = bool(said.get("deaf")), bool(said.get("mute")), str(said.get("tardy", ""))
    Serving(job, str(said.get("word", "hello")), heard, deaf, mute, tardy).run()


def main(folder: Path, port: int, numbers: dict[str, float]) -> None:
    stop, room = numbers.pop("stop", 1), int(numbers.pop("room", 64))
    for name, value in numbers.items():
        setattr(control_socket if hasattr(control_socket, name) else rollout, name, value)
    forgotten = os.open(folder / "forgotten", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    counters = Counters()

    def forget(index: int) -> None:
        counters.forget(index)
        os.write(forgotten, f"{index}\n".encode())

    try:
        supervisor.Supervisor(
            config=folder / "litellm.yaml",
            control=folder / "control.sock",
            first=sockets.bind("127.0.0.1", port, shared=False),
            stop_seconds=stop,
            work=lambda job: work(job, counters),
            count=lambda config: config["io3ops_policy"]["edge"]["workers"],
            forget=forget,
            room=room,
            load=counters.totals,
            folder=folder,
        ).run()
    except GatewayError as error:
        print(f"gateway: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), {n: float(v) for n, _, v in (a.partition("=") for a in sys.argv[3:])})
