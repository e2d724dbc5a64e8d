"""The control socket: from each asker one line, within limits, and in the end one answer.

Touches: that socket and its askers, through the parent's selector; nobody is waited for who has not finished the line. A change is
answered when it is made, so whoever obeys keeps the asker until then.
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

# A command's longest line: a rendered file of a thousand modes has three megabytes.
COMMAND_BYTES = 64_000_000
COMMAND_SECONDS = 10.0
Obey = Callable[[socket.socket, dict[str, Any]], None]


class ControlSocket:
    """`obey(asker, asked)`: `asked` has a `command`; the asker is to get a `reply`."""

    def __init__(self, path: Path, selector: selectors.BaseSelector, obey: Obey) -> None:
        self._path = path
        self._selector = selector
        self._obey = obey
        self._asking: dict[socket.socket, tuple[float, bytearray]] = {}
        self._control = _listen(path)
        selector.register(self._control, selectors.EVENT_READ, self._on_asker)

    def close(self) -> None:
        self._control.close()
        self._path.unlink(missing_ok=True)

    def deadline(self) -> float:
        return min((when for when, _ in self._asking.values()), default=math.inf)

    def hang_up_late(self, now: float) -> None:
        for asker in [asker for asker, (when, _) in self._asking.items() if when <= now]:
            self._let_go(asker).close()

    def _on_asker(self) -> None:
        try:
            asker, _ = self._control.accept()
        except OSError:
            return
        asker.setblocking(False)
        self._asking[asker] = (time.monotonic() + COMMAND_SECONDS, bytearray())
        self._selector.register(asker, selectors.EVENT_READ, lambda: self._on_part(asker))

    def _on_part(self, asker: socket.socket) -> None:
        heard = self._asking[asker][1]
        try:
            part = asker.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        heard += part
        if not part or len(heard) > COMMAND_BYTES:
            self._let_go(asker).close()
        elif heard.endswith(b"\n"):
            self._let_go(asker)
            try:
                asked = json.loads(heard)
                asked["command"]
            except (ValueError, TypeError, KeyError, RecursionError):
                return refuse(asker, "this is no command", "")
            self._obey(asker, asked)

    def _let_go(self, asker: socket.socket) -> socket.socket:
        self._selector.unregister(asker)
        del self._asking[asker]
        return asker


def reply(asker: socket.socket, said: dict[str, Any]) -> None:
    try:
        asker.settimeout(1)
        asker.sendall(json.dumps({"ok": True, **said}).encode() + b"\n")
    except OSError:
        # Whoever asked has left.
        pass
    finally:
        asker.close()


def refuse(asker: socket.socket, what: str, hint: str) -> None:
    reply(asker, {"ok": False, "what": what, "hint": hint})


def _listen(path: Path) -> socket.socket:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        control.bind(str(path))
    except OSError as error:
        what = f"the control socket {path} cannot be made: {error.strerror}"
        raise StartError(what, "give the container a writable /tmp") from error
    finally:
        os.umask(before)
    control.listen(8)
    control.setblocking(False)
    return control
