"""The outcome of a fast-lane attempt that did not answer the client. LiteLLM gets it in place of a second call. Touches nothing."""

from dataclasses import dataclass
from typing import Literal

from io3ops_gateway.errors import Refusal

# httpx's exceptions by name: LiteLLM knows these failures as such, and the request log uses the same words.
Failure = Literal["ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "RemoteProtocolError"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptOutcome:
    """A response of `deployment` at `url` that the lane cannot use or, with `status` 0, a failure and the `reason` for it.

    `overlong`: the server read only a part of the prompt, and the client is to be told this.
    """

    url: str
    deployment: str
    status: int = 0
    content_type: str = "application/json"
    body: bytes = b""
    error: Failure = "ConnectError"
    reason: str = ""
    overlong: Refusal | None = None
