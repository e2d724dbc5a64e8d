"""Is the gateway ready? Exit 0 when its readiness route answers 200, else 1 with one line on stderr.

Run as a file by the container's health check, every few seconds, so it imports next to nothing:
`python3 -I -S healthcheck.py`. May touch: one connection to its own port. Readiness never calls a model.
"""

import os
import socket
import sys

TIMEOUT_SECONDS = 3.0
REQUEST = b"GET /health/readiness HTTP/1.0\r\nHost: localhost\r\n\r\n"


def status(connection: socket.socket) -> int:
    """The HTTP status of the readiness route.

    Raises:
        OSError: the connection broke or took too long.
        ValueError: what answered does not speak HTTP.
    """
    connection.sendall(REQUEST)
    answer = b""
    while b"\r\n" not in answer and len(answer) < 4096 and (part := connection.recv(4096)):
        answer += part
    words = answer.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/"):
        raise ValueError("not an HTTP answer")
    return int(words[1])


def main() -> int:
    """Ask once. Returns 0 when ready, else 1."""
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
