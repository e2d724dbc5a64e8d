"""Chooses the subnets of networks with a published port, and a default route in each that leads to no machine.

As soon as one of its networks publishes a port, a container has a default route, and any process in it can send packets there:
a short TTL is only a default. Docker takes the route's address from the network (`aux_addresses: DefaultGatewayIPv4`), so we give
it an address that no machine has. That must be in the network's subnet, so we choose the subnet too. Pure, except `variables`.
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

# The first is outside of Docker's own pools, where one of our small subnets would block a large one.
POOLS = tuple(map(IPv4Network, ("10.239.0.0/16", "172.16.240.0/20", "192.168.240.0/20")))
# Prefix length: 13 addresses for containers, of which one is used.
SIZE = 28
# By the network's name in Compose: the prefix of its variables, and the service on it.
WALLED = {"edge": ("IO3OPS_EDGE", "gateway"), "metrics": ("IO3OPS_METRICS", "observer")}


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Addresses in use. `routes`: (network, device) of this machine; `networks`: those of the engine."""

    routes: Sequence[tuple[IPv4Network, str]]
    networks: Sequence[Network]


def variables(tools: Tools, wanted: Sequence[str]) -> dict[str, str]:
    """Return the variables for Compose of the wanted networks. Raises NoSubnet."""
    written, _ = files.read_env(tools.settings.env_file)
    taken = Taken(routes=machine.routes(), networks=tools.engine.networks())
    return choose(tools.settings, wanted, written, taken)


def wanted(overlays: Sequence[str]) -> tuple[str, ...]:
    """Return the networks with a published port that the overlays need."""
    return ("edge", *(("metrics",) if "compose/observe-metrics.yaml" in overlays else ()))


def choose(settings: Settings, names: Sequence[str], written: Mapping[str, str], taken: Taken) -> dict[str, str]:
    """Choose a subnet for each network: the one that it had before if it is still free, else another free one. Raises NoSubnet."""
    pools = (settings.subnet_pool,) if settings.subnet_pool else POOLS
    subnets: dict[str, IPv4Network] = {}
    for name in names:
        mine = own(taken.networks, settings.project, name)
        others = [*subnets.values(), *_others(taken, mine)]
        before = _parsed(written.get(f"{WALLED[name][0]}_SUBNET", ""))
        if before and any(before.subnet_of(pool) for pool in pools) and not _clash(before, mine, others, taken):
            subnets[name] = before
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
                f"no addresses are free for the network {name!r}: all of {', '.join(map(str, pools))} are routed or used by Docker",
                hint="choose a range that this machine does not use: add IO3OPS_SUBNET_POOL=10.99.0.0/24 to .env",
            )
        subnets[name] = chosen
    return {key: value for name, net in subnets.items() for key, value in _shape(name, net).items()}


def own(networks: Sequence[Network], project: str, name: str) -> Network | None:
    """Return the project's existing network of this name, None when there is none."""
    return next((n for n in networks if (n.project, n.name) == (project, name)), None)


def misshapen(settings: Settings, values: Mapping[str, str], networks: Sequence[Network]) -> tuple[Network, ...]:
    """Return the project's networks that differ from the variables. Those of an older release have a way out."""
    different = []
    for name, (prefix, _) in WALLED.items():
        mine = own(networks, settings.project, name)
        if mine and f"{prefix}_SUBNET" in values:
            shape = (mine.subnets, mine.nowhere, mine.ipv6)
            if shape != ((values[f"{prefix}_SUBNET"],), values[f"{prefix}_NOWHERE"], False):
                different.append(mine)
    return tuple(different)


def _shape(name: str, net: IPv4Network) -> dict[str, str]:
    prefix, _ = WALLED[name]
    # The last host address of the subnet, because Docker assigns addresses from the first.
    return {f"{prefix}_SUBNET": str(net), f"{prefix}_NOWHERE": str(net.broadcast_address - 1)}


def _others(taken: Taken, mine: Network | None) -> list[IPv4Network]:
    nets = (net for network in taken.networks if network is not mine for net in network.subnets)
    return [net for text in nets if (net := _parsed(text, any_size=True))]


def _clash(net: IPv4Network, mine: Network | None, others: Sequence[IPv4Network], taken: Taken) -> bool:
    if _overlaps(net, others):
        return True
    if mine is None or str(net) not in mine.subnets:
        return _overlaps(net, [route for route, _ in taken.routes])
    # The network exists and works. A wider route, of a VPN that was started later, does not affect it.
    return any(route.subnet_of(net) for route, device in taken.routes if device != mine.bridge)


def _overlaps(net: IPv4Network, others: Sequence[IPv4Network]) -> bool:
    return any(net.overlaps(other) for other in others)


def _candidates(pools: Sequence[IPv4Network], seed: str) -> Iterator[IPv4Network]:
    """Yield every subnet of the pools. Each clone begins at another one, so two that start together rarely choose the same."""
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
