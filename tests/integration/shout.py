"""Runs in a container without any right: sends to each target whatever an unprivileged process may send, by every way it knows.

`shout.py PORT ADDRESS…`: UDP and TCP, with a TTL of its own and the default one; by the route, past it by every device, and by way of every
bridge (a loose source route).
"""

import contextlib
import itertools
import socket
import struct
import sys


def routes() -> list[list[str]]:
    with open("/proc/net/route", encoding="ascii") as file:
        return [line.split() for line in file.read().splitlines()[1:]]


def devices() -> list[str]:
    return sorted({row[0] for row in routes()})


def bridges() -> list[bytes]:
    """The first address of each network that this container is on."""
    nets = [struct.pack("<I", int(row[1], 16)) for row in routes() if row[2] == "00000000" and row[1] != "00000000"]
    return [net[:3] + bytes([net[3] + 1]) for net in nets]


def send(
    target: tuple[str, int], kind: int, ttl: int, *, device: str = "", routed: bool = True, by: bytes = b""
) -> None:
    with socket.socket(socket.AF_INET, kind) as end, contextlib.suppress(OSError):
        if ttl:
            end.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        if device:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        if not routed:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
        if by:
            end.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x83\x07\x04" + by)
        end.setblocking(False)
        end.connect(target)
        end.send(b"out")


def main() -> None:
    targets = [(address, int(sys.argv[1])) for address in sys.argv[2:]]
    kinds, ttls = (socket.SOCK_DGRAM, socket.SOCK_STREAM), (64, 255, 0)
    for target, kind, ttl in itertools.product(targets, kinds, ttls):
        for device, routed in itertools.product(("", *devices()), (True, False)):
            send(target, kind, ttl, device=device, routed=routed)
        for hop in bridges():
            send(target, kind, ttl, by=hop)
    print("sent", flush=True)


main()
