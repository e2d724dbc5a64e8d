"""`observe:` in the table: it adds the observer's services, and no other service gets a way out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from io3ops.adapters import machine
from io3ops.adapters.docker_engine import Container
from io3ops.errors import PortTaken
from io3ops.operations.checks import health
from io3ops.operations.privacy import isolation
from io3ops.operations.stack import images, mounted_files, observe, project
from io3ops.routing.load import parse_table, parse_with_warnings
from io3ops.routing.plan import Plan, make_plan
from io3ops.routing.render import render
from io3ops.routing.table import read_document, resolved
from io3ops.routing.words import words
from io3ops.settings import Settings, read_settings
from io3ops_observer.words import WordsFile
from io3ops_shared.label_names import Deployment

BOTH = "observe: {metrics_port: 9464, otlp_url: 'http://localhost:4318/'}"


def table(section: str) -> bytes:
    return f"""version: 1
{section}
providers: {{local: {{kind: ollama}}, away: {{kind: openai, key: openai, enabled: true}}}}
models: {{m: {{provider: local, source: {{ollama: "m:1b"}}}}, g: {{provider: away, source: {{external: gpt}}}}}}
modes: {{executor: {{chain: [m, g], data_class: public}}}}
""".encode()


def plan(section: str) -> Plan:
    return make_plan(parse_table(table(section), "t"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings({}, tmp_path, {})


def test_without_observe_the_stack_has_no_part_of_it(settings: Settings) -> None:
    off = plan("")
    assert not off.observe.on and off.collector == "" and off.collectors == ()
    assert observe.overlays(off) == () and observe.services(off) == () and observe.variables(settings, off) == {}
    handed = mounted_files.wanted(settings, off)
    assert handed.observer == {} and handed.outlet == {}
    mounted_files.write(settings, handed, None)
    assert not settings.observer_folder.exists() and not settings.outlet_folder.exists()


@pytest.mark.parametrize(
    "section", ["observe: {metrics_port: 9464}", "observe: {otlp_url: 'https://otel.example'}", BOTH]
)
def test_observe_does_not_change_the_gateway(section: str) -> None:
    """The rendered file and the gateway's targets stay the same, so switching it on disturbs no request."""
    assert render(plan(section)) == render(plan(""))
    assert plan(section).outside == plan("").outside and plan(section).secrets == plan("").secrets


@pytest.mark.parametrize(
    ("section", "files", "services"),
    [
        ("observe: {metrics_port: 1}", ["observe", "observe-metrics"], ["observer"]),
        ("observe: {otlp_url: 'https://otel.example'}", ["observe", "observe-otlp"], ["outlet", "observer"]),
        (BOTH, ["observe", "observe-metrics", "observe-otlp"], ["outlet", "observer"]),
        ("observe: {}", [], []),
    ],
)
def test_metrics_and_traces_each_add_their_files_and_services(
    section: str, files: list[str], services: list[str]
) -> None:
    found = plan(section)
    assert observe.overlays(found) == tuple(f"compose/{name}.yaml" for name in files)
    assert observe.services(found) == tuple(services)
    assert project.services(found) == ("runtime", "egress", *services, "gateway")


@pytest.mark.parametrize(
    ("url", "seen", "pair"),
    [
        ("http://localhost:4318", "http://host.docker.internal:4318", ("http", "host.docker.internal", 4318)),
        (
            "http://127.0.0.1:4318/otel/",
            "http://host.docker.internal:4318/otel",
            ("http", "host.docker.internal", 4318),
        ),
        ("https://otel.example", "https://otel.example", ("https", "otel.example", 443)),
    ],
)
def test_the_outlet_allows_the_collector_only(
    settings: Settings, url: str, seen: str, pair: tuple[str, str, int]
) -> None:
    found = plan(f"observe: {{otlp_url: '{url}'}}")
    assert found.collector == seen and found.collectors == (pair,)
    assert observe.variables(settings, found)["IO3OPS_OTLP_URL"] == seen
    text = mounted_files.wanted(settings, found).outlet["egress.conf"].decode()
    assert text.count("http_access allow") == 1 and f"dstdomain -n {pair[1]}\n" in text and f"port {pair[2]}\n" in text
    assert "api.openai.com" not in text
    assert pair[1] not in mounted_files.wanted(settings, found).egress["egress.conf"].decode()


def test_mounted_files_follow_the_table(settings: Settings) -> None:
    for section in (BOTH, "observe: {metrics_port: 1}", ""):
        wanted = mounted_files.wanted(settings, plan(section))
        mounted_files.write(settings, wanted, None)
        assert mounted_files.on_disk(settings) == wanted
    assert list(settings.outlet_folder.iterdir()) == [] == list(settings.observer_folder.iterdir())


def test_the_observer_reads_the_labels_that_io3ops_writes(tmp_path: Path) -> None:
    (tmp_path / "words.json").write_text(words(plan(BOTH)))
    found = WordsFile(tmp_path / "words.json")
    assert found.refresh() and not found.refresh()
    assert found.words.modes == {"executor"} and found.words.providers == {"local", "away"}
    assert found.words.deployments["executor.2.g"] == Deployment(provider="away", kind="openai", model="g")
    for text, words_of_error in (
        ("{", "Expecting"),
        ("[]", "not what"),
        ('{"modes": [], "deployments": {"a": {"provider": "p"}}}', "not what"),
        ('{"modes": "executor", "deployments": {}}', "not a text"),
        ('{"modes": [1], "deployments": {}}', "not a text"),
    ):
        (tmp_path / "words.json").write_text(text)
        with pytest.raises(ValueError, match=words_of_error):
            found.refresh()
    assert found.words.modes == {"executor"}, "the last labels that were read"


def test_resolved_shows_the_settings_of_observe() -> None:
    document, _ = read_document(table(BOTH))
    assert document is not None
    rows = {r.path: (r.value, r.origin) for r in resolved(document)}
    assert (
        rows["observe.metrics_port"] == ("9464", "line 2") and rows["observe.otlp_url"][0] == "http://localhost:4318/"
    )


def test_a_collector_elsewhere_without_encryption_is_a_warning() -> None:
    found = [p.message for p in parse_with_warnings(table("observe: {otlp_url: 'http://10.0.0.9:4318'}"), "t")[1]]
    assert any("unencrypted" in message for message in found)
    assert not any("unencrypted" in p.message for p in parse_with_warnings(table(BOTH), "t")[1])


OBSERVER = Container(
    id="c2", service="observer", status="running", health="healthy", exit_code=0, restarts=0, image="i", working_dir="", oom_killed=False, ports=(9464,),
)  # fmt: skip


def test_a_taken_metrics_port_is_reported_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setattr(machine, "port_free", lambda _port: False)
    observe.check_port(settings, plan(BOTH), OBSERVER)
    observe.check_port(settings, plan(""), None)
    for found in (None, replace(OBSERVER, ports=(9000,)), replace(OBSERVER, status="exited")):
        with pytest.raises(PortTaken, match="9464"):
            observe.check_port(settings, plan(BOTH), found)
    monkeypatch.setattr(machine, "port_free", lambda _port: True)
    with pytest.raises(PortTaken, match="4000"):
        observe.check_port(settings, plan("observe: {metrics_port: 4000}"), None)


def test_health_asks_the_observer_itself(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    said = [(0, '{"ok": true}'), (1, '{"ok": false, "lag_seconds": 40}')]
    engine = SimpleNamespace(execute=lambda _id, _argv: said.pop(0))
    monkeypatch.setattr(project, "own_containers", lambda _tools: {"observer": OBSERVER})
    look: Any = SimpleNamespace(tools=SimpleNamespace(settings=settings, engine=engine), plan=plan(BOTH))
    assert health._observer(look) == (
        "has read the whole log; metrics at http://127.0.0.1:9464/metrics, traces to http://localhost:4318"
    )
    with pytest.raises(health._Broken, match="lag_seconds"):
        health._observer(look)


def test_isolation_allows_the_observers_own_port() -> None:
    def one(service: str, host: str) -> str:
        bound = {"9464/tcp": [{"HostIp": host, "HostPort": "9464"}]}
        findings = isolation.exposed({service: {"NetworkSettings": {"Ports": bound}}}, {})
        return next(f.state for f in findings if f.about == f"{service}: ports")

    assert (one("observer", "127.0.0.1"), one("observer", "0.0.0.0"), one("outlet", "127.0.0.1")) == (
        "ok",
        "failed",
        "failed",
    )
    assert [f.detail for f in isolation.allowed(plan(BOTH))][
        1
    ] == "through the outlet: http://host.docker.internal:4318"
    assert len(isolation.allowed(plan(""))) == 1


# -- the files


@pytest.fixture
def merged(root: Path) -> dict[str, Any]:
    """The services and networks of the three overlays, merged like Compose does."""
    services: dict[str, Any] = {}
    networks: dict[str, Any] = {}
    for name in ("observe", "observe-metrics", "observe-otlp"):
        loaded = yaml.safe_load((root / f"compose/{name}.yaml").read_text("utf-8"))
        networks |= loaded.get("networks", {})
        for service, entry in loaded["services"].items():
            found = services.setdefault(service, {})
            both = {key: [*found.get(key, []), *entry.get(key, [])] for key in ("networks",)}
            environment = found.get("environment", {}) | entry.get("environment", {})
            services[service] = found | entry | both | {"environment": environment}
    return {"services": services, "networks": networks}


def test_the_added_services_are_contained(merged: dict[str, Any]) -> None:
    assert set(merged["services"]) == {"observer", "outlet"}, (
        "the overlays do not mention the gateway, so they cannot change it"
    )
    for found in merged["services"].values():
        assert found["read_only"] is True and found["init"] is True and found["cap_drop"] == ["ALL"]
        assert found["security_opt"] == ["no-new-privileges:true"] and found["pids_limit"] <= 64
        assert found["mem_limit"] == "128m" and found["restart"] == "unless-stopped"
        assert found["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
        assert not found["user"].startswith(("0:", "root")) and "privileged" not in found and "cap_add" not in found
        assert all(
            volume["read_only"] is True and not volume["bind"]["create_host_path"] for volume in found["volumes"]
        )
        assert "secrets" not in found
    sources = [volume["source"] for volume in merged["services"]["observer"]["volumes"]]
    assert sources == ["./.io3ops/logs", "./.io3ops/observer", "./.io3ops/ca"], (
        "no folder with keys, prompts or the table"
    )


def test_only_the_outlets_network_leads_outside(root: Path, merged: dict[str, Any]) -> None:
    assert set(merged["services"]["observer"]["networks"]) == {"observer", "metrics"}
    assert merged["services"]["outlet"]["networks"] == ["observer", "collector"]
    assert merged["networks"]["observer"] == {"internal": True}
    options = merged["networks"]["metrics"]["driver_opts"]
    assert options == {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    assert merged["services"]["observer"]["ports"] == ["127.0.0.1:${IO3OPS_METRICS_PORT:-9464}:9464"]
    assert "ports" not in merged["services"]["outlet"] and merged["services"]["observer"]["dns"] == ["127.0.0.1"]
    text = "".join((root / name).read_text("utf-8") for name in ("compose.yaml", "compose/egress.yaml"))
    for network in merged["networks"]:
        assert not re.search(rf"networks: .*\b{network}\b", text), (
            "the gateway and its proxy are in none of these networks"
        )


def test_litellm_does_not_find_the_observers_libraries(root: Path, merged: dict[str, Any]) -> None:
    dockerfile = (root / "images/gateway/Dockerfile").read_text("utf-8")
    assert "PYTHONPATH=/opt/io3ops " in dockerfile and "--target /opt/observer" in dockerfile
    assert "/opt/observer" in merged["services"]["observer"]["environment"]["PYTHONPATH"]
    assert "opentelemetry-sdk" not in (root / "requirements/gateway.lock").read_text("utf-8")
    for name in (root / "src/io3ops_gateway").glob("*.py"):
        assert "prometheus_client" not in name.read_text("utf-8")


def test_the_images_digest_covers_the_observer(root: Path) -> None:
    assert {"requirements/observer.lock", "src/io3ops_observer"} <= set(images.GATEWAY_INPUTS)
    allowed = (root / ".dockerignore").read_text("utf-8").splitlines()
    assert "!requirements/observer.lock" in allowed and "!src/io3ops_observer/**" in allowed


def test_the_editors_schema_contains_observe(root: Path) -> None:
    schema = json.loads((root / "runtime/routing.schema.json").read_text("utf-8"))
    assert set(schema["properties"]["observe"]["properties"]) == {"metrics_port", "otlp_url"}
