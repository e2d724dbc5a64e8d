"""compose.yaml keeps its promises: read from the file, so each line that guards something has a test in the quick tier."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from io3ops.operations.stack import subnets

OVERLAYS = ("egress.yaml", "observe.yaml", "observe-metrics.yaml", "observe-otlp.yaml")
# Of the containers that lead out: the loader, and the two proxies.
WAYS_OUT = {"hub", "outside", "collector"}


@pytest.fixture
def compose(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((root / "compose.yaml").read_text("utf-8"))
    return found


@pytest.mark.parametrize("service", ["runtime", "gateway", "loader"])
def test_every_container_is_contained_the_loader_too(compose: dict[str, Any], service: str) -> None:
    found = compose["services"][service]
    assert found["read_only"] is True and found["init"] is True and found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"] and found["pids_limit"] <= 512
    assert found["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert "privileged" not in found and "cap_add" not in found and found.get("network_mode") is None
    assert not found["user"].startswith(("0:", "root"))
    assert found["stop_grace_period"] in ("3s", "6s")


@pytest.mark.parametrize(
    ("file", "service"),
    [
        ("compose.yaml", "runtime"),
        ("compose.yaml", "gateway"),
        ("compose.yaml", "loader"),
        ("compose/egress.yaml", "egress"),
    ],
)
def test_no_process_leaves_a_core_full_of_prompts(root: Path, file: str, service: str) -> None:
    found = yaml.safe_load((root / file).read_text("utf-8"))["services"][service]
    # One number: the hard limit too, so nothing inside can raise it again.
    assert found["ulimits"] == {"core": 0}


@pytest.mark.parametrize("service", ["runtime", "loader"])
def test_no_prompt_is_served_by_someone_elses_machine_or_kept(compose: dict[str, Any], service: str) -> None:
    environment = compose["services"][service]["environment"]
    assert environment["OLLAMA_NO_CLOUD"] == "1" and environment["LLAMA_ARG_CACHE_RAM"] == "0"


def test_networks_are_the_policy(compose: dict[str, Any]) -> None:
    members = {name: sorted(service["networks"]) for name, service in compose["services"].items()}
    assert members == {"runtime": ["runtime"], "gateway": ["edge", "runtime"], "loader": ["hub", "runtime"]}
    assert compose["networks"]["runtime"]["internal"] is True
    assert compose["networks"]["edge"]["driver_opts"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert compose["services"]["gateway"]["dns"] == ["127.0.0.1"]


@pytest.mark.parametrize("file", ["compose.yaml", *(f"compose/{name}" for name in OVERLAYS)])
def test_a_network_that_leads_somewhere_is_internal_or_has_a_default_route_to_nobody(root: Path, file: str) -> None:
    """But for those of the ways out themselves, which no container with prompts is on."""
    document = yaml.safe_load((root / file).read_text("utf-8"))
    for name, network in (document.get("networks") or {}).items():
        if name in WAYS_OUT or network.get("internal"):
            continue
        [config] = network["ipam"]["config"]
        assert config["subnet"].startswith(f"${{IO3OPS_{name.upper()}_SUBNET:-") and network["enable_ipv6"] is False
        assert config["aux_addresses"]["DefaultGatewayIPv4"].startswith(f"${{IO3OPS_{name.upper()}_NOWHERE:-")
        net, nowhere = (
            word.partition(":-")[2].rstrip("}")
            for word in (config["subnet"], config["aux_addresses"]["DefaultGatewayIPv4"])
        )
        assert IPv4Address(nowhere) == IPv4Network(net)[14], (
            "so that plain `docker compose` works before the first `up`"
        )
        assert name in subnets.WALLED


def test_no_container_with_prompts_is_on_a_network_that_leads_out(root: Path) -> None:
    found: dict[str, set[str]] = {}
    for file in ("compose.yaml", *(f"compose/{name}" for name in OVERLAYS)):
        document = yaml.safe_load((root / file).read_text("utf-8"))
        for service, entry in (document.get("services") or {}).items():
            found.setdefault(service, set()).update(entry.get("networks") or ())
    assert {service: nets & WAYS_OUT for service, nets in found.items() if nets & WAYS_OUT} == {
        "loader": {"hub"}, "egress": {"outside"}, "outlet": {"collector"},
    }  # fmt: skip


def test_only_the_gateway_has_a_port_and_the_loader_runs_only_while_pulling(compose: dict[str, Any]) -> None:
    ports = {name: service.get("ports") for name, service in compose["services"].items()}
    assert ports == {"runtime": None, "loader": None, "gateway": ["127.0.0.1:${IO3OPS_PORT:-4000}:4000"]}
    assert compose["services"]["loader"]["profiles"] == ["pull"] and compose["services"]["loader"]["restart"] == "no"
    assert {s["restart"] for n, s in compose["services"].items() if n != "loader"} == {"unless-stopped"}


def test_what_the_host_lends_is_read_only_but_for_the_logs(compose: dict[str, Any]) -> None:
    writable = [
        (name, volume["target"])
        for name, service in compose["services"].items()
        for volume in service["volumes"]
        if volume != "models:/models" and volume.get("read_only") is not True
    ]
    assert writable == [("gateway", "/run/audit"), ("gateway", "/run/content"), ("gateway", "/run/logs")]
    assert compose["secrets"] == {"master_key": {"file": "./.io3ops/secrets/master_key"}}
