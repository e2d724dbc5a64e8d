"""LiteLLM's modules as far as the gateway uses them: LiteLLM itself is only in the gateway's image.

Names, kinds and parameters are those of the locked version; `tests/integration/test_trim.py` compares with the real one.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest


class ContextWindowExceededError(Exception):
    """LiteLLM's error for a prompt that does not fit."""

    def __init__(self, message: str, model: str, llm_provider: str) -> None:
        super().__init__(message, model, llm_provider)


class CustomLogger:
    """The base class of hooks; each of these methods does nothing."""

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Any, call_type: Any) -> Any: ...

    async def async_filter_deployments(
        self,
        model: str,
        healthy_deployments: Any,
        messages: Any,
        request_kwargs: Any = None,
        parent_otel_span: Any = None,
    ) -> Any: ...

    async def async_pre_call_deployment_hook(self, kwargs: Any, call_type: Any) -> Any: ...

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None: ...


class AsyncHTTPHandler:
    """LiteLLM's HTTP client."""

    def __init__(self, timeout: Any = None) -> None:
        self.timeout = timeout


class ProxyConfig:
    """LiteLLM's loader of its configuration."""

    async def load_config(self, router: Any, config_file_path: str) -> Any: ...


class Router:
    """LiteLLM's router."""

    async def _increment_deployment_usage(self, *, deployment_id: str) -> str | None:
        return deployment_id

    async def deployment_callback_on_success(self) -> None: ...


class LazyFeatureMiddleware:
    """Registers some endpoints at their first request."""


class OtherMiddleware:
    """Does what nothing here needs."""


class OllamaModelInfo:
    """What LiteLLM knows of Ollama's models."""

    @staticmethod
    def _strip_ollama_model_prefix(model: str) -> str:
        return model.removeprefix("ollama/").removeprefix("ollama_chat/")

    @staticmethod
    def _is_static_ollama_model(model: str) -> bool:
        raise AssertionError(f"a pass over every price, for {model}")


class UserAPIKeyAuth:
    """Who calls, for LiteLLM."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields


class LitellmUserRoles:
    """LiteLLM's roles."""

    PROXY_ADMIN = "proxy_admin"


class App:
    """LiteLLM's FastAPI app."""

    def __init__(self) -> None:
        self.user_middleware = [types.SimpleNamespace(cls=cls) for cls in (OtherMiddleware, LazyFeatureMiddleware)]
        self.dependency_overrides: dict[Any, Any] = {}
        inner = types.SimpleNamespace(routes=[types.SimpleNamespace(path="/v1/embeddings")])
        other = types.SimpleNamespace(routes=[types.SimpleNamespace(path="/key/generate")])
        paths = ("/v1/chat/completions", "/v1/files")
        routes = [types.SimpleNamespace(path=path) for path in paths]
        routes += [types.SimpleNamespace(original_router=router) for router in (inner, other)]
        self.router = types.SimpleNamespace(routes=routes)

    def __call__(self, *_given: Any) -> Any:
        raise AssertionError("nobody calls it here")


def map_ollama_exception(*, model: str, original_exception: Any, custom_llm_provider: str, error_str: str) -> None:
    """LiteLLM's own mapping of Ollama's errors."""
    raise LookupError(error_str)


def diagnose_zero_cost(*, usage: Any, pricing_model: Any, pricing_entry: Any, calculation_failed: Any) -> Any:
    """Why a call cost nothing."""
    raise AssertionError("nobody asks")


def token_counter(*, model: str, text: str) -> int:
    return len(text)


async def user_api_key_auth(request: Any) -> Any:
    """LiteLLM's look-up of a key."""


def modules() -> dict[str, dict[str, Any]]:
    """Return the contents of each module, made anew."""
    lists = ("callbacks", "success_callback", "failure_callback", "_async_success_callback", "_async_failure_callback")
    return {
        "litellm": {
            **{name: [] for name in lists},
            "disable_hf_tokenizer_download": None,
            "model_cost": {"ollama/llama2": {}},
            "token_counter": token_counter,
        },
        "litellm.exceptions": {"ContextWindowExceededError": ContextWindowExceededError},
        "litellm.integrations.custom_logger": {"CustomLogger": CustomLogger},
        "litellm.litellm_core_utils.exception_mapping_utils": {"_map_ollama_exception": map_ollama_exception},
        "litellm.litellm_core_utils.litellm_logging": {"diagnose_zero_cost": diagnose_zero_cost},
        "litellm.llms.custom_httpx.http_handler": {"AsyncHTTPHandler": AsyncHTTPHandler},
        "litellm.llms.ollama.common_utils": {"OllamaModelInfo": _copy(OllamaModelInfo)},
        "litellm.proxy._lazy_features": {"LazyFeatureMiddleware": LazyFeatureMiddleware},
        "litellm.proxy._types": {"UserAPIKeyAuth": UserAPIKeyAuth, "LitellmUserRoles": _copy(LitellmUserRoles)},
        "litellm.proxy.auth.user_api_key_auth": {"user_api_key_auth": user_api_key_auth},
        "litellm.proxy.hooks": {"PROXY_HOOKS": {"max_budget_limiter": object}},
        "litellm.proxy.proxy_server": {"app": App(), "llm_router": None, "ProxyConfig": _copy(ProxyConfig)},
        "litellm.router": {"Router": _copy(Router)},
    }


def install(monkeypatch: pytest.MonkeyPatch) -> dict[str, types.ModuleType]:
    """Put the modules, and the packages above them, where an import finds them. Return them by name."""
    contents = modules()
    names = {".".join(name.split(".")[:depth]) for name in contents for depth in range(1, name.count(".") + 2)}
    made = {name: types.ModuleType(name) for name in sorted(names)}
    for name, module in made.items():
        vars(module).update(contents.get(name, {}))
        package, _, last = name.rpartition(".")
        if package:
            setattr(made[package], last, module)
        monkeypatch.setitem(sys.modules, name, module)
    return made


def _copy(cls: type) -> type:
    """A class of its own for each test: some are patched or lose a name."""
    return type(
        cls.__name__, cls.__bases__, {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
    )
