"""The gateway's first process, asked through `docker exec`: to take a new configuration without a restart."""

from __future__ import annotations

import json
from typing import Any

from io3ops.adapters.process import Processes
from io3ops.errors import GatewayError

CONTROL = ("/usr/bin/python3", "-I", "-S", "/opt/io3ops/io3ops_gateway/scripts/control.py")
# Longer than the gateway itself waits for a generation, so that its own answer is heard.
SECONDS = 100.0


class GatewayControl:
    """Speaks with `io3ops_gateway.scripts.control` in a container."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def reload(self, docker: str, container: str, text: str, *, try_modes: bool) -> dict[str, Any]:
        """Hand over a rendered file; `ok` says whether it serves now, else `what` and `hint`.

        Raises GatewayError when nobody in the container answers.
        """
        return self._ask(docker, container, ["reload", *(["--try-modes"] if try_modes else [])], text.encode())

    def status(self, docker: str, container: str, *, seconds: float = SECONDS) -> dict[str, Any]:
        """The generation that serves, the digest of its configuration, its workers, and how many requests run and wait."""
        return self._ask(docker, container, ["status"], b"", seconds)

    def _ask(
        self, docker: str, container: str, words: list[str], stdin: bytes, seconds: float = SECONDS
    ) -> dict[str, Any]:
        done = self._processes.run([docker, "exec", "-i", container, *CONTROL, *words], stdin=stdin, timeout=seconds)
        try:
            said = json.loads(done.output)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise GatewayError(
                "the gateway does not answer to commands", details=done.tail(3), hint="`io3ops logs gateway` shows more"
            )
        return said
