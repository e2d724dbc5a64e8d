"""The sockets that clients connect to. Touches: the gateway's address."""

import socket

from io3ops_gateway.errors import PortError


def bind(host: str, port: int, *, shared: bool = True) -> socket.socket:
    """Return a bound socket that does not listen yet, so that connections are refused until the gateway is ready.

    `shared`: another socket of this gateway may have the same address already.

    Raises:
        PortError: the address is taken, not allowed, or not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if not shared:
            # Without this first try a second gateway would silently share the port with the first.
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        # One queue for each worker: from a shared one, the worker that wakes first would take a whole burst of connections.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        hint = "stop the program that listens there, or set IO3_HOST and IO3_PORT"
        raise PortError(f"cannot listen on {host}:{port}: {error.strerror or error}", hint) from error
    return listener
