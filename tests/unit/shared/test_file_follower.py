"""A follower reads every line once, whatever happens to the file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from io3ops_shared.log_files import backwards, file_follower
from io3ops_shared.log_files.file_follower import OVERLONG, Follower
from io3ops_shared.request_log.files import FULL


class Log:
    """The writer's side of a log, and the followers to close."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.number = folder, folder / "requests.jsonl", 0
        self.followers: list[Follower] = []

    def follower(self, clock: Callable[[], float] = time.monotonic) -> Follower:
        self.followers.append(Follower(self.path, FULL, clock))
        return self.followers[-1]

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def rotate(self) -> Path:
        self.number += 1
        return self.path.rename(self.folder / f"requests-20261124T181000Z-{self.number}.jsonl")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    for follower in made.followers:
        follower.close()


def read(follower: Follower) -> str:
    return " ".join(line.decode() for line in follower.lines())


def test_it_starts_at_the_end_and_reads_new_lines(log: Log) -> None:
    log.write("old\n")
    follower = log.follower()
    assert read(follower) == ""
    log.write("a\nb\n")
    assert follower.unread() == 4 and read(follower) == "a b" and read(follower) == "" and follower.unread() == 0


def test_a_log_that_appears_later_is_read_from_its_begin(log: Log) -> None:
    follower = log.follower()
    assert read(follower) == "" and follower.unread() == 0
    log.write("a\n")
    assert read(follower) == "a"


def test_half_a_line_waits_for_the_other_half(log: Log) -> None:
    follower = log.follower()
    log.write("a")
    assert read(follower) == ""
    log.write("b\nc")
    assert read(follower) == "ab"
    log.write("\n\n\n")
    assert read(follower) == "c"


def test_lines_before_a_rename_come_first(log: Log) -> None:
    follower = log.follower()
    log.write("a\n")
    assert read(follower) == "a"
    log.write("b\n")
    log.rotate()
    log.write("c\n")
    assert read(follower) == "b c"
    log.rotate()
    assert read(follower) == ""
    log.write("d\n")
    assert read(follower) == "d"


def test_several_renames_between_two_reads_lose_no_line(log: Log) -> None:
    log.write("very old\n")
    log.rotate()
    log.write("old\n")
    follower = log.follower()
    for text in ("a", "b", "c"):
        log.write(f"{text}\n")
        log.rotate()
    log.write("d\n")
    assert read(follower) == "a b c d" and read(follower) == ""


def test_a_renamed_file_is_still_read_for_a_while(log: Log) -> None:
    now = [0.0]
    follower = log.follower(lambda: now[0])
    log.write("a\n")
    assert read(follower) == "a"
    old = log.rotate()
    log.write("b\n")
    assert read(follower) == "b"
    with old.open("a") as file:
        file.write("late\n")
    now[0] = 5.0
    assert read(follower) == "late"
    now[0] = 5.0 + file_follower.GRACE + 1
    assert read(follower) == "" and not follower._retired, "and then it is closed"


def test_a_truncated_file_is_read_from_its_begin(log: Log) -> None:
    follower = log.follower()
    log.write("aaaa\nbbbb\n")
    assert read(follower) == "aaaa bbbb"
    log.write("half of a line")
    assert read(follower) == ""
    log.path.write_text("c\n")
    assert read(follower) == "c" and read(follower) == ""
    log.write("d\n")
    assert read(follower) == "d"


def test_files_are_ordered_by_number_not_by_date(log: Log) -> None:
    follower = log.follower()
    for number, text in enumerate(("a", "b", "c")):
        log.write(f"{text}\n")
        os.utime(log.rotate(), (1000 - number, 1000 - number))
    assert read(follower) == "a b c"


@pytest.mark.parametrize("odd", ["fifo", "link"])
def test_only_regular_files_are_opened(log: Log, odd: str) -> None:
    follower = log.follower()
    elsewhere = log.folder / "content.jsonl"
    elsewhere.write_text("a prompt\n")
    os.mkfifo(log.path) if odd == "fifo" else log.path.symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"regular|symbolic"):
        read(follower)
    log.path.unlink()
    log.write("a\n")
    assert read(follower) == "a", "and nothing but the log's own names is"


def test_a_removed_file_is_no_error(log: Log) -> None:
    follower = log.follower()
    log.write("a\n")
    assert read(follower) == "a"
    log.rotate().unlink()
    assert read(follower) == ""
    log.write("b\n")
    assert read(follower) == "b"


def test_an_overlong_line_is_replaced_and_the_next_one_is_read(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_follower, "LONGEST_LINE", 100)
    monkeypatch.setattr(file_follower, "BLOCK", 64)
    follower = log.follower()
    log.write("x" * 1000 + "\nnext\n")
    assert read(follower) == f"{OVERLONG.decode()} next"


def test_lag_is_the_time_since_the_end_was_reached(log: Log) -> None:
    now = [100.0]
    follower = log.follower(lambda: now[0])
    now[0] = 130.0
    assert follower.lag() == 30
    read(follower)
    assert follower.lag() == 0
    log.write("a\nb\n")
    lines = follower.lines()
    next(lines)
    now[0] = 140.0
    assert follower.lag() == 10, "not read to the end"


def test_a_full_file_that_a_user_restores_is_not_new(log: Log) -> None:
    """The requests in it were counted long ago."""
    for text in ("a", "b"):
        log.write(f"{text}\n")
        log.rotate()
    follower = log.follower()
    saved = log.folder / "requests-20261124T181000Z-1.jsonl"
    saved.rename(log.folder / "away")
    log.write("c\n")
    assert read(follower) == "c"
    (log.folder / "away").rename(saved)
    (log.folder / "requests-mine.jsonl").write_text("mine\n")
    log.rotate()
    log.write("d\n")
    assert read(follower) == "d"


def test_a_folder_named_like_a_full_file_is_skipped(log: Log) -> None:
    follower = log.follower()
    log.write("a\n")
    log.number = 7
    log.rotate()
    (log.folder / "requests-20261124T181000Z-9.jsonl").mkdir()
    log.write("b\n")
    assert read(follower) == "a b" and read(follower) == ""


# -- what was there before


def full_name(number: int) -> str:
    return f"requests-20261124T180000Z-{number:04}.jsonl"


def test_old_lines_are_read_backwards_and_new_ones_forwards(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    (tmp_path / full_name(1)).write_bytes(b"a\nb\n")
    os.utime(tmp_path / full_name(1), (1, 1))
    (tmp_path / full_name(2)).write_bytes(b"c\nd\n")
    path.write_bytes(b"e\nf\nhal")
    file = Follower(path, FULL)
    assert list(file.before()) == [b"f", b"e", b"d", b"c", b"b", b"a"]
    with open(path, "ab") as writer:
        writer.write(b"f\ng\n")
    assert list(file.lines()) == [b"half", b"g"]
    assert list(file.lines()) == []
    file.close()


def test_a_renamed_file_and_those_in_between_are_read_to_their_ends(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"old\n")
    file = Follower(path, FULL)
    with open(path, "ab", buffering=0) as slow:
        slow.write(b"1\n")
        path.rename(tmp_path / full_name(1))
        path.write_bytes(b"2\n")
        path.rename(tmp_path / full_name(2))
        path.write_bytes(b"3\n")
        assert list(file.lines()) == [b"1", b"2", b"3"]
        # A worker that has not noticed yet writes on into the renamed one.
        slow.write(b"4\n")
    assert list(file.lines()) == [b"4"]
    path.rename(tmp_path / full_name(3))
    assert list(file.lines()) == [], "it is begun anew in a moment"
    path.write_bytes(b"5\n")
    assert list(file.lines()) == [b"5"]
    file.close()


def test_a_missing_file_is_waited_for_and_a_truncated_one_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "requests.jsonl"
    file = Follower(path)
    assert list(file.before()) == [] and list(file.lines()) == []
    path.parent.mkdir()
    path.write_bytes(b"first one\n")
    assert list(file.lines()) == [b"first one"]
    path.write_bytes(b"new\n")
    assert list(file.lines()) == [b"new"]
    file.close()


def test_lines_longer_than_a_block_are_whole_and_overlong_ones_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (file_follower, backwards):
        monkeypatch.setattr(module, "BLOCK", 16)
        monkeypatch.setattr(module, "LONGEST_LINE", 100)
    path = tmp_path / "log"
    path.write_bytes(b"a" * 50 + b"\n" + b"b" * 20 + b"\n")
    file = Follower(path)
    assert list(file.before()) == [b"b" * 20, b"a" * 50]
    with open(path, "ab") as writer:
        writer.write(b"c" * 500 + b"\nd\n")
    assert list(file.lines()) == [OVERLONG, b"d"], "the end of a long line is no line"
    with closing(Follower(path)) as again:
        assert all(len(part) <= 120 for part in again.before())
    file.close()
