"""The record of every internal prompt that an override sent out: who, when, why, where to; nothing of the prompt.

Touches one file, which only grows: each line holds the hash of the one before, so a changed or missing line shows
(`io3ops audit`). Written to the disk before the prompt leaves; what cannot be written does not leave.
"""

import errno
import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from io3ops_shared import digests

# The longest line that can be written is far shorter.
TAIL = 65_536


def append(path: Path, entry: dict[str, Any], now: datetime | None = None) -> None:
    """Add one entry, chained to the last.

    Raises:
        OSError: it could not be written, to the disk.
        ValueError: the last line is not one of ours, so the chain cannot go on.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        # Several workers, one chain.
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        lines = file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            # Cut by a crash before it was acted upon: it belongs to no chain.
            file.truncate(size - len(lines.pop()))
        last: dict[str, Any] = json.loads(lines[-1]) if lines else {"seq": 0, "hash": digests.NO_ENTRY}
        stamp = (now or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"v": 1, "seq": last["seq"] + 1, "time": stamp, **entry, "prev": last["hash"]}
        line["hash"] = digests.of_audit_entry(line)
        data = json.dumps(line, ensure_ascii=True).encode() + b"\n"
        end = file.seek(0, os.SEEK_END)
        if os.write(file.fileno(), data) != len(data):
            # A full disk takes what fits, without an error.
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
