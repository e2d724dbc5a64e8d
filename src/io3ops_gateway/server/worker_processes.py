"""Fork workers, exchange messages with them, and notice how they end. Touches: the children, their channels, and the parent's log."""

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


def fork(run: Callable[[socket.socket], NoReturn]) -> tuple[int, socket.socket]:
    """Start a child that runs `run` with its end of a channel. Return its pid and the parent's end.

    Raises:
        StartError: the system has no room for another process or socket.
    """
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
            run(theirs)
        except BaseException as error:  # noqa: BLE001  the child ends below, whatever happened
            log(f"a worker failed: {one_line(error)}")
        finally:
            # A child must never return into the parent's loop.
            os._exit(70)
    theirs.close()
    ours.setblocking(False)
    return pid, ours


def read_events(worker: Worker) -> list[dict[str, Any]] | None:
    """Return the events that a worker has sent since the last call; None when it will send no more."""
    try:
        part = worker.channel.recv(65_536)
    except BlockingIOError:
        return []
    except OSError:
        part = b""
    if not part:
        return None
    *lines, worker.unread = (worker.unread + part).split(b"\n")
    return [json.loads(line) for line in lines]


def carry_out(orders: list[Order]) -> None:
    """Send each worker its command, or kill it."""
    for worker, command in orders:
        if command == KILL:
            os.kill(worker.pid, signal.SIGKILL)
        else:
            try:
                worker.channel.send(command)
            except OSError as error:
                # It has ended, and SIGCHLD will say so.
                if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF):
                    raise


def ended() -> Iterator[tuple[int, str]]:
    """Yield each child that has ended, and how: "ended with exit code 3"."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, _reason(status)


def _reason(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        # Some signals have no name.
        return f"was ended by signal {signal.strsignal(number) or number}"
    return f"ended with exit code {os.waitstatus_to_exitcode(status)}"


def log(line: str) -> None:
    """Write one line to the container's log."""
    print(f"gateway: {line}", file=sys.stderr, flush=True)
