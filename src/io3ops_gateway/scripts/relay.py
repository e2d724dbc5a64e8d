"""`python3 -I -S relay.py HOST PORT`: join stdin and stdout to a TCP connection, as `nc` does.

The host reaches the runtime through it (`docker exec -i`), because the runtime has no port on the host. Each direction ends on its own: the
end of stdin closes only the sending half. It exits when the remote side has finished. Exit codes: 0 done, 64 wrong arguments, 69 no
connection, 74 the connection broke. May touch: stdin, stdout, one outgoing TCP connection.
"""

import _thread
import os
import socket
import sys

CONNECT_SECONDS = 5.0
# Larger than a pipe's 64 KiB, because the socket can deliver more at once.
CHUNK = 1 << 18

OK, USAGE, UNAVAILABLE, BROKEN = 0, 64, 69, 74


def relay(connection: socket.socket, source: int, sink: int) -> None:
    """Copy `source` to the connection and the connection to `sink` until the remote side has finished.

    Raises:
        OSError: the connection or `sink` broke.
    """
    _thread.start_new_thread(_send, (connection, source))
    while part := connection.recv(CHUNK):
        view = memoryview(part)
        while view:
            view = view[os.write(sink, view) :]


def _send(connection: socket.socket, source: int) -> None:
    try:
        while part := os.read(source, CHUNK):
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        # The remote side has gone; the receiving half notices that too, and reports it.
        return


def main(arguments: list[str]) -> int:
    """Connect and relay. Return one of the exit codes above."""
    port = int(arguments[1]) if len(arguments) == 2 and arguments[1].isdecimal() else 0
    if not 0 < port < 65536:
        sys.stderr.write("relay: usage: relay HOST PORT\n")
        return USAGE
    host = arguments[0]
    try:
        connection = socket.create_connection((host, port), CONNECT_SECONDS)
    except socket.gaierror as error:
        return _fail(UNAVAILABLE, host, port, f"the name cannot be resolved ({error.strerror})")
    except TimeoutError:
        return _fail(UNAVAILABLE, host, port, f"no answer within {CONNECT_SECONDS:g} s")
    except (OSError, UnicodeError) as error:
        # UnicodeError: not a host name at all, such as one with an empty label.
        return _fail(UNAVAILABLE, host, port, getattr(error, "strerror", None) or str(error))
    connection.settimeout(None)
    try:
        relay(connection, sys.stdin.fileno(), sys.stdout.fileno())
    except OSError as error:
        return _fail(BROKEN, host, port, error.strerror or str(error))
    return OK


def _fail(code: int, host: str, port: int, reason: str) -> int:
    sys.stderr.write(f"relay: {host}:{port}: {reason}\n")
    return code


if __name__ == "__main__":
    # Not `sys.exit`: a thread may still wait for stdin, and there is nothing to clean up.
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
