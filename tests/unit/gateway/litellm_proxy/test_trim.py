"""What is removed from LiteLLM, on modules in its place; `tests/integration/test_trim.py` does the same to the real one."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import Any

import pytest
from tests import fake_litellm

from io3ops_gateway.errors import StartError
from io3ops_gateway.litellm_proxy import compat, trim

Modules = dict[str, Any]


@pytest.fixture
def trimmed(litellm: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> Modules:
    for name in compat.ABSENT_MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert trim.install(trim.VERSION) == ""
    return litellm


def test_middleware_and_hooks_that_do_nothing_here_are_gone(trimmed: Modules) -> None:
    kept = [entry.cls for entry in trimmed["litellm.proxy.proxy_server"].app.user_middleware]
    assert kept == [fake_litellm.LazyFeatureMiddleware]
    assert trimmed["litellm.proxy.hooks"].PROXY_HOOKS == {}


def test_routes_that_the_edge_lets_nobody_reach_are_gone(trimmed: Modules) -> None:
    direct, router = trimmed["litellm.proxy.proxy_server"].app.router.routes
    assert direct.path == "/v1/chat/completions"
    assert [route.path for route in router.original_router.routes] == ["/v1/embeddings"]


def test_the_caller_is_known_without_a_look_at_the_key(trimmed: Modules) -> None:
    (known,) = trimmed["litellm.proxy.proxy_server"].app.dependency_overrides.items()
    assert known[0] is fake_litellm.user_api_key_auth
    assert asyncio.run(known[1]()).fields["user_role"] == "proxy_admin"


def test_prices_are_looked_up_by_name(trimmed: Modules) -> None:
    is_priced = trimmed["litellm.llms.ollama.common_utils"].OllamaModelInfo._is_static_ollama_model
    assert [is_priced(name) for name in ("ollama_chat/llama2", "Llama2", "io3ops/none:1")] == [True, True, False]
    trimmed["litellm"].model_cost = {}
    assert not is_priced("llama2"), "LiteLLM may put other prices there"


def test_nothing_is_counted_and_no_reason_is_looked_for(trimmed: Modules) -> None:
    assert asyncio.run(trimmed["litellm.router"].Router()._increment_deployment_usage(deployment_id="a")) is None
    assert trimmed["litellm.litellm_core_utils.litellm_logging"].diagnose_zero_cost(usage=1) is None


def test_modules_that_are_never_there_are_not_looked_for(trimmed: Modules) -> None:
    for name in compat.ABSENT_MODULES:
        assert sys.modules[name] is None


def test_another_version_is_left_alone_and_the_reason_is_returned(litellm: Modules) -> None:
    before = {name: dict(vars(module)) for name, module in litellm.items()}
    assert trim.install("9.9.9").startswith(f"LiteLLM 9.9.9 is not {trim.VERSION}")
    assert before == {name: dict(vars(module)) for name, module in litellm.items()}


def test_a_version_that_lost_a_name_is_not_trimmed_by_halves(litellm: Modules) -> None:
    del litellm["litellm.router"].Router._increment_deployment_usage
    with pytest.raises(StartError, match=r"Router\._increment_deployment_usage"):
        trim.install(trim.VERSION)
    assert (
        litellm["litellm.proxy.hooks"].PROXY_HOOKS
        and not litellm["litellm.proxy.proxy_server"].app.dependency_overrides
    )


def test_only_the_router_and_the_policy_are_told_of_a_call(litellm: Modules) -> None:
    hooks = object()
    strategy: Any = type("LeastBusy", (), {"__module__": "litellm.router_strategy.least_busy"})()
    other: Any = type("Telemetry", (), {"__module__": "litellm.integrations.telemetry"})()
    callback: Any = type("Callback", (), {"__module__": "litellm.router"})()
    for symbol in compat.CALLBACK_LISTS:
        getattr(litellm["litellm"], symbol.attribute)[:] = ["langfuse", hooks, strategy, other, callback]
    trim.trim_callbacks(hooks)
    for symbol in compat.CALLBACK_LISTS:
        assert getattr(litellm["litellm"], symbol.attribute) == [hooks, strategy, callback]
