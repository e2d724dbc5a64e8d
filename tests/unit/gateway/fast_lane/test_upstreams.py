"""Which deployments of a rendered file the lane may use."""

from __future__ import annotations

from typing import Any

import pytest

from io3ops_gateway.fast_lane.upstreams import upstreams
from io3ops_gateway.policy.policy import Policy
from io3ops_shared.policy import Deployment

URL = "http://models.lan:11434"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def entry(group: str = "m", id_: str = "1", model: str = "ollama_chat/a", mode: str = "chat", **params: Any) -> Any:
    plain = {"model": model, "api_base": URL, "timeout": 60, "stream_timeout": 7}
    return {"model_name": group, "litellm_params": plain | params, "model_info": {"id": id_, "mode": mode}}


def found(*entries: Any, local: bool = True, key: str = "") -> Any:
    deployments = {
        e["model_info"]["id"]: Deployment(
            name=f"m.{e['model_info']['id']}", provider="p", local=local, url=URL, key=key
        )
        for e in entries
    }
    return upstreams(Policy(modes={}, aliases={}, deployments=deployments), list(entries))


def test_a_single_local_first_step_may_be_used() -> None:
    (group, upstream) = next(iter(found(entry(), key="served").items()))
    assert group == "m" and (upstream.id, upstream.name, upstream.key) == ("1", "m.1", "served")
    assert (upstream.timeout, upstream.first, upstream.proxy) == (60.0, 7.0, None)
    target = upstream.target
    assert (target.kind, target.task, target.url, target.model) == ("ollama", "chat", URL, "a")


def test_the_first_step_is_the_one_of_the_lowest_order() -> None:
    made = found(entry(id_="2", order=2), entry(id_="1", order=1), entry(group="other", id_="3", order=5))
    assert {group: upstream.id for group, upstream in made.items()} == {"m": "1", "other": "3"}


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([entry(id_="1", order=1), entry(id_="2", order=1)], id="shared"),
        pytest.param([entry(model="gemini/x")], id="no codec"),
        pytest.param([entry(api_base="")], id="no address"),
    ],
)
def test_other_first_steps_are_litellms(entries: list[Any]) -> None:
    assert found(*entries) == {}


def test_a_cloud_is_litellms() -> None:
    assert found(entry(), local=False) == {}


@pytest.mark.parametrize(
    ("model", "mode", "kind", "task"),
    [
        ("ollama_chat/a", "chat", "ollama", "chat"),
        ("ollama/a", "embedding", "ollama", "embeddings"),
        ("openai/a", "chat", "openai_compatible", "chat"),
        ("openai/org/a", "embedding", "openai_compatible", "embeddings"),
    ],
)
def test_the_route_says_what_the_server_speaks(model: str, mode: str, kind: str, task: str) -> None:
    target = found(entry(model=model, mode=mode))["m"].target
    assert (target.kind, target.task, target.model) == (kind, task, model.partition("/")[2])


def test_settings_of_litellm_are_no_parameters_of_the_request() -> None:
    settings: dict[str, Any] = {"api_key": "sk-x", "order": 1, "weight": 2, "max_retries": 0}
    assert found(entry(**settings, temperature=0.25, num_ctx=2048))["m"].target.parameters == {
        "temperature": 0.25,
        "num_ctx": 2048,
    }


def test_a_server_outside_is_reached_through_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.lan:3128")
    assert found(entry())["m"].proxy == "http://proxy.lan:3128"
    monkeypatch.setenv("no_proxy", "models.lan")
    assert found(entry())["m"].proxy is None
    monkeypatch.setenv("no_proxy", "")
    assert found(entry(api_base="https://models.lan"))["m"].proxy is None, "another scheme's proxy"
