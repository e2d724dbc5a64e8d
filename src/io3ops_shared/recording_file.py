"""Format of `recording.json`, which tells the gateway the modes to record: `io3ops record` writes it, the gateway reads it. Pure."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VERSION = 1
# Longest time in seconds that a mode may be recorded. The gateway holds to it too, also after its clock was set back.
LONGEST = 24 * 3600
# The file that the content goes to.
CONTENT = "content.jsonl"


@dataclass(frozen=True, slots=True)
class RecordedMode:
    """One mode. `until`: Unix time; `internal`: internal prompts too, where the table allows that."""

    until: float
    internal: bool = True

    def active(self, now: float) -> bool:
        """Return whether the mode is recorded at this time."""
        return 0 < self.until - now <= LONGEST


def parse(data: bytes) -> dict[str, RecordedMode]:
    """Return the recorded modes. Raises ValueError for anything that is not understood: then nothing may be recorded."""
    try:
        document = json.loads(data)
        version, modes = document["version"], document["modes"]
        if type(version) is not int or version != VERSION:
            raise ValueError(f"version {version!r} is not supported; this release reads version {VERSION}")
        return {mode: _mode(entry) for mode, entry in modes.items()}
    except (TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise ValueError("it is not what `io3ops record` writes") from None


def render(modes: Mapping[str, float]) -> bytes:
    """Return the file that records these modes, each until a Unix time."""
    document = {"version": VERSION, "modes": {mode: {"until": until} for mode, until in sorted(modes.items())}}
    return (json.dumps(document, indent=1) + "\n").encode()


def _mode(entry: Mapping[str, Any]) -> RecordedMode:
    until, internal = entry["until"], entry.get("internal", True)
    if type(until) not in (int, float) or not math.isfinite(until):
        raise ValueError("`until` must be a Unix time")
    if type(internal) is not bool or entry.keys() - {"until", "internal"}:
        raise ValueError("a mode has keys besides `until` and `internal`, or `internal` is not true or false")
    return RecordedMode(until, internal)
