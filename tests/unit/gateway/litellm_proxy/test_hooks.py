"""LiteLLM's hooks without LiteLLM: which calls each of them refuses, and which fields it changes."""

from __future__ import annotations

import asyncio
import importlib
import json
import types
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import HTTPException
from tests import fake_litellm
from tests.unit.gateway.contexts import a_context

from io3ops.operations.privacy import audit as reader
from io3ops_gateway.errors import ConfigError
from io3ops_gateway.request.context import CURRENT, RequestContext
from io3ops_gateway.settings import Settings

CLOUD = "https://api.openai.com/v1"
RUNTIME = "http://runtime:11434"


def refusal(caught: pytest.ExceptionInfo[HTTPException]) -> tuple[int, str]:
    """The status and code with which a hook ended a request."""
    detail: Any = caught.value.detail
    return caught.value.status_code, detail["error"]["code"]


def _config() -> dict[str, Any]:
    there = {"provider": "cloud", "local": False, "url": CLOUD, "key": "openai", "kind": "openai"}
    bedrock = {"provider": "aws", "local": False, "url": "https://b", "key": "aws", "kind": "bedrock"}
    gemini = {
        "provider": "google",
        "local": False,
        "url": "https://g",
        "key": "openai",
        "kind": "gemini",
        "first_token": 7,
    }
    here = {"provider": "local", "local": True, "url": RUNTIME}
    groups = {"open": ["open.1.a"], "open:public": ["open:public.1.g", "open:public.2.b", "open:public.3.n"]}
    places = {
        "open.1.a": {"name": "open.1.a", **here},
        "open:public.1.g": {"name": "open.1.g", **there},
        "open:public.2.b": {"name": "open.2.b", **bedrock},
        "open:public.3.n": {"name": "open.3.n", **gemini},
    }
    return {
        "model_list": [
            {
                "model_name": group,
                "model_info": {"id": found},
                "litellm_params": {"model": "m", "api_base": places[found]["url"]},
            }
            for group, ids in groups.items()
            for found in ids
        ],
        "io3ops_policy": {
            "version": 4,
            "data_class": "internal",
            "modes": {"open": {"groups": {"internal": "open", "public": "open:public"}, "total": 5}},
            "aliases": {},
            "deployments": places,
            "overrides": {},
            "edge": {"hosts": [], "origins": [], "max_body": 1000},
            "log": {},
        },
    }


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A rendered file, and a folder of provider keys."""
    (tmp_path / "litellm.yaml").write_text(yaml.safe_dump(_config()))
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/openai").write_text("sk-real\n")
    (tmp_path / "keys/aws").write_text("AKIA:se:cret\n")
    (tmp_path / "audit").mkdir()
    return Settings(config=tmp_path / "litellm.yaml", provider_keys=tmp_path / "keys", audit_dir=tmp_path / "audit")


@pytest.fixture
def hooks(litellm: dict[str, types.ModuleType], settings: Settings) -> Any:
    """The hooks as a worker loads them."""
    return importlib.import_module("io3ops_gateway.litellm_proxy.hooks").load(settings)


def context(data_class: str = "internal", *, leaves: bool = False, reason: str = "") -> RequestContext:
    return a_context(
        key="alice",
        slots=("mode open", "key alice"),
        mode="open",
        requested_model="gpt",
        group="open:public" if leaves else "open",
        data_class=data_class,
        may_leave=leaves,
        override_reason=reason,
    )


PUBLIC: dict[str, Any] = {"data_class": "public", "leaves": True}
OVERRIDE: dict[str, Any] = {"data_class": "internal", "leaves": True, "reason": "ticket 4711"}


def within(found: RequestContext | None, call: Awaitable[Any]) -> Any:
    async def scene() -> Any:
        CURRENT.set(found)
        return await call

    return asyncio.run(scene())


def deployment(found: str, url: str | None = None) -> dict[str, Any]:
    return {"model_info": {"id": found}, "litellm_params": {"model": "m"} | ({"api_base": url} if url else {})}


def attempt(hooks: Any, found: RequestContext | None, place: object, kind: str = "acompletion", **kwargs: Any) -> Any:
    info = {} if place is None else {"model_info": {"id": place}}
    return within(found, hooks.async_pre_call_deployment_hook(info | kwargs, kind))


# -- before the call


@pytest.mark.parametrize("model", ["gpt", "open"])
def test_the_router_is_asked_for_the_group_that_the_edge_chose(hooks: Any, model: str) -> None:
    data = {"model": model, "messages": []}
    assert within(context(), hooks.async_pre_call_hook(None, None, data, "completion"))["model"] == "open"
    public = within(context(**PUBLIC), hooks.async_pre_call_hook(None, None, {"model": "gpt"}, "completion"))
    assert public["model"] == "open:public"


@pytest.mark.parametrize("model", ["open:public", "other", "", None, "open.1.a", "gpt,open:public"])
def test_a_model_that_changed_on_its_way_is_refused(hooks: Any, model: object) -> None:
    with pytest.raises(HTTPException) as caught:
        within(context(), hooks.async_pre_call_hook(None, None, {"model": model}, "completion"))
    assert refusal(caught) == (403, "changed")


def test_a_call_that_did_not_come_through_the_edge_is_refused_everywhere(hooks: Any) -> None:
    """LiteLLM's own health checks, another route, a background task that lost its context."""
    with pytest.raises(HTTPException) as caught:
        within(None, hooks.async_pre_call_hook(None, None, {"model": "open"}, "completion"))
    assert refusal(caught) == (403, "no_request")
    assert within(None, hooks.async_filter_deployments("open", [deployment("open.1.a")], [])) == []
    for place in ("open.1.a", "open:public.1.g"):
        with pytest.raises(HTTPException) as caught:
            attempt(hooks, None, place)
        assert refusal(caught) == (403, "no_request")


# -- at every routing decision

EVERY = [
    deployment("open.1.a", RUNTIME),
    deployment("open:public.1.g", CLOUD),
    deployment("open:public.1.g"),
    deployment("open:public.1.g", "https://evil"),
    deployment("open.1.a", "http://evil"),
    deployment("open.1.a", CLOUD),
    deployment("stranger", RUNTIME),
    {},
    {"model_info": None, "litellm_params": None},
]


def offered(hooks: Any, found: RequestContext) -> list[int]:
    kept = within(found, hooks.async_filter_deployments("open", EVERY, []))
    return [i for i, d in enumerate(EVERY) if any(d is k for k in kept)]


def test_the_router_gets_only_deployments_to_which_the_prompt_may_go(hooks: Any) -> None:
    assert offered(hooks, context()) == [0]
    assert offered(hooks, context(**PUBLIC)) == offered(hooks, context(**OVERRIDE)) == [0, 1, 2]


def test_a_provider_without_its_key_is_not_offered(hooks: Any, tmp_path: Path) -> None:
    (tmp_path / "keys/openai").unlink()
    assert offered(hooks, context(**PUBLIC)) == [0]
    (tmp_path / "keys/openai").write_text("sk-new")
    assert offered(hooks, context(**PUBLIC)) == [0, 1, 2]


@pytest.mark.parametrize("name", ["api_base", "base_url", "aws_bedrock_runtime_endpoint"])
def test_an_address_is_checked_under_each_of_litellms_names_for_it(hooks: Any, name: str) -> None:
    moved = {"model_info": {"id": "open.1.a"}, "litellm_params": {name: "https://evil"}}
    assert within(context(), hooks.async_filter_deployments("open", [moved], [])) == []
    with pytest.raises(HTTPException):
        attempt(hooks, context(), "open.1.a", **{name: "https://evil"})


# -- before each attempt


@pytest.mark.parametrize(
    ("place", "url", "code"),
    [
        ("open:public.1.g", CLOUD, "stays_local"),
        ("open:public.1.g", None, "stays_local"),
        ("open.1.a", CLOUD, "unknown_address"),
        ("stranger", RUNTIME, "unknown_deployment"),
        (None, RUNTIME, "unknown_deployment"),
        (7, None, "unknown_deployment"),
    ],
)
def test_an_internal_attempt_at_anything_but_a_local_deployment_is_stopped(
    hooks: Any, place: object, url: str | None, code: str
) -> None:
    found = context()
    with pytest.raises(HTTPException) as caught:
        attempt(hooks, found, place, api_base=url)
    assert refusal(caught) == (403, code)
    assert (found.routing.attempts, found.routing.deployment) == (0, "")


def test_a_refusal_ends_the_request_in_openais_shape_of_an_error(hooks: Any) -> None:
    with pytest.raises(HTTPException) as caught:
        attempt(hooks, context(), "open:public.1.g")
    detail: Any = caught.value.detail
    assert set(detail["error"]) == {"message", "type", "code"}


def test_a_local_attempt_carries_no_key(hooks: Any) -> None:
    found = context()
    kwargs = attempt(hooks, found, "open.1.a", api_base=RUNTIME)
    assert "api_key" not in kwargs and "client" not in kwargs
    assert (found.routing.attempts, found.routing.deployment, found.routing.local) == (1, "open.1.a", True)


def test_a_cloud_attempt_gets_its_providers_key_alone(hooks: Any, tmp_path: Path) -> None:
    found = context(**PUBLIC)
    kwargs = attempt(hooks, found, "open:public.1.g", api_base=CLOUD, api_key="set-by-io3ops-from-a-file")
    assert kwargs["api_key"] == "sk-real"
    assert (found.routing.attempts, found.routing.deployment, found.routing.local) == (1, "open.1.g", False)
    aws = attempt(hooks, found, "open:public.2.b", aws_access_key_id="x", aws_secret_access_key="x")
    assert (aws["aws_access_key_id"], aws["aws_secret_access_key"]) == ("AKIA", "se:cret") and "api_key" not in aws
    assert not (tmp_path / "audit/audit.jsonl").exists(), "a public prompt is in no record"


def test_inner_calls_of_one_call_are_one_attempt(hooks: Any) -> None:
    found = context()
    for kind in ("aresponses", "acompletion", "aresponses", "acompletion"):
        attempt(hooks, found, "open.1.a", kind)
    assert found.routing.attempts == 2


def test_a_gemini_stream_that_falls_silent_has_a_limit(hooks: Any) -> None:
    found = context(**PUBLIC)
    first = attempt(hooks, found, "open:public.3.n", stream=True)["client"]
    assert isinstance(first, fake_litellm.AsyncHTTPHandler) and first.timeout.read == 7
    assert attempt(hooks, found, "open:public.3.n", stream=True)["client"] is first, "one for each limit"
    assert "client" not in attempt(hooks, found, "open:public.3.n")


@pytest.mark.parametrize(("name", "place"), [("openai", "open:public.1.g"), ("aws", "open:public.2.b")])
def test_an_attempt_without_a_key_is_stopped(hooks: Any, tmp_path: Path, name: str, place: str) -> None:
    """An empty one sends LiteLLM, or AWS's library, to look for another: environment, files, the machine's own account."""
    (tmp_path / "keys" / name).unlink()
    with pytest.raises(HTTPException):
        attempt(hooks, context(**PUBLIC), place)


# -- overrides


def test_an_override_is_in_the_audit_log_before_the_prompt_leaves(hooks: Any, tmp_path: Path) -> None:
    found = context(**OVERRIDE)
    log = tmp_path / "audit/audit.jsonl"
    attempt(hooks, found, "open.1.a")
    assert not log.exists() and not found.routing.audited, "what stayed local is no override"
    attempt(hooks, found, "open:public.1.g", messages=[{"content": "CANARY"}])
    report = reader.verify(log.read_bytes().splitlines(keepends=True))
    (entry,) = report.entries
    assert report.intact and found.routing.audited == {"cloud"}
    expected = {"key": "alice", "mode": "open", "class": "internal", "source": "mode", "reason": "ticket 4711"}
    assert expected | {"provider": "cloud", "deployment": "open.1.g"} == {
        name: entry[name] for name in [*expected, "provider", "deployment"]
    }
    assert b"CANARY" not in log.read_bytes()
    attempt(hooks, found, "open:public.2.b")
    assert found.routing.audited == {"cloud", "aws"} and len(log.read_bytes().splitlines()) == 2


def test_a_prompt_whose_override_cannot_be_recorded_does_not_leave(
    hooks: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "audit/audit.jsonl"
    found = context(**OVERRIDE)
    for break_it in (lambda: log.mkdir(), lambda: (log.rmdir(), log.write_text("[]\n"))):
        break_it()
        with pytest.raises(HTTPException) as caught:
            attempt(hooks, found, "open:public.1.g")
        assert refusal(caught) == (503, "audit_failed")
        assert not found.routing.audited and found.routing.attempts == 0
    assert "nothing leaves" in capsys.readouterr().err


def test_an_internal_prompt_without_a_reason_does_not_leave_even_by_our_own_mistake(hooks: Any, tmp_path: Path) -> None:
    with pytest.raises(HTTPException) as caught:
        attempt(hooks, context("internal", leaves=True), "open:public.1.g")
    assert refusal(caught) == (403, "stays_local") and not (tmp_path / "audit/audit.jsonl").exists()


# -- after a call


def test_tokens_count_for_the_mode_and_the_key(hooks: Any) -> None:
    answered = {"standard_logging_object": {"total_tokens": 5}}
    within(context(), hooks.async_log_success_event(answered, None, None, None))
    for name in ("mode open", "key alice"):
        with pytest.raises(Exception, match="tokens per minute"):
            hooks.limiter.enter((name, {"tokens_per_minute": 5}))
    hooks.limiter.enter(("key bob", {"tokens_per_minute": 1}))


@pytest.mark.parametrize(
    "record", [{}, {"standard_logging_object": None}, {"standard_logging_object": {"total_tokens": "5"}}]
)
def test_a_response_without_a_count_counts_nothing(hooks: Any, record: dict[str, Any]) -> None:
    within(context(), hooks.async_log_success_event(record, None, None, None))
    within(None, hooks.async_log_success_event({"standard_logging_object": {"total_tokens": 5}}, None, None, None))
    hooks.limiter.enter(("mode open", {"tokens_per_minute": 1}), ("key alice", {"tokens_per_minute": 1}))


# -- the start


def test_litellm_finds_the_hooks_that_were_loaded_last_by_their_dotted_name(hooks: Any, settings: Settings) -> None:
    """The rendered file says `callbacks: io3ops_gateway.litellm_proxy.hooks.policy`."""
    module = importlib.import_module("io3ops_gateway.litellm_proxy.hooks")
    assert module.policy is hooks and hooks.entries == _config()["model_list"]
    again = module.load(settings)
    assert module.policy is again and again is not hooks


@pytest.mark.parametrize("content", ["model_list: []\n", json.dumps(_config() | {"io3ops_policy": {"version": 1}}), ""])
def test_a_policy_that_cannot_be_read_is_not_loaded(
    litellm: dict[str, types.ModuleType], settings: Settings, content: str
) -> None:
    settings.config.write_text(content)
    module = importlib.import_module("io3ops_gateway.litellm_proxy.hooks")
    # An empty file is no mapping; `startup_checks.check_config` says so in words before LiteLLM is imported.
    with pytest.raises((ConfigError, AttributeError)):
        module.load(settings)
    assert not hasattr(module, "policy"), "and LiteLLM finds none"
