"""`python3 -I -S control.py reload|status`: asks the running gateway's first process, prints its answer as JSON.

`reload` takes a rendered litellm.yaml from stdin: a new generation of workers starts with it, is tried, and takes over. Run by
`io3ops apply` as a file inside the gateway's container, so it imports next to nothing. May touch: the control socket, stdin, stdout.
Exit codes: 0 done, 1 refused (the answer says why), 64 wrong arguments, 69 nobody listens.
"""

import json
import os
import socket
import sys

PATH = "/tmp/io3ops-control.sock"
# Longer than the longest start: whoever asked is told in any case.
SECONDS = 90.0

OK, REFUSED, USAGE, UNAVAILABLE = 0, 1, 64, 69


def ask(path: str, command: dict[str, object]) -> bytes:
    """The answer's line. Raises OSError when nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(SECONDS)
        connection.connect(path)
        connection.sendall(json.dumps(command).encode() + b"\n")
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    return answer


def main(arguments: list[str]) -> int:
    """Ask once. Returns one of the exit codes above."""
    if arguments not in (["reload"], ["reload", "--try-modes"], ["status"]):
        sys.stderr.write("control: usage: control reload [--try-modes] < litellm.yaml | control status\n")
        return USAGE
    command: dict[str, object] = {"command": arguments[0]}
    if arguments[0] == "reload":
        command |= {"config": sys.stdin.read(), "try_modes": "--try-modes" in arguments}
    try:
        answer = ask(os.environ.get("IO3_CONTROL") or PATH, command)
        said = json.loads(answer)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"control: the gateway's first process does not answer: {error}\n")
        return UNAVAILABLE
    sys.stdout.write(json.dumps(said) + "\n")
    return OK if said.get("ok") else REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
