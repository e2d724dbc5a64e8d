"""`python3 -I -S control.py reload|status`: send a command to the gateway's first process, and print its reply as JSON.

`reload` reads a rendered litellm.yaml from stdin: a new generation of workers starts with it, is tried, and takes over. `io3ops apply` runs
this file inside the gateway's container, so it imports next to nothing. May touch: the control socket, stdin, stdout.
Exit codes: 0 done, 1 refused (the reply says why), 64 wrong arguments, 69 no reply.
"""

import json
import os
import socket
import sys

PATH = "/tmp/io3ops-control.sock"
# Longer than the longest start, so that the gateway always replies before.
SECONDS = 90.0

OK, REFUSED, USAGE, UNAVAILABLE = 0, 1, 64, 69


def ask(path: str, command: dict[str, object]) -> bytes:
    """Send a command and return the line of the reply.

    Raises:
        OSError: the gateway does not reply.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(SECONDS)
        connection.connect(path)
        connection.sendall(json.dumps(command).encode() + b"\n")
        received = b""
        while part := connection.recv(65_536):
            received += part
    return received


def main(arguments: list[str]) -> int:
    """Send one command. Return one of the exit codes above."""
    if arguments not in (["reload"], ["reload", "--try-modes"], ["status"]):
        sys.stderr.write("control: usage: control reload [--try-modes] < litellm.yaml | control status\n")
        return USAGE
    command: dict[str, object] = {"command": arguments[0]}
    if arguments[0] == "reload":
        command |= {"config": sys.stdin.read(), "try_modes": "--try-modes" in arguments}
    try:
        reply = json.loads(ask(os.environ.get("IO3_CONTROL") or PATH, command))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"control: the gateway's first process does not reply: {error}\n")
        return UNAVAILABLE
    sys.stdout.write(json.dumps(reply) + "\n")
    return OK if reply.get("ok") else REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
