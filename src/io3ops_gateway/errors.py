"""The reasons why the gateway does not start, each with its own exit code (numbers of sysexits.h).

GatewayError
├── ConfigError       78   litellm.yaml is missing, unreadable or not what LiteLLM can load
├── KeyFileError      77   the master key is missing, unreadable, empty or a well-known one
├── KeyRingError      76   the file of client keys cannot be read
├── CertificateError  72   a file in the folder of extra certificates cannot be used
├── PortError         71   the address is taken or not this machine's
└── StartError        70   LiteLLM did not start, or a name of it that the gateway needs is gone

`Refusal` is about one request, not about the start. Touches nothing.
"""


class Refusal(Exception):
    """A request that the gateway refuses. `retry_after`: seconds, 0 when waiting does not help."""

    def __init__(self, status: int, code: str, message: str, retry_after: float = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


def one_line(error: BaseException) -> str:
    """Return the kind and text of an unexpected error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


class GatewayError(Exception):
    """One fatal reason. `str()` is the line for the user: what happened, then what to do."""

    exit_code = 1

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(f"{what}; {hint}")
        self.what = what
        self.hint = hint


class ConfigError(GatewayError):
    """litellm.yaml is missing, unreadable or malformed."""

    exit_code = 78


class KeyFileError(GatewayError):
    """The file with the master key cannot be used."""

    exit_code = 77


class KeyRingError(GatewayError):
    """The file of client keys is unreadable or malformed."""

    exit_code = 76


class CertificateError(GatewayError):
    """A file in the folder of extra certificate authorities cannot be used."""

    exit_code = 72


class PortError(GatewayError):
    """The address cannot be bound."""

    exit_code = 71


class StartError(GatewayError):
    """LiteLLM did not start, although the file looked right."""

    exit_code = 70
