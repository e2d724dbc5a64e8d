"""Ollama's refusal of a long prompt gets LiteLLM's own error; without it the fallback for long prompts would never act."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from tests import fake_litellm

from io3ops_gateway.litellm_proxy import ollama_errors

FIELDS: dict[str, Any] = {"model": "a", "custom_llm_provider": "ollama_chat", "original_exception": None}


@pytest.fixture
def mapping(litellm: dict[str, ModuleType]) -> Any:
    ollama_errors.install()
    return litellm["litellm.litellm_core_utils.exception_mapping_utils"]


def test_a_refusal_of_a_long_prompt_is_recognised(mapping: Any) -> None:
    with pytest.raises(fake_litellm.ContextWindowExceededError):
        mapping._map_ollama_exception(error_str="400: This model's maximum context length is 512 tokens", **FIELDS)


def test_every_other_error_is_left_to_litellm(mapping: Any) -> None:
    with pytest.raises(LookupError, match="no such model"):
        mapping._map_ollama_exception(error_str="no such model", **FIELDS)
