"""This machine: operating system, memory, cores, graphics cards, free ports, routes. Reads only."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This machine's properties.

    `distribution` and `codename` as in os-release, '' unless Linux. `memory` in bytes. `gpu_groups`: ids of the groups that own
    the AMD devices.
    """

    system: str
    distribution: str
    codename: str
    memory: int
    cores: int
    root: bool
    systemd: bool
    nvidia: bool
    amd: bool
    gpu_groups: tuple[int, ...] = ()


def look() -> Machine:
    """Collect the properties without starting a program."""
    release = _os_release()
    return Machine(
        system=platform.system(),
        distribution=release.get("ID", ""),
        codename=release.get("VERSION_CODENAME", ""),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cores=os.cpu_count() or 1,
        root=os.geteuid() == 0,
        systemd=Path("/run/systemd/system").is_dir(),
        nvidia=Path("/proc/driver/nvidia/version").exists(),
        amd=Path("/dev/kfd").exists() and Path("/dev/dri").exists(),
        gpu_groups=_owners(Path("/dev/kfd"), Path("/dev/dri/renderD128")),
    )


def _owners(*paths: Path) -> tuple[int, ...]:
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            found.append(path.stat().st_gid)
    return tuple(dict.fromkeys(found))


def port_free(port: int) -> bool:
    """Return whether no program listens at 127.0.0.1:port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            # This user may not bind ports below 1024, but the engine may.
            return True
        except OSError:
            return False
    return True


def nameservers() -> tuple[str, ...]:
    """Return the IPv4 addresses of this machine's resolvers, except loopback ones; () when they cannot be read."""
    with contextlib.suppress(OSError):
        lines = (line.split() for line in Path("/etc/resolv.conf").read_text("utf-8", "replace").splitlines())
        found = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
        return tuple(a for a in dict.fromkeys(found) if a.count(".") == 3 and not a.startswith("127."))
    return ()


def routes() -> tuple[tuple[IPv4Network, str], ...]:
    """Return (network, device) of each IPv4 route of this machine, except default routes; () unless on Linux."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/net/route").read_text("ascii").splitlines()[1:]:
            device, target, _, _, _, _, _, mask = line.split()[:8]
            # The file has the addresses in the machine's own byte order.
            address, bits = (int(word, 16).to_bytes(4, sys.byteorder) for word in (target, mask))
            if any(bits):
                found.append((IPv4Network((address, str(IPv4Address(bits)))), device))
    return tuple(found)


def _os_release() -> dict[str, str]:
    with contextlib.suppress(OSError):
        lines = Path("/etc/os-release").read_text("utf-8", "replace").splitlines()
        return {k: v.strip('"') for k, _, v in (line.partition("=") for line in lines) if v}
    return {}
