"""LiteLLM's hooks without LiteLLM: what each of them refuses, and what it hands on."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import types
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.unit.gateway.contexts import a_context

from io3ops.operations.privacy import audit as reader
from io3ops_gateway.errors import ConfigError
from io3ops_gateway.request.context import CURRENT, RequestContext

CLOUD = "https://api.openai.com/v1"
RUNTIME = "http://runtime:11434"


class Stopped(Exception):
    """In the place of FastAPI's HTTPException."""

    def __init__(self, status_code: int, detail: Any = None) -> None:
        super().__init__(detail)
        self.status = status_code
        self.code = detail["error"]["code"]


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
            "version": 3,
            "data_class": "internal",
            "modes": {"open": {"groups": {"internal": "open", "public": "open:public"}, "total": 5}},
            "aliases": {},
            "deployments": places,
            "overrides": {},
            "door": {"hosts": [], "origins": [], "max_body": 1000},
            "log": {},
        },
    }


class TooLong(Exception):
    """LiteLLM's word for a prompt that does not fit."""

    def __init__(self, message: str, model: str, llm_provider: str) -> None:
        super().__init__(message, model, llm_provider)


def theirs(**words: Any) -> None:
    """LiteLLM's own reading of Ollama's errors."""
    raise LookupError(words["error_str"])


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module's own `policy`, loaded as LiteLLM does it, from a rendered file and a folder of keys."""
    fakes: dict[str, dict[str, Any]] = {
        "litellm": {},
        "litellm.integrations": {},
        "litellm.integrations.custom_logger": {"CustomLogger": object},
        "litellm.exceptions": {"ContextWindowExceededError": TooLong},
        "litellm.litellm_core_utils": {"exception_mapping_utils": types.SimpleNamespace(_map_ollama_exception=theirs)},
        "litellm.llms": {},
        "litellm.llms.custom_httpx": {},
        "litellm.llms.custom_httpx.http_handler": {"AsyncHTTPHandler": lambda timeout: ("client", timeout.read)},
        "fastapi": {"HTTPException": Stopped},
    }
    for name, words in fakes.items():
        module = types.ModuleType(name)
        vars(module).update(words)
        monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / "litellm.yaml").write_text(yaml.safe_dump(_config()))
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/openai").write_text("sk-real\n")
    (tmp_path / "keys/aws").write_text("AKIA:se:cret\n")
    (tmp_path / "audit").mkdir()
    monkeypatch.setenv("IO3_CONFIG", str(tmp_path / "litellm.yaml"))
    monkeypatch.setenv("IO3_PROVIDER_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("IO3_AUDIT_DIR", str(tmp_path / "audit"))
    # The import replaces this in httpx for the whole process; here it is put back.
    base = httpx._client.BaseClient
    monkeypatch.setattr(base, "_build_redirect_request", base._build_redirect_request)
    monkeypatch.delitem(sys.modules, "io3ops_gateway.litellm_proxy.hooks", raising=False)
    yield importlib.import_module("io3ops_gateway.litellm_proxy.hooks").policy
    sys.modules.pop("io3ops_gateway.litellm_proxy.hooks", None)


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
    with pytest.raises(Stopped) as caught:
        within(context(), hooks.async_pre_call_hook(None, None, {"model": model}, "completion"))
    assert (caught.value.status, caught.value.code) == (403, "changed")


def test_a_call_that_did_not_come_through_the_door_is_refused_everywhere(hooks: Any) -> None:
    """LiteLLM's own health checks, another route, a background task that lost its context."""
    with pytest.raises(Stopped) as caught:
        within(None, hooks.async_pre_call_hook(None, None, {"model": "open"}, "completion"))
    assert caught.value.code == "no_request"
    assert within(None, hooks.async_filter_deployments("open", [deployment("open.1.a")], [])) == []
    for place in ("open.1.a", "open:public.1.g"):
        with pytest.raises(Stopped) as caught:
            attempt(hooks, None, place)
        assert (caught.value.status, caught.value.code) == (403, "no_request")


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


def test_only_where_the_prompt_may_go_is_offered(hooks: Any) -> None:
    assert offered(hooks, context()) == [0]
    assert offered(hooks, context(**PUBLIC)) == offered(hooks, context(**OVERRIDE)) == [0, 1, 2]


def test_a_provider_without_its_key_is_left_out(hooks: Any, tmp_path: Path) -> None:
    (tmp_path / "keys/openai").unlink()
    assert offered(hooks, context(**PUBLIC)) == [0]
    (tmp_path / "keys/openai").write_text("sk-new")
    assert offered(hooks, context(**PUBLIC)) == [0, 1, 2]


@pytest.mark.parametrize("name", ["api_base", "base_url", "aws_bedrock_runtime_endpoint"])
def test_each_of_litellms_words_for_an_address_is_looked_at(hooks: Any, name: str) -> None:
    moved = {"model_info": {"id": "open.1.a"}, "litellm_params": {name: "https://evil"}}
    assert within(context(), hooks.async_filter_deployments("open", [moved], [])) == []
    with pytest.raises(Stopped):
        attempt(hooks, context(), "open.1.a", **{name: "https://evil"})


# -- last before the wire


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
    with pytest.raises(Stopped) as caught:
        attempt(hooks, found, place, api_base=url)
    assert (caught.value.status, caught.value.code) == (403, code)
    assert (found.routing.attempts, found.routing.deployment) == (0, "")


def test_a_stop_ends_the_request_and_is_said_in_openais_shape(hooks: Any) -> None:
    with pytest.raises(Stopped) as caught:
        attempt(hooks, context(), "open:public.1.g")
    assert set(caught.value.args[0]["error"]) == {"message", "type", "code"}


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


def test_calls_that_litellm_makes_of_one_call_are_one_attempt(hooks: Any) -> None:
    found = context()
    for kind in ("aresponses", "acompletion", "aresponses", "acompletion"):
        attempt(hooks, found, "open.1.a", kind)
    assert found.routing.attempts == 2


def test_a_stream_that_litellm_would_wait_for_for_ever_gets_a_limit(hooks: Any) -> None:
    found = context(**PUBLIC)
    first = attempt(hooks, found, "open:public.3.n", stream=True)["client"]
    assert first == ("client", 7) and attempt(hooks, found, "open:public.3.n", stream=True)["client"] is first
    assert "client" not in attempt(hooks, found, "open:public.3.n")


@pytest.mark.parametrize(("name", "place"), [("openai", "open:public.1.g"), ("aws", "open:public.2.b")])
def test_an_attempt_without_a_key_is_stopped(hooks: Any, tmp_path: Path, name: str, place: str) -> None:
    """An empty one sends LiteLLM, or AWS's library, to look for another: environment, files, the machine's own account."""
    (tmp_path / "keys" / name).unlink()
    with pytest.raises(Stopped):
        attempt(hooks, context(**PUBLIC), place)


# -- overrides


def test_an_override_is_on_the_record_before_it_leaves(hooks: Any, tmp_path: Path) -> None:
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


def test_what_cannot_be_recorded_does_not_leave(hooks: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "audit/audit.jsonl"
    found = context(**OVERRIDE)
    for break_it in (lambda: log.mkdir(), lambda: (log.rmdir(), log.write_text("[]\n"))):
        break_it()
        with pytest.raises(Stopped) as caught:
            attempt(hooks, found, "open:public.1.g")
        assert (caught.value.status, caught.value.code) == (503, "audit_failed")
        assert not found.routing.audited and found.routing.attempts == 0
    assert "nothing leaves" in capsys.readouterr().err


def test_a_prompt_that_may_leave_without_a_reason_is_a_mistake_of_ours_and_stops(hooks: Any, tmp_path: Path) -> None:
    with pytest.raises(Stopped) as caught:
        attempt(hooks, context("internal", leaves=True), "open:public.1.g")
    assert caught.value.code == "stays_local" and not (tmp_path / "audit/audit.jsonl").exists()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("follow", [True, False])
def test_no_redirect_is_followed_by_any_client(hooks: Any, status: int, follow: bool) -> None:
    """A local server that answers with a cloud's address would take the prompt along."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(status, headers={"location": "https://evil.example/"})

    async def scene() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), follow_redirects=follow) as client:
            await client.post("http://runtime:11434/api/chat", json={})

    with pytest.raises(httpx.RemoteProtocolError, match="redirect"):
        asyncio.run(scene())
    with (
        httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=follow) as client,
        pytest.raises(httpx.RemoteProtocolError, match="redirect"),
    ):
        client.post("http://runtime:11434/api/chat", json={})
    assert asked == ["http://runtime:11434/api/chat"] * 2


# -- after it


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
def test_an_answer_without_a_count_counts_nothing(hooks: Any, record: dict[str, Any]) -> None:
    within(context(), hooks.async_log_success_event(record, None, None, None))
    within(None, hooks.async_log_success_event({"standard_logging_object": {"total_tokens": 5}}, None, None, None))
    hooks.limiter.enter(("mode open", {"tokens_per_minute": 1}), ("key alice", {"tokens_per_minute": 1}))


# -- the start


@pytest.mark.parametrize("content", ["model_list: []\n", json.dumps(_config() | {"io3ops_policy": {"version": 1}}), ""])
def test_a_policy_that_cannot_be_read_stops_the_import(hooks: Any, tmp_path: Path, content: str) -> None:
    (tmp_path / "litellm.yaml").write_text(content)
    sys.modules.pop("io3ops_gateway.litellm_proxy.hooks")
    # An empty file is no mapping; `startup_checks.check_config` says so in words before LiteLLM is imported.
    with pytest.raises((ConfigError, AttributeError)):
        importlib.import_module("io3ops_gateway.litellm_proxy.hooks")


def test_ollamas_refusal_of_a_long_prompt_gets_litellms_own_error(hooks: Any) -> None:
    """Without it the fallback for long prompts would never act; everything else is read as before."""
    read = sys.modules["litellm.litellm_core_utils"].exception_mapping_utils._map_ollama_exception
    words = {"model": "a", "custom_llm_provider": "ollama_chat", "original_exception": None}
    with pytest.raises(TooLong):
        read(error_str="400: This model's maximum context length is 512 tokens", **words)
    with pytest.raises(LookupError, match="no such model"):
        read(error_str="no such model", **words)
