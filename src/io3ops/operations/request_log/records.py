"""The request log's files, read newest first. Reads the log's folder.

A record is read by `io3ops_shared.request_log.record`; what a client wrote in it is made printable by `shown`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from io3ops.errors import LogMissing
from io3ops_shared.log_files import backwards
from io3ops_shared.request_log.files import CURRENT, older_files
from io3ops_shared.request_log.record import Record, parse


def shown(value: str, most: int = 60) -> str:
    """Return a client's text without power over the terminal, and no longer than `most`."""
    cut = value[: most + 1]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return safe if len(safe) <= most else safe[: most - 1] + "…"


def require(folder: Path) -> None:
    """Raise LogMissing when there is no log yet, or its folder may not be read."""
    try:
        there = (folder / CURRENT).exists() or bool(older_files(folder))
    except OSError as error:
        raise LogMissing(f"{folder} cannot be read: {error.strerror}", hint="correct its permissions") from None
    if not there:
        hint = "the gateway writes it with the first request: make up"
        raise LogMissing(f"there is no request log in {folder}", hint=hint)


def newest_records(folder: Path, needle: bytes = b"") -> Iterator[Record]:
    """Yield every record of the log, newest first; lines without a record are skipped.

    `needle`: only lines that contain these bytes, which are looked for before a line is parsed. Raises LogMissing for a file that
    cannot be read.
    """
    read: set[tuple[int, int]] = set()
    for path in _newest_files(folder):
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_dev, status.st_ino) in read:
                    continue
                read.add((status.st_dev, status.st_ino))
                for line in backwards.lines(file, needle):
                    record = parse(line)
                    if record is not None:
                        yield record
        except FileNotFoundError:
            # It was pruned meanwhile.
            continue
        except OSError as error:
            raise LogMissing(f"{path} cannot be read: {error.strerror}", hint="correct its permissions") from None


def _newest_files(folder: Path) -> Iterator[Path]:
    """Yield the current file, and list the full ones only after it was read: one that is renamed meanwhile is neither lost nor read twice."""
    yield folder / CURRENT
    yield from older_files(folder)
