"""Addresses for the networks that publish a port: free ones, the same ones again, and others when they are taken."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from io3ops.adapters import files, machine
from io3ops.adapters.docker_engine import Network
from io3ops.errors import NoSubnet, SettingInvalid
from io3ops.operations.stack import subnets
from io3ops.settings import Settings, read_settings

BOTH = ("edge", "metrics")


def settings(root: str = "/clone", **environment: str) -> Settings:
    return read_settings(environment, Path(root), {})


def network(name: str = "", project: str = "", *nets: str, nowhere: str = "", ipv6: bool = False) -> Network:
    return Network(
        id=f"id-{name}", project=project, name=name, subnets=nets, nowhere=nowhere, ipv6=ipv6, bridge=f"br-{name}"
    )


def taken(networks: Sequence[Network] = (), *routes: tuple[str, str]) -> subnets.Taken:
    return subnets.Taken(routes=[(IPv4Network(net), device) for net, device in routes], networks=networks)


def edge(found: dict[str, str]) -> IPv4Network:
    return IPv4Network(found["IO3OPS_EDGE_SUBNET"])


def test_each_network_gets_a_small_subnet_with_a_route_to_its_last_address() -> None:
    found = subnets.choose(settings(), BOTH, {}, taken())
    metrics = IPv4Network(found["IO3OPS_METRICS_SUBNET"])
    assert edge(found).prefixlen == 28 and edge(found).subnet_of(IPv4Network("10.239.0.0/16"))
    assert not edge(found).overlaps(metrics)
    assert found["IO3OPS_EDGE_NOWHERE"] == str(edge(found)[14]) and found["IO3OPS_METRICS_NOWHERE"] == str(metrics[14])
    assert set(subnets.choose(settings(), ["edge"], {}, taken())) == {"IO3OPS_EDGE_SUBNET", "IO3OPS_EDGE_NOWHERE"}


def test_clones_begin_at_different_subnets_and_avoid_each_other() -> None:
    mine, other = settings("/a"), settings("/b")
    assert edge(subnets.choose(mine, ["edge"], {}, taken())) != edge(subnets.choose(other, ["edge"], {}, taken()))
    first = subnets.choose(mine, ["edge"], {}, taken())
    stands = network("edge", "other", first["IO3OPS_EDGE_SUBNET"])
    assert not edge(subnets.choose(mine, ["edge"], {}, taken([stands]))).overlaps(edge(first))
    # Docker's own first network is in another range; networks without addresses and those of IPv6 do not conflict.
    odd = [
        network("bridge", "", "172.17.0.0/16"),
        network("host"),
        network("six", "", "fd00::/64", first["IO3OPS_EDGE_SUBNET"].replace("10.", "11.")),
    ]
    assert subnets.choose(mine, ["edge"], {}, taken(odd)) == first


def test_a_network_keeps_its_subnet_while_that_is_free() -> None:
    written = {"IO3OPS_EDGE_SUBNET": "10.239.7.16/28", "IO3OPS_EDGE_NOWHERE": "anything"}
    kept = {"IO3OPS_EDGE_SUBNET": "10.239.7.16/28", "IO3OPS_EDGE_NOWHERE": "10.239.7.30"}
    mine = network("edge", "io3ops", "10.239.7.16/28", nowhere="10.239.7.30")
    assert subnets.choose(settings(), ["edge"], written, taken()) == kept
    assert subnets.choose(settings(), ["edge"], written, taken([mine], ("10.239.7.16/28", "br-edge"))) == kept, (
        "its own route"
    )
    assert subnets.choose(settings(), ["edge"], written, taken([mine], ("10.0.0.0/8", "tun0"))) == kept, (
        "a VPN that came later"
    )


@pytest.mark.parametrize(
    "there",
    [
        taken([network("other", "", "10.239.7.0/24")]),
        taken([network("edge", "another", "10.239.7.16/28")]),
        taken([], ("10.239.7.0/24", "eth1")),
        taken([], ("10.239.7.20/32", "wg0")),
        taken([network("edge", "io3ops", "172.18.0.0/16")], ("10.239.7.0/24", "eth1")),
        taken([network("edge", "io3ops", "10.239.7.16/28")], ("10.239.7.16/28", "eth1")),
        taken([network("edge", "io3ops", "10.239.7.16/28")], ("10.239.7.20/32", "wg0")),
    ],
    ids=["a network", "a clone", "a route", "one address", "its old network elsewhere", "twice", "a hole in it"],
)
def test_a_subnet_that_is_taken_is_given_up(there: subnets.Taken) -> None:
    found = edge(subnets.choose(settings(), ["edge"], {"IO3OPS_EDGE_SUBNET": "10.239.7.16/28"}, there))
    assert found != IPv4Network("10.239.7.16/28")
    assert not any(found.overlaps(route) for route, _ in there.routes)


@pytest.mark.parametrize("odd", ["", "x", "10.239.7.16/24", "10.239.7.17/28", "fd00::/64", "8.8.8.0/28"])
def test_a_foreign_subnet_is_not_kept(odd: str) -> None:
    fresh = subnets.choose(settings(), ["edge"], {}, taken())
    assert subnets.choose(settings(), ["edge"], {"IO3OPS_EDGE_SUBNET": odd}, taken()) == fresh


def test_a_routed_range_is_skipped_and_without_a_free_one_there_is_an_error() -> None:
    """A company's VPN routes all of 10.0.0.0/8."""
    vpn = ("10.0.0.0/8", "tun0")
    assert edge(subnets.choose(settings(), ["edge"], {}, taken([], vpn))).subnet_of(IPv4Network("172.16.240.0/20"))
    all_of_it = [vpn, ("172.16.0.0/12", "tun0"), ("192.168.0.0/16", "eth0")]
    with pytest.raises(NoSubnet) as caught:
        subnets.choose(settings(), ["edge"], {}, taken([], *all_of_it))
    assert caught.value.exit_code == 45 and "IO3OPS_SUBNET_POOL" in caught.value.hint
    mine = settings(IO3OPS_SUBNET_POOL="100.66.0.0/27")
    found = subnets.choose(mine, BOTH, {"IO3OPS_EDGE_SUBNET": "10.239.7.16/28"}, taken([], *all_of_it))
    assert {found["IO3OPS_EDGE_SUBNET"], found["IO3OPS_METRICS_SUBNET"]} == {"100.66.0.0/28", "100.66.0.16/28"}
    with pytest.raises(NoSubnet):
        subnets.choose(mine, BOTH, {}, taken([], ("100.66.0.3/32", "lo")))


@pytest.mark.parametrize("value", ["x", "10.0.0.1/24", "10.0.0.0/29", "0.0.0.0/0", "fd00::/64"])
def test_an_invalid_range_is_refused(value: str) -> None:
    with pytest.raises(SettingInvalid, match="IO3OPS_SUBNET_POOL"):
        settings(IO3OPS_SUBNET_POOL=value)


def test_a_network_with_a_way_out_is_detected() -> None:
    values = {"IO3OPS_EDGE_SUBNET": "10.239.7.16/28", "IO3OPS_EDGE_NOWHERE": "10.239.7.30"}
    good = network("edge", "io3ops", "10.239.7.16/28", nowhere="10.239.7.30")
    assert (
        subnets.misshapen(
            settings(), values, [good, network("edge", "other", "172.18.0.0/16"), network("hub", "io3ops")]
        )
        == ()
    )
    for bad in (
        network("edge", "io3ops", "172.18.0.0/16"),
        network("edge", "io3ops", "10.239.7.16/28"),
        network("edge", "io3ops", "10.239.7.16/28", nowhere="10.239.7.30", ipv6=True),
        network("edge", "io3ops", "10.239.8.16/28", nowhere="10.239.8.30"),
    ):
        assert subnets.misshapen(settings(), values, [bad]) == (bad,)
    assert subnets.misshapen(settings(), values, [network("metrics", "io3ops", "172.18.0.0/16")]) == (), (
        "not wanted: it goes anyway"
    )


def test_the_chosen_subnet_stays_ours_when_a_mark_of_the_env_block_is_lost(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("MINE=1\n")
    values = {"IO3OPS_UID": "1", "IO3OPS_EDGE_SUBNET": "10.239.7.16/28", "IO3OPS_EDGE_NOWHERE": "10.239.7.30"}
    files.write_env(env, values)
    env.write_text(env.read_text().replace(files.BEGIN + "\n", ""))
    assert files.read_env(env) == (values, {"MINE": "1"})


def test_the_routes_of_this_machine_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "wg0\t0500EF0A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
    )
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, *words: text if str(path) == "/proc/net/route" else read(path, *words)
    )
    monkeypatch.setattr(sys, "byteorder", "little")
    assert machine.routes() == ((IPv4Network("192.0.2.0/24"), "eth0"), (IPv4Network("10.239.0.5/32"), "wg0"))


def test_after_a_lost_env_file_our_own_network_is_recognised() -> None:
    mine = network("edge", "io3ops", "10.99.0.0/28", nowhere="10.99.0.14")
    there = taken([mine], ("10.99.0.0/28", "br-edge"))
    found = subnets.choose(settings(IO3OPS_SUBNET_POOL="10.99.0.0/28"), ["edge"], {}, there)
    assert subnets.misshapen(settings(), found, [mine]) == ()
