"""The control socket: each connection sends one command on one line, within limits, and gets one reply.

Touches that socket and its connections, through the parent's selector, and never waits for a command that is incomplete. The reply to a
change is sent when the change is complete, so the handler keeps the connection until then.
"""

import json
import math
import os
import selectors
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from io3ops_gateway.errors import StartError

# The longest command: a rendered file of a thousand modes has three megabytes.
COMMAND_BYTES = 64_000_000
COMMAND_SECONDS = 10.0
Handler = Callable[[socket.socket, dict[str, Any]], None]


class ControlSocket:
    """Hands each complete command to `handle`, which replies to its connection. A command is an object with the key `command`."""

    def __init__(self, path: Path, selector: selectors.BaseSelector, handle: Handler) -> None:
        self._path = path
        self._selector = selector
        self._handle = handle
        # By connection: until when its command must be complete, and what has come of it.
        self._incomplete: dict[socket.socket, tuple[float, bytearray]] = {}
        self._control = _listen(path)
        selector.register(self._control, selectors.EVENT_READ, self._on_connection)

    def close(self) -> None:
        self._control.close()
        self._path.unlink(missing_ok=True)

    def deadline(self) -> float:
        """Return when `hang_up_late` may next have something to do."""
        return min((deadline for deadline, _ in self._incomplete.values()), default=math.inf)

    def hang_up_late(self, now: float) -> None:
        """Close connections whose command is not complete in time."""
        for connection in [c for c, (deadline, _) in self._incomplete.items() if deadline <= now]:
            self._release(connection).close()

    def _on_connection(self) -> None:
        try:
            connection, _ = self._control.accept()
        except OSError:
            return
        connection.setblocking(False)
        self._incomplete[connection] = (time.monotonic() + COMMAND_SECONDS, bytearray())
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._on_part(connection))

    def _on_part(self, connection: socket.socket) -> None:
        received = self._incomplete[connection][1]
        try:
            part = connection.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        received += part
        if not part or len(received) > COMMAND_BYTES:
            self._release(connection).close()
        elif received.endswith(b"\n"):
            self._release(connection)
            try:
                command = json.loads(received)
                command["command"]
            except (ValueError, TypeError, KeyError, RecursionError):
                return refuse(connection, "not a command", "send one line of JSON with the key `command`")
            self._handle(connection, command)

    def _release(self, connection: socket.socket) -> socket.socket:
        """Stop reading from a connection."""
        self._selector.unregister(connection)
        del self._incomplete[connection]
        return connection


def reply(connection: socket.socket, fields: dict[str, Any]) -> None:
    """Send the reply to a command, and close its connection."""
    try:
        connection.settimeout(1)
        connection.sendall(json.dumps({"ok": True, **fields}).encode() + b"\n")
    except OSError:
        # The requester has left.
        pass
    finally:
        connection.close()


def refuse(connection: socket.socket, what: str, hint: str) -> None:
    """Reply that a command is refused, and why."""
    reply(connection, {"ok": False, "what": what, "hint": hint})


def _listen(path: Path) -> socket.socket:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        control.bind(str(path))
    except OSError as error:
        what = f"the control socket {path} cannot be created: {error.strerror}"
        raise StartError(what, "give the container a writable /tmp") from error
    finally:
        os.umask(mask)
    control.listen(8)
    control.setblocking(False)
    return control
