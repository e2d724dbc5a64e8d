"""No packet of a container with prompts reaches another network, whatever a process in it sends: looked for where it would arrive.

A container on the host's own network plays the LAN and the Internet, and sees every packet that the kernel routes there; their addresses
are of the ranges that RFC 5737 keeps for documentation. What is looked for is seen to arrive first: from an ordinary container, and from
one on a network as an older release made it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
import yaml
from tests.beside import Part, network, prints
from tests.clone import PATIENCE, Clone, until

from io3ops.adapters import files, machine
from io3ops.operations.privacy import isolation
from io3ops.settings import read_settings
from io3ops.tools import make_tools

pytestmark = pytest.mark.containers

HERE = "tests/integration"
LAN, INTERNET = "198.51.100.77", "203.0.113.77"
# How a container of the stack is held, apart from its network.
CONTAINED = [
    "--user",
    "2100010001:2100010001",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges:true",
    "--sysctl",
    "net.ipv4.ip_default_ttl=1",
]


class Lan:
    """What arrives there. Each sender has a port of its own."""

    def __init__(self, clone: Clone, parts: ExitStack) -> None:
        self.clone = clone
        self.image = clone.docker("inspect", "-f", "{{.Config.Image}}", clone.container("gateway")).stdout.strip()
        part = Part(
            clone, "lan", self.image, ("-u", "/lan/lan.py", "198.51.100.1", "203.0.113.1"), entrypoint="/usr/bin/python3",
            networks=["host"], user="0:0", cap_drop=["ALL"], cap_add=["NET_ADMIN"], devices=["/dev/net/tun"],
            mounts={clone.path / HERE: "/lan"}, ready=prints("ready"),
        )  # fmt: skip
        self.part = parts.enter_context(part)

    def heard(self, port: int) -> set[str]:
        return {" ".join(line.split()[:2]) for line in self.part.said().splitlines() if line.endswith(f" {port}")}

    def shout_in(self, container: str, port: int) -> None:
        script = (self.clone.path / HERE / "shout.py").read_text()
        done = self.clone.docker("exec", container, "/usr/bin/python3", "-c", script, str(port), LAN, INTERNET)
        assert "sent" in done.stdout, done.stderr

    def shout_from(self, network: str, port: int, *options: str) -> None:
        script = (self.clone.path / HERE / "shout.py").read_text()
        done = self.clone.docker(
            "run",
            "--rm",
            "--network",
            network,
            *options,
            "--entrypoint",
            "/usr/bin/python3",
            self.image,
            "-c",
            script,
            str(port),
            LAN,
            INTERNET,
        )
        assert "sent" in done.stdout, done.stderr


EVERYTHING = {f"{kind} {address}" for kind in ("udp", "tcp") for address in (LAN, INTERNET)}


@pytest.fixture
def lan(running: Clone) -> Iterator[Lan]:
    with ExitStack() as parts:
        yield Lan(running, parts)


def test_nothing_of_the_stack_arrives_on_another_network(running: Clone, lan: Lan) -> None:
    with network(running, "old", "-o", "com.docker.network.bridge.enable_ip_masquerade=false") as old:
        lan.shout_from(old, 7001, *CONTAINED)
    until("a process on a network of the old shape gets out", lambda: lan.heard(7001) == EVERYTHING)

    lan.shout_in(running.container("gateway"), 7002)
    for service in ("gateway", "runtime"):
        # With the image of the gateway: the runtime's has no Python.
        lan.shout_from(f"container:{running.container(service)}", 7003, "--user", "10001:10001", "--cap-drop", "ALL")
    # Sent last and heard: whatever was sent before has arrived, or never will.
    lan.shout_from("bridge", 7004)
    until("an ordinary container gets out", lambda: lan.heard(7004) == EVERYTHING)
    assert (lan.heard(7002), lan.heard(7003)) == (set(), set())


def verified(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> dict[str, isolation.Finding]:
    """What `io3ops verify-isolation` finds, with addresses of this machine in the place of well-known ones."""
    monkeypatch.setattr(isolation, "PUBLIC", ((LAN, 443), (INTERNET, 53)))
    monkeypatch.setattr(isolation, "NAMES", ())
    monkeypatch.setattr(machine, "nameservers", tuple)
    tools = make_tools(read_settings(clone.env, clone.path, {}))
    return {finding.about: finding for finding in isolation.verify(tools)}


def test_the_published_port_answers_and_the_containers_know_no_way(
    running: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        assert client.get(f"http://127.0.0.1:{running.port}/health/liveliness").status_code == 200
    chosen, _ = files.read_env(running.path / ".env")
    routes = running.docker("exec", running.container("gateway"), "cat", "/proc/net/route").stdout.splitlines()[1:]
    ways = [bytes.fromhex(row.split()[2])[::-1] for row in routes if row.split()[1] == "00000000"]
    assert [".".join(map(str, way)) for way in ways] == [chosen["IO3OPS_EDGE_NOWHERE"]]
    for service in ("gateway", "runtime"):
        six = running.docker("exec", running.container(service), "cat", "/proc/net/ipv6_route").stdout.splitlines()
        assert not [row for row in six if row.split()[1] == "00" and row.split()[-1] != "lo"], six
    found = verified(running, monkeypatch)
    way = found["gateway: no default route"]
    assert way.state == "ok" and chosen["IO3OPS_EDGE_NOWHERE"] in way.detail
    assert (found["runtime: no default route"].state, found["runtime: no default route"].detail) == ("ok", "none")
    assert not [f for f in found.values() if f.state == "failed"], found


def old_network(clone: Clone, name: str) -> None:
    """The stack as an older release left it: the network has a way out, and `.env` knows nothing of addresses."""
    env = clone.path / ".env"
    env.write_text(
        "".join(line for line in env.read_text().splitlines(True) if "_SUBNET=" not in line and "_NOWHERE=" not in line)
    )
    compose = clone.path / "compose.yaml"
    text = compose.read_text()
    document = yaml.safe_load(text)
    for word in ("ipam", "enable_ipv6"):
        document["networks"][name].pop(word)
    compose.write_text(yaml.safe_dump(document))
    clone.docker("compose", "stop", "gateway")
    clone.docker("compose", "rm", "-f", "gateway")
    clone.docker("network", "rm", f"{clone.project}_{name}")
    done = clone.docker("compose", "up", "-d", "--no-deps", "--wait", "gateway")
    assert done.returncode == 0, done.stderr
    compose.write_text(text)


def edge(clone: Clone) -> str:
    return clone.docker("network", "inspect", "-f", "{{.Id}}", f"{clone.project}_edge").stdout.strip()


def test_up_replaces_a_network_that_has_a_way_out(running: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where something else is attached, and verify-isolation fails until then."""
    clone = running
    assert clone.io3ops("up").returncode == 0
    old_network(clone, "edge")
    runtime, gateway = clone.container("runtime"), clone.container("gateway")
    shape = json.loads(clone.docker("network", "inspect", f"{clone.project}_edge").stdout)[0]["IPAM"]["Config"][0]
    assert "AuxiliaryAddresses" not in shape
    assert clone.docker("compose", "ps", "--format", "json").returncode == 0
    assert verified(clone, monkeypatch)["gateway: no default route"].state == "failed"
    image = clone.docker("inspect", "-f", "{{.Config.Image}}", gateway).stdout.strip()
    with Part(clone, "guest", image, ("600",), networks=[f"{clone.project}_edge"], entrypoint="sleep"):
        done = clone.io3ops("up")
        assert done.returncode == 0 and "edge" in done.stderr and "gateway" in done.stderr, done.stderr
    assert clone.container("runtime") == runtime and clone.container("gateway") != gateway
    assert verified(clone, monkeypatch)["gateway: no default route"].state == "ok"
    for words in (["ps"], ["logs", "gateway"], ["config", "-q"]):
        shown = subprocess.run(
            ["docker", "compose", *words], cwd=clone.path, capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0, shown.stderr
    before = (edge(clone), clone.container("gateway"))
    assert clone.io3ops("up").returncode == 0 and (edge(clone), clone.container("gateway")) == before


def test_addresses_that_somebody_took_meanwhile_are_given_up(running: Clone) -> None:
    """While the stack is down, another network gets them."""
    clone = running
    assert clone.io3ops("up").returncode == 0
    before = files.read_env(clone.path / ".env")[0]["IO3OPS_EDGE_SUBNET"]
    assert clone.io3ops("down").returncode == 0
    assert clone.io3ops("up").returncode == 0
    assert files.read_env(clone.path / ".env")[0]["IO3OPS_EDGE_SUBNET"] == before, "the choice is kept"
    assert clone.io3ops("down").returncode == 0
    with network(clone, "other", "--subnet", before):
        done = clone.io3ops("up")
        after = files.read_env(clone.path / ".env")[0]["IO3OPS_EDGE_SUBNET"]
        assert done.returncode == 0 and after != before, done.stderr
        none = clone.io3ops("up", IO3OPS_SUBNET_POOL=before)
        assert none.returncode == 45 and "E45" in none.stderr and "IO3OPS_SUBNET_POOL" in none.stderr
