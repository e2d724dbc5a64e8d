"""The table's own names: the only ones that become a label or leave in a trace. Touches one file, written by `io3ops up`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from io3ops_shared.request_log.schema import AttemptError

OTHER = "other"
NONE = "none"

# Classes of failure as httpx, aiohttp and LiteLLM call them, and ours.
ERRORS = frozenset(AttemptError) | frozenset(
    {
        "ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "WriteError", "WriteTimeout", "RemoteProtocolError", "PoolTimeout",
        "Timeout", "TimeoutError", "CancelledError", "ClientError", "ClientConnectorError", "ServerDisconnectedError", "APIConnectionError",
        "APIError", "AuthenticationError", "BadRequestError", "BadGatewayError", "ContentPolicyViolationError", "ContextWindowExceededError",
        "InternalServerError", "NotFoundError", "PermissionDeniedError", "RateLimitError", "ServiceUnavailableError",
        "UnprocessableEntityError", "MidStreamFallbackError",
    }
)  # fmt: skip
STATUSES = frozenset(map(str, [*range(200, 209), *range(300, 309), *range(400, 432), 444, 451, 499, *range(500, 512), 520, 522, 524, 529]))  # fmt: skip


def known(value: str, allowed: frozenset[str]) -> str:
    """Return the value where it is allowed, `other` where it is not, `none` for ''."""
    if not value:
        return NONE
    return value if value in allowed else OTHER


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """Where a step of a chain runs. `kind`: the software or service, in the table's word."""

    provider: str
    kind: str
    model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """Every name in the table."""

    modes: frozenset[str] = frozenset()
    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    models: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()


class WordsFile:
    """The names in a file that may be replaced while this runs; those that were read last, where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self.words = Words()

    def refresh(self) -> bool:
        """Read it again if it is another one; whether it was. Raises OSError or ValueError when it cannot be read."""
        status = self._path.stat()
        seen = (status.st_ino, status.st_mtime_ns)
        if seen == self._seen:
            return False
        loaded = json.loads(self._path.read_bytes())
        found = {name: Deployment(**entry) for name, entry in loaded["deployments"].items()}
        self.words = Words(
            modes=frozenset(loaded["modes"]),
            deployments=found,
            models=frozenset(d.model for d in found.values()),
            providers=frozenset(d.provider for d in found.values()),
        )
        self._seen = seen
        return True
