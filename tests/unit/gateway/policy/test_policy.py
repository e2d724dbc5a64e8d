"""The gateway's policy: modes, what they allow and set, and where a prompt may go."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from io3ops_gateway.errors import ConfigError, Refusal
from io3ops_gateway.policy.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES
from io3ops_gateway.policy.policy import apply, from_config
from io3ops_shared.policy import LogSettings, ModePolicy

RUNTIME, CLOUD = "http://runtime:11434", "https://api.openai.com/v1"


def deployment(group: str, found: str, model: str, **params: Any) -> dict[str, Any]:
    return {"model_name": group, "model_info": {"id": found}, "litellm_params": {"model": model, **params}}


def config() -> dict[str, Any]:
    """As rendered: mode `executor` is local only, `open` also has a cloud."""
    here = {"provider": "local", "local": True, "url": RUNTIME, "kind": "ollama", "model": "a", "window": 4096}
    there = {"provider": "cloud", "local": False, "url": CLOUD, "key": "openai", "kind": "openai"}
    return {
        "model_list": [
            deployment("executor", "executor.1.a", "ollama_chat/a", api_base=RUNTIME),
            deployment("open", "open.1.a", "ollama_chat/a", api_base=RUNTIME),
            deployment("open:public", "open:public.1.a", "ollama_chat/a", api_base=RUNTIME),
            deployment("open:public", "open:public.2.g", "openai/g", api_base=CLOUD),
        ],
        "io3ops_policy": {
            "version": 4,
            "data_class": "internal",
            "modes": {
                "executor": {
                    "groups": {"internal": "executor", "public": "executor"},
                    "total": 5,
                    "denied": ["tools"],
                },
                "open": {
                    "groups": {"internal": "open", "public": "open:public"},
                    "total": 5,
                    "data_class": "public",
                    "truncation": "flag",
                    "record_internal": True,
                },
            },
            "aliases": {"gpt": "executor", "gpt:tag": "open"},
            "deployments": {
                "executor.1.a": {"name": "executor.1.a", **here},
                "open.1.a": {"name": "open.1.a", **here},
                "open:public.1.a": {"name": "open.1.a", **here},
                "open:public.2.g": {"name": "open.2.g", **there},
            },
            "overrides": {"alice": ["open"]},
            "edge": {"hosts": ["box.lan"], "origins": [], "max_body": 1000},
            "log": {"requests": True, "keep_days": 7, "budget_mb": 100, "rotate_mb": 5},
        },
    }


def mode(**words: Any) -> ModePolicy:
    return ModePolicy(name="m", groups={"internal": "m", "public": "m"}, **words)


# -- modes


def test_the_policy_is_read_and_aliases_resolve() -> None:
    policy = from_config(config())
    assert policy.modes["executor"].denied == ("tools",)
    assert policy.mode("gpt") == policy.mode("executor") == (policy.modes["executor"], "")
    assert policy.overrides == {"alice": frozenset({"open"})}
    assert policy.gateway.hosts == ("box.lan",) and policy.gateway.max_body == 1000
    assert policy.data_class == "internal" and not policy.deployments["open:public.2.g"].local
    assert policy.log == LogSettings(keep_days=7, budget_mb=100, rotate_mb=5)
    place = policy.deployments["executor.1.a"]
    assert (place.kind, place.model, place.window) == ("ollama", "a", 4096)
    assert [(m.truncation, m.record_internal) for m in policy.modes.values()] == [("refuse", False), ("flag", True)]


@pytest.mark.parametrize(
    "model",
    ["other", "executor.1.a", "open:public.2.g", "executor,executor", "", None, ["executor"], {"a": 1}, 1, "Executor",
     "executor ", "*", "openai/g"],
)  # fmt: skip
def test_an_unknown_mode_is_refused(model: object) -> None:
    """LiteLLM would take a deployment's id, or several names with commas, past the mode's policy."""
    with pytest.raises(Refusal) as caught:
        from_config(config()).mode(model)
    assert caught.value.status == 404


@pytest.mark.parametrize("name", ["executor", "gpt"])
@pytest.mark.parametrize("data_class", ["internal", "public"])
def test_a_suffix_may_set_the_class(name: str, data_class: str) -> None:
    policy = from_config(config())
    assert policy.mode(f"{name}:{data_class}") == (policy.modes["executor"], data_class)


def test_an_alias_with_a_colon_is_no_suffix_and_may_have_one() -> None:
    policy = from_config(config())
    assert policy.mode("gpt:tag") == (policy.modes["open"], "")
    assert policy.mode("gpt:tag:internal") == (policy.modes["open"], "internal")


@pytest.mark.parametrize("suffix", ["secret", "INTERNAL", "internal ", "", "internal:public", "public:internal", "1b"])
def test_any_other_suffix_is_an_unknown_mode(suffix: str) -> None:
    """`executor:INTERNAL` must not be served as if it had said nothing."""
    with pytest.raises(Refusal) as caught:
        from_config(config()).mode(f"executor:{suffix}")
    assert caught.value.status == 404


def test_an_internal_prompt_in_a_mode_without_a_local_model_is_refused() -> None:
    policy = from_config(config())
    assert policy.group(policy.modes["open"], "internal") == "open"
    assert policy.group(policy.modes["open"], "public") == "open:public"
    with pytest.raises(Refusal, match="internal prompts stay local") as caught:
        policy.group(ModePolicy(name="m", groups={"public": "m:public"}), "internal")
    assert caught.value.status == 403


# -- places


def test_only_deployments_of_the_table_are_allowed() -> None:
    policy = from_config(config())
    assert policy.deployment("executor.1.a", RUNTIME, leaves=False).local
    assert policy.deployment("executor.1.a", None, leaves=False).local
    assert policy.deployment("open:public.2.g", CLOUD, leaves=True).key == "openai"


@pytest.mark.parametrize("found", ["", "other", "open:public", "EXECUTOR.1.A", None, 1, ["executor.1.a"], {"id": 1}])
@pytest.mark.parametrize("leaves", [True, False])
def test_an_unknown_deployment_is_refused_even_for_a_public_prompt(found: object, leaves: bool) -> None:
    with pytest.raises(Refusal) as caught:
        from_config(config()).deployment(found, RUNTIME, leaves=leaves)
    assert (caught.value.status, caught.value.code) == (403, "unknown_deployment")


@pytest.mark.parametrize("url", [CLOUD, None, RUNTIME])
def test_a_cloud_is_refused_for_an_internal_prompt(url: str | None) -> None:
    with pytest.raises(Refusal) as caught:
        from_config(config()).deployment("open:public.2.g", url, leaves=False)
    assert (caught.value.status, caught.value.code) == (403, "stays_local")


@pytest.mark.parametrize(
    "url",
    [
        "http://evil:11434",
        "https://runtime:11434",
        "http://runtime",
        "http://runtime:80",
        "http://runtime:11435",
        "http://runtime:11434@evil",
        "http://runtime:11434@evil:11434/",
        "http://runtime:x@evil:11434/",
        "http://evil:11434/?http://runtime:11434",
        "http://evil:11434/#@runtime:11434",
        "http://evil:11434/@runtime:11434/x",
        "http://runtime.evil:11434",
        "//runtime:11434",
        "runtime:11434",
        "",
        "http://",
        CLOUD,
        "file:///etc/passwd",
        12,
        ["http://runtime:11434"],
    ],
)
@pytest.mark.parametrize("leaves", [True, False])
def test_an_address_other_than_the_deployments_is_refused(url: object, leaves: bool) -> None:
    with pytest.raises(Refusal) as caught:
        from_config(config()).deployment("executor.1.a", url, leaves=leaves)
    assert (caught.value.status, caught.value.code) == (403, "unknown_address")


@pytest.mark.parametrize(
    "url", ["http://runtime:99999", "http://runtime:abc", "http://[runtime:11434", "http://ru\u2100ntime:11434"]
)
def test_a_malformed_address_is_refused(url: str) -> None:
    with pytest.raises(Refusal) as caught:
        from_config(config()).deployment("executor.1.a", url, leaves=False)
    assert caught.value.code == "unknown_address"


@pytest.mark.parametrize(
    ("found", "url"),
    [
        ("executor.1.a", "http://runtime:11434/api/chat"),
        ("executor.1.a", "HTTP://RUNTIME:11434"),
        ("executor.1.a", "http://user:word@runtime:11434"),
        ("open:public.2.g", "https://api.openai.com:443/v1"),
        ("open:public.2.g", "https://api.openai.com"),
    ],
)
def test_path_and_default_port_of_an_address_do_not_matter(found: str, url: str) -> None:
    """LiteLLM adds paths of its own. What counts is who is called."""
    assert from_config(config()).deployment(found, url, leaves=True)


# -- a policy that cannot be believed


def change(path: str, value: Any) -> dict[str, Any]:
    """The config with one value replaced ('a/b/c'), or removed (...)."""
    made = copy.deepcopy(config())
    *parents, last = path.split("/")
    here: Any = made
    for part in parents:
        here = here[int(part) if isinstance(here, list) else part]
    if value is ...:
        del here[int(last) if isinstance(here, list) else last]
    else:
        here[int(last) if isinstance(here, list) else last] = value
    return made


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("io3ops_policy", ...),
        ("io3ops_policy", None),
        ("io3ops_policy", []),
        ("io3ops_policy", "version: 4"),
        ("io3ops_policy/version", ...),
        ("io3ops_policy/version", 1),
        ("io3ops_policy/version", 3),
        ("io3ops_policy/version", "4"),
        ("io3ops_policy/data_class", ...),
        ("io3ops_policy/data_class", None),
        ("io3ops_policy/data_class", ""),
        ("io3ops_policy/data_class", "Public"),
        ("io3ops_policy/data_class", ["public"]),
        ("io3ops_policy/modes", ...),
        ("io3ops_policy/modes", None),
        ("io3ops_policy/modes", []),
        ("io3ops_policy/modes/executor", ...),
        ("io3ops_policy/modes/executor", None),
        ("io3ops_policy/modes/executor", {}),
        ("io3ops_policy/modes/executor/unknown", 1),
        ("io3ops_policy/modes/executor/data_class", "secret"),
        ("io3ops_policy/modes/executor/denied", 1),
        ("io3ops_policy/modes/executor/groups", ...),
        ("io3ops_policy/modes/executor/groups", {}),
        ("io3ops_policy/modes/executor/groups/internal", "nowhere"),
        ("io3ops_policy/modes/stranger", {"groups": {"internal": "stranger"}}),
        ("io3ops_policy/aliases", ...),
        ("io3ops_policy/aliases", ["gpt"]),
        ("io3ops_policy/deployments", ...),
        ("io3ops_policy/deployments", {}),
        ("io3ops_policy/deployments", None),
        ("io3ops_policy/deployments/executor.1.a", ...),
        ("io3ops_policy/deployments/executor.1.a/local", ...),
        ("io3ops_policy/deployments/executor.1.a/local", False),
        ("io3ops_policy/deployments/executor.1.a/unknown", 1),
        ("io3ops_policy/deployments/stranger", {"name": "s", "provider": "p", "local": True, "url": "http://s"}),
        ("io3ops_policy/overrides", ...),
        ("io3ops_policy/overrides", ["alice"]),
        ("io3ops_policy/overrides/alice", None),
        ("io3ops_policy/overrides/alice", True),
        ("io3ops_policy/edge", ...),
        ("io3ops_policy/edge", None),
        ("io3ops_policy/edge/hosts", ...),
        ("io3ops_policy/edge/origins", None),
        ("io3ops_policy/edge/unknown", 1),
        ("io3ops_policy/log", ...),
        ("io3ops_policy/log", None),
        ("io3ops_policy/log/requests", "no"),
        ("io3ops_policy/log/keep_days", 0),
        ("io3ops_policy/log/budget_mb", True),
        ("io3ops_policy/log/unknown", 1),
        ("io3ops_policy/modes/executor/truncation", "cut"),
        ("io3ops_policy/modes/executor/truncation", None),
        ("io3ops_policy/modes/executor/record_internal", "false"),
        ("io3ops_policy/deployments/executor.1.a/window", -1),
        ("io3ops_policy/deployments/executor.1.a/window", "4096"),
        ("model_list", ...),
        ("model_list", None),
        ("model_list", []),
        ("model_list/0", ...),
        ("model_list/0/model_name", "stranger"),
        ("model_list/0/model_name", ...),
        ("model_list/0/model_info", ...),
        ("model_list/0/model_info", None),
        ("model_list/0/model_info/id", "stranger"),
    ],
)
def test_a_policy_that_cannot_be_read_or_disagrees_stops_the_start(path: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        from_config(change(path, value))
    assert "render-config" in caught.value.hint


def test_a_file_of_an_older_release_names_both_versions() -> None:
    with pytest.raises(ConfigError, match="policy version 3; this gateway reads version 4"):
        from_config(change("io3ops_policy/version", 3))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model_list", {"a": 1}),
        ("model_list/0", "executor"),
        ("model_list/0/model_info", "executor.1.a"),
        ("io3ops_policy/modes/executor/groups", None),
        ("io3ops_policy/modes/executor/groups", ["executor"]),
        ("io3ops_policy/modes/executor/groups/internal", ["executor"]),
        ("io3ops_policy/modes/executor/total", "soon"),
        ("io3ops_policy/modes/executor/total", 0),
        ("io3ops_policy/deployments/open:public.2.g/local", "false"),
        ("io3ops_policy/deployments/open:public.2.g/local", 1),
        ("io3ops_policy/deployments/executor.1.a/url", ""),
        ("io3ops_policy/edge/max_body", "32000000"),
        ("io3ops_policy/edge/max_body", 0),
        ("io3ops_policy/edge/max_body", True),
    ],
)
def test_a_value_of_the_wrong_type_stops_the_start(path: str, value: Any) -> None:
    """`local: 'false'` is true for Python: a cloud would count as local."""
    with pytest.raises(ConfigError) as caught:
        from_config(change(path, value))
    assert "render-config" in caught.value.hint


@pytest.mark.parametrize("value", [{"model": "openai/gpt"}, {"model": "openai/gpt", "api_base": CLOUD}])
def test_a_local_deployment_that_litellm_would_call_elsewhere_stops_the_start(value: dict[str, str]) -> None:
    """Without an address LiteLLM calls the provider's own, and the hook has none to compare."""
    with pytest.raises(ConfigError):
        from_config(change("model_list/0/litellm_params", value))


@pytest.mark.parametrize("value", ["https://evil.example/v1", "http://api.openai.com/v1", RUNTIME])
def test_a_cloud_that_litellm_would_call_elsewhere_stops_the_start(value: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        from_config(change("model_list/3/litellm_params/api_base", value))
    assert from_config(change("model_list/3/litellm_params", {"model": "openai/g"})), "LiteLLM's default is the table's"


def test_two_deployments_of_one_name_stop_the_start() -> None:
    """The policy could only know where one of them is."""
    twice = config()
    twice["model_list"].append(deployment("open", "executor.1.a", "ollama_chat/a", api_base=RUNTIME))
    with pytest.raises(ConfigError, match="two deployments"):
        from_config(twice)


def test_the_smallest_body_limit_is_one_byte() -> None:
    assert from_config(change("io3ops_policy/edge/max_body", 1)).gateway.max_body == 1


def test_an_internal_group_with_a_cloud_deployment_stops_the_start() -> None:
    """Three ways to get there: the wide group given for internal prompts, a cloud in the local group, one declared so."""
    wide = change("io3ops_policy/modes/open/groups", {"internal": "open:public"})
    del wide["model_list"][1], wide["io3ops_policy"]["deployments"]["open.1.a"]
    moved = change("model_list/3/model_name", "open")
    declared = change("io3ops_policy/deployments/open.1.a/local", False)
    for made in (wide, moved, declared):
        with pytest.raises(ConfigError, match="internal prompts of mode open contains a cloud deployment"):
            from_config(made)


# -- what a mode does to a request


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 77), ({"max_tokens": 5}, 5), ({"max_completion_tokens": 5}, None), ({"max_tokens": None}, 77)],
)
def test_a_default_yields_to_the_request(given: dict[str, Any], expected: int | None) -> None:
    """A null from a client would lift the limit, so it counts as nothing said."""
    apply(mode(parameters={"max_tokens": 77}), CHAT, given)
    assert given.get("max_tokens") == expected


def test_a_forced_value_wins_under_each_of_its_names() -> None:
    data: dict[str, Any] = {"max_completion_tokens": 9999, "max_tokens": 9999}
    apply(mode(forced={"max_tokens": 5}, parameters={"max_tokens": 7}), CHAT, data)
    assert data == {"max_tokens": 5}


def test_parameters_are_renamed_for_each_endpoint() -> None:
    """And is not given what it does not know."""
    policy = mode(forced={"max_tokens": 5, "stop": ["END"], "seed": 1})
    for endpoint, expected in (
        (CHAT, {"max_tokens": 5, "stop": ["END"], "seed": 1}),
        (COMPLETIONS, {"max_tokens": 5, "stop": ["END"], "seed": 1}),
        (RESPONSES, {"max_output_tokens": 5}),
        (MESSAGES, {"max_tokens": 5, "stop_sequences": ["END"]}),
        (EMBEDDINGS, {}),
    ):
        data: dict[str, Any] = {}
        apply(policy, endpoint, data)
        assert data == expected, endpoint.name


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, ["P", "x"]),
        ({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "x"}]}, ["P\n\nS", "x"]),
        ({"messages": [{"role": "developer", "content": "S"}]}, ["P\n\nS"]),
        ({"messages": []}, ["P"]),
        ({"messages": [{"role": "system", "content": [{"type": "text"}]}]}, ["P", [{"type": "text"}]]),
    ],
)
def test_the_system_prompt_is_put_in_front(data: dict[str, Any], expected: list[str]) -> None:
    apply(mode(system_prompt="P"), CHAT, data)
    assert [m["content"] for m in data["messages"]] == expected


def test_the_system_prompt_on_the_other_endpoints() -> None:
    responses: dict[str, Any] = {"input": "x", "instructions": "S"}
    messages: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "system": "S"}
    parts: dict[str, Any] = {"messages": [], "system": [{"type": "text", "text": "S"}]}
    prompt: dict[str, Any] = {"prompt": "S"}
    for endpoint, data in ((RESPONSES, responses), (MESSAGES, messages), (MESSAGES, parts), (COMPLETIONS, prompt)):
        apply(mode(system_prompt="P"), endpoint, data)
    assert responses["instructions"] == messages["system"] == prompt["prompt"] == "P\n\nS"
    assert len(messages["messages"]) == 1
    assert [part["text"] for part in parts["system"]] == ["P", "S"]


def test_a_prompt_that_is_not_text_stays_unchanged() -> None:
    for given in ([1, 2, 3], ["a", "b"], None):
        data: dict[str, Any] = {"prompt": given}
        apply(mode(system_prompt="P"), COMPLETIONS, data)
        assert data == {"prompt": given}


@pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES])
def test_the_system_prompt_stands_alone_when_the_request_has_none(endpoint: Any) -> None:
    data: dict[str, Any] = {}
    apply(mode(system_prompt="P"), endpoint, data)
    assert "P" in data.values()


@pytest.mark.parametrize(
    "data",
    [
        {"tools": [{}]},
        {"functions": [{}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]},
    ],
)
def test_denied_features_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        apply(mode(denied=("tools", "images")), CHAT, data)
    assert caught.value.status == 400
    apply(mode(), CHAT, data)


@pytest.mark.parametrize("content", ["image_url", 5, None, True, {"type": ["image"]}, ["image", 1], []])
def test_text_is_not_denied_as_an_image(content: object) -> None:
    apply(mode(denied=("tools", "images")), CHAT, {"messages": [{"role": "user", "content": content}], "tools": []})


def test_the_search_for_images_has_a_depth_limit() -> None:
    deep: Any = "x"
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(Refusal) as caught:
        apply(mode(denied=("images",)), CHAT, {"messages": deep})
    assert (caught.value.status, caught.value.code) == (400, "too_deep")


# -- ways that lead out


@pytest.mark.parametrize("name", ["fallbacks", "context_window_fallbacks", "content_policy_fallbacks"])
def test_a_fallback_that_leads_internal_prompts_to_a_cloud_stops_the_start(name: str) -> None:
    """Also over another group: what the router may do is known before it does anything."""
    made = config()
    made["router_settings"] = {name: [{"executor": ["open"]}, {"open": ["open:public"]}]}
    with pytest.raises(ConfigError, match="or falls back to one"):
        from_config(made)
