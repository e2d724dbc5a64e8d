"""Every error a user can meet, with its exit code. Touches nothing.

    Io3opsError
    ├── 1  CheckFailed           a check ran and found something wrong (health, smoke, drift)
    ├── table and files
    │   ├── 10 TableInvalid      the routing table has problems
    │   ├── 11 EnvFileInvalid    .env cannot be read
    │   ├── 12 KeyFileUnsafe     the key file is missing, empty or open to others
    │   ├── 13 NotWritable       the clone or its state folder cannot be written
    │   ├── 14 AlreadyRunning    another io3ops works on this clone
    │   ├── 15 HandEdited        litellm.yaml, or a table of the user's own, would be overwritten
    │   ├── 16 SettingInvalid    an IO3OPS_* setting has an impossible value
    │   ├── 17 KeysFileInvalid   keys.json cannot be read, or is not what io3ops writes
    │   ├── 18 NameInvalid       a key or secret of this name cannot be: unknown, taken, reserved
    │   └── 19 SecretInvalid     a provider's API key is unusable, or its file cannot be read or removed
    ├── engine
    │   ├── 20 EngineMissing     no Docker engine, and none may be installed
    │   ├── 21 EngineNotRunning  installed, does not answer, could not be started
    │   ├── 22 EngineDenied      the socket refuses this user
    │   ├── 23 EngineTooOld      older than this stack needs
    │   ├── 24 PluginMissing     Compose or Buildx plugin absent or too old
    │   ├── 25 InstallFailed     the package manager failed
    │   └── 26 EngineLost        stopped answering in the middle
    ├── images
    │   ├── 30 BuildFailed       a build step failed
    │   └── 31 BuildOffline      nothing to build from: no registry answers
    ├── containers
    │   ├── 40 PortTaken         the published port belongs to another program
    │   ├── 41 ContainerDied     a container ended instead of becoming ready
    │   ├── 42 NotReady          still not ready at the deadline
    │   ├── 43 ForeignStack      another clone runs the project of this name
    │   ├── 44 ComposeFailed     Docker Compose refused or failed
    │   └── 45 NoSubnet          no addresses are free for a network of the stack
    ├── models
    │   ├── 50 FetchFailed       a model could not be fetched
    │   ├── 51 HashMismatch      a downloaded file is not the pinned one
    │   ├── 52 DiskFull          not enough room for what must be fetched
    │   ├── 53 RuntimeRefused    the runtime answered with an error
    │   └── 54 RuntimeUnreachable  the runtime does not answer the gateway
    ├── gateway
    │   ├── 60 GatewayError      the gateway answered with an error
    │   ├── 61 ModesDiffer       it lists other modes than the table names
    │   ├── 62 ApplyFailed       a new table did not pass; the previous one serves on
    │   └── 63 NotTaken          what was saved has not reached the running gateway
    └── request log
        ├── 65 LogMissing        there is no request log, or it cannot be read
        └── 66 RequestUnknown    no request, or more than one, is what was asked for

Exit code 2 is a wrong command line, 130 is Ctrl-C, 70 is a bug in io3ops.
"""

from __future__ import annotations


class Io3opsError(Exception):
    """Base: what happened, in which layer, what to do. Never printed or logged by itself."""

    exit_code = 70
    layer = "io3ops"

    def __init__(self, message: str, *, hint: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    @property
    def code(self) -> str:
        """The stable name in docs and JSON, e.g. `E40`."""
        return f"E{self.exit_code:02d}"


class CheckFailed(Io3opsError):
    exit_code, layer = 1, "check"


class TableInvalid(Io3opsError):
    exit_code, layer = 10, "table"


class EnvFileInvalid(Io3opsError):
    exit_code, layer = 11, "files"


class KeyFileUnsafe(Io3opsError):
    exit_code, layer = 12, "key"


class NotWritable(Io3opsError):
    exit_code, layer = 13, "files"


class AlreadyRunning(Io3opsError):
    exit_code, layer = 14, "files"


class HandEdited(Io3opsError):
    exit_code, layer = 15, "config"


class SettingInvalid(Io3opsError):
    exit_code, layer = 16, "settings"


class KeysFileInvalid(Io3opsError):
    exit_code, layer = 17, "keys"


class NameInvalid(Io3opsError):
    exit_code, layer = 18, "keys"


class SecretInvalid(Io3opsError):
    exit_code, layer = 19, "secrets"


class EngineMissing(Io3opsError):
    exit_code, layer = 20, "engine"


class EngineNotRunning(Io3opsError):
    exit_code, layer = 21, "engine"


class EngineDenied(Io3opsError):
    exit_code, layer = 22, "engine"


class EngineTooOld(Io3opsError):
    exit_code, layer = 23, "engine"


class PluginMissing(Io3opsError):
    exit_code, layer = 24, "engine"


class InstallFailed(Io3opsError):
    exit_code, layer = 25, "engine"


class EngineLost(Io3opsError):
    exit_code, layer = 26, "engine"


class BuildFailed(Io3opsError):
    exit_code, layer = 30, "images"


class BuildOffline(Io3opsError):
    exit_code, layer = 31, "images"


class PortTaken(Io3opsError):
    exit_code, layer = 40, "containers"


class ContainerDied(Io3opsError):
    exit_code, layer = 41, "containers"


class NotReady(Io3opsError):
    exit_code, layer = 42, "containers"


class ForeignStack(Io3opsError):
    exit_code, layer = 43, "containers"


class ComposeFailed(Io3opsError):
    exit_code, layer = 44, "containers"


class NoSubnet(Io3opsError):
    exit_code, layer = 45, "containers"


class FetchFailed(Io3opsError):
    exit_code, layer = 50, "models"


class HashMismatch(Io3opsError):
    exit_code, layer = 51, "models"


class DiskFull(Io3opsError):
    exit_code, layer = 52, "models"


class RuntimeRefused(Io3opsError):
    exit_code, layer = 53, "runtime"


class RuntimeUnreachable(Io3opsError):
    exit_code, layer = 54, "runtime"


class GatewayError(Io3opsError):
    exit_code, layer = 60, "gateway"


class ModesDiffer(Io3opsError):
    exit_code, layer = 61, "gateway"


class ApplyFailed(Io3opsError):
    exit_code, layer = 62, "gateway"


class NotTaken(Io3opsError):
    exit_code, layer = 63, "gateway"


class LogMissing(Io3opsError):
    exit_code, layer = 65, "request log"


class RequestUnknown(Io3opsError):
    exit_code, layer = 66, "request log"
