"""Which addresses the networks with a published port have, so that their default route leads to nobody.

A container has a default route as soon as one of its networks publishes a port, and a process in it may send whatever it likes there: a
short TTL is only a default. Docker takes the route's address from the network (`aux_addresses: DefaultGatewayIPv4`), so it is one that
nobody has. It must lie in the network's own subnet, which therefore cannot be left to Docker. Pure, but for `variables`.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from io3ops.adapters import files, machine
from io3ops.adapters.docker_engine import Network
from io3ops.errors import NoSubnet
from io3ops.settings import Settings
from io3ops.tools import Tools

# Outside of what Docker itself gives to networks, first: a small one there would cost it a large one.
POOLS = tuple(map(IPv4Network, ("10.239.0.0/16", "172.16.240.0/20", "192.168.240.0/20")))
# 13 addresses for containers; one has a use.
SIZE = 28
# By Compose's name of the network: how its variables begin, and which service is on it.
WALLED = {"edge": ("IO3OPS_EDGE", "gateway"), "metrics": ("IO3OPS_METRICS", "observer")}


@dataclass(frozen=True, kw_only=True)
class Taken:
    """`routes`: (network, device) of this machine; `networks`: the engine's."""

    routes: Sequence[tuple[IPv4Network, str]]
    networks: Sequence[Network]


def variables(tools: Tools, wanted: Sequence[str]) -> dict[str, str]:
    """What Compose must know of the wanted networks. Raises NoSubnet."""
    written, _ = files.read_env(tools.settings.env_file)
    taken = Taken(routes=machine.routes(), networks=tools.engine.networks())
    return choose(tools.settings, wanted, written, taken)


def wanted(overlays: Sequence[str]) -> tuple[str, ...]:
    return ("edge", *(("metrics",) if "compose/observe-metrics.yaml" in overlays else ()))


def choose(settings: Settings, names: Sequence[str], written: Mapping[str, str], taken: Taken) -> dict[str, str]:
    """For each network the subnet that it had, where nobody else has taken it; else a free one."""
    pools = (settings.subnet_pool,) if settings.subnet_pool else POOLS
    found: dict[str, IPv4Network] = {}
    for name in names:
        mine = own(taken.networks, settings.project, name)
        others = [*found.values(), *_others(taken, mine)]
        before = _parsed(written.get(f"{WALLED[name][0]}_SUBNET", ""))
        if before and any(before.subnet_of(pool) for pool in pools) and not _clash(before, mine, others, taken):
            found[name] = before
            continue
        routes = [route for route, device in taken.routes if mine is None or device != mine.bridge]
        free = (
            net
            for net in _candidates(pools, f"{settings.project}\0{settings.root}\0{name}")
            if not _overlaps(net, [*others, *routes])
        )
        chosen = next(free, None)
        if chosen is None:
            raise NoSubnet(
                f"no addresses are free for the network {name!r}: {', '.join(map(str, pools))} are all routed or used by Docker",
                hint="name a range that nothing here uses: add IO3OPS_SUBNET_POOL=10.99.0.0/24 to .env",
            )
        found[name] = chosen
    return {key: value for name, net in found.items() for key, value in _shape(name, net).items()}


def own(networks: Sequence[Network], project: str, name: str) -> Network | None:
    """The project's network of this name, as it stands."""
    return next((n for n in networks if (n.project, n.name) == (project, name)), None)


def misshapen(settings: Settings, values: Mapping[str, str], networks: Sequence[Network]) -> tuple[Network, ...]:
    """The project's networks that are not as the variables say: those of an older release have a way out."""
    found = []
    for name, (prefix, _) in WALLED.items():
        mine = own(networks, settings.project, name)
        if mine and f"{prefix}_SUBNET" in values:
            shape = (mine.subnets, mine.nowhere, mine.ipv6)
            if shape != ((values[f"{prefix}_SUBNET"],), values[f"{prefix}_NOWHERE"], False):
                found.append(mine)
    return tuple(found)


def _shape(name: str, net: IPv4Network) -> dict[str, str]:
    prefix, _ = WALLED[name]
    # The last one that a machine may have: Docker counts from the first.
    return {f"{prefix}_SUBNET": str(net), f"{prefix}_NOWHERE": str(net.broadcast_address - 1)}


def _others(taken: Taken, mine: Network | None) -> list[IPv4Network]:
    nets = (net for network in taken.networks if network is not mine for net in network.subnets)
    return [net for text in nets if (net := _parsed(text, any_size=True))]


def _clash(net: IPv4Network, mine: Network | None, others: Sequence[IPv4Network], taken: Taken) -> bool:
    if _overlaps(net, others):
        return True
    if mine is None or str(net) not in mine.subnets:
        return _overlaps(net, [route for route, _ in taken.routes])
    # It stands and works; a wider route of a VPN that came later does not matter to it.
    return any(route.subnet_of(net) for route, device in taken.routes if device != mine.bridge)


def _overlaps(net: IPv4Network, others: Sequence[IPv4Network]) -> bool:
    return any(net.overlaps(other) for other in others)


def _candidates(pools: Sequence[IPv4Network], seed: str) -> Iterator[IPv4Network]:
    """Every subnet of the pools. Clones begin at different ones, so that two which start at once seldom choose the same."""
    first = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    for pool in pools:
        count = 1 << (SIZE - pool.prefixlen)
        for step in range(count):
            yield IPv4Network((int(pool.network_address) + ((first + step) % count) * (1 << (32 - SIZE)), SIZE))


def _parsed(text: str, *, any_size: bool = False) -> IPv4Network | None:
    try:
        net = ipaddress.ip_network(text)
    except ValueError:
        return None
    return net if isinstance(net, IPv4Network) and (any_size or net.prefixlen == SIZE) else None
