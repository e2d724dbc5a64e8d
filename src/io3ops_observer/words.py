"""The table's names and other fixed words: nothing else becomes a label or part of a trace. Reads one file, which `io3ops up` writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from io3ops_shared.label_names import Deployment, parse
from io3ops_shared.request_log.schema import AttemptError

OTHER = "other"
NONE = "none"

# Failures of attempts: our words, and the names of exceptions in httpx, aiohttp and LiteLLM.
ERRORS = frozenset(AttemptError) | frozenset(
    {
        "ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "WriteError", "WriteTimeout", "RemoteProtocolError", "PoolTimeout",
        "CloseError", "DecodingError", "LocalProtocolError", "ProxyError", "TooManyRedirects", "UnsupportedProtocol",
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
class Words:
    """All names in the table."""

    modes: frozenset[str] = frozenset()
    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    models: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()


class WordsFile:
    """The names in a file that may be replaced at any time. While it cannot be read, the last names stay."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self.words = Words()

    def refresh(self) -> bool:
        """Read the file again if it changed. Return whether it did. Raises OSError or ValueError when it cannot be read."""
        status = self._path.stat()
        # A restored file may have its old mtime. The ctime cannot be set.
        stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        if stamp == self._stamp:
            return False
        modes, deployments = parse(self._path.read_bytes())
        self.words = Words(
            modes=modes,
            deployments=deployments,
            models=frozenset(d.model for d in deployments.values()),
            providers=frozenset(d.provider for d in deployments.values()),
        )
        self._stamp = stamp
        return True
