"""`io3ops usage`: the request log in numbers. DuckDB reads the log's files; it may touch no other file and no network.

The log is parsed again each time. A million requests take about a second, so a cache, which could be stale, is not worth it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from io3ops.errors import LogMissing
from io3ops.operations.request_log import records as request_records
from io3ops.operations.usage import sql as usage_sql
from io3ops.operations.usage.utc_offsets import offsets
from io3ops_shared.request_log.files import CURRENT, older_files
from io3ops_shared.request_log.record import parse
from io3ops_shared.request_log.schema import BEGIN

# A line in which another one begins, because a crash cut the first one off.
JOINED = re.compile(rb"[^\n]" + re.escape(BEGIN) + rb"[^\n]*")
STEPS = (60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 604_800, 2_592_000, 31_536_000)
MOST_BUCKETS = 60


@dataclass(frozen=True, kw_only=True)
class Times:
    """Percentiles, in milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """The numbers of a group. `ms`: of all requests but refused ones; `first_ms`: of streamed ones; None without such requests."""

    group: tuple[str, ...]
    requests: int
    errors: int
    refused: int
    fallbacks: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    ms: Times | None
    first_ms: Times | None
    tokens_per_second: float | None
    local: int
    cloud: int
    cost_usd: float
    truncated: int


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """The requests of one interval. `failed` includes refused ones."""

    begin: datetime
    requests: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The log of a time range in numbers. `unreadable`: lines without a record; `step`: seconds of a bucket of `timeline`, which is () unless
    it was asked for."""

    since: datetime
    until: datetime
    by: tuple[str, ...]
    rows: tuple[Row, ...]
    total: Row
    unreadable: int
    step: int = 0
    timeline: tuple[Bucket, ...] = ()


def usage(folder: Path, since: datetime, until: datetime, by: Sequence[str], *, timeline: bool = False) -> Usage:
    """Count the requests from `since` to `until`, exclusive. Raises LogMissing when there is no log, or it cannot be read."""
    with tempfile.TemporaryDirectory(prefix="io3ops-usage-") as name, _database(folder, Path(name)) as database:
        query = usage_sql.requests(by, offsets(since, until))
        # In UTC without a zone, as DuckDB reads the log's times.
        bounds = {"since": since.replace(tzinfo=None), "until": until.replace(tzinfo=None)}
        unreadable = _load(database, folder, Path(name), query, bounds)
        groups = [_row(values, len(by)) for values in database.execute(usage_sql.groups(len(by))).fetchall()]
        step, buckets = _timeline(database) if timeline else (0, ())
    total = next(row for is_total, row in groups if is_total)
    rows = sorted((row for is_total, row in groups if not is_total), key=lambda r: (-r.requests, r.group))
    if by[0] in usage_sql.TIME_DIMENSIONS:
        rows.sort(key=lambda r: r.group[0])
    return Usage(
        since=since, until=until, by=tuple(by), rows=tuple(rows), total=total, unreadable=unreadable, step=step, timeline=buckets
    )  # fmt: skip


@contextmanager
def _database(folder: Path, scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory that can reach these two folders and nothing else."""
    settings = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "memory_limit": "1GB"}
    with duckdb.connect(":memory:", config={**settings, "preserve_insertion_order": "false"}) as database:
        database.execute("SET temp_directory = $1", [str(scratch / "spilled")])
        database.execute("SET allowed_directories = $1", [[str(folder.resolve()), str(scratch.resolve())]])
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        database.execute(usage_sql.KNOWN)
        yield database


def _load(database: duckdb.DuckDBPyConnection, folder: Path, scratch: Path, query: str, bounds: dict[str, Any]) -> int:
    """Fill the table `requests`. Return how many lines hold no record."""
    # DuckDB needs at least one file, which may be empty.
    saved = scratch / "joined.jsonl"
    saved.touch()
    for last in (False, False, True):
        try:
            files = _files(folder.resolve(), bounds["since"])
            names = [str(saved), *_linked(scratch, files.values())]
            database.execute(f"CREATE OR REPLACE TABLE requests AS {query}", {**bounds, "files": names})
            new = _files(folder.resolve(), bounds["since"]).keys() - files.keys()
        except (duckdb.IOException, OSError) as error:
            if not last:
                continue
            raise LogMissing(
                f"{folder} cannot be read: {str(error).splitlines()[0]}", hint="correct its permissions"
            ) from None
        # A file that was renamed meanwhile may have been missed: read again.
        if not new:
            break
    bad = dict(database.execute("SELECT bad, count(*) FROM requests WHERE bad IS NOT NULL GROUP BY bad").fetchall())
    database.execute("DELETE FROM requests WHERE bad IS NOT NULL")
    joined = list(_second_halves(bad))
    if joined:
        saved.write_bytes(b"\n".join(joined))
        database.execute(f"INSERT INTO requests {query}", {**bounds, "files": [str(saved)]})
    return sum(bad.values())


def _files(folder: Path, since: datetime) -> dict[tuple[int, int], Path]:
    """Return the files that were written to since then, by device and inode. Raises LogMissing when there is no log at all."""
    files = {}
    request_records.require(folder)
    every = [p for p in (folder / CURRENT, *older_files(folder)) if p.exists()]
    for path in every:
        status = path.stat()
        # The kernel's clock for file times may be some milliseconds behind.
        if status.st_mtime >= since.replace(tzinfo=UTC).timestamp() - 2:
            files[status.st_dev, status.st_ino] = path
    return files


def _linked(scratch: Path, files: Iterable[Path]) -> list[str]:
    """Return links to the files: DuckDB would take brackets or stars in a folder's name for a pattern."""
    names = []
    for number, path in enumerate(files):
        name = scratch / f"{number}.jsonl"
        name.unlink(missing_ok=True)
        name.symlink_to(path)
        names.append(str(name))
    return names


def _second_halves(files: Iterable[str]) -> Iterator[bytes]:
    """Yield the whole records that stand behind a torn one in a line."""
    for name in files:
        path = Path(name)
        for match in JOINED.finditer(path.read_bytes()) if path.exists() else ():
            line = match[0][match[0].rfind(BEGIN) :]
            if parse(line):
                yield line


def _row(values: Sequence[Any], groups: int) -> tuple[bool, Row]:
    is_total, requests, errors, refused, fallbacks, *tokens, ms, first, speed, local, cloud, cost, truncated = values[
        groups:
    ]
    row = Row(
        group=() if is_total else tuple(str(v) if v is not None else "" for v in values[:groups]),
        requests=requests,
        errors=errors,
        refused=refused,
        fallbacks=fallbacks,
        input_tokens=int(tokens[0]),
        output_tokens=int(tokens[1]),
        cached_tokens=int(tokens[2]),
        ms=_times(ms),
        first_ms=_times(first),
        tokens_per_second=speed,
        local=local,
        cloud=cloud,
        cost_usd=cost,
        truncated=truncated,
    )
    return bool(is_total), row


def _times(percentiles: Sequence[float | None] | None) -> Times | None:
    if not percentiles or percentiles[0] is None:
        return None
    low, high, highest = (float(v or 0.0) for v in percentiles)
    return Times(p50=low, p95=high, p99=highest)


def _timeline(database: duckdb.DuckDBPyConnection) -> tuple[int, tuple[Bucket, ...]]:
    """Return the step, and the intervals from the first request to the last, also empty ones. The step leaves few enough of them."""
    ends = database.execute("SELECT epoch(min(time)), epoch(max(time)) FROM requests").fetchone()
    if not ends or ends[0] is None:
        return 0, ()
    step = next((s for s in STEPS if (ends[1] // s - ends[0] // s) < MOST_BUCKETS), STEPS[-1])
    counted = {
        at: (count, failed) for at, count, failed in database.execute(usage_sql.TIMELINE, {"step": step}).fetchall()
    }
    first, last = min(counted), max(counted)
    marks = range(first, last + 1, step) if (last - first) // step < 10 * MOST_BUCKETS else sorted(counted)
    counts = [(datetime.fromtimestamp(at, UTC), *counted.get(at, (0, 0))) for at in marks]
    return step, tuple(Bucket(begin=at, requests=count, failed=failed) for at, count, failed in counts)
