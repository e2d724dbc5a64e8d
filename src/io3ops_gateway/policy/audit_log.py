"""Writes the audit log: every internal prompt that an override sent out, with its key, time, reason and provider, without its text.

Touches one file, which only grows. Each line holds the hash of the line before, so `io3ops audit` notices a changed or missing line.
An entry is on the disk before its prompt leaves; when it cannot be written, the prompt stays.
"""

import errno
import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from io3ops_shared import digests

# Bytes read from the file's end, to find the last line. The longest line is far shorter.
TAIL = 65_536


def append(path: Path, entry: dict[str, Any], now: datetime | None = None) -> None:
    """Append one entry, chained to the last.

    Raises:
        OSError: the entry could not be written to the disk.
        ValueError: the last line is not an entry, so the chain cannot be continued.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        # All workers append to the same chain.
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        lines = file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            # A crash cut this line before its prompt left, so it is not part of the chain.
            file.truncate(size - len(lines.pop()))
        last: dict[str, Any] = json.loads(lines[-1]) if lines else {"seq": 0, "hash": digests.NO_ENTRY}
        stamp = (now or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"v": 1, "seq": last["seq"] + 1, "time": stamp, **entry, "prev": last["hash"]}
        line["hash"] = digests.of_audit_entry(line)
        data = json.dumps(line, ensure_ascii=True).encode() + b"\n"
        end = file.seek(0, os.SEEK_END)
        if os.write(file.fileno(), data) != len(data):
            # On a full disk a write may succeed in part.
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
