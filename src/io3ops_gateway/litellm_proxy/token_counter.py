"""Count tokens as LiteLLM does, for servers that report none. Touches LiteLLM's bundled tokenizer."""

from collections.abc import Sequence
from typing import Any


class TokenCounter:
    """Counts as LiteLLM does for a model whose tokenizer it does not know."""

    def text(self, text: str) -> int:
        """Return the number of tokens of a text."""
        # Here and not at the top: LiteLLM's import takes seconds, and has its own place in the start.
        from litellm import token_counter

        return int(token_counter(model="", text=text))

    def messages(self, messages: Sequence[Any]) -> int:
        """Return the number of tokens of a chat's messages, including what surrounds them in a prompt."""
        from litellm import token_counter

        return int(token_counter(model="", messages=messages))
