"""Counts the tokens and the cost of one request, as servers and LiteLLM report them. Touches nothing.

A server may report anything, a word of the prompt included, so only sane counts and known finish reasons are kept.
"""

from dataclasses import dataclass
from typing import TypeGuard

from io3ops_shared.request_log.schema import FINISH_REASONS

# No real count is larger, and orjson cannot write integers over 64 bits.
MOST_TOKENS = 1 << 53


@dataclass(slots=True, eq=False)
class Usage:
    """The tokens and the cost of one request.

    `prompt`, `completion`, `cached`: tokens of the last attempt, None when nobody reported them. `finish_reason`: '' when unknown.
    `cost`: in USD, of cloud models. `reported`: LiteLLM has reported the end of its call, so nothing more will change.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    finish_reason: str = ""
    cost: float = 0.0
    reported: bool = False

    def restart(self) -> None:
        """Forget the last attempt's counts when another attempt begins. Its cost stays."""
        self.prompt = self.completion = self.cached = None
        self.finish_reason = ""

    def count(self, prompt: object, completion: object) -> None:
        """Note the tokens of prompt and completion. A value that is no count changes nothing."""
        if is_count(prompt):
            self.prompt = prompt
        if is_count(completion):
            self.completion = completion

    def count_cached(self, tokens: object) -> None:
        """Note how many of the prompt's tokens the provider had cached. A value that is no count changes nothing."""
        if is_count(tokens):
            self.cached = tokens

    def finish(self, reason: object) -> None:
        """Note why the answer ended. An unknown reason changes nothing."""
        if isinstance(reason, str) and reason in FINISH_REASONS:
            self.finish_reason = reason

    def charge(self, cost: object) -> None:
        """Note what a cloud model's answer cost, in USD. A value that is no positive number changes nothing."""
        if isinstance(cost, int | float) and cost > 0:
            self.cost = float(cost)


def is_count(value: object) -> TypeGuard[int]:
    """Return whether a value can be a number of tokens."""
    return type(value) is int and 0 <= value < MOST_TOKENS
