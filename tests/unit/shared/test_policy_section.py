"""The gateway reads from `io3ops_policy` what the host rendered, field by field."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from io3ops.routing.load import parse_table
from io3ops.routing.plan import Plan, make_plan
from io3ops.routing.render import known, policy, render
from io3ops_gateway.policy.policy import from_config
from io3ops_shared import policy as policies
from io3ops_shared.policy import Deployment, GatewaySettings, ModePolicy

RICH = """
version: 1
gateway: {hosts: [box.lan], origins: ["http://localhost:3000"], max_body_mb: 2, lane: false, workers: 2, queue_timeout: 1500ms}
logs: {requests: false, keep_days: 7, budget_mb: 100, rotate_mb: 5}
defaults: {data_class: public}
providers:
  inside: {kind: ollama}
  away: {kind: openai, enabled: true, key: openai}
models:
  main: {provider: inside, source: {ollama: "main:1b"}, context: 2048}
  big: {provider: away, source: {external: gpt}}
  vec: {provider: inside, source: {ollama: vec}, capabilities: [embeddings], context: 512}
modes:
  executor:
    chain: [main, big]
    data_class: public
    timeouts: {step: 90s, first_token: 20s}
    limits: {requests_per_minute: 60, tokens_per_minute: 100000, parallel: 4}
    parameters: {temperature: 0.2, stop: ["END"]}
    forced: {max_tokens: 512}
    system_prompt: "Be brief: 'no' {{ jokes }}."
    allow: {tools: false, images: false}
    truncation: flag
    record_internal: true
  plain: {chain: [main]}
  embed: {chain: [vec]}
"""


def plan_of(text: str) -> Plan:
    return make_plan(parse_table(text.encode(), "t"))


def tables(root: Path) -> list[str]:
    return [RICH, *(p.read_text("utf-8") for p in sorted((root / "src/io3ops/presets").glob("*.yaml")))]


def test_the_gateway_reads_the_planned_modes_deployments_and_settings(root: Path) -> None:
    for text in tables(root):
        plan = plan_of(text)
        read = from_config(yaml.safe_load(render(plan)))
        assert read.modes == {mode.name: policy(plan, mode) for mode in plan.policies}
        assert read.deployments == {d.id: known(d) for d in plan.deployments}
        assert (read.gateway, read.log) == (plan.gateway, plan.log)


@pytest.mark.parametrize("name", [f.name for f in fields(ModePolicy)])
def test_every_field_of_a_mode_is_rendered(name: str) -> None:
    """The table sets each of them, so a field that the renderer forgets fails here."""
    plan = plan_of(RICH)
    (rich,) = (mode for mode in plan.policies if mode.name == "executor")
    made = policy(plan, rich)
    usual = ModePolicy(name="", groups={})
    if name != "task":
        assert getattr(made, name) != getattr(usual, name)
    assert name in {*policies.mode_entry(made), "name", "task"}


def test_default_values_are_not_written() -> None:
    usual = ModePolicy(name="m", groups={"internal": "m"})
    assert policies.mode_entry(usual) == {"groups": {"internal": "m"}, "total": 600.0}
    place: dict[str, Any] = {
        "name": "m.1.a",
        "provider": "p",
        "local": True,
        "url": "http://x",
        "kind": "ollama",
        "model": "a",
    }
    assert policies.deployment_entry(Deployment(**place)) == place
    keyed = Deployment(**place, key="openai", window=9)
    assert policies.deployment_entry(keyed) == place | {"window": 9, "key": "openai", "first_token": 600.0}
    assert policies.gateway_entry(GatewaySettings(hosts=("a",)))["hosts"] == ["a"]
    assert str(policies.gateway_entry(GatewaySettings())["queue_timeout"]) == "30"
