"""`python3 -I -S healthcheck.py`: exit 0 when the gateway's readiness route answers 200, else 1 with one line on stderr.

The container's health check runs this file every few seconds, so it imports next to nothing. May touch: one connection to the gateway's own
port. Readiness never calls a model.
"""

import os
import socket
import sys

TIMEOUT_SECONDS = 3.0
REQUEST = b"GET /health/readiness HTTP/1.0\r\nHost: localhost\r\n\r\n"


def status(connection: socket.socket) -> int:
    """Return the HTTP status of the readiness route.

    Raises:
        OSError: the connection broke or took too long.
        ValueError: the other side does not speak HTTP.
    """
    connection.sendall(REQUEST)
    received = b""
    while b"\r\n" not in received and len(received) < 4096 and (part := connection.recv(4096)):
        received += part
    words = received.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/"):
        raise ValueError("not an HTTP response")
    return int(words[1])


def main() -> int:
    """Ask once. Return 0 when the gateway is ready, else 1."""
    port = int(os.environ.get("IO3_PORT") or 4000)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.connect(("127.0.0.1", port))
            code = status(connection)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"gateway: not ready on port {port}: {error}\n")
        return 1
    if code != 200:
        sys.stderr.write(f"gateway: not ready on port {port}: HTTP {code}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
