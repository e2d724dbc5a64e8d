"""Refuses or flags (`x-io3-truncated`) a response whose server read only a part of the prompt. Pure; `context_window` recognises the cut."""

from collections.abc import Callable

from io3ops_gateway.errors import Refusal
from io3ops_gateway.policy import context_window
from io3ops_gateway.request.context import RequestContext


def check_truncation(
    context: RequestContext,
    deployment: str,
    body: bytes,
    read: int | None,
    *,
    allowed: bool,
    count: Callable[[str], int],
) -> Refusal | None:
    """Return the refusal for the client when the server cut the prompt in `body`; None when it read all of it.

    `read`: the prompt tokens that the server reports. `allowed`: a cut is only noted in `context`. `count`: the tokens of a text.
    """
    window = context.routing.window
    tokens = context_window.estimate(body, window, read, count) if read is not None else 0
    if not tokens:
        return None
    context.routing.truncated = allowed
    return None if allowed else context_window.refusal(deployment, tokens, window, counted=False)
