"""Plan and rendered file: deterministic and complete; hand edits are detected."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from io3ops.routing.load import parse_table
from io3ops.routing.plan import container_url, make_plan
from io3ops.routing.render import _yaml, fallbacks, hand_edited, render
from io3ops.routing.table import Provider

GOLDEN = Path(__file__).parents[2] / "golden"

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


def test_the_rendered_file_equals_the_golden_file() -> None:
    """The golden file shows every change of the output in a review. After an intended change, write the new text to it."""
    text = render(make_plan(parse_table(TABLE.encode(), "t")))
    assert text == (GOLDEN / "two-providers.litellm.yaml").read_text("utf-8")


def test_the_committed_litellm_yaml_is_current(root: Path) -> None:
    plan = make_plan(parse_table((root / "runtime/routing.yaml").read_bytes(), "t"))
    assert (root / "runtime/litellm.yaml").read_text("utf-8") == render(plan)


def test_logs_and_truncation_reach_the_gateways_policy() -> None:
    """A mode contains only values that differ from the default, so the modes of an older file read the same."""
    changed = TABLE.replace("\nmodes:\n", "\nlogs: {requests: false, rotate_mb: 5}\nmodes:\n")
    changed = changed.replace("defaults: {", "defaults: {truncation: flag, ")
    changed = changed.replace(
        "  rescue: {chain: [big]}", "  rescue: {chain: [big], truncation: refuse, record_internal: true}"
    )
    section = yaml.safe_load(render(make_plan(parse_table(changed.encode(), "t"))))["io3ops_policy"]
    assert section["log"] == {"requests": False, "keep_days": 30, "budget_mb": 1000, "rotate_mb": 5}
    assert {name: mode.get("truncation") for name, mode in section["modes"].items()} == {
        "executor": "flag", "rescue": None, "embed": "flag"
    }  # fmt: skip
    assert section["modes"]["rescue"]["record_internal"] is True and "record_internal" not in section["modes"]["embed"]
    places = section["deployments"]
    assert places["rescue.1.big"]["kind"] == "openai_compatible" and "window" not in places["rescue.1.big"]
    assert places["executor.1.main"]["window"] == 2048 and places["executor.1.main"]["model"] == "main"


def test_a_chain_becomes_ordered_deployments_of_one_mode() -> None:
    plan = make_plan(parse_table(TABLE.encode(), "t"))
    assert [(d.id, d.order, d.weight, d.runtime_name, d.url) for d in plan.chain("executor")] == [
        ("executor.1.main", 1, 1, "main:1b", "http://runtime:11434"),
        ("executor.2.spare", 2, 3, "spare:latest", "http://host.docker.internal:11434"),
        ("executor.2.big", 2, 1, "org/big", "http://10.0.0.5:8000/v1"),
    ]
    assert [m.model.name for m in plan.models] == ["main", "spare", "big", "vec"], "a model no mode uses is not fetched"
    assert plan.runs_runtime
    assert plan.external_urls == ("http://host.docker.internal:11434",), (
        "of Ollamas; others serve no model list of ours"
    )
    assert plan.outside == (("http", "10.0.0.5", 8000), ("http", "host.docker.internal", 11434))


def test_a_fallback_is_in_every_list_of_litellm() -> None:
    """LiteLLM ignores the plain list for a context error once any group has a context list."""
    plan = make_plan(parse_table(TABLE.encode(), "t"))
    lists = dict(fallbacks(plan))
    assert set(lists) == {"fallbacks", "context_window_fallbacks", "content_policy_fallbacks"}
    assert all(entries == [("executor", "rescue")] for entries in lists.values())


def test_the_plan_skips_providers_that_are_not_enabled() -> None:
    text = TABLE.replace("locality: local}", "locality: local, enabled: false}").replace(
        "  rescue: {chain: [big]}", "  rescue: {chain: [main]}"
    )
    plan = make_plan(parse_table(text.encode(), "t"))
    assert "big" not in {d.model for d in plan.deployments} | {m.model.name for m in plan.models}
    assert "10.0.0.5" not in render(plan)


def test_a_model_we_make_is_named_after_its_recipe(root: Path) -> None:
    """After a change of the window or the file, the old copy must never serve."""
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
def test_urls_are_written_as_the_container_sees_them(url: str, seen: str) -> None:
    assert container_url(Provider(name="p", url=url)) == seen


def test_a_hand_edit_is_detected(root: Path) -> None:
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


GROUPS = """
version: 1
providers:
  local: {kind: ollama}
  cloud: {kind: openai, key: openai, enabled: true}
  idle: {kind: anthropic, key: anthropic}
models:
  a: {provider: local, source: {ollama: "a:1b"}}
  g: {provider: cloud, source: {external: gpt-x}}
  n: {provider: idle, source: {external: never}}
overrides:
  alice: {modes: [secret]}
modes:
  inner: {chain: [a], data_class: internal, fallbacks: {error: open}}
  secret: {chain: [a, g], data_class: internal, fallbacks: {error: inner}}
  open: {chain: [a, g, n], data_class: public, fallbacks: {error: far, context_overflow: inner}}
  far: {chain: [g], data_class: public}
  near: {chain: [a], fallbacks: {error: open}}
  plain: {chain: [a], fallbacks: {error: inner}}
"""


def test_a_mode_has_a_public_group_only_if_it_can_reach_a_cloud() -> None:
    plan = make_plan(parse_table(GROUPS.encode(), "t"))
    shape = {g.name: ([d.model for d in g.deployments], dict(g.fallbacks)) for g in plan.groups}
    assert shape == {
        "inner": (["a"], {"error": "open"}),
        "secret": (["a"], {"error": "inner"}),
        "secret:public": (["a", "g"], {"error": "inner"}),
        "open": (["a"], {"context_overflow": "inner"}),
        "open:public": (["a", "g"], {"error": "far:public", "context_overflow": "inner"}),
        "far:public": (["g"], {}),
        "near": (["a"], {"error": "open"}),
        "near:public": (["a"], {"error": "open:public"}),
        "plain": (["a"], {"error": "inner"}),
    }, "an internal prompt that falls back to a public mode reaches that mode's local group"


def test_each_data_class_gets_its_group() -> None:
    plan = make_plan(parse_table(GROUPS.encode(), "t"))
    served = {m: [(g := plan.group(m, c)) and g.name for c in ("internal", "public")] for m in plan.modes}
    assert served == {
        "inner": ["inner", "inner"],
        "secret": ["secret", "secret:public"],
        "open": ["open", "open:public"],
        "far": [None, "far:public"],
        "near": ["near", "near:public"],
        "plain": ["plain", "plain"],
    }


def test_the_policy_marks_clouds_and_litellm_gets_no_keys() -> None:
    loaded = yaml.safe_load(render(make_plan(parse_table(GROUPS.encode(), "t"))))
    section = loaded["io3ops_policy"]
    clouds = {found for found, place in section["deployments"].items() if not place["local"]}
    assert clouds == {"secret:public.2.g", "open:public.2.g", "far:public.1.g"}
    assert section["deployments"]["far:public.1.g"] == {
        "name": "far.1.g",
        "provider": "cloud",
        "local": False,
        "url": "https://api.openai.com/v1",
        "key": "openai",
        "model": "g",
        "kind": "openai",
        "first_token": 600,
    }
    assert section["modes"]["far"]["groups"] == {"public": "far:public"}
    assert section["overrides"] == {"alice": ["secret"]} and section["data_class"] == "internal"
    keys = {m["model_info"]["id"]: m["litellm_params"].get("api_key") for m in loaded["model_list"]}
    assert {k for k, v in keys.items() if v} == clouds and "openai" not in keys.values()


def test_the_plan_lists_exactly_the_outside_targets() -> None:
    plan = make_plan(parse_table(GROUPS.encode(), "t"))
    assert plan.outside == (("https", "api.openai.com", 443),) and plan.secrets == ("openai",)
    text = GROUPS
    for old, new in (
        ("enabled: true", "enabled: false"),
        ("  far: {chain: [g], data_class: public}\n", ""),
        ("error: far, ", ""),
        ("overrides:\n  alice: {modes: [secret]}\n", ""),
        ("[a, g], data_class: internal", "[a], data_class: internal"),
    ):
        assert old in text
        text = text.replace(old, new)
    off = make_plan(parse_table(text.encode(), "t"))
    assert off.outside == () and off.secrets == () and {g.public for g in off.groups} == {False}


@pytest.mark.parametrize(
    ("words", "model", "url", "more"),
    [
        ("kind: openai", "openai/g", "https://api.openai.com/v1", {}),
        ("kind: anthropic", "anthropic/g", "https://api.anthropic.com", {}),
        ("kind: gemini", "gemini/g", "https://generativelanguage.googleapis.com", {}),
        ("kind: mistral", "mistral/g", "https://api.mistral.ai/v1", {}),
        ("kind: openrouter", "openrouter/g", "https://openrouter.ai/api/v1", {}),
        ("kind: openai, url: 'https://eu.example.com/v1'", "openai/g", "https://eu.example.com/v1", {"api_base": ...}),
        (
            "kind: azure, url: 'https://mine.openai.azure.com', api_version: '2024-10-21'",
            "azure/g",
            "https://mine.openai.azure.com",
            {"api_base": ..., "api_version": "2024-10-21"},
        ),
        (
            "kind: bedrock, region: eu-central-1",
            "bedrock/g",
            "https://bedrock-runtime.eu-central-1.amazonaws.com",
            {
                "aws_region_name": "eu-central-1",
                "aws_bedrock_runtime_endpoint": ...,
                "aws_access_key_id": "set-by-io3ops-from-a-file",
                "aws_secret_access_key": "set-by-io3ops-from-a-file",
            },
        ),
        (
            "kind: openai_compatible, url: 'https://api.example.com/v1', locality: cloud",
            "openai/g",
            "https://api.example.com/v1",
            {"api_base": ...},
        ),
    ],
)
def test_every_cloud_kind_is_rendered_with_its_address_and_without_a_key(
    words: str, model: str, url: str, more: dict[str, object]
) -> None:
    """LiteLLM gets an address only if it differs from its own default; the policy and the egress rules always get it."""
    text = f"""version: 1
providers: {{cloud: {{{words}, key: k, enabled: true}}}}
models: {{g: {{provider: cloud, source: {{external: g}}}}}}
modes: {{open: {{chain: [g], data_class: public}}}}
"""
    plan = make_plan(parse_table(text.encode(), "t"))
    loaded = yaml.safe_load(render(plan))
    (entry,) = loaded["model_list"]
    common = {"order": 1, "timeout": 600, "stream_timeout": 600, "max_retries": 0}
    named = {key: url if value is ... else value for key, value in more.items()}
    key = {} if "bedrock" in words else {"api_key": "set-by-io3ops-from-a-file"}
    assert entry["litellm_params"] == {"model": model} | common | named | key
    (place,) = loaded["io3ops_policy"]["deployments"].values()
    assert place["url"] == url and place["local"] is False and place["key"] == "k"
    assert plan.outside == (("https", url.split("/")[2], 443),)


def test_public_requests_call_the_runtime_by_another_name() -> None:
    """HTTP clients keep one connection pool per name, so public and internal prompts share no connection."""
    plan = make_plan(parse_table(GROUPS.encode(), "t"))
    urls = {(group.public, d.url) for group in plan.groups for d in group.deployments if d.local}
    assert urls == {(False, "http://runtime:11434"), (True, "http://runtime-public:11434")}
    loaded = yaml.safe_load(render(plan))
    for entry in loaded["model_list"]:
        place = loaded["io3ops_policy"]["deployments"][entry["model_info"]["id"]]
        assert entry["litellm_params"].get("api_base", place["url"]) == place["url"]
    assert all(host != "runtime-public" for _, host, _ in plan.outside)
