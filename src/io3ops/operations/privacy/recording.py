"""`io3ops record`: starts and stops the recording of a mode's prompts and responses, and removes the recorded content."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from io3ops.adapters import files
from io3ops.errors import NameInvalid, NotWritable
from io3ops.operations.stack.ownership import gateway_user
from io3ops.operations.table import config
from io3ops.routing.problems import did_you_mean, scrub
from io3ops.settings import Settings
from io3ops.tools import Tools
from io3ops_shared import recording_file
from io3ops_shared.recording_file import CONTENT, LONGEST, RecordedMode
from io3ops_shared.times import format_duration, parse_duration

NAME = "recording.json"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The current recording.

    `modes`: the recorded modes, with the Unix time of the end. `size`: bytes of recorded content, None without any. `problem`: why
    the request file is invalid, so that nothing is recorded.
    """

    modes: dict[str, float]
    file: str
    size: int | None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The modes whose recording stopped, and whether the recorded content was deleted."""

    modes: tuple[str, ...]
    deleted: bool


# -- pure


def duration(text: str) -> int:
    """Return the whole seconds of `--for`. Raises ValueError, which names the allowed values."""
    seconds = parse_duration(text)
    if seconds > LONGEST:
        raise ValueError(f"{text} is too long; the limit is {format_duration(LONGEST)}")
    if seconds < 1:
        raise ValueError(f"{text} is too short; the least is 1s")
    return math.ceil(seconds)


def parse(data: bytes) -> dict[str, float]:
    """Return the requested modes, each with the Unix time of its end. Raises ValueError when the gateway would record nothing."""
    return {mode: recorded.until for mode, recorded in recording_file.parse(data).items()}


def current(modes: Mapping[str, float], now: float) -> dict[str, float]:
    """Return the modes whose time has not ended. The gateway too ignores a time that is too long."""
    return {mode: until for mode, until in modes.items() if RecordedMode(until).active(now)}


def line(modes: Mapping[str, float], now: float) -> str:
    """Return one line for `status`, '' while nothing is recorded."""
    return ", ".join(f"{mode} {_when(until, now)}" for mode, until in sorted(modes.items()))


def text(state: Recording, now: float) -> str:
    """Render the recording for people."""
    lines = [
        f"{mode:<12} prompts and answers are recorded {_when(until, now)}"
        for mode, until in sorted(state.modes.items())
    ]
    if state.problem:
        lines.append(f"nothing is recorded: {state.problem}; `io3ops record on` and `off` replace it")
    elif not lines:
        lines.append("nothing is recorded; `io3ops record on --mode MODE --for 30m` starts it")
    if state.size is not None:
        lines.append(f"{state.file}  {_size(state.size)}; `io3ops record off --delete` deletes it")
    return "\n".join(lines)


def _when(until: float, now: float) -> str:
    minutes = max(1, round((until - now) / 60))
    left = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    return f"until {time.strftime('%H:%M:%S', time.gmtime(until))} UTC ({left})"


def _size(count: int) -> str:
    return f"{count / 10**6:,.1f} MB" if count >= 10**5 else f"{count:,} bytes"


# -- on the disk


def request_file(settings: Settings) -> Path:
    """Return the path of the file that asks the gateway."""
    return settings.recording / NAME


def look(settings: Settings, now: float | None = None) -> Recording:
    """Return the current recording. Raises NotWritable when the request file cannot be read."""
    modes, problem = _load(settings)
    content = settings.content / CONTENT
    try:
        size = content.lstat().st_size
    except OSError:
        size = None
    return Recording(
        modes=current(modes, time.time() if now is None else now),
        file=_shown(settings, content),
        size=size,
        problem=problem,
    )


def start(tools: Tools, modes: tuple[str, ...], seconds: int, now: float | None = None) -> Recording:
    """Record these modes from now on. Raises NameInvalid, NotWritable, AlreadyRunning or TableInvalid."""
    settings, now = tools.settings, time.time() if now is None else now
    known = config.load(settings).plan.modes
    for mode in modes:
        _check(mode, known)
    with files.exclusive(settings.state / "recording.lock"):
        # An invalid file requests nothing, so it may be overwritten.
        before, _ = _load(settings)
        _write(tools, current(before, now) | {mode: math.ceil(now + seconds) for mode in modes})
    return look(settings, now)


def stop(tools: Tools, mode: str = "", *, delete: bool = False, now: float | None = None) -> Ended:
    """Stop recording a mode, or all of them. Raises NameInvalid, NotWritable or AlreadyRunning; TableInvalid for an unknown mode."""
    settings, now = tools.settings, time.time() if now is None else now
    with files.exclusive(settings.state / "recording.lock"):
        before, problem = _load(settings)
        if mode and mode not in before:
            _check(mode, config.load(settings).plan.modes)
        left = {name: until for name, until in current(before, now).items() if mode and name != mode}
        if before != left or problem:
            _write(tools, left)
        ended = tuple(name for name in current(before, now) if name not in left)
        deleted = False
        if delete:
            # Delete after the request changed: the gateway reads it again before it records anything.
            try:
                (settings.content / CONTENT).unlink()
                deleted = True
            except FileNotFoundError:
                pass
            except OSError as error:
                raise files.not_writable(settings.content / CONTENT, error) from None
    return Ended(modes=ended, deleted=deleted)


def _check(mode: str, known: tuple[str, ...]) -> None:
    if mode not in known:
        near = did_you_mean(mode, known)
        raise NameInvalid(f"unknown mode {scrub(repr(mode))}{near}", hint=f"the table's modes: {', '.join(known)}")


def _load(settings: Settings) -> tuple[dict[str, float], str]:
    path = request_file(settings)
    data = files.read_bytes(path, NotWritable)
    if data is None:
        return {}, ""
    try:
        return parse(data), ""
    except ValueError as error:
        return {}, f"{_shown(settings, path)} is invalid: {scrub(str(error))}"


def _write(tools: Tools, modes: Mapping[str, float]) -> None:
    path = request_file(tools.settings)
    owner = gateway_user(tools, path)
    files.private_folder(path.parent, owner)
    files.write_atomic(path, recording_file.render(modes), 0o600, owner)


def _shown(settings: Settings, path: Path) -> str:
    return str(path.relative_to(settings.root))
