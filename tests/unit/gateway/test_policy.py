"""The gateway's policy on requests' own fields: pure, so every case is quick."""

from __future__ import annotations

from typing import Any

import pytest

from io3ops_gateway.errors import ConfigError
from io3ops_gateway.policy import Meter, ModePolicy, Refusal, apply, from_config

CONFIG: dict[str, Any] = {
    "model_list": [{"model_name": "executor"}],
    "io3ops_policy": {
        "version": 1,
        "modes": {"executor": {"data_class": "internal", "total": 5, "denied": ["tools"]}},
        "aliases": {"gpt": "executor"},
    },
}


def test_the_policy_is_read_and_aliases_resolve() -> None:
    policy = from_config(CONFIG)
    assert policy.modes["executor"].denied == ("tools",)
    assert policy.mode("gpt") is policy.mode("executor") is policy.modes["executor"]


@pytest.mark.parametrize("model", ["other", "executor.1.a", "executor,executor", "", None, ["executor"], {"a": 1}])
def test_what_is_no_mode_is_refused(model: object) -> None:
    """LiteLLM would take a deployment's id, or several names with commas, past the mode's policy."""
    with pytest.raises(Refusal) as caught:
        from_config(CONFIG).mode(model)
    assert caught.value.status == 404


@pytest.mark.parametrize(
    "change",
    [
        {"io3ops_policy": None},
        {"io3ops_policy": {"version": 2}},
        {"io3ops_policy": {"version": 1, "modes": {"executor": {"unknown": 1}}, "aliases": {}}},
        {"io3ops_policy": {"version": 1, "modes": {"executor": {}}}},
        {"model_list": [{"model_name": "executor"}, {"model_name": "stranger"}]},
    ],
)
def test_a_policy_that_cannot_be_read_stops_the_start(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        from_config(CONFIG | change)


def test_what_only_the_table_says_is_dropped_from_a_request() -> None:
    data = {
        "model": "m",
        "num_ctx": 1,
        "fallbacks": ["x"],
        "api_base": "http://elsewhere",
        "num_retries": 9,
        "user": "kept",
    }
    apply(ModePolicy(name="m"), data)
    assert data == {"model": "m", "user": "kept"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 77), ({"max_tokens": 5}, 5), ({"max_completion_tokens": 5}, None), ({"max_tokens": None}, 77)],
)
def test_a_default_yields_to_the_request(given: dict[str, Any], expected: int | None) -> None:
    """A null from a client would lift the limit, so it counts as nothing said."""
    apply(ModePolicy(name="m", parameters={"max_tokens": 77}), given)
    assert given.get("max_tokens") == expected


def test_a_forced_value_wins_under_each_of_its_names() -> None:
    data = {"max_completion_tokens": 9999, "max_output_tokens": 9999}
    apply(ModePolicy(name="m", forced={"max_tokens": 5}), data)
    assert data == {"max_tokens": 5}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, ["P", "x"]),
        ({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "x"}]}, ["P\n\nS", "x"]),
        ({"messages": [{"role": "developer", "content": "S"}]}, ["P\n\nS"]),
        ({"messages": []}, ["P"]),
    ],
)
def test_the_system_prompt_is_put_in_front(data: dict[str, Any], expected: list[str]) -> None:
    apply(ModePolicy(name="m", system_prompt="P"), data)
    assert [m["content"] for m in data["messages"]] == expected


def test_the_system_prompt_on_the_other_endpoints() -> None:
    responses: dict[str, Any] = {"input": "x", "instructions": "S"}
    messages: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "system": "S"}
    for data in (responses, messages):
        apply(ModePolicy(name="m", system_prompt="P"), data)
    assert responses["instructions"] == messages["system"] == "P\n\nS"
    assert len(messages["messages"]) == 1


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
def test_what_is_denied_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        apply(ModePolicy(name="m", denied=("tools", "images")), data)
    assert caught.value.status == 400


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_requests_per_minute_slide() -> None:
    clock = Clock()
    meter = Meter(clock)
    policy = ModePolicy(name="m", limits={"requests_per_minute": 2})
    meter.enter(policy)
    clock.now += 20
    meter.enter(policy)
    with pytest.raises(Refusal) as caught:
        meter.enter(policy)
    assert caught.value.status == 429 and caught.value.retry_after == 40
    clock.now += 40
    meter.enter(policy)


def test_tokens_count_after_the_answer_and_parallel_slots_come_back() -> None:
    clock = Clock()
    meter = Meter(clock)
    policy = ModePolicy(name="m", limits={"tokens_per_minute": 10, "parallel": 1})
    meter.enter(policy)
    with pytest.raises(Refusal, match="parallel"):
        meter.enter(policy)
    meter.leave("m")
    meter.used("m", 12)
    with pytest.raises(Refusal, match="tokens"):
        meter.enter(policy)
    clock.now += 60
    meter.enter(policy)


def test_a_refused_request_takes_nothing() -> None:
    """Else a client that keeps asking would never be let in again."""
    clock = Clock()
    meter = Meter(clock)
    policy = ModePolicy(name="m", limits={"requests_per_minute": 1})
    meter.enter(policy)
    for _ in range(50):
        with pytest.raises(Refusal):
            meter.enter(policy)
    clock.now += 60
    meter.enter(policy)
