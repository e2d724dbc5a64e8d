"""The gateway's supervisor, called through `docker exec`: a new configuration without a restart, and the status."""

from __future__ import annotations

import json
from typing import Any

from io3ops.adapters.process import Processes
from io3ops.errors import GatewayError

CONTROL = ("/usr/bin/python3", "-I", "-S", "/opt/io3ops/io3ops_gateway/scripts/control.py")
# Seconds. Longer than the gateway itself waits for new workers, so that its own error arrives.
SECONDS = 100.0


class GatewayControl:
    """Calls `io3ops_gateway.scripts.control` in a container."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def reload(self, docker: str, container: str, text: str, *, try_modes: bool) -> dict[str, Any]:
        """Pass a rendered configuration. The answer's `ok` says whether it serves now; else `what` and `hint` say why not.

        Raises GatewayError when the gateway does not answer.
        """
        return self._ask(docker, container, ["reload", *(["--try-modes"] if try_modes else [])], text.encode())

    def status(self, docker: str, container: str, *, seconds: float = SECONDS) -> dict[str, Any]:
        """Return the serving generation, its configuration's digest, its workers, and the numbers of running and waiting requests.

        Raises GatewayError when the gateway does not answer.
        """
        return self._ask(docker, container, ["status"], b"", seconds)

    def _ask(
        self, docker: str, container: str, words: list[str], stdin: bytes, seconds: float = SECONDS
    ) -> dict[str, Any]:
        done = self._processes.run([docker, "exec", "-i", container, *CONTROL, *words], stdin=stdin, timeout=seconds)
        try:
            answer = json.loads(done.output)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise GatewayError(
                "the gateway does not answer commands", details=done.tail(3), hint="`io3ops logs gateway` shows more"
            )
        return answer
