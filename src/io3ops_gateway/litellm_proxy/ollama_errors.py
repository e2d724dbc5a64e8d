"""Teach LiteLLM that Ollama can refuse a prompt because it is too long. Touches LiteLLM's mapping of Ollama's errors.

LiteLLM recognises that refusal from other servers only, so without this no fallback for long prompts would act.
"""

from collections.abc import Callable
from typing import Any

from io3ops_gateway.litellm_proxy import compat
from io3ops_gateway.policy import context_window


def install() -> None:
    """Recognise the refusal from now on, and leave every other error to LiteLLM.

    Raises:
        StartError: this LiteLLM maps Ollama's errors elsewhere.
    """
    compat.MAP_OLLAMA_ERROR.replace(_recognise(compat.MAP_OLLAMA_ERROR.find()))


def _recognise(original: Callable[..., None]) -> Callable[..., None]:
    from litellm.exceptions import ContextWindowExceededError

    def map_ollama_error(*, model: str, error_str: str, custom_llm_provider: str, **rest: Any) -> None:
        if context_window.KNOWN in error_str:
            raise ContextWindowExceededError(message=context_window.CODE, model=model, llm_provider=custom_llm_provider)
        original(model=model, error_str=error_str, custom_llm_provider=custom_llm_provider, **rest)

    return map_ollama_error
