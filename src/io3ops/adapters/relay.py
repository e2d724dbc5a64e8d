"""A port forward into the stack: 127.0.0.1:<free port> -> `docker exec` in the gateway -> the runtime.

The runtime publishes no port, so calls to its API start in the gateway's container. Every probe therefore also tests the path
that a prompt takes, with a runtime in the stack or outside it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from io3ops.adapters.process import Processes

RELAY = ("/usr/bin/python3", "-I", "-S", "/opt/io3ops/io3ops_gateway/scripts/relay.py")


class Relay:
    """Opens port forwards through a container that has `io3ops_gateway.scripts.relay`."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    @contextlib.contextmanager
    def forward(self, docker: str, container: str, url: str) -> Iterator[str]:
        """Return a loopback URL that leads to `url`, as `container` reaches it, for the length of the block."""
        parts = urlsplit(url)
        host, port = str(parts.hostname), parts.port or 11434
        argv = [docker, "exec", "-i", container, *RELAY, host, str(port)]
        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=self._serve, args=(server, argv), daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.getsockname()[1]}"
            finally:
                # close() does not wake a blocked accept(), but shutdown() does.
                with contextlib.suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)

    def _serve(self, server: socket.socket, argv: list[str]) -> None:
        processes = []
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                break
            with connection:
                # The docker command reads and writes the socket itself, so this process copies nothing.
                processes.append(self._processes.pipe(argv, connection.fileno(), connection.fileno()))
            processes = [p for p in processes if p.poll() is None]
        for process in processes:
            process.terminate()
            process.wait()
