"""Forks workers, speaks with them, and notices how they ended. Touches: the children, their channels, and the parent's log."""

import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from io3ops_gateway.errors import StartError, one_line
from io3ops_gateway.server.rollout import KILL, Order, Worker


def fork(live: Callable[[socket.socket], NoReturn]) -> tuple[int, socket.socket]:
    """The pid of a child that runs `live` with its end of a channel, and the parent's end."""
    sys.stdout.flush()
    sys.stderr.flush()
    ends: tuple[socket.socket, ...] = ()
    try:
        ours, theirs = ends = socket.socketpair()
        pid = os.fork()
    except OSError as error:
        for end in ends:
            end.close()
        raise StartError(f"a worker cannot be started: {error.strerror}", "try again in a moment") from error
    if not pid:
        try:
            ours.close()
            live(theirs)
        except BaseException as error:
            tell(f"a worker failed: {one_line(error)}")
        finally:
            # Whatever happens there, a child must never come back into the parent's loop.
            os._exit(70)
    theirs.close()
    ours.setblocking(False)
    return pid, ours


def hear(worker: Worker) -> list[dict[str, Any]] | None:
    """What it has said since the last time; None when it will say no more."""
    try:
        part = worker.channel.recv(65_536)
    except BlockingIOError:
        return []
    except OSError:
        part = b""
    if not part:
        return None
    *lines, worker.heard = (worker.heard + part).split(b"\n")
    return [json.loads(line) for line in lines]


def order(orders: list[Order]) -> None:
    for worker, word in orders:
        if word == KILL:
            os.kill(worker.pid, signal.SIGKILL)
        else:
            try:
                worker.channel.send(word)
            except OSError as error:
                # It has ended; the kernel tells in a moment.
                if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF):
                    raise


def ended() -> Iterator[tuple[int, str]]:
    """Each child that has ended, and how: "ended with exit code 3"."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, _why(status)


def _why(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        # Not each of them has a name.
        return f"was ended by signal {signal.strsignal(number) or number}"
    return f"ended with exit code {os.waitstatus_to_exitcode(status)}"


def tell(line: str) -> None:
    print(f"gateway: {line}", file=sys.stderr, flush=True)
