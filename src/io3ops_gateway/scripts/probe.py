"""`python3 -I -S probe.py JSON`: tries to get out, from inside a container's network, and says what happened.

`io3ops verify-isolation` runs it in the network of each container. JSON: {"tcp": [[host, port]], "names": [name],
"proxy": [host, port], "through": [[method, target]]}; the answer has the same keys, each with what came of every try.
May touch: outgoing connections to exactly what it is told; it sends no content.
"""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SECONDS = 3.0


def tcp(host: str, port: int) -> str:
    """`open`, or why a connection did not come about."""
    try:
        with socket.create_connection((host, port), SECONDS):
            return "open"
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__


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
    with ThreadPoolExecutor(max_workers=32) as pool:
        opened = [pool.submit(tcp, host, port) for host, port in asked.get("tcp", ())]
        named = [pool.submit(name, value) for value in asked.get("names", ())]
        proxied = [pool.submit(through, tuple(asked["proxy"]), *pair) for pair in asked.get("through", ())]
    return {
        "tcp": [f.result() for f in opened],
        "names": [f.result() for f in named],
        "through": [f.result() for f in proxied],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
