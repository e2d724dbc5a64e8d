"""Every error that a user can meet, with its exit code. Pure.

    Io3opsError
    ├── 1  CheckFailed           a check ran and found a fault (health, smoke, drift)
    ├── table and files
    │   ├── 10 TableInvalid      the routing table has problems
    │   ├── 11 EnvFileInvalid    .env cannot be read
    │   ├── 12 KeyFileUnsafe     the key file is missing, empty, or readable by other users
    │   ├── 13 NotWritable       the clone or its state folder cannot be written
    │   ├── 14 AlreadyRunning    another io3ops is changing this clone's stack
    │   ├── 15 HandEdited        the command would overwrite an edited litellm.yaml or your own table
    │   ├── 16 SettingInvalid    a setting or an argument has an invalid value
    │   ├── 17 KeysFileInvalid   keys.json cannot be read, or has contents that io3ops does not write
    │   ├── 18 NameInvalid       the name of a key, secret or mode is invalid, unknown or taken
    │   └── 19 SecretInvalid     a provider's API key is unusable, or its file cannot be read or removed
    ├── engine
    │   ├── 20 EngineMissing     there is no Docker engine, and io3ops may not install one
    │   ├── 21 EngineNotRunning  the Docker engine does not answer and could not be started
    │   ├── 22 EngineDenied      this user has no access to the engine's socket
    │   ├── 23 EngineTooOld      the Docker engine is older than the stack needs
    │   ├── 24 PluginMissing     the Compose or Buildx plugin is missing or too old
    │   ├── 25 InstallFailed     the package manager could not install the engine
    │   └── 26 EngineLost        the Docker engine stopped answering during a command
    ├── images
    │   ├── 30 BuildFailed       a build step of an image failed
    │   └── 31 BuildOffline      an image cannot be built or pulled: no registry answers
    ├── containers
    │   ├── 40 PortTaken         another program uses a port of the stack
    │   ├── 41 ContainerDied     a container has ended or does not run
    │   ├── 42 NotReady          a container was not ready in time
    │   ├── 43 ForeignStack      another clone runs a project of this name
    │   ├── 44 ComposeFailed     Docker Compose failed
    │   └── 45 NoSubnet          no addresses are free for a network of the stack
    ├── models
    │   ├── 50 FetchFailed       a model could not be fetched
    │   ├── 51 HashMismatch      a downloaded file is not the pinned one
    │   ├── 52 DiskFull          the disk has too little space for a download
    │   ├── 53 RuntimeRefused    the runtime answered with an error
    │   └── 54 RuntimeUnreachable  the runtime does not answer the gateway
    ├── gateway
    │   ├── 60 GatewayError      the gateway answered with an error
    │   ├── 61 ModesDiffer       the gateway lists other modes than the table
    │   ├── 62 ApplyFailed       a new table failed its checks; the previous one keeps serving
    │   └── 63 NotTaken          a change was saved, but the running gateway does not use it yet
    └── request log
        ├── 65 LogMissing        there is no request log, or it cannot be read
        └── 66 RequestUnknown    no request, or more than one, matches

Exit code 2 is a wrong command line, 130 is Ctrl-C, 70 is a bug in io3ops.
"""

from __future__ import annotations

import re


class Io3opsError(Exception):
    """Base class: what happened, in which layer, what to do. Only `Console.error` prints it."""

    exit_code = 70
    layer = "io3ops"

    def __init__(self, message: str, *, hint: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    @property
    def code(self) -> str:
        """The stable name in docs and JSON, such as `E40`."""
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


def connection_problem(error: Exception) -> str:
    """Describe a broken connection without the library's class names: `connection refused`."""
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error)).strip().rstrip(".")
    return text[:1].lower() + text[1:] if text else "connection lost"
