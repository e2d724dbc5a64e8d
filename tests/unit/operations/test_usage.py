"""`io3ops usage`: its numbers compared with plain Python, unusual files, and its output."""

from __future__ import annotations

import csv
import io
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from io3ops.cli import usage as cli_usage
from io3ops.errors import LogMissing
from io3ops.operations.usage import plot as usage_plot
from io3ops.operations.usage import sql as usage_sql
from io3ops.operations.usage import table as usage_table
from io3ops.operations.usage import text as usage_text
from io3ops.operations.usage import usage as operation
from io3ops.operations.usage.usage import Row, Usage, usage
from io3ops.operations.usage.utc_offsets import offsets
from io3ops_shared.request_log.record import Record, parse

DAY = datetime(2026, 11, 24, tzinfo=UTC)
NOW = datetime(2026, 11, 24, 18, 30, 15, tzinfo=UTC)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def request(at: datetime = DAY, **fields: Any) -> dict[str, Any]:
    stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"v": 1, "time": stamp, "id": "0" * 32, "mode": "executor", "status": 200, "ms": 10.0} | fields


def write(folder: Path, *requests: dict[str, Any] | bytes, name: str = "requests.jsonl") -> Path:
    lines = [r if isinstance(r, bytes) else json.dumps(r, separators=(",", ":")).encode() for r in requests]
    (folder / name).write_bytes(b"\n".join(lines) + b"\n")
    return folder


def count(
    folder: Path, *by: str, since: datetime = DAY, until: datetime = DAY + timedelta(days=1), plot: bool = False
) -> Usage:
    return usage(folder, since, until, by or ("mode",), timeline=plot)


# -- the reference


def expected(records: list[Record]) -> dict[str, Any]:
    def times(values: list[float]) -> tuple[float, ...] | None:
        if not values:
            return None
        cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else values * 99
        return cuts[49], cuts[94], cuts[98]

    served = [r.served_by for r in records if r.served_by]
    speeds = []
    for r in records:
        evaluated = r.attempts[-1].eval_ms if r.attempts else None
        if r.operation == "embeddings":
            continue
        if evaluated and r.output_tokens:
            speeds.append(r.output_tokens * 1000 / evaluated)
        elif r.tokens_per_second is not None:
            speeds.append(r.tokens_per_second)
    return {
        "requests": len(records),
        "errors": sum(r.outcome not in ("ok", "refused") for r in records),
        "refused": sum(r.outcome == "refused" for r in records),
        "fallbacks": sum(r.fell_back for r in records),
        "input_tokens": sum(r.input_tokens or 0 for r in records),
        "output_tokens": sum(r.output_tokens or 0 for r in records),
        "cached_tokens": sum(r.cached_tokens or 0 for r in records),
        "ms": times([r.ms for r in records if r.ms is not None and r.outcome != "refused"]),
        "first_ms": times([r.first_ms for r in records if r.stream and r.first_ms is not None]),
        "tokens_per_second": statistics.median(speeds) if speeds else None,
        "local": sum(not a.cloud for a in served),
        "cloud": sum(a.cloud for a in served),
        "cost_usd": sum(r.cost_usd or 0 for r in records),
        "truncated": sum(r.truncated for r in records),
    }


def same(row: Row, wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        found = getattr(row, name)
        if name in ("ms", "first_ms"):
            found = found and (found.p50, found.p95, found.p99)
        assert found == (pytest.approx(value) if value is not None else None), name


def held_against_python(folder: Path, by: str) -> None:
    lines = [line for path in sorted(folder.glob("requests*.jsonl")) for line in path.read_bytes().splitlines()]
    records = [r for line in lines if (r := parse(line))]
    groups: dict[str, list[Record]] = defaultdict(list)
    for r in records:
        groups[getattr(r, by)].append(r)
    found = count(folder, by)
    assert {row.group[0] for row in found.rows} == set(groups)
    for row in found.rows:
        same(row, expected(groups[row.group[0]]))
    same(found.total, expected(records))


def attempt(name: str, **fields: Any) -> dict[str, Any]:
    return {"deployment": name, "at": 1.0, "ms": 5.0} | fields


def gen_ai(tokens_in: int, tokens_out: int, operation: str = "chat", **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": tokens_in, "output_tokens": tokens_out} | more
    return {"operation": {"name": operation}, "response": {"model": "m"}, "usage": usage}


MIX = [
    *(request(ms=float(n), stream=True, first_ms=n / 10, gen_ai=gen_ai(10, n), attempts=[attempt("a", eval_ms=n * 7.0)]) for n in range(1, 40)),
    request(ms=900.0, gen_ai=gen_ai(5, 6, cache_read={"input_tokens": 4}), cost_usd=0.25, tokens_per_second=13.5, attempts=[attempt("a", error="ConnectError"), attempt("b", cloud=True, provider="openai")]),
    request(attempts=[attempt("a", status=500), attempt("a")], truncated=True),
    request(attempts=[attempt("a", status=500), attempt("b", error="cut"), attempt("a")]),
    request(mode="embed", gen_ai=gen_ai(7, 3, "embeddings"), attempts=[attempt("e", eval_ms=1.0)]),
    request(mode="embed", outcome="error", status=500, attempts=[attempt("e", status=500)]),
    request(mode="embed", outcome="client_left", first_ms=3.0),
    {"v": 1, "time": "2026-11-24T10:00:00.000Z", "outcome": "refused", "status": 401, "ms": 5000.0},
]  # fmt: skip


@pytest.mark.parametrize("by", ["mode", "outcome", "model", "key"])
def test_the_numbers_match_plain_python(tmp_path: Path, by: str) -> None:
    write(tmp_path, *MIX[:20], name="requests-20261124T100000Z-1.jsonl")
    held_against_python(write(tmp_path, *MIX[20:]), by)


amounts = (
    st.none()
    | st.integers(0, 10**6)
    | st.floats(0, 1e6, width=32).map(lambda f: round(f, 3))
    | st.just(-1)
    | st.just("x")
)
hypothesis_attempts = st.fixed_dictionaries(
    {"deployment": st.sampled_from(["a", "b"])},
    optional={
        "cloud": st.booleans(),
        "status": st.sampled_from([200, 404, 500]),
        "error": st.just("ConnectError"),
        "eval_ms": amounts,
    },
)
hypothesis_requests = st.fixed_dictionaries(
    {"v": st.just(1), "time": st.just("2026-11-24T12:00:00.000Z")},
    optional={
        "mode": st.sampled_from(["a", "ä\x1b", ""]), "outcome": st.sampled_from(["error", "refused", "timeout"]), "ms": amounts,
        "first_ms": amounts, "stream": st.booleans(), "truncated": st.booleans(), "tokens_per_second": amounts,
        "attempts": st.lists(hypothesis_attempts, max_size=3), "gen_ai": st.builds(gen_ai, st.integers(0, 99), st.integers(0, 99), st.sampled_from(["chat", "embeddings"])),
    },
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(hypothesis_requests, min_size=1, max_size=12))
def test_the_numbers_of_any_requests_match_plain_python(tmp_path: Path, requests: list[dict[str, Any]]) -> None:
    # Python keeps the unknown mode and the empty one together; so does the row's name.
    found = count(write(tmp_path, *requests), "outcome")
    records = [r for q in requests if (r := parse(json.dumps(q).encode()))]
    same(found.total, expected(records))
    for row in found.rows:
        same(row, expected([r for r in records if r.outcome == row.group[0]]))


# -- files


def test_lines_without_a_record_are_skipped_and_counted(tmp_path: Path) -> None:
    strange = [b"{", b"[]", b"\xff\xfe", b"\0\0", b"[" * 50_000, b'{"v":' * 9_000, b"null", b'{"v":1,"time":"never"}']
    other = [b'{"v":2,"time":"2026-11-24T01:00:00.000Z"}', b"", b"   "]
    found = count(write(tmp_path, request(), *strange, *other, request(), b'{"v":1,"time":"2026-11-24T0'))
    assert found.total.requests == 2 and found.unreadable == len(strange) + 1
    assert f"{len(strange) + 1} lines of the log cannot be read" in usage_text.text(found, 100, plot=False)


def test_a_joined_line_loses_only_its_first_record(tmp_path: Path) -> None:
    whole = json.dumps(request(mode="saved"), separators=(",", ":")).encode()
    found = count(write(tmp_path, request(), whole[:30] + whole, request(), b"{broken"))
    assert {row.group: row.requests for row in found.rows} == {("executor",): 2, ("saved",): 1}
    assert found.unreadable == 2


def test_only_requests_of_the_time_range_count(tmp_path: Path) -> None:
    write(tmp_path, *(request(DAY + timedelta(hours=h)) for h in (-1, 0, 1, 2, 3)))
    found = count(tmp_path, since=DAY, until=DAY + timedelta(hours=2))
    assert found.total.requests == 2, "the end itself is not in it"


def test_files_older_than_the_range_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path, request(mode="new"))
    old = tmp_path / "requests-20261120T100000Z-1.jsonl"
    write(tmp_path, request(mode="lies"), name=old.name)
    os.utime(old, (DAY.timestamp() - 3600, DAY.timestamp() - 3600))
    assert [r.group for r in count(tmp_path).rows] == [("new",)]
    os.utime(old, (DAY.timestamp(), DAY.timestamp()))
    assert len(count(tmp_path).rows) == 2


def test_a_folder_with_any_name_is_read_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "a [b] *? 'c'"
    folder.mkdir()
    (tmp_path / "a b xx 'c'").mkdir()
    write(tmp_path / "a b xx 'c'", request(mode="foreign"))
    assert [r.group for r in count(write(folder, request())).rows] == [("executor",)]
    with operation._database(folder, folder) as database:
        outside = write(tmp_path, request()) / "requests.jsonl"
        for forbidden in (
            f"FROM read_text('{outside}')",
            "INSTALL icu",
            "SET enable_external_access = true",
            "LOAD httpfs",
        ):
            with pytest.raises(duckdb.Error):
                database.execute(forbidden)


def test_a_file_renamed_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, request(mode="first"))
    listed = operation._files
    calls: list[Any] = []

    def rotating(folder: Path, since: datetime) -> Any:
        found = listed(folder, since)
        if not calls:
            (folder / "requests.jsonl").rename(folder / "requests-20261124T100000Z-1.jsonl")
            write(folder, request(mode="second"))
        calls.append(1)
        return found

    monkeypatch.setattr(operation, "_files", rotating)
    assert sorted(r.group[0] for r in count(tmp_path).rows) == ["first", "second"]


def test_no_log_is_an_error_and_no_requests_are_not(tmp_path: Path) -> None:
    with pytest.raises(LogMissing) as error:
        count(tmp_path / "nothing")
    assert error.value.code == "E65" and "make up" in error.value.hint
    (tmp_path / "requests.jsonl").touch()
    found = count(tmp_path, plot=True)
    assert found.rows == () and found.total.requests == 0
    assert usage_text.text(found, 80, plot=True).startswith("no requests from ")
    assert usage_text.data(found)["total"]["requests"] == 0


# -- times


def test_days_and_hours_follow_this_machines_clock_through_a_change(tmp_path: Path, berlin: None) -> None:
    """2026-10-25 has 25 hours: at 01:00 UTC the clock goes back from 03:00 to 02:00."""
    night = datetime(2026, 10, 24, 22, tzinfo=UTC)
    folder = write(tmp_path, *(request(night + timedelta(hours=h, minutes=30)) for h in range(26)))
    until = night + timedelta(days=2)
    days = {r.group[0]: r.requests for r in count(folder, "day", since=night, until=until).rows}
    assert days == {"2026-10-25": 25, "2026-10-26": 1}
    hours = {r.group[0]: r.requests for r in count(folder, "hour", since=night, until=until).rows}
    assert hours["2026-10-25 02:00"] == 2 and len(hours) == 25
    assert [d for _, d in offsets(night, until)] == [timedelta(hours=2), timedelta(hours=1)]


# -- how it is shown


def test_hostile_names_are_cut_and_printable(tmp_path: Path) -> None:
    wild = ["\x1b[2J\x1b]0;x\x07" + "a" * 10**6, "\r\n\u202eb\x9b", "=1+1", 'a,"b"', ""]
    found = count(write(tmp_path, *(request(client=c) for c in wild)), "client", "mode", plot=True)
    shown = usage_text.text(found, 100, plot=True)
    assert all(c.isprintable() for c in shown.replace("\n", "")) and all(
        len(line) <= 100 or line.startswith("times:") for line in shown.splitlines()
    )
    assert json.dumps(usage_text.data(found), ensure_ascii=False).isprintable()
    written = usage_text.comma_separated(found)
    assert all(c.isprintable() for c in written.replace("\r\n", "")) and len(written) < 5_000
    rows = list(csv.DictReader(io.StringIO(written)))
    assert {"'=1+1", 'a,"b"', ""} <= {r["client"] for r in rows} and all(r["requests"] == "1" for r in rows)
    assert written.count("\r\n") == len(wild) + 1


@pytest.mark.parametrize("width", [30, 60, 80, 120, 200])
def test_the_table_fits_the_terminal_and_keeps_every_column(tmp_path: Path, width: int) -> None:
    write(tmp_path, *MIX)
    found = count(tmp_path, plot=True)
    tables = usage_table.tables(found, width)
    assert all(len(line) <= width for part in tables for line in part.splitlines())
    words = [w for part in tables for w in part.splitlines()[0].split()]
    wanted = [
        "requests",
        "errors",
        "refused",
        "fallbacks",
        "truncated",
        "in",
        "out",
        "cached",
        "local",
        "cloud",
        "cost",
        "time",
        "first",
        "tokens/s",
    ]
    assert [w for w in words if w != "mode"] == wanted and (len(tables) == 1) == (width == 200)
    assert all(part.splitlines()[-1].startswith("all ") for part in tables)
    assert all(
        len(line) <= max(width, 30)
        for part in (usage_plot.timeline(found.timeline, found.step, width), usage_plot.latencies(found, width))
        for line in part.splitlines()[1:-1]
    )


def test_empty_columns_are_left_out(tmp_path: Path) -> None:
    table = usage_table.tables(count(write(tmp_path, request())), 200)[0]
    assert table.split("\n")[0].split() == ["mode", "requests", "errors", "in", "out", "time"]


def test_the_largest_of_many_groups_are_shown(tmp_path: Path) -> None:
    found = count(write(tmp_path, *(request(client=f"c{n}") for n in range(50)), request(client="c49")), "client")
    assert len(usage_table.tables(found, 200)[0].splitlines()) == usage_table.MOST_ROWS + 2
    assert "of 50" in usage_text.text(found, 200, plot=False) and len(usage_text.data(found)["groups"]) == 50
    assert usage_table.tables(found, 200)[0].splitlines()[1].startswith("c49 ")


def test_the_timeline_shows_empty_hours_and_marks_failures(tmp_path: Path) -> None:
    spread = [request(DAY + timedelta(hours=h)) for h in (0, 0, 0, 0, 5, 5, 23)] + [
        request(DAY + timedelta(hours=5), outcome="error")
    ]
    found = count(write(tmp_path, *spread), plot=True)
    assert found.step == 1800 and len(found.timeline) == 47
    assert [(b.requests, b.failed) for b in found.timeline if b.requests] == [(4, 0), (3, 1), (1, 0)]
    lines = usage_plot.timeline(found.timeline, found.step, 80).splitlines()
    assert lines[0].startswith("requests in each 30 minutes") and lines[1] == "4 █"
    assert lines[-3] == f"  █{' ' * 9}█{' ' * 35}█" and lines[-2] == f"  {' ' * 10}×"


def test_the_commands_choices_are_the_dimensions_of_the_sql() -> None:
    assert sorted(cli_usage.DIMENSIONS) == sorted(usage_sql.DIMENSIONS)
