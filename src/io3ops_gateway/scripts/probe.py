"""`python3 -I -S probe.py JSON`: try to get out of a container's network, and print what happened.

`io3ops verify-isolation` runs it in the network of each container. JSON: {"tcp": [[host, port]], "udp": [[host, port]], "names": [name],
"proxy": [host, port], "through": [[method, target]]}. The output has the same keys, each with the result of every try, and "ways": the
default routes, each with whether a machine has its address. TCP and UDP are tried with a TTL of their own, by the route and past it through
each device, as any process may. May touch: outgoing packets to exactly the given addresses and to those of the routes; no content.
"""

import contextlib
import json
import socket
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SECONDS = 3.0
# Enough for any network. The container's default is one hop, but any process can set its own.
TTL = 64
# A DNS query for the root's name servers, which every DNS server answers.
QUESTION = b"\x69\x6f\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"
NOWHERE = "0.0.0.0"


def tcp(host: str, port: int, device: str = "") -> str:
    """Return `open`, or why there is no connection."""
    return _try(socket.SOCK_STREAM, host, port, device)


def udp(host: str, port: int, device: str = "") -> str:
    """Return `open` when a DNS query is answered, or why not."""
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
    """Return (address, device) of each default route in /proc/net/route."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return [
        (socket.inet_ntoa(int(row[2], 16).to_bytes(4, sys.byteorder)), row[0])
        for row in rows
        if row[1] == row[7] == "00000000"
    ]


def devices(text: str) -> list[str]:
    """Return the devices in /proc/net/route."""
    return sorted({line.split()[0] for line in text.splitlines()[1:]})


def routes6(text: str) -> list[tuple[str, str]]:
    """Return (address, device) of each default route in /proc/net/ipv6_route that leaves this machine."""
    rows = [line.split() for line in text.splitlines()]
    return [
        (socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[4])), row[9])
        for row in rows
        if row[1] == "00" and set(row[0]) == {"0"} and row[9] != "lo"
    ]


def knock(address: str) -> None:
    """Make the kernel ask the network who has an address."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.sendto(b"", (address, 9))


def somebody(address: str, table: str) -> bool:
    """Whether a machine has an address, by the kernel's table /proc/net/arp. A route without an address leads to every machine."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return address == NOWHERE or any(row[0] == address and int(row[2], 16) & 2 for row in rows)


def _read(path: str) -> str:
    # A kernel without IPv6 has no such file.
    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
        return file.read()
    return ""


def name(value: str) -> str:
    """Return the first address of a name; "" when it has none here."""
    try:
        return str(socket.getaddrinfo(value, None)[0][4][0])
    except OSError:
        return ""


def through(proxy: tuple[str, int], method: str, target: str) -> str:
    """Return the proxy's status for a target (403: refused, 200: an open tunnel), or why it did not respond."""
    try:
        with socket.create_connection(proxy, SECONDS) as connection:
            # Longer than the proxy's own limit for a connection: its response says more than our timeout.
            connection.settimeout(12)
            connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            return connection.recv(64).split(b" ")[1].decode()
    except (OSError, IndexError) as error:
        return str(error) or type(error).__name__


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Try everything at once. Return the results under the keys of the job."""
    table = _read("/proc/net/route")
    for address, _ in routes(table):
        knock(address)
    with ThreadPoolExecutor(max_workers=64) as pool:
        by_tcp, by_udp = (
            [
                [pool.submit(attempt, host, port, device) for device in ("", *devices(table))]
                for host, port in job.get(key, ())
            ]
            for key, attempt in (("tcp", tcp), ("udp", udp))
        )
        by_name = [pool.submit(name, value) for value in job.get("names", ())]
        by_proxy = [pool.submit(through, tuple(job["proxy"]), *pair) for pair in job.get("through", ())]
    return {
        "tcp": [_best(f.result() for f in tries) for tries in by_tcp],
        "udp": [_best(f.result() for f in tries) for tries in by_udp],
        "names": [f.result() for f in by_name],
        "through": [f.result() for f in by_proxy],
        # After the tries, so that a neighbour has had time to answer the kernel.
        "ways": [
            *([address, device, somebody(address, _read("/proc/net/arp"))] for address, device in routes(table)),
            *([address, device, True] for address, device in routes6(_read("/proc/net/ipv6_route"))),
        ],
    }


def _best(results: Iterable[str]) -> str:
    """Return `open` when one of the tries was, else the result of the first."""
    tries = list(results)
    return "open" if "open" in tries else tries[0]


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
