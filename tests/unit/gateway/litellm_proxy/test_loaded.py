"""LiteLLM in a worker: it serves only when it calls the policy's hooks and holds what the file says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from io3ops_gateway import litellm_proxy
from io3ops_gateway.errors import ConfigError, StartError
from io3ops_gateway.litellm_proxy import loaded
from io3ops_gateway.litellm_proxy.loaded import LoadedProxy
from io3ops_gateway.settings import Settings

Modules = dict[str, Any]
NEAR = {"model_name": "near", "model_info": {"id": "near.1.a"}}


async def app(*_given: Any) -> None: ...


@pytest.fixture
def hooks() -> Any:
    return SimpleNamespace(policy=SimpleNamespace(members={"near": ("near.1.a",)}))


def hold(litellm: Modules, *entries: Any) -> None:
    router = SimpleNamespace(get_model_list=lambda: list(entries) or None)
    litellm["litellm.proxy.proxy_server"].llm_router = router


def finish(hooks: Any, *, trimmed: bool = False) -> None:
    LoadedProxy(app, hooks, trimmed=trimmed).finish_start()


def test_a_litellm_that_took_everything_over_may_serve(litellm: Modules, hooks: Any) -> None:
    litellm["litellm"].callbacks[:] = ["another", hooks]
    hold(litellm, NEAR)
    finish(hooks)
    assert litellm["litellm"].callbacks == ["another", hooks]


def test_the_callbacks_of_a_trimmed_litellm_are_trimmed_too(litellm: Modules, hooks: Any) -> None:
    litellm["litellm"].callbacks[:] = ["another", hooks]
    hold(litellm, NEAR)
    finish(hooks, trimmed=True)
    assert litellm["litellm"].callbacks == [hooks]


@pytest.mark.parametrize("trimmed", [False, True])
def test_a_litellm_that_did_not_register_the_hooks_does_not_serve(litellm: Modules, hooks: Any, trimmed: bool) -> None:
    """It drops a callback that it cannot load without a word, and would then route everything anywhere."""
    litellm["litellm"].callbacks[:] = ["another"]
    hold(litellm, NEAR)
    with pytest.raises(StartError, match="did not register the policy's hooks"):
        finish(hooks, trimmed=trimmed)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "near.1.a"),
        ([{"model_name": "near", "model_info": {"id": "near.2.b"}}], "near.1.a"),
        ([{"model_name": "far", "model_info": {"id": "near.1.a"}}], "the groups differ"),
        ([NEAR, {"model_name": "x", "model_info": {"id": "y"}}], "the groups differ"),
    ],
)
def test_a_litellm_that_holds_something_else_does_not_serve(
    litellm: Modules, hooks: Any, entries: list[Any], words: str
) -> None:
    """It drops a model that it cannot read without a word."""
    litellm["litellm"].callbacks[:] = [hooks]
    hold(litellm, *entries)
    with pytest.raises(StartError, match=f"does not hold what the file says: .*{words}"):
        finish(hooks)


def test_a_litellm_without_a_router_does_not_serve(litellm: Modules, hooks: Any) -> None:
    litellm["litellm"].callbacks[:] = [hooks]
    with pytest.raises(StartError, match=r"does not hold what the file says: near\.1\.a"):
        finish(hooks)


def test_a_policy_that_cannot_be_read_keeps_its_own_reason(litellm: Modules, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model_list: []\n")
    with pytest.raises(ConfigError, match=r"litellm\.yaml has no policy;"):
        loaded.load(Settings(config=tmp_path / "c.yaml"), trimmed=False)


def test_hooks_that_cannot_be_imported_are_one_line(litellm: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image is broken; no traceback of thirty frames says it better."""
    monkeypatch.setitem(sys.modules, "litellm.integrations.custom_logger", None)
    with pytest.raises(StartError, match=r"LiteLLM cannot be imported: ModuleNotFoundError: [^\n]*; build the gateway"):
        loaded.load(Settings(), trimmed=False)
    assert not hasattr(litellm_proxy, "hooks")


def test_the_app_is_litellms_own(litellm: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleNamespace(policy="the policy")
    hooks = importlib.import_module("io3ops_gateway.litellm_proxy.hooks")
    monkeypatch.setattr(hooks, "load", lambda _settings: made)
    proxy = loaded.load(Settings(), trimmed=True)
    assert proxy.hooks is made and proxy.app is litellm["litellm.proxy.proxy_server"].app
