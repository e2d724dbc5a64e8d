"""The SQL of `io3ops usage`, for DuckDB. Pure: text only; values from outside are passed as parameters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from io3ops_shared.request_log.record import LARGEST_NUMBER
from io3ops_shared.request_log.schema import VERSION, Outcome

# Clients choose some names. A name of a megabyte is cut to this many characters.
NAME = 80
TEXT_DIMENSIONS = {
    "mode": f"left(mode, {NAME})",
    "model": f"left(gen_ai.response.model, {NAME})",
    "key": f"left(key, {NAME})",
    "client": f"left(client, {NAME})",
    "outcome": f"coalesce(left(outcome, {NAME}), '{Outcome.OK}')",
    "error": f"left(error, {NAME})",
}
TIME_DIMENSIONS = {"day": "%Y-%m-%d", "hour": "%Y-%m-%d %H:00"}
DIMENSIONS = (*TEXT_DIMENSIONS, *TIME_DIMENSIONS)

# Declared in full, so that a file's content does not decide how it is read. A value of another type becomes NULL.
COLUMNS = """{
    v: 'INTEGER', time: 'TIMESTAMP', mode: 'VARCHAR', key: 'VARCHAR', client: 'VARCHAR', outcome: 'VARCHAR', error: 'VARCHAR',
    stream: 'BOOLEAN', ms: 'DOUBLE', first_ms: 'DOUBLE', truncated: 'BOOLEAN', cost_usd: 'DOUBLE', tokens_per_second: 'DOUBLE',
    gen_ai: 'STRUCT(operation STRUCT(name VARCHAR), response STRUCT(model VARCHAR),
        usage STRUCT(input_tokens DOUBLE, output_tokens DOUBLE, cache_read STRUCT(input_tokens DOUBLE)))',
    attempts: 'STRUCT(deployment VARCHAR, cloud BOOLEAN, status INTEGER, error VARCHAR, eval_ms DOUBLE)[]'
}"""

# The same numbers as the reader of records accepts.
KNOWN = f"CREATE MACRO known(x) AS CASE WHEN x >= 0 AND x <= {LARGEST_NUMBER} THEN x END"

# `bad`: the file of a line without a record.
REQUESTS = f"""
SELECT @dimensions
    time,
    coalesce(outcome, '{Outcome.OK}') = '{Outcome.REFUSED}' AS refused,
    coalesce(outcome, '{Outcome.OK}') NOT IN ('{Outcome.OK}', '{Outcome.REFUSED}') AS failed,
    CASE WHEN coalesce(outcome, '{Outcome.OK}') <> '{Outcome.REFUSED}' THEN known(ms) END AS ms,
    CASE WHEN stream THEN known(first_ms) END AS first_ms,
    coalesce(truncated, false) AS truncated,
    known(cost_usd) AS cost,
    known(gen_ai.usage.input_tokens) AS tokens_in,
    known(gen_ai.usage.output_tokens) AS tokens_out,
    known(gen_ai.usage.cache_read.input_tokens) AS cached,
    CASE WHEN coalesce(gen_ai.operation.name, '') = 'embeddings' THEN NULL
        WHEN known(attempts[-1].eval_ms) > 0 AND tokens_out > 0 THEN tokens_out * 1000 / attempts[-1].eval_ms
        ELSE known(tokens_per_second) END AS speed,
    coalesce(list_unique([coalesce(a.deployment, '') for a in attempts]) > 1, false) AS fell_back,
    CASE WHEN len(attempts) > 0 AND coalesce(attempts[-1].error, '') = '' AND coalesce(attempts[-1].status, 200) < 400
        THEN coalesce(attempts[-1].cloud, false) END AS cloud,
    CASE WHEN v IS NULL OR time IS NULL THEN filename END AS bad
FROM read_ndjson($files, columns = {COLUMNS}, records = true, ignore_errors = true, filename = true)
WHERE v IS NULL OR time IS NULL OR (v = {VERSION} AND time >= $since AND time < $until)
"""  # noqa: S608  only constants are inserted

GROUPS = """
SELECT {names}, grouping(d0) AS is_total,
    count(*), count(*) FILTER (failed), count(*) FILTER (refused), count(*) FILTER (fell_back),
    coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0), coalesce(sum(cached), 0),
    quantile_cont(ms, [0.5, 0.95, 0.99]), quantile_cont(first_ms, [0.5, 0.95, 0.99]), quantile_cont(speed, 0.5),
    count(*) FILTER (NOT cloud), count(*) FILTER (cloud), coalesce(sum(cost), 0), count(*) FILTER (truncated)
FROM requests GROUP BY GROUPING SETS (({names}), ())
"""

TIMELINE = """
SELECT epoch(time)::BIGINT // $step * $step AS begin, count(*), count(*) FILTER (failed OR refused)
FROM requests GROUP BY begin ORDER BY begin
"""


def requests(by: Sequence[str], clock: Sequence[tuple[datetime, timedelta]]) -> str:
    """Return the query for one row per request, with its groups as d0, d1, …"""
    return REQUESTS.replace("@dimensions", "".join(f"{_dimension(d, clock)} AS d{n}, " for n, d in enumerate(by)))


def groups(count: int) -> str:
    """Return the query for the numbers of each group and of all requests together."""
    names = ", ".join(f"d{n}" for n in range(count))
    return GROUPS.format(names=names)


def _dimension(name: str, clock: Sequence[tuple[datetime, timedelta]]) -> str:
    if name in TEXT_DIMENSIONS:
        return TEXT_DIMENSIONS[name]
    # By this machine's clock. DuckDB's own time zones are an extension, which is not loaded.
    shifts = [f"INTERVAL {int(distance.total_seconds())} SECONDS" for _, distance in clock]
    later = [
        f"WHEN time >= TIMESTAMP '{at:%Y-%m-%d %H:%M:%S.%f}' THEN {s}" for (at, _), s in zip(clock, shifts, strict=True)
    ]
    shift = f"CASE {' '.join(reversed(later[1:]))} ELSE {shifts[0]} END" if later[1:] else shifts[0]
    return f"strftime(time + {shift}, '{TIME_DIMENSIONS[name]}')"
