"""Asks the running gateway whether it uses a file that a command has just written, so that the command claims no more."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from io3ops.adapters import files, machine
from io3ops.adapters.docker_engine import Container
from io3ops.errors import ForeignStack, Io3opsError, NotTaken
from io3ops.operations.stack import mounts, project
from io3ops.tools import Tools
from io3ops_shared import digests

# The gateway's names for the files whose digests it reports.
KEYS, RECORDING = "keys", "recording"
# Seconds to wait, and between questions: a virtual machine's shared folder shows a change with a delay.
PATIENCE, EVERY = 3.0, 0.2
# Timeout of one answer, which comes from a process that does nothing else.
SECONDS = 15.0
UP = "run `io3ops up`, which recreates its container with the current folders"


class State(StrEnum):
    """Whether the gateway uses a file. NONE: no gateway runs; UNKNOWN: it could not be asked."""

    TAKEN = "taken"
    NONE = "none"
    NOT_TAKEN = "not_taken"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The gateway's answer. `why` and `hint` explain NOT_TAKEN and UNKNOWN."""

    state: State
    why: str = ""
    hint: str = ""

    @property
    def settled(self) -> bool:
        """Whether the file is in effect, now or from the next start of the gateway."""
        return self.state in (State.TAKEN, State.NONE)

    def problem(self) -> NotTaken:
        """Return the error for a file that may not be in effect."""
        return NotTaken(f"saved, but {self.why}", hint=self.hint)


def confirm(tools: Tools, name: str, path: Path, folders: Collection[Path] = ()) -> Confirmation:
    """Ask the running gateway for its digest of a file. `folders`: folders that it must have too. Never raises Io3opsError."""
    try:
        gateway = _gateway(tools)
        if gateway is None:
            return Confirmation(state=State.NONE)
        return _ask(tools, gateway, name, path, folders)
    except KeyboardInterrupt:
        # The command must still print a new key, because it is stored nowhere.
        why = "the command was interrupted before the running gateway confirmed it"
        return Confirmation(state=State.UNKNOWN, why=why, hint=UP)
    except Io3opsError as error:
        return Confirmation(
            state=State.UNKNOWN,
            why=f"the running gateway could not confirm it: {error.message}",
            hint="`io3ops health` shows the fault; then run the same command again, or `io3ops up`",
        )


def _gateway(tools: Tools) -> Container | None:
    try:
        found = project.own_containers(tools).get("gateway")
    except ForeignStack:
        # The gateway belongs to another clone and reads that clone's files.
        return None
    except Io3opsError:
        # Usually nothing runs then. But the engine may run and refuse this user.
        if machine.port_free(tools.settings.port):
            return None
        raise
    return None if found is None or found.status in ("created", "exited", "dead") else found


def _ask(tools: Tools, gateway: Container, name: str, path: Path, folders: Collection[Path]) -> Confirmation:
    deadline = time.monotonic() + PATIENCE
    while True:
        status = tools.control.status(tools.engine.command(), gateway.id, seconds=SECONDS)
        digests = status.get("files")
        if not isinstance(digests, dict) or name not in digests:
            return Confirmation(
                state=State.UNKNOWN,
                why="the running gateway is of an older release, which cannot confirm it",
                hint="run `io3ops up`, which replaces the gateway",
            )
        if digests[name] == _digest(path):
            break
        if time.monotonic() > deadline:
            return Confirmation(
                state=State.NOT_TAKEN,
                why="the running gateway does not see it: its folder was replaced, or it cannot read the file",
                hint=UP,
            )
        time.sleep(EVERY)
    if folders and (other := mounts.stale(tools, {"gateway": gateway}, only=folders)):
        why = f"the running gateway has other folders: {mounts.cause(tools.settings, other)}"
        return Confirmation(state=State.NOT_TAKEN, why=why, hint=UP)
    return Confirmation(state=State.TAKEN)


def _digest(path: Path) -> str:
    # Read the file now: another command may have written it since.
    data = files.read_bytes(path)
    return "" if data is None else digests.of_file(data)
