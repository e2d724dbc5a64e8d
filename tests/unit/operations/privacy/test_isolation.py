"""The results of the tests inside containers, and the parser of their routes."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from io3ops.operations.privacy import isolation
from io3ops_gateway.scripts import probe

ASKED: dict[str, Any] = {"tcp": [("1.1.1.1", 443), ("8.8.8.8", 53)], "udp": [("8.8.8.8", 53)], "names": isolation.NAMES}
SHUT: dict[str, Any] = {"tcp": ["no route", "timed out"], "udp": ["timed out"], "names": ["", ""]}
OPEN: dict[str, Any] = {"tcp": ["open", "open"], "udp": ["open"], "names": ["192.0.2.1", ""]}
HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
EDGE = "eth1\t00000000\t1E03EF0A\t0003\t0\t0\t0\t00000000\t0\t0\t0\neth1\t1003EF0A\t00000000\t0001\t0\t0\t0\tF0FFFFFF\t0\t0\t0\n"
INSIDE = "eth0\t000014AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
ARP = "IP address       HW type     Flags       HW address            Mask     Device\n10.239.3.30      0x1         {flags}         {address}     *        eth1\n"
SIX = (
    f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 00000001 00000000 00200200       lo\n"
    f"{'0' * 31}1 80 {'0' * 32} 00 {'0' * 32} 00000000 00000003 00000000 80200001       lo\n"
)


@pytest.mark.parametrize("word", ["tcp", "udp"])
def test_one_open_connection_is_a_way_out(word: str) -> None:
    said = SHUT | {word: [*SHUT[word][:-1], "open"]}
    found = isolation.direct("gateway", ASKED, said, OPEN)[0]
    assert found.state == "failed" and f"8.8.8.8:53 ({word})" in found.detail
    assert isolation.direct("gateway", ASKED, SHUT, OPEN)[0].state == "ok"
    assert isolation.direct("gateway", ASKED, SHUT, SHUT)[0].state == "open"


@pytest.mark.parametrize(
    ("ways", "control", "state", "words"),
    [
        ([], [["172.17.0.1", "eth0", True]], "ok", "none"),
        ([], [], "ok", "none"),
        ([["10.239.3.30", "eth1", False]], [["172.17.0.1", "eth0", True]], "ok", "10.239.3.30, which no machine has"),
        ([["172.18.0.1", "eth1", True]], [["172.17.0.1", "eth0", True]], "failed", "172.18.0.1 on eth1; `io3ops up`"),
        ([["10.239.3.30", "eth1", False], ["fe80::1", "eth1", True]], [], "failed", "fe80::1"),
        (
            [["10.239.3.30", "eth1", False]],
            [["172.17.0.1", "eth0", False]],
            "open",
            "neither at that of an ordinary container",
        ),
    ],
)
def test_a_default_route_must_lead_to_no_machine(
    ways: list[list[Any]], control: list[list[Any]], state: str, words: str
) -> None:
    """Silence proves nothing: a packet without an answer has left too."""
    found = isolation.default_route("gateway", ways, control)
    assert (found.about, found.state) == ("gateway: no default route", state) and words in found.detail


def test_scripts_find_a_check_by_words_that_do_not_change() -> None:
    """The words for people may be improved; these are in scripts."""
    assert set(isolation.Check) == {
        *("no_way_out", "no_outside_names", "no_default_route", "no_visible_key", "no_cloud_models", "only_the_table"),
        *("rules", "ports", "may_reach", "provider_keys", "pulls_models"),
    }
    found = isolation.default_route("gateway", [], [])
    assert found.data() == {
        "container": "gateway",
        "check": "no_default_route",
        "about": "gateway: no default route",
        "state": "ok",
        "detail": "none",
    }


def test_the_routes_of_a_container_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "byteorder", "little")
    assert (
        probe.routes(HEAD + EDGE + INSIDE) == [("10.239.3.30", "eth1")]
        and probe.routes(HEAD + INSIDE) == probe.routes("") == []
    )
    assert probe.devices(HEAD + EDGE + INSIDE) == ["eth0", "eth1"]
    assert probe.routes6(SIX) == [] == probe.routes6("")
    gateway = "fe80000000000000" + "0" * 15 + "1"
    assert probe.routes6(
        SIX + f"{'0' * 32} 00 {'0' * 32} 00 {gateway} 00000400 00000001 00000000 00000003     eth1\n"
    ) == [("fe80::1", "eth1")]


def test_a_machine_answers_if_the_kernel_knows_its_address() -> None:
    assert probe.somebody("10.239.3.30", ARP.format(flags="0x2", address="02:42:0a:ef:03:11"))
    assert not probe.somebody("10.239.3.30", ARP.format(flags="0x0", address="00:00:00:00:00:00"))
    assert not probe.somebody("10.239.3.3", ARP.format(flags="0x2", address="02:42:0a:ef:03:11"))
    assert not probe.somebody("10.239.3.30", "") and probe.somebody("0.0.0.0", ""), (
        "a route without an address is a link"
    )
