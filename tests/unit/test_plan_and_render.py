"""Plan and rendered file: deterministic, complete, and honest about hand edits."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from io3ops.routing.plan import container_url, make_plan
from io3ops.routing.render import _yaml, fallbacks, hand_edited, render
from io3ops.routing.table import Provider, parse_table

GOLDEN = Path(__file__).parents[1] / "golden"

TABLE = """
version: 1
defaults: {timeouts: {step: 90s, first_token: 20s}}
providers:
  inside: {kind: ollama}
  host: {kind: ollama, url: "http://localhost:11434"}
  served: {kind: openai_compatible, url: "http://10.0.0.5:8000/v1", locality: local}
models:
  main: {provider: inside, source: {ollama: "main:1b"}, context: 2048, keep_alive: 30m}
  spare: {provider: host, source: {external: spare}}
  big: {provider: served, source: {external: org/big}}
  vec: {provider: inside, source: {ollama: vec}, capabilities: [embeddings], context: 512}
  unused: {provider: inside, source: {ollama: unused}}
modes:
  executor:
    chain: [main, {spare: 3, big: 1}]
    fallbacks: {error: rescue}
    retries: {rate_limit: 2, server_error: 1}
    cooldown: {failures: 5, pause: 1m}
    limits: {requests_per_minute: 60, tokens_per_minute: 100000, parallel: 4}
    parameters: {temperature: 0.2, stop: ["END"]}
    forced: {max_tokens: 512}
    system_prompt: "Be brief: 'no' {{ jokes }}."
    allow: {tools: false}
    aliases: [gpt-4o-mini]
  rescue: {chain: [big]}
  embed: {chain: [vec]}
"""


def test_the_rendered_file_is_the_golden_one() -> None:
    """Any change of the output is seen in review: after an intended one, write the new text to the golden file."""
    text = render(make_plan(parse_table(TABLE.encode(), "t")))
    assert text == (GOLDEN / "two-providers.litellm.yaml").read_text("utf-8")


def test_the_committed_litellm_yaml_is_current(root: Path) -> None:
    plan = make_plan(parse_table((root / "runtime/routing.yaml").read_bytes(), "t"))
    assert (root / "runtime/litellm.yaml").read_text("utf-8") == render(plan)


def test_a_chain_becomes_ordered_deployments_of_one_mode() -> None:
    plan = make_plan(parse_table(TABLE.encode(), "t"))
    assert [(d.id, d.order, d.weight, d.runtime_name, d.url) for d in plan.chain("executor")] == [
        ("executor.1.main", 1, 1, "main:1b", "http://runtime:11434"),
        ("executor.2.spare", 2, 3, "spare:latest", "http://host.docker.internal:11434"),
        ("executor.2.big", 2, 1, "org/big", "http://10.0.0.5:8000/v1"),
    ]
    assert [m.model.name for m in plan.models] == ["main", "spare", "big", "vec"], "a model no mode uses is not fetched"
    assert plan.runs_runtime
    assert plan.external_urls == ("http://10.0.0.5:8000/v1", "http://host.docker.internal:11434")


def test_a_fallback_stands_in_every_list() -> None:
    """LiteLLM ignores the plain list for a context error once any group has a context list."""
    plan = make_plan(parse_table(TABLE.encode(), "t"))
    lists = dict(fallbacks(plan))
    assert set(lists) == {"fallbacks", "context_window_fallbacks", "content_policy_fallbacks"}
    assert all(entries == [("executor", "rescue")] for entries in lists.values())


def test_a_provider_that_is_not_enabled_has_no_part_in_the_plan() -> None:
    text = TABLE.replace("locality: local}", "locality: local, enabled: false}").replace(
        "  rescue: {chain: [big]}", "  rescue: {chain: [main]}"
    )
    plan = make_plan(parse_table(text.encode(), "t"))
    assert "big" not in {d.model for d in plan.deployments} | {m.model.name for m in plan.models}
    assert "10.0.0.5" not in render(plan)


def test_a_model_we_make_is_named_after_its_recipe(root: Path) -> None:
    """A changed window or file must never be served by the old copy."""
    text = (root / "runtime/routing.yaml").read_text("utf-8")
    names = {
        make_plan(parse_table(t.encode(), "t")).chain("executor")[0].runtime_name
        for t in (text, text.replace("context: 4096", "context: 2048"), text.replace("bcc81830", "acc81830"))
    }
    assert len(names) == 3


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("", "http://runtime:11434"),
        ("http://127.0.0.1:11500", "http://host.docker.internal:11500"),
        ("http://localhost", "http://host.docker.internal:80"),
        ("https://gpu-box.lan:11434", "https://gpu-box.lan:11434"),
    ],
)
def test_urls_are_given_as_the_container_sees_them(url: str, seen: str) -> None:
    assert container_url(Provider(name="p", url=url)) == seen


def test_a_hand_edit_is_noticed(root: Path) -> None:
    text = (root / "runtime/litellm.yaml").read_text("utf-8")
    assert not hand_edited(text)
    assert hand_edited(text.replace("num_retries: 0", "num_retries: 9"))
    assert hand_edited("model_list: []\n")


@pytest.mark.parametrize(
    "value",
    [
        1e-07,
        "1e-07",
        "no",
        "on",
        "null",
        "~",
        "0x1f",
        "012",
        "{{ x }}",
        "a: b",
        "# c",
        "é😀",
        "a\nb",
        "'",
        '"',
        " x ",
        "",
        "- a",
        "os.environ/X",
    ],
)
def test_every_value_survives_the_yaml_filter(value: object) -> None:
    assert yaml.safe_load(f"k: {_yaml(value)}\n") == {"k": value}
