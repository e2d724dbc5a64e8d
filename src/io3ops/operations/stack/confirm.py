"""Whether the running gateway has what was just written: nothing is claimed of it that it has not said."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from io3ops.adapters import files, machine
from io3ops.adapters.docker_engine import Container
from io3ops.errors import ForeignStack, Io3opsError, NotTaken
from io3ops.operations.stack import mounts, project
from io3ops.tools import Tools
from io3ops_shared import digests

# The files that the gateway speaks of, by its own names for them.
KEYS, RECORDING = "keys", "recording"
# A shared folder of a virtual machine may show a change a little later.
PATIENCE, EVERY = 3.0, 0.2
# For one answer; it comes from a process that does nothing else.
SECONDS = 15.0
UP = "run `io3ops up`, which gives it the folders that are there now"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """`state`: taken, none (no gateway runs), not_taken, or unknown (it could not be asked). `why` and `hint` for the last two."""

    state: str
    why: str = ""
    hint: str = ""

    @property
    def settled(self) -> bool:
        """Whether what was written is all that counts, now or from the next start."""
        return self.state in ("taken", "none")

    @property
    def taken(self) -> bool:
        return self.state == "taken"

    def problem(self) -> NotTaken:
        return NotTaken(f"saved, but {self.why}", hint=self.hint)


def seen(tools: Tools, name: str, path: Path, folders: Collection[Path] = ()) -> Seen:
    """Ask the running gateway for its digest of a file. `folders`: which it must have as well. Never raises Io3opsError."""
    try:
        gateway = _gateway(tools)
        if gateway is None:
            return Seen(state="none")
        return _ask(tools, gateway, name, path, folders)
    except KeyboardInterrupt:
        # A new key must still be shown: it is kept nowhere.
        return Seen(state="unknown", why="whether the running gateway has taken it was not waited for", hint=UP)
    except Io3opsError as error:
        return Seen(
            state="unknown",
            why=f"whether the running gateway has taken it is not known: {error.message}",
            hint="`io3ops health` says what is wrong; then run the same command again, or `io3ops up`",
        )


def _gateway(tools: Tools) -> Container | None:
    try:
        found = project.own_containers(tools).get("gateway")
    except ForeignStack:
        # Another clone's gateway reads another clone's files.
        return None
    except Io3opsError:
        # Without an engine nothing runs, as a rule; but this user may not be allowed to ask it.
        if machine.port_free(tools.settings.port):
            return None
        raise
    return None if found is None or found.status in ("created", "exited", "dead") else found


def _ask(tools: Tools, gateway: Container, name: str, path: Path, folders: Collection[Path]) -> Seen:
    deadline = time.monotonic() + PATIENCE
    while True:
        said = tools.control.status(tools.engine.command(), gateway.id, seconds=SECONDS)
        held = said.get("files")
        if not isinstance(held, dict) or name not in held:
            return Seen(
                state="unknown",
                why="the running gateway is of an older release and cannot say whether it has taken it",
                hint="run `io3ops up`",
            )
        if held[name] == _digest(path):
            break
        if time.monotonic() > deadline:
            return Seen(
                state="not_taken",
                why="the running gateway does not see it: its folder was replaced, or it may not read the file",
                hint=UP,
            )
        time.sleep(EVERY)
    if folders and (other := mounts.stale(tools, {"gateway": gateway}, only=folders)):
        return Seen(
            state="not_taken",
            why=f"the running gateway has other folders: {mounts.cause(tools.settings, other)}",
            hint=UP,
        )
    return Seen(state="taken")


def _digest(path: Path) -> str:
    # Of what is there now: another command may have written since.
    data = files.read_bytes(path)
    return "" if data is None else digests.of_file(data)
