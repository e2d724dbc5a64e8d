"""One grammar of durations and times: every command and the table accept the same forms, and all that they accepted before."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from io3ops.cli import logs as cli_logs
from io3ops.cli import privacy as cli_privacy
from io3ops.cli import usage as cli_usage
from io3ops.cli.time_options import time_of
from io3ops.routing.kinds import Duration
from io3ops_shared import times
from io3ops_shared.times import (
    DURATION_FORMS,
    DURATION_PATTERN,
    EARLIEST,
    TIME_FORMS,
    UNITS,
    format_duration,
    parse_duration,
    parse_time,
)

NOW = datetime(2026, 11, 24, 18, 30, 15, tzinfo=UTC)
DAY = 86_400


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# -- durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5), ("90s", 90), ("30m", 1800), ("24h", DAY), ("7d", 7 * DAY), ("2w", 14 * DAY), ("1h30m", 5400), ("1m30s500ms", 90.5),
        ("1w2d3h4m5s6ms", 788_645.006), ("0m", 0), ("007s", 7), ("1000ms", 1), ("90m", 5400),
    ],
)  # fmt: skip
def test_a_duration_is_one_number_for_each_unit(text: str, seconds: float) -> None:
    found = parse_duration(text)
    assert found == seconds and isinstance(found, int) == (seconds == int(seconds)), "whole seconds stay whole in YAML"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "7",
        "7y",
        "-7d",
        "1.5h",
        "2 h",
        "30m1h",
        "5m5m",
        "h",
        "5ms1s",
        "1h30",
        "5M",
        "٣d",
        "5m\n",
        "1234567890123s",
    ],
)
def test_other_text_is_refused_and_the_forms_of_durations_are_listed(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(DURATION_FORMS)):
        parse_duration(text)


@given(st.integers(1, 10**12))
def test_what_is_written_is_read_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    written = format_duration(seconds)
    assert parse_duration(written) == seconds and re.fullmatch("[0-9]+(ms|s|m|h)", written), "Go reads it too"


@given(st.dictionaries(st.sampled_from(list(UNITS)), st.integers(0, 99_999), min_size=1))
def test_the_parts_of_a_duration_add_up(parts: dict[str, int]) -> None:
    text = "".join(f"{parts[unit]}{unit}" for unit in UNITS if unit in parts)
    assert round(parse_duration(text) * 1000) == sum(count * UNITS[unit] for unit, count in parts.items())
    assert re.search(DURATION_PATTERN, text), "as the editors' schema says"


@given(st.from_regex(r"[0-9]{0,13}(ms|s|m|h|d|w)?([0-9]{1,3}(ms|s|m|h))?", fullmatch=True))
def test_the_editors_schema_and_the_parser_agree(text: str) -> None:
    try:
        parse_duration(text)
    except ValueError:
        assert not re.search(DURATION_PATTERN, text)
    else:
        assert re.search(DURATION_PATTERN, text)


@given(st.integers(1, 9_999_999), st.sampled_from(["ms", "s", "m", "h"]))
def test_the_table_accepts_what_it_accepted_before(number: int, unit: str) -> None:
    size = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]
    assert parse_duration(f"{number}{unit}") == pytest.approx(number * size, rel=1e-12)
    assert Duration(0, 1).schema()["pattern"] == DURATION_PATTERN


# -- times


def test_times_are_words_dates_or_durations_ago(berlin: None) -> None:
    assert parse_time("24h", NOW) == NOW - timedelta(hours=24) and parse_time("7d", NOW) == NOW - timedelta(days=7)
    assert parse_time("now", NOW) == NOW and parse_time("30m", NOW) == NOW - timedelta(minutes=30)
    assert parse_time("90s", NOW) == NOW - timedelta(seconds=90) and parse_time("2w", NOW) == NOW - timedelta(days=14)
    assert parse_time("1d12h", NOW) == NOW - timedelta(hours=36) and parse_time("0m", NOW) == NOW
    assert parse_time("today", NOW) == datetime(2026, 11, 23, 23, tzinfo=UTC), "this machine's midnight"
    assert parse_time("yesterday", NOW) == datetime(2026, 11, 22, 23, tzinfo=UTC)
    assert parse_time("2026-07-01", NOW) == datetime(2026, 6, 30, 22, tzinfo=UTC)
    assert parse_time("2026-11-01T18:00", NOW) == datetime(2026, 11, 1, 17, tzinfo=UTC)
    assert parse_time("2026-11-01 18:00:05.5", NOW) == datetime(2026, 11, 1, 17, 0, 5, 500_000, tzinfo=UTC)
    assert parse_time("2026-11-01T18:00Z", NOW) == datetime(2026, 11, 1, 18, tzinfo=UTC)
    assert parse_time("2026-11-01T18:00-05:00", NOW) == datetime(2026, 11, 1, 23, tzinfo=UTC)
    assert parse_time("2026-11-24", NOW).timestamp() == time.mktime((2026, 11, 24, 0, 0, 0, 0, 0, -1))


def test_a_duration_beyond_the_calendar_means_from_the_beginning() -> None:
    for text in ("999999999d", "999999999w"):
        assert parse_time(text, NOW) == EARLIEST


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "m",
        "7",
        "10",
        "7y",
        "-7d",
        "-5m",
        "10 m",
        "soon",
        "2026-13-01",
        "2026-11-01T",
        "٣d",
        "٣m٣",
        "0001-01-01",
        "Today",
    ],
)
def test_other_text_is_refused_and_the_forms_of_times_are_listed(text: str, berlin: None) -> None:
    with pytest.raises(ValueError, match=f"for example {re.escape(TIME_FORMS)}"):
        parse_time(text, NOW)


@given(st.text(max_size=30) | st.from_regex(r"[0-9TZ:+.w-]{1,30}", fullmatch=True))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        found = parse_time(text, NOW)
    except ValueError as error:
        assert TIME_FORMS in str(error)
    else:
        assert found.tzinfo is UTC


@given(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)))
def test_an_iso_time_is_read_back(moment: datetime) -> None:
    assert parse_time(moment.isoformat(), NOW) == moment


# -- the commands


def accepts(text: str) -> bool:
    try:
        time_of("--since", text)
    except click.UsageError:
        return False
    return True


@pytest.mark.parametrize(
    "text", ["2w", "90s", "500ms", "today", "yesterday", "2026-11-24", "2026-11-24T18:00:00Z", "1h30m"]
)
def test_logs_and_usage_accept_the_same_times(text: str) -> None:
    """`logs --since 2w` and `usage --since 90s` used to be refused."""
    assert accepts(text)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (cli_logs.logs, ["--since", "soon"]),
        (cli_usage.usage, ["--since", "soon"]),
        (cli_usage.usage, ["--until", "soon"]),
        (cli_privacy.record_on, ["--mode", "m", "--for", "soon"]),
    ],
    ids=["logs --since", "usage --since", "usage --until", "record on --for"],
)
def test_a_wrong_time_names_the_option_and_lists_the_forms(command: Any, words: list[str]) -> None:
    done = CliRunner().invoke(command, words)
    said = " ".join(done.output.split())
    forms = DURATION_FORMS if words[-2] == "--for" else TIME_FORMS
    assert done.exit_code == 2 and words[-2] in said and "'soon'" in said and f"for example {forms}" in said


def test_help_lists_the_same_forms_everywhere() -> None:
    for command in (cli_logs.logs, cli_usage.usage):
        since = next(p for p in command.params if "--since" in p.opts)
        assert isinstance(since, click.Option) and TIME_FORMS in str(since.help) and since.metavar == "TIME"
    wanted = next(p for p in cli_privacy.record_on.params if "--for" in p.opts)
    assert isinstance(wanted, click.Option) and wanted.metavar == "DURATION"
    for form in re.findall(r"[0-9]+[a-z0-9]+", str(wanted.help)):
        parse_duration(form)
    for form in re.findall(r"[0-9][0-9a-zA-Z:-]*", times.TIME_FORMS):
        assert accepts(form), form
    for form in re.findall(r"[0-9][0-9a-z]*", times.DURATION_FORMS):
        parse_duration(form)
