"""Runs in a container on the host's network: stands for the LAN and the Internet, and prints what arrives there.

`lan.py ADDRESS…`: each becomes a /24 behind a device of its own, whose other end is this program. So the kernel routes to it as to any
network, every packet that comes is seen, and none goes further.
"""

import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS, UP_RUNNING = 0x8916, 0x891C, 0x8914, 0x41


def device(address: str) -> int:
    """A tunnel that leads to this process."""
    tunnel = os.open("/dev/net/tun", os.O_RDWR)
    made = fcntl.ioctl(tunnel, TUNSETIFF, struct.pack("16sH22x", b"io3lan%d", IFF_TUN | IFF_NO_PI))
    name = made[:16]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.0")):
            family = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, name + family)
        fcntl.ioctl(control, SIOCSIFFLAGS, name + struct.pack("H14x", UP_RUNNING))
    return tunnel


def main() -> None:
    tunnels = [device(address) for address in sys.argv[1:]]
    print("ready", flush=True)
    while True:
        for tunnel in select.select(tunnels, [], [])[0]:
            packet = os.read(tunnel, 2000)
            if packet[0] >> 4 == 4:
                head = (packet[0] & 15) * 4
                port = struct.unpack("!H", packet[head + 2 : head + 4])[0]
                target, kind = socket.inet_ntoa(packet[16:20]), {6: "tcp", 17: "udp"}.get(packet[9], packet[9])
                print(f"{kind} {target} {port}", flush=True)


main()
