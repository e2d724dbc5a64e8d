"""The log is read to its end and never twice, whatever happens to its file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from io3ops_observer import follow
from io3ops_observer.follow import Follower


class Log:
    """The gateway's side."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.number = folder, folder / "requests.jsonl", 0
        self.followers: list[Follower] = []

    def follower(self, clock: Callable[[], float] = time.monotonic) -> Follower:
        self.followers.append(Follower(self.folder, clock))
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


def test_it_begins_at_the_end_and_reads_what_comes(log: Log) -> None:
    log.write("old\n")
    follower = log.follower()
    assert read(follower) == ""
    log.write("a\nb\n")
    assert follower.unread() == 4 and read(follower) == "a b" and read(follower) == "" and follower.unread() == 0


def test_a_log_that_is_not_there_yet_is_read_from_its_begin(log: Log) -> None:
    follower = log.follower()
    assert read(follower) == "" and follower.unread() == 0
    log.write("a\n")
    assert read(follower) == "a"


def test_half_a_line_waits_for_its_other_half(log: Log) -> None:
    follower = log.follower()
    log.write("a")
    assert read(follower) == ""
    log.write("b\nc")
    assert read(follower) == "ab"
    log.write("\n\n\n")
    assert read(follower) == "c"


def test_what_was_written_before_the_rename_comes_first(log: Log) -> None:
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


def test_no_file_between_two_looks_is_missed_and_older_ones_are_not_read_again(log: Log) -> None:
    log.write("very old\n")
    log.rotate()
    log.write("old\n")
    follower = log.follower()
    for text in ("a", "b", "c"):
        log.write(f"{text}\n")
        log.rotate()
    log.write("d\n")
    assert read(follower) == "a b c d" and read(follower) == ""


def test_a_worker_that_still_has_the_old_file_is_heard_for_a_while(log: Log) -> None:
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
    now[0] = 5.0 + follow.GRACE + 1
    assert read(follower) == "" and not follower._renamed, "and then it is closed"


def test_a_file_that_was_emptied_is_read_from_its_begin(log: Log) -> None:
    follower = log.follower()
    log.write("aaaa\nbbbb\n")
    assert read(follower) == "aaaa bbbb"
    log.write("half of a line")
    assert read(follower) == ""
    log.path.write_text("c\n")
    assert read(follower) == "c" and read(follower) == ""
    log.write("d\n")
    assert read(follower) == "d"


def test_the_order_is_that_of_the_numbers_whatever_the_clock_did(log: Log) -> None:
    follower = log.follower()
    for number, text in enumerate(("a", "b", "c")):
        log.write(f"{text}\n")
        os.utime(log.rotate(), (1000 - number, 1000 - number))
    assert read(follower) == "a b c"


@pytest.mark.parametrize("odd", ["fifo", "link"])
def test_what_is_no_file_is_not_opened(log: Log, odd: str) -> None:
    follower = log.follower()
    elsewhere = log.folder / "content.jsonl"
    elsewhere.write_text("a prompt\n")
    os.mkfifo(log.path) if odd == "fifo" else log.path.symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"regular|symbolic"):
        read(follower)
    log.path.unlink()
    log.write("a\n")
    assert read(follower) == "a", "and nothing but the log's own names is"


def test_a_removed_file_ends_nothing(log: Log) -> None:
    follower = log.follower()
    log.write("a\n")
    assert read(follower) == "a"
    log.rotate().unlink()
    assert read(follower) == ""
    log.write("b\n")
    assert read(follower) == "b"


def test_what_is_longer_than_any_line_is_given_up_and_the_next_one_is_not(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LONGEST", 100)
    monkeypatch.setattr(follow, "CHUNK", 64)
    follower = log.follower()
    log.write("x" * 1000 + "\nnext\n")
    assert read(follower) == "- next"


def test_it_says_how_far_behind_it_is(log: Log) -> None:
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
