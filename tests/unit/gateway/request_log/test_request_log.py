"""Writing on a slow or broken disk, and the control file that asks for a recording."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator

import orjson
import pytest

from io3ops_gateway.request_log import background_writer, content_capture
from io3ops_gateway.request_log.background_writer import LogWriter
from io3ops_shared.recording_file import RecordedMode

# -- a disk that is slow or says no


class Disk:
    """A disk that takes `slow` seconds for a write, fails with the errno `why`, and blocks while `open` is not set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slow = 0.0
        self.why = 0
        self.asked = 0
        self.by: list[bool] = []
        self.lines: list[bytes] = []
        self.writes: list[bytes] = []
        self.open = threading.Event()
        self.open.set()

    def put(self, lines: bytes) -> None:
        self.asked += 1
        self.by.append(threading.current_thread() is threading.main_thread())
        assert self.open.wait(20)
        self.now += self.slow
        if self.why:
            raise OSError(self.why, os.strerror(self.why))
        self.writes.append(lines)
        self.lines += lines.split(b"\n")


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.open.set()


def writer(disk: Disk) -> LogWriter:
    return LogWriter("request log", disk.put, ticks=lambda: disk.now)


def settled(check: Callable[[], bool]) -> None:
    """Wait for the thread without a clock."""
    for _ in range(2_000_000):
        if check():
            return
        os.sched_yield()
    raise AssertionError("the thread did not get there")


def test_the_caller_writes_to_a_fast_disk_itself(disk: Disk) -> None:
    log = writer(disk)
    assert all(log.write(b"%d" % n) for n in range(100)) and disk.lines == [b"%d" % n for n in range(100)]
    assert disk.by == [True] * 100 and log.lost == 0


def test_after_a_slow_write_the_thread_writes_until_the_disk_is_fast_again(disk: Disk) -> None:
    log = writer(disk)
    disk.slow = 0.021
    log.write(b"0")
    disk.open.clear()
    assert all(log.write(b"%d" % n) for n in range(1, 50)), "taken, while the disk does not answer at all"
    assert disk.lines == [b"0"] and not log.close(0)
    disk.open.set()
    assert log.close(20) and disk.lines == [b"%d" % n for n in range(50)]
    # The last one was slow too: it stays with the thread, however long nothing comes.
    assert log.write(b"50") and log.close(20)
    disk.slow = 0
    assert log.write(b"51") and log.close(20) and not any(disk.by[1:])
    settled(lambda: not log._behind)
    assert log.write(b"52") and disk.by[-1] and disk.lines == [b"%d" % n for n in range(53)]
    assert log.lost == 0


def test_the_thread_joins_queued_lines_into_few_writes(disk: Disk) -> None:
    log = writer(disk)
    disk.slow = 0.021
    log.write(b"first")
    disk.open.clear()
    for n in range(1000):
        log.write(b"%0200d" % n)
    disk.open.set()
    assert log.close(20) and disk.lines[1:] == [b"%0200d" % n for n in range(1000)]
    assert len(disk.writes) <= 7 and max(len(w.replace(b"\n", b"")) for w in disk.writes) < background_writer.BATCH


@pytest.mark.parametrize(("most", "size"), [("MOST_LINES", 10), ("MOST_BYTES", 30)])
def test_lines_beyond_the_queue_are_dropped_and_counted(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], most: str, size: int
) -> None:
    monkeypatch.setattr(background_writer, most, size)
    log = writer(disk)
    disk.slow = 0.021
    log.write(b"xxx")
    disk.open.clear()
    assert log.write(b"yyy")
    settled(lambda: disk.asked == 2)
    assert not log.close(0), "what is being written is not yet written"
    taken = [log.write(b"%03d" % n) for n in range(20)]
    assert taken == [True] * 10 + [False] * 10 and log.lost == 10
    assert capsys.readouterr().err == (
        "gateway: the request log cannot be written: the disk is too slow; lines lost so far: 1; responses are not affected\n"
    )
    disk.open.set()
    assert log.close(20) and disk.lines == [b"xxx", b"yyy", *(b"%03d" % n for n in range(10))]
    assert capsys.readouterr().err == "gateway: the request log is written again; lines lost: 10\n"


def test_a_broken_disk_is_tried_once_a_second_and_reported_once_a_minute(
    disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    log = writer(disk)
    disk.why = errno.ENOSPC
    for _ in range(1180):
        assert not log.write(b"x")
        disk.now += 0.1
    assert log.lost == 1180 and 107 <= disk.asked <= 118
    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        "gateway: the request log cannot be written: No space left on device; lines lost so far: 1; responses are not affected"
    )
    assert "so far: 60" in second
    disk.why, disk.now = 0, disk.now + 1
    assert log.write(b"x") and log.write(b"x")
    assert capsys.readouterr().err == "gateway: the request log is written again; lines lost: 1180\n"


def test_a_disk_that_fails_slowly_delays_one_response_only(disk: Disk) -> None:
    log = writer(disk)
    disk.why, disk.slow = errno.EIO, 30.0
    assert not log.write(b"x")
    disk.open.clear()
    for _ in range(20):
        disk.now += 2
        assert log.write(b"x"), "taken; the thread finds out"
    disk.open.set()
    assert log.close(20) and log.lost == 21 and disk.by == [True, *[False] * (len(disk.by) - 1)]


def test_without_a_thread_lines_are_written_slowly(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    log = writer(disk)
    disk.slow = 1
    assert log.write(b"0") and log.write(b"1") and disk.lines == [b"0", b"1"]


def test_a_closed_stderr_is_ignored(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    log = writer(disk)
    disk.why = errno.EIO
    with open(os.devnull, "w") as nothing:
        pass
    monkeypatch.setattr("sys.stderr", nothing)
    assert not log.write(b"x") and log.lost == 1


# -- what asks for a recording


def asks(**modes: object) -> bytes:
    return orjson.dumps({"version": 1, "modes": modes})


def test_a_valid_control_file_asks_for_its_modes() -> None:
    assert content_capture.recorded_modes(asks(a={"until": 5}, b={"until": 6.5, "internal": False})) == {
        "a": RecordedMode(5, True), "b": RecordedMode(6.5, False),
    }  # fmt: skip
    assert content_capture.recorded_modes(asks()) == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"7",
        b"{}",
        b"[" * 100_000,
        b'{"version": 1}',
        b'{"version": true, "modes": {"a": {"until": 5}}}',
        b'{"version": 2, "modes": {"a": {"until": 5}}}',
        b'{"version": 1, "modes": ["a"]}',
        b'{"version": 1, "modes": {"a": {"until": NaN}}}',
        b'{"version": 1, "modes": {"a": {"until": 1e999}}}',
        asks(good={"until": 5}, bad={"until": "5"}),
        asks(good={"until": 5}, bad={"until": True}),
        asks(good={"until": 5}, bad={}),
        asks(good={"until": 5}, bad=None),
        asks(good={"until": 5}, bad={"until": 5, "internal": 1}),
        asks(good={"until": 5}, bad={"until": 5, "more": 1}),
    ],
)
def test_an_invalid_control_file_asks_for_nothing(data: bytes) -> None:
    assert content_capture.recorded_modes(data) == {}


def test_a_long_text_is_cut_between_characters() -> None:
    most = content_capture.MOST_TEXT
    assert content_capture.cut("x" * most) == ("x" * most, False) and content_capture.cut("x" * (most + 1)) == (
        "x" * most,
        True,
    )
    text, was = content_capture.cut("x" + "ü" * most)
    assert was and text == "x" + "ü" * ((most - 1) // 2)
    assert content_capture.cut(b"\xff{}") == ("\ufffd{}", False) and content_capture.cut("\ud800") == ("?", False)


def test_every_lost_line_is_reported_to_the_callback() -> None:
    """Also a queued one: `io3ops health` counts them."""
    told: list[int] = []

    def put(_lines: bytes) -> None:
        raise OSError(28, "No space left on device")

    writer = LogWriter("request log", put, lost=told.append)
    assert not writer.write(b"one") and not writer.write(b"two")
    assert told == [1, 1] and writer.lost == 2
