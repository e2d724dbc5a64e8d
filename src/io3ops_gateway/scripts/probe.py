"""`python3 -I -S probe.py JSON`: tries to get out, from inside a container's network, and says what happened.

`io3ops verify-isolation` runs it in the network of each container. JSON: {"tcp": [[host, port]], "udp": [[host, port]], "names": [name],
"proxy": [host, port], "through": [[method, target]]}; the answer has the same keys, each with what came of every try, and "ways": the
default routes, each with whether somebody answers there. TCP and UDP are tried with a TTL of their own, by the route and past it through
each device, as any process may. May touch: outgoing packets to exactly what it is told and to the routes' own addresses; no content.
"""

import contextlib
import json
import socket
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SECONDS = 3.0
# Enough for any network: the container's default is one hop, and no process has to keep to it.
TTL = 64
# A question of DNS for the root's name servers: whoever answers DNS answers it.
QUESTION = b"\x69\x6f\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"
NOWHERE = "0.0.0.0"


def tcp(host: str, port: int, device: str = "") -> str:
    """`open`, or why a connection did not come about."""
    return _try(socket.SOCK_STREAM, host, port, device)


def udp(host: str, port: int, device: str = "") -> str:
    """`open` when a question of DNS is answered, or why not."""
    return _try(socket.SOCK_DGRAM, host, port, device)


def _try(kind: int, host: str, port: int, device: str) -> str:
    try:
        with socket.socket(socket.AF_INET, kind) as end:
            end.settimeout(SECONDS)
            end.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, TTL)
            if device:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            end.connect((host, port))
            if kind == socket.SOCK_DGRAM:
                end.send(QUESTION)
                end.recv(512)
            return "open"
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__


def routes(text: str) -> list[tuple[str, str]]:
    """(address, device) of the default routes in /proc/net/route."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return [
        (socket.inet_ntoa(int(row[2], 16).to_bytes(4, sys.byteorder)), row[0])
        for row in rows
        if row[1] == row[7] == "00000000"
    ]


def devices(text: str) -> list[str]:
    """The devices in /proc/net/route."""
    return sorted({line.split()[0] for line in text.splitlines()[1:]})


def routes6(text: str) -> list[tuple[str, str]]:
    """(address, device) of the default routes in /proc/net/ipv6_route that lead away."""
    rows = [line.split() for line in text.splitlines()]
    return [
        (socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[4])), row[9])
        for row in rows
        if row[1] == "00" and set(row[0]) == {"0"} and row[9] != "lo"
    ]


def knock(address: str) -> None:
    """Have the kernel ask who has an address."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.sendto(b"", (address, 9))


def somebody(address: str, table: str) -> bool:
    """Whether the kernel knows who has an address, from /proc/net/arp. A route without one leads to whoever is there."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return address == NOWHERE or any(row[0] == address and int(row[2], 16) & 2 for row in rows)


def _read(path: str) -> str:
    # A kernel without IPv6 has no such file.
    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
        return file.read()
    return ""


def name(value: str) -> str:
    """The first address of a name, or '' when it has none here."""
    try:
        return str(socket.getaddrinfo(value, None)[0][4][0])
    except OSError:
        return ""


def through(proxy: tuple[str, int], method: str, target: str) -> str:
    """The status that the proxy gives for a target: 403 when it refuses, 200 for an open tunnel, or why it did not answer."""
    try:
        with socket.create_connection(proxy, SECONDS) as connection:
            # Longer than the proxy's own limit for a connection: its answer says more than our timeout.
            connection.settimeout(12)
            connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            return connection.recv(64).split(b" ")[1].decode()
    except (OSError, IndexError) as error:
        return str(error) or type(error).__name__


def main(asked: dict[str, Any]) -> dict[str, Any]:
    """All tries at once."""
    table = _read("/proc/net/route")
    for address, _ in routes(table):
        knock(address)
    with ThreadPoolExecutor(max_workers=64) as pool:
        opened, told = (
            [
                [pool.submit(way, host, port, device) for device in ("", *devices(table))]
                for host, port in asked.get(word, ())
            ]
            for word, way in (("tcp", tcp), ("udp", udp))
        )
        named = [pool.submit(name, value) for value in asked.get("names", ())]
        proxied = [pool.submit(through, tuple(asked["proxy"]), *pair) for pair in asked.get("through", ())]
    return {
        "tcp": [_best(f.result() for f in tries) for tries in opened],
        "udp": [_best(f.result() for f in tries) for tries in told],
        "names": [f.result() for f in named],
        "through": [f.result() for f in proxied],
        # After the tries, so that whoever has the address has had the time to say so.
        "ways": [
            *([address, device, somebody(address, _read("/proc/net/arp"))] for address, device in routes(table)),
            *([address, device, True] for address, device in routes6(_read("/proc/net/ipv6_route"))),
        ],
    }


def _best(said: Iterable[str]) -> str:
    found = list(said)
    return "open" if "open" in found else found[0]


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
