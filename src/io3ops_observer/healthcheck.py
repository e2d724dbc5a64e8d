"""Check that the observer answers and has read the log to its end: exit 0, and one line of JSON that says how far it is.

The container's health check and `io3ops health` run it as a file, `python3 -I -S healthcheck.py`, so it imports almost nothing.
Touches one connection to its own port.
"""

import os
import socket
import sys

TIMEOUT_SECONDS = 3.0
REQUEST = b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n"


def main() -> int:
    answer = b""
    try:
        with socket.create_connection(
            ("127.0.0.1", int(os.environ.get("IO3_PORT") or 9464)), TIMEOUT_SECONDS
        ) as connection:
            connection.sendall(REQUEST)
            while len(answer) < 4096 and (part := connection.recv(4096)):
                answer += part
    except (OSError, ValueError) as error:
        sys.stdout.write(f"it does not answer: {error}\n")
        return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    sys.stdout.write(body.decode("utf-8", "replace") + "\n")
    return 0 if head.split(None, 2)[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
