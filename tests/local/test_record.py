"""`io3ops record` and what the gateway makes of it: kept while asked for, by whom it may be read, and gone when it ends."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.clone import Clone

from io3ops.operations.privacy import recording as record
from io3ops_gateway.request_log import background_writer, content_capture
from io3ops_gateway.request_log.content_capture import ContentRecorder

# Nothing answers there, so that no test depends on an engine.
AWAY: dict[str, Any] = {"DOCKER_HOST": "tcp://127.0.0.1:9"}
ENTRY = {"time": "2026-11-24T18:10:03.123Z", "id": "x-1", "mode": "executor", "data_class": "public"}


class Gateway:
    """A recorder as the gateway has it, and its two clocks."""

    def __init__(self, clone: Path) -> None:
        self.now = time.time()
        self.passed = 0.0
        self.folder = clone / ".io3ops/content"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.control = clone / ".io3ops/recording/recording.json"
        self.recorder = ContentRecorder(self.control, self.folder, lambda: self.now, lambda: self.passed)

    @property
    def content(self) -> Path:
        return self.folder / "content.jsonl"

    def asks(self, data: bytes) -> None:
        self.control.parent.mkdir(exist_ok=True)
        (self.control.parent / "new").write_bytes(data)
        (self.control.parent / "new").replace(self.control)

    def asked(self, seconds: float = 1800, **entry: object) -> None:
        self.asks(json.dumps({"version": 1, "modes": {"executor": {"until": self.now + seconds, **entry}}}).encode())

    def wants(self, mode: str = "executor", data_class: str = "public", allow_internal: bool = False) -> bool:
        self.passed += 1
        return self.recorder.wants(mode, data_class, allow_internal)

    def kept(self) -> list[dict[str, object]]:
        return [json.loads(text) for text in self.content.read_bytes().splitlines()]


@pytest.fixture(autouse=True)
def _a_busy_machine_is_no_slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_writer, "SLOW", 60)


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


# -- the gateway's side


def test_nothing_is_recorded_until_somebody_asks_and_only_that_mode(gateway: Gateway) -> None:
    assert not gateway.wants() and not gateway.recorder.keep({**ENTRY, "request": "q", "answer": "a"})
    assert not gateway.content.exists()
    gateway.asked()
    assert gateway.wants() and not gateway.wants("synthesizer")
    assert gateway.recorder.keep({**ENTRY, "request": b'{"messages": "\xc3\xbc"}', "answer": "a\n"})
    assert gateway.kept() == [{"v": 1, **ENTRY, "request": '{"messages": "ü"}', "answer": "a\n"}]
    assert stat.S_IMODE(gateway.content.stat().st_mode) == 0o600
    assert gateway.content.read_bytes().startswith(b'{"v":1,')


@pytest.mark.parametrize(
    ("data_class", "allowed", "entry", "wanted"),
    [
        ("public", False, {}, True),
        ("internal", False, {}, False),
        ("internal", True, {}, True),
        ("internal", True, {"internal": True}, True),
        ("internal", False, {"internal": True}, False),
        ("internal", True, {"internal": False}, False),
        ("", False, {}, False),
        ("whatever", False, {}, False),
    ],
)
def test_internal_prompts_only_where_the_table_and_the_wish_allow_it(
    gateway: Gateway, data_class: str, allowed: bool, entry: dict[str, Any], wanted: bool
) -> None:
    gateway.asked(**entry)
    assert gateway.wants("executor", data_class, allowed) is wanted


def test_it_ends_by_itself(gateway: Gateway) -> None:
    gateway.asked(60)
    assert gateway.wants()
    gateway.now += 60
    assert not gateway.wants() and not gateway.recorder.keep({**ENTRY, "request": "q", "answer": "a"})


def test_a_time_further_than_a_day_does_not_count_nor_does_one_after_a_clock_was_set_back(gateway: Gateway) -> None:
    gateway.asked(24 * 3600 + 1)
    assert not gateway.wants()
    gateway.asked(24 * 3600)
    assert gateway.wants()
    gateway.now -= 365 * 86_400
    assert not gateway.wants()


def test_the_file_is_looked_at_once_a_second(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.asked()
    assert gateway.wants()
    looked = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: looked.append(path) or real(path, **more))
    for _ in range(100):
        gateway.passed += 0.009
        assert gateway.recorder.wants("executor", "public", False)
    assert not looked
    gateway.passed += 0.2
    assert gateway.recorder.wants("executor", "public", False) and looked == [gateway.control]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b'{"version": 2, "modes": {}}',
        b'{"version": 1, "modes": {"executor": {"until": %d}}}' % (time.time() + 600) + b" " * 1_000_000,
    ],
    ids=["empty", "torn", "version", "endless"],
)
def test_a_file_that_breaks_or_goes_ends_it(gateway: Gateway, broken: bytes) -> None:
    gateway.asked()
    assert gateway.wants()
    gateway.asks(broken)
    assert not gateway.wants()
    gateway.asked()
    assert gateway.wants()
    gateway.control.unlink()
    assert not gateway.wants()
    gateway.control.mkdir()
    assert not gateway.wants()


def test_what_was_ended_while_the_request_ran_is_not_kept(gateway: Gateway) -> None:
    """Not even within the second in which the file is not looked at otherwise: what was deleted does not come back."""
    gateway.asked()
    assert gateway.wants()
    gateway.asks(b'{"version": 1, "modes": {}}')
    assert not gateway.recorder.keep({**ENTRY, "request": "q", "answer": "a"}) and not gateway.content.exists()


def test_long_texts_are_cut_and_say_so(gateway: Gateway) -> None:
    gateway.asked()
    gateway.recorder.keep({**ENTRY, "request": b"q" * 1_000_001, "answer": "a"})
    gateway.recorder.keep({**ENTRY, "request": b"q" * 1_000_000, "answer": b"a" * 3_000_000})
    first, second = gateway.kept()
    assert (len(str(first["request"])), first["answer"], first["cut"]) == (1_000_000, "a", True)
    assert (len(str(second["request"])), len(str(second["answer"])), second["cut"]) == (1_000_000, 1_000_000, True)


def test_a_full_file_stops_it_says_so_once_and_goes_on_when_it_was_removed(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(content_capture, "MOST", 5_000_000)
    gateway.asked()
    kept = 0
    while gateway.recorder.keep({**ENTRY, "request": "q" * 400_000, "answer": "a"}):
        kept += 1
    assert kept == 12 and gateway.content.stat().st_size <= 5_000_000
    for _ in range(5):
        assert not gateway.wants() and not gateway.recorder.keep({**ENTRY, "request": "q", "answer": "a"})
    said = capsys.readouterr().err
    assert said == "gateway: content.jsonl is full (5 MB); no more content is kept until it is removed\n"
    gateway.content.unlink()
    assert (
        gateway.wants() and gateway.recorder.keep({**ENTRY, "request": "q", "answer": "a"}) and len(gateway.kept()) == 1
    )
    assert gateway.recorder.lost == 0 and gateway.recorder.close()


def test_what_cannot_be_written_is_counted_and_does_not_raise(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.asked()
    gateway.content.symlink_to("/dev/null")
    assert not gateway.recorder.keep({**ENTRY, "request": "q", "answer": "a"}) and gateway.recorder.lost == 1
    assert "the recorded content cannot be written: it is not a regular file" in capsys.readouterr().err
    assert not gateway.recorder.keep({**ENTRY, "id": object(), "request": "q", "answer": "a"})


# -- the command, and both together


def run(clone: Clone, *args: str) -> subprocess.CompletedProcess[str]:
    return clone.io3ops("record", *args, **AWAY)


def test_on_and_off_reach_the_gateway(clone: Clone) -> None:
    gateway = Gateway(clone.path)
    assert run(clone).stdout == "nothing is recorded; `io3ops record on --mode MODE --for 30m` starts it\n"
    done = run(clone, "on", "--mode", "executor", "--mode", "synthesizer", "--for", "2h")
    assert done.returncode == 0, done.stderr
    assert (
        "prompts and answers of executor, synthesizer are recorded in .io3ops/content/content.jsonl, which only its owner can read"
        in done.stderr
    )
    assert "record_internal: true" in done.stderr
    asked = json.loads(gateway.control.read_bytes())
    assert set(asked["modes"]) == {"executor", "synthesizer"}
    assert all(abs(entry["until"] - time.time() - 7200) < 60 for entry in asked["modes"].values())
    assert (
        stat.S_IMODE(gateway.control.stat().st_mode) == 0o600
        and stat.S_IMODE(gateway.control.parent.stat().st_mode) == 0o700
    )
    assert gateway.wants() and gateway.wants("synthesizer") and not gateway.wants("embed")
    assert gateway.recorder.keep({**ENTRY, "request": "q", "answer": "a"})
    shown = run(clone).stdout
    assert ("executor" in shown and "UTC (2 h)" in shown) or "UTC (120 min)" in shown
    assert f".io3ops/content/content.jsonl  {gateway.content.stat().st_size} bytes" in shown
    data = json.loads(run(clone, "--json").stdout)["data"]
    assert set(data["modes"]) == {"executor", "synthesizer"} and data["size"] == gateway.content.stat().st_size
    status = clone.io3ops("status", **AWAY).stdout
    assert "recording executor until " in status and "synthesizer until " in status

    done = run(clone, "off", "--mode", "synthesizer")
    assert done.stdout == "synthesizer: recording stopped\n"
    assert gateway.wants() and not gateway.wants("synthesizer")
    done = run(clone, "off", "--delete")
    assert done.stdout == "executor: recording stopped; the recorded content was deleted\n"
    assert not gateway.wants() and not gateway.content.exists()
    assert run(clone, "off", "--delete").stdout == "no recording was active; nothing was recorded\n"
    assert "recording" not in clone.io3ops("status", **AWAY).stdout


def test_the_usual_time_is_half_an_hour_and_a_second_on_replaces_the_first(clone: Clone) -> None:
    for args, seconds in (((), 1800), (("--for", "90s"), 90)):
        assert run(clone, "on", "--mode", "executor", *args).returncode == 0
        until = json.loads((clone.path / ".io3ops/recording/recording.json").read_bytes())["modes"]["executor"]["until"]
        assert abs(until - time.time() - seconds) < 30
    assert run(clone, "on", "--mode", "embed").returncode == 0
    assert set(json.loads(run(clone, "--json").stdout)["data"]["modes"]) == {"executor", "embed"}, (
        "and another one goes on"
    )


def test_wrong_words_change_nothing(clone: Clone) -> None:
    for args, code, words in (
        (("on", "--mode", "executer"), 18, "did you mean 'executor'"),
        (("on", "--mode", "zzz"), 18, "the table's modes: executor"),
        (("off", "--mode", "zzz"), 18, "the table's modes: executor"),
        (("on",), 2, "--mode"),
        (("on", "--mode", "executor", "--for", "25h"), 2, "the limit is 24h"),
        (("on", "--mode", "executor", "--for", "30"), 2, "for example 500ms, 90s, 30m"),
        (("off", "--mode", "executor", "--delete"), 2, "do not combine it with --mode"),
    ):
        done = run(clone, *args)
        assert done.returncode == code and words in done.stderr, done.stderr
    assert not (clone.path / ".io3ops/recording/recording.json").exists()


def test_a_mode_that_left_the_table_and_a_broken_table_can_be_ended(clone: Clone) -> None:
    assert run(clone, "on", "--mode", "executor").returncode == 0
    (clone.path / "runtime/routing.yaml").write_text("nothing: of it\n")
    assert run(clone, "off", "--mode", "executor").stdout == "executor: recording stopped\n"


def test_a_file_that_is_not_understood_is_said_and_written_anew(clone: Clone) -> None:
    control = clone.path / ".io3ops/recording/recording.json"
    control.parent.mkdir(parents=True)
    control.write_text('{"version": 1, "modes": {"executor": {"until": "soon"}}}')
    shown = run(clone)
    assert shown.returncode == 0 and "nothing is recorded: .io3ops/recording/recording.json is invalid" in shown.stdout
    assert run(clone, "off").returncode == 0 and json.loads(control.read_bytes()) == {"version": 1, "modes": {}}


# -- pure


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("24h", 86_400),
        ("1440m", 86_400),
        ("1h30m", 5400),
        ("1d", 86_400),
        ("1s1ms", 2),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert record.duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0m", "999ms", "30", "m", "-5m", "1.5h", "2 h", "2d", "25h", "86401s", "1d1ms", "٣m", "5m\n"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"for example|the limit is 24h|the least is 1s"):
        record.duration(text)


@pytest.mark.parametrize("until", [True, "5", None, [], 5, 6.5, float("inf")])
def test_both_sides_understand_the_same(until: object) -> None:
    data = json.dumps({"version": 1, "modes": {"a": {"until": until}}}).encode()
    try:
        host = set(record.parse(data))
    except ValueError:
        host = set()
    assert host == set(content_capture.recorded_modes(data))


def test_both_sides_count_the_same_times(gateway: Gateway) -> None:
    for seconds in (-1, 0, 1, 24 * 3600, 24 * 3600 + 1):
        gateway.asked(seconds)
        asked = record.parse(gateway.control.read_bytes())
        assert bool(record.current(asked, gateway.now)) is gateway.wants(), seconds
