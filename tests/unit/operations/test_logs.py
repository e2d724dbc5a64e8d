"""`io3ops logs`: which lines are shown, in which order and how, also hostile ones."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from io3ops.adapters import container_view
from io3ops.adapters.process import Finished
from io3ops.cli import logs
from io3ops.console import printable
from io3ops.operations.logs import lines as log_lines
from io3ops.operations.logs import sources as log_sources
from io3ops.operations.logs.lines import Line, Selection, Window
from io3ops.operations.request_log import lines as request_lines
from io3ops_shared.log_files.file_follower import Follower
from io3ops_shared.request_log.record import Attempt, Record, record

FELL_BACK: dict[str, Any] = {
    "v": 1, "time": "2026-11-24T18:12:40.020Z", "id": "0193603c5e2b7cc19d0a3b7f2c11a004", "mode": "executor", "status": 200,
    "ms": 903.1, "gen_ai": {"usage": {"input_tokens": 20, "output_tokens": 1200}},
    "attempts": [
        {"deployment": "executor.1.smollm2", "error": "ConnectError"},
        {"deployment": "executor.2.slow", "status": 503},
        {"deployment": "executor.3.gpt-small"},
    ],
}  # fmt: skip


def raw(**fields: Any) -> bytes:
    return json.dumps(FELL_BACK | fields).encode()


def line(when: float, text: str = "x", layer: str = "gateway") -> Line:
    return Line(time=when, layer=layer, text=text)


# -- the request log's lines


def test_a_request_is_one_readable_line_at_its_end() -> None:
    found = log_lines.request_line(raw())
    assert found is not None
    assert found.text == (
        "…2c11a004  executor  200 ok  903 ms  20→1,200 tokens  executor.1.smollm2✗ConnectError → executor.2.slow✗503 → executor.3.gpt-small✓"
    )
    assert found.time == pytest.approx(log_lines.stamp("2026-11-24T18:12:40.9231Z"))


def test_unknown_values_are_left_out_of_the_line() -> None:
    time = "2026-11-24T18:13:00Z"
    found = Record(time=time, id="a", outcome="refused", status=401, error="invalid_api_key", ms=0.2)
    assert request_lines.text(found) == "a  -  401 refused  invalid_api_key  0 ms"
    assert request_lines.text(Record(time=time, id="a", outcome="client_left", mode="m")) == "a  m  client_left  0 ms"


@pytest.mark.parametrize(
    "torn",
    [b"", b"{", raw()[:-5], b"[]", b"7", b'{"v":1}', raw(time="yesterday"), raw(time=7), b"\xff\xfe{", b"[" * 100_000, b'{"v":' + b"9" * 5000],
    ids=range(11),
)  # fmt: skip
def test_a_torn_line_is_skipped(torn: bytes) -> None:
    assert log_lines.request_line(torn) is None


def test_a_whole_line_behind_a_torn_one_counts() -> None:
    found = log_lines.request_line(raw()[:40] + raw(id="second"))
    assert found is not None and found.record is not None and found.record.id == "second"


HOSTILE = "\x1b[31m\x1b]52;c;aGk=\x07red\r\nfake 200 line\u202e\x9b2J\x00\ud800"


def test_only_printable_text_reaches_the_terminal() -> None:
    found = log_lines.request_line(
        raw(
            id=HOSTILE,
            mode=HOSTILE,
            error=HOSTILE,
            outcome=HOSTILE,
            attempts=[{"deployment": HOSTILE, "error": HOSTILE}],
        )
    )
    assert found is not None and found.text.isprintable() and "52;c" not in found.text
    for layer in log_lines.LAYERS:
        shown = "".join(text for text, _ in log_lines.cells(line(0, HOSTILE * 1000, layer)))
        assert shown.isprintable() and len(shown) < 2100
        assert all(" " <= c <= "~" for c in log_lines.as_json(line(0, HOSTILE, layer)))
    assert all(" " <= c <= "~" for c in log_lines.as_json(found))


VALUES = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20) | st.just(10**400)
NAMES = st.sampled_from(["id", "mode", "status", "ms", "outcome", "error", "usage", "input_tokens", "deployment"])
INNER = st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES, max_size=2), max_size=3)


@given(st.dictionaries(NAMES, VALUES), VALUES | INNER, VALUES | st.lists(VALUES | INNER, max_size=3) | INNER)
def test_fields_of_any_type_make_a_line(fields: dict[str, Any], gen_ai: Any, attempts: Any) -> None:
    found = record(fields | {"v": 1, "time": "2026-11-24T18:13:00Z", "gen_ai": gen_ai, "attempts": attempts})
    assert found is not None
    text = request_lines.text(found)
    assert text.isprintable() and len(text) < 2000


def test_many_attempts_are_counted_not_listed() -> None:
    text = request_lines.attempts(Record(time="", attempts=tuple(Attempt(deployment=f"d{i}") for i in range(500))))
    assert text.startswith("d0✓ → d1✓") and text.endswith("→ 494 more")


def test_printable_removes_escape_sequences_and_cuts() -> None:
    assert printable("\x1b[1;32mgreen\x1b[0m\tx\x1b]0;title\x1b\\!") == "green x!"
    assert printable("x" * 10, 5) == "xxxx…"


# -- which lines


def test_an_id_is_found_in_every_layer_but_not_inside_a_longer_id() -> None:
    wanted = log_lines.request_line(raw(id="job-7"))
    longer = log_lines.request_line(raw(id="job-77"))
    assert wanted is not None and longer is not None
    assert log_lines.holds(wanted, "job-7") and not log_lines.holds(longer, "job-7")
    assert log_lines.holds(line(0, "call job-7, failed"), "job-7")
    assert not log_lines.holds(line(0, "call job-77"), "job-7") and not log_lines.holds(line(0, "xjob-7"), "job-7")
    assert not log_lines.holds(line(0, "jobx7"), "job.7"), "it is no pattern"
    made = log_lines.request_line(raw())
    assert made is not None and log_lines.holds(made, "2c11a004"), "as it is shown"
    assert log_lines.holds(line(0, f"call {FELL_BACK['id']}"), "2c11a004")
    assert not log_lines.holds(made, "a004")


def test_an_engine_line_has_its_own_time_or_that_of_the_line_before() -> None:
    found = log_lines.daemon_line(b'time="2026-11-24T16:44:30.913913652Z" level=info msg="Starting up"', 5.0)
    assert found.text == 'level=info msg="Starting up"' and found.time == pytest.approx(1795538670.913913)
    assert log_lines.daemon_line(b"goroutine 1 [running]:", 5.0).time == 5.0
    assert log_lines.daemon_line(b'time="never" x', 5.0) == line(5.0, 'time="never" x', "engine")


def test_journald_entries_may_be_text_or_numbers() -> None:
    entry = {
        "__REALTIME_TIMESTAMP": "1795538670913913",
        "MESSAGE": 'time="2026-11-24T16:44:30Z" level=info msg=x',
        "__CURSOR": "s=1",
    }
    assert log_lines.journal_line(json.dumps(entry).encode()) == line(1795538670.913913, "level=info msg=x", "engine")
    found = log_lines.journal_line(json.dumps(entry | {"MESSAGE": [104, 105, 300, "x", 255]}).encode())
    assert found is not None and found.text == "hi�"
    assert log_lines.cursor(json.dumps(entry).encode()) == "s=1"
    for wrong in (b"", b"{}", b"[]", b'{"__REALTIME_TIMESTAMP": "x"}'):
        assert log_lines.journal_line(wrong) is None and log_lines.cursor(wrong) == ""


def test_the_journal_is_followed_from_its_last_entry() -> None:
    entries = [{"__REALTIME_TIMESTAMP": f"{n}000000", "MESSAGE": f"m{n}", "__CURSOR": f"c{n}"} for n in range(5)]
    asked: list[list[str]] = []

    def run(argv: list[str]) -> Finished:
        asked.append(argv)
        return Finished(argv=(), code=0, output="\n".join(map(json.dumps, entries)))

    def reader(argv: list[str]) -> Any:
        asked.append(argv)
        return SimpleNamespace(stdout=open(os.devnull, "rb"), terminate=lambda: None, wait=lambda: 0)

    notes: list[str] = []
    tools: Any = SimpleNamespace(processes=SimpleNamespace(run=run, reader=reader))
    source = log_sources.Journal(tools, notes.append)
    assert [found.text for found in source.past(Selection(tail=2))] == ["m3", "m4"]
    source.follow(lambda _line: None)
    source.close()
    assert asked[0][-2:] == ["-n", "2"] and asked[1][-4:] == ["--follow", "--no-tail", "--after-cursor", "c4"]
    tools.processes.run = lambda _argv: Finished(
        argv=(), code=1, output="", errors="No journal\x1b[31m files were opened"
    )
    assert log_sources.Journal(tools, notes.append).past(Selection()) == []
    assert notes == ["the engine's log cannot be read: No journal files were opened"]


# -- their order


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_of_two_layers_leave_in_the_order_of_their_times() -> None:
    clock = Clock()
    window = Window(0.2, clock)
    assert window.wait() is None
    window.add(line(10.2, "late"))
    clock.now = 0.1
    window.add(line(10.1, "early"))
    window.add(line(10.1, "early too"))
    assert window.ready() == [] and window.wait() == pytest.approx(0.1)
    clock.now = 0.2
    assert [found.text for found in window.ready()] == ["early", "early too", "late"]
    assert window.wait() == pytest.approx(0.1)
    clock.now = 0.31
    assert window.ready() == [] and window.wait() is None


def test_a_line_later_than_the_window_is_still_shown() -> None:
    clock = Clock()
    window = Window(0.2, clock)
    window.add(line(10, "a"))
    clock.now = 0.5
    assert [found.text for found in window.ready()] == ["a"]
    window.add(line(9, "b"))
    window.add(line(1e9, "of a clock that jumped"))
    clock.now = 0.7
    assert [found.text for found in window.ready()] == ["b", "of a clock that jumped"]


def test_the_parts_of_a_long_container_line_are_joined() -> None:
    frames = [b"T1 one\n", b"T2 " + b"x" * 30_000, b"T3 yy", b"T4 zz\n", b"T5 torn"]
    found = list(container_view._lines(iter(frames)))
    assert [when for when, _ in found] == ["T1", "T2", "T5"]
    assert found[0][1] == "one" and len(found[1][1]) == container_view.LONGEST and found[2][1] == "torn"


# -- files


@pytest.mark.parametrize(
    ("kind", "message"),
    [("link", os.strerror(errno.ELOOP)), ("pipe", "not a regular file"), ("folder", "not a regular file")],
)
def test_only_a_regular_file_is_opened_as_a_log(tmp_path: Path, kind: str, message: str) -> None:
    """A container writes to that folder. It must not make us read another file, or wait for ever."""
    path = tmp_path / "requests.jsonl"
    (tmp_path / "secret").write_text("x\n")
    make: dict[str, Callable[[], None]] = {
        "link": lambda: path.symlink_to(tmp_path / "secret"),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    make[kind]()
    with pytest.raises(OSError, match=message):
        Follower(path)
    notes: list[str] = []
    source = log_sources.RequestLog(path, notes.append)
    assert source.past(Selection()) == [] and len(notes) == 1
    source.follow(lambda _line: None)
    source.close()


def test_the_request_log_is_read_back_only_as_far_as_needed(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    times = [f"2026-11-24T18:{minute:02}:00Z" for minute in range(10)]
    path.write_bytes(b"\n".join(raw(id=f"r{n}", time=when) for n, when in enumerate(times)) + b"\n{torn\n")
    source = log_sources.RequestLog(path, pytest.fail)

    def ids(wish: Selection) -> list[str]:
        return [found.record.id for found in source.past(wish) if found.record]

    assert ids(Selection(tail=3)) == ["r7", "r8", "r9"]
    assert ids(Selection(tail=0)) == []
    assert ids(Selection(tail=None, since=log_lines.stamp("2026-11-24T18:07:30Z") or 0)) == ["r8", "r9"]
    assert ids(Selection(id="r2")) == ["r2"]
    source.close()


def test_engine_lines_without_a_time_keep_their_place(tmp_path: Path) -> None:
    path = tmp_path / "dockerd.log"
    path.write_bytes(b'panic\ntime="2026-11-24T16:00:00Z" a\n  at x\n  at y\ntime="2026-11-24T16:00:01Z" b\n')
    source = log_sources.DaemonLog(path, pytest.fail)
    assert [(found.text, found.time % 60) for found in source.past(Selection())] == [
        ("a", 0),
        ("  at x", 0),
        ("  at y", 0),
        ("b", 1),
    ]
    source.close()
    notes: list[str] = []
    assert log_sources.DaemonLog(tmp_path / "none", notes.append).past(Selection()) == []
    assert notes == [f"there is no engine's log yet ({tmp_path / 'none'})"]


# -- the command line


@pytest.mark.parametrize(
    ("words", "layers", "rest"),
    [
        ("gateway", ("gateway",), {}),
        ("--tail 5 runtime -f", ("runtime",), {"tail": "5", "follow": True}),
        ("--id gateway runtime engine", ("runtime", "engine"), {"identity": "gateway"}),
        ("--layer requests --since 10m", ("requests",), {"since": "10m"}),
        ("--id prune", (), {"identity": "prune"}),
    ],
)
def test_the_name_of_a_layer_works_without_the_option(
    words: str, layers: tuple[str, ...], rest: dict[str, Any]
) -> None:
    """Hints in errors say `io3ops logs gateway`."""
    command = logs.logs
    assert isinstance(command, click.Group)
    context = command.make_context("logs", words.split())
    assert context.params["layers"] == layers and not context._protected_args
    assert rest.items() <= context.params.items()


@pytest.mark.parametrize("words", ["nosuch", "--tail many", "--tail -1", "--since soon", "--layer nosuch"])
def test_a_wrong_command_line_exits_with_2(words: str) -> None:
    assert CliRunner().invoke(logs.logs, words.split()).exit_code == 2


def test_prune_has_flags_of_its_own() -> None:
    assert isinstance(logs.logs, click.Group)
    context = logs.logs.make_context("logs", ["prune", "--keep-days", "3"])
    assert context._protected_args == ["prune"] and context.args == ["--keep-days", "3"]
    assert CliRunner().invoke(logs.logs, ["prune", "--yes"]).exit_code == 2
    refused = CliRunner().invoke(logs.logs, ["prune", "--all"])
    assert refused.exit_code == 2 and "--yes" in refused.output
