"""Sockets that clients connect to. Touches: the gateway's address."""

import socket

from io3ops_gateway.errors import PortError


def bind(host: str, port: int, *, shared: bool = True) -> socket.socket:
    """A bound socket that does not listen yet: until the gateway is ready, connections are refused.

    Raises:
        PortError: taken, not allowed, or not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if not shared:
            # Without this first try a second gateway would share the port with the first, unseen.
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        # One queue for each worker: a shared one would give a burst of connections to whoever wakes first.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        hint = "stop what listens there or set IO3_HOST and IO3_PORT"
        raise PortError(f"cannot listen on {host}:{port}: {error.strerror or error}", hint) from error
    return listener
