"""The way out, as squid reads it: one line for each (host, port) that the table names, and the company's proxy. Pure."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from io3ops.routing.plan import HOST_ALIAS
from io3ops.routing.table import LOOPBACK

Origin = tuple[str, str, int]


def egress(outside: Collection[Origin], proxy: str = "", direct: Collection[str] = ()) -> str:
    """The generated part of squid's configuration; everything that it does not name is refused.

    `outside`: (scheme, host, port). `proxy`: URL of a company's proxy, through which https goes; hosts that `direct` (as in NO_PROXY)
    names go past it, and so does plain http, which is only for machines of the user's own.
    """
    lines = ["# Written by `io3ops up` from runtime/routing.yaml: nothing else can be reached."]
    # Without anything outside the proxy of some shell is no reason to write another file.
    parent = urlsplit(proxy) if proxy and outside else None
    straight = [host for scheme, host, _ in outside if scheme == "http" or _matches(host, direct)]
    for number, (scheme, host, port) in enumerate(outside, 1):
        lines += [f"acl host_{number} dstdomain -n {host}", f"acl port_{number} port {port}"]
        how = "CONNECT" if scheme == "https" else "plain call"
        # Behind a company's proxy an outside name cannot be looked up here.
        inward = "" if parent and host not in straight else " !inward"
        lines.append(f"http_access allow {how} host_{number} port_{number}{inward}")
    if parent and parent.hostname:
        host = HOST_ALIAS if parent.hostname in LOOPBACK else parent.hostname
        login = f" login={parent.username}:{parent.password or ''}" if parent.username else ""
        options = f"no-query no-digest no-netdb-exchange default name=company connect-timeout=5{login}"
        lines.append(f"cache_peer {host} parent {parent.port or 3128} 0 {options}")
        if straight:
            lines += [f"acl straight dstdomain -n {host}" for host in sorted(set(straight))]
            lines += [
                "cache_peer_access company deny straight",
                "always_direct allow straight",
                "never_direct allow !straight",
            ]
        else:
            lines.append("never_direct allow all")
    return "\n".join(lines) + "\n"


def _matches(host: str, direct: Collection[str]) -> bool:
    """As NO_PROXY does it: a name, or the end of one after a dot."""
    return any(host == name.lstrip(".") or host.endswith(f".{name.lstrip('.')}") for name in direct if name)
