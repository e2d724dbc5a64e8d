"""The request log on real files: many processes at once, killed ones, full disks, and what users do to the folder meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.clone import until

from io3ops.errors import AlreadyRunning, NotWritable
from io3ops.operations.request_log import prune as prune_logs
from io3ops_gateway.request_log import append_file, background_writer, rotating_file
from io3ops_gateway.request_log.rotating_file import RequestLog, ticks
from io3ops_shared.request_log import files as log_files
from io3ops_shared.request_log.files import FULL, number
from io3ops_shared.request_log.prune import DAY

PROCESSES, LINES = 8, 2000


class Clock:
    """Both clocks of a log, so that a test need not wait: `now` may jump, `passed` does not."""

    def __init__(self) -> None:
        self.now = time.time()
        self.passed = 0.0

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.passed += seconds


@pytest.fixture(autouse=True)
def _a_busy_machine_is_no_slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a line would be with the thread, and not yet in the file, when a test looks."""
    monkeypatch.setattr(background_writer, "SLOW", 60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "logs"
    made.mkdir(0o700)
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


def log_in(
    folder: Path, clock: Clock | None = None, *, keep_days: float = 30, budget: int = 10**9, rotate: int = 10**9
) -> RequestLog:
    if clock is None:
        return RequestLog(folder, keep_days=keep_days, budget=budget, rotate=rotate, look_every=0)
    return RequestLog(
        folder, keep_days=keep_days, budget=budget, rotate=rotate, clock=lambda: clock.now, ticks=lambda: clock.passed,
        look_every=0,
    )  # fmt: skip


def line(worker: int, number: int, size: int = 150) -> bytes:
    return json.dumps({"v": 1, "w": worker, "n": number, "x": "y" * size}, separators=(",", ":")).encode()


def current(folder: Path) -> Path:
    return folder / "requests.jsonl"


def full(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if FULL.fullmatch(p.name)), key=lambda path: number(path.name))


def read(*paths: Path) -> list[tuple[int, int]]:
    """(worker, number) of every line, by the rule of docs/request-log.md: a second one in a line begins at the last `{"v":`."""
    found = []
    # Between a rotation and the next line there is no current one.
    for path in filter(Path.exists, paths):
        for text in path.read_text().splitlines():
            with suppress(ValueError):
                entry = json.loads(text[max(0, text.rfind('{"v":')) :])
                found.append((entry["w"], entry["n"]))
    return found


def fork(job: Callable[[], None]) -> int:
    """A process that runs `job` and ends; whatever happens, it never returns into pytest."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(60)
    with suppress(BaseException):
        job()
        os._exit(0)
    os._exit(1)


def ended(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


def stays_whole(folder: Path, clock: Clock, why: str, capsys: pytest.CaptureFixture[str]) -> RequestLog:
    """Nothing can be written in this folder: said, counted, and asked again at most once a second."""
    log = log_in(folder, clock)
    assert [log.write(line(0, n)) for n in range(50)] == [False] * 50 and log.lost == 50
    assert capsys.readouterr().err == (
        f"gateway: the request log cannot be written: {why}; lines lost so far: 1; responses are not affected\n"
    )
    return log


def works_again(folder: Path, clock: Clock, log: RequestLog, capsys: pytest.CaptureFixture[str]) -> None:
    assert not log.write(b"{}"), "within the second"
    lost = log.lost
    clock.wait(1)
    assert log.write(line(0, 50)) and log.write(line(0, 51)) and read(current(folder)) == [(0, 50), (0, 51)]
    assert capsys.readouterr().err == f"gateway: the request log is written again; lines lost: {lost}\n"


# -- many processes


@pytest.mark.parametrize("slow", [0.02, 0.0], ids=["as it is", "all by the thread"])
def test_processes_that_write_and_rotate_at_once_lose_and_double_no_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, slow: float
) -> None:
    monkeypatch.setattr(background_writer, "SLOW", slow)

    def work(worker: int) -> None:
        log = log_in(folder, rotate=50_000)
        assert all(log.write(line(worker, n)) for n in range(LINES)) and log.close(30)

    pids = [fork(partial(work, worker)) for worker in range(PROCESSES)]
    assert [ended(pid) for pid in pids] == [0] * PROCESSES
    files = [path for path in (*full(folder), current(folder)) if path.exists()]
    assert len(files) > 3
    found = Counter(read(*files))
    assert found == {(worker, n): 1 for worker in range(PROCESSES) for n in range(LINES)}
    for path in files:
        assert path.stat().st_mode & 0o777 == 0o600 and path.read_bytes().endswith(b"}\n")
        # An empty one: a worker opened the file just when another was in the middle of its write.
        assert all(json.loads(text) for text in path.read_bytes().splitlines() if text), "each whole"
        # In one file, the lines of a worker stand in the order in which it wrote them.
        for worker in range(PROCESSES):
            numbers = [n for w, n in read(path) if w == worker]
            assert numbers == sorted(numbers)


def test_a_killed_process_costs_no_line_but_the_one_that_it_was_writing(folder: Path) -> None:
    reports: list[tuple[int, int]] = []

    def work(worker: int, says: int) -> None:
        log = log_in(folder, rotate=100_000)
        for n in range(10**9):
            assert log.write(line(worker, n, 20_000))
            os.write(says, b"x")

    for worker in range(4):
        heard, says = os.pipe()
        pid = fork(partial(work, worker, says))
        os.close(says)
        seen = 0
        while seen < 100:
            seen += len(os.read(heard, 100))
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == signal.SIGKILL
        while more := os.read(heard, 65_536):
            seen += len(more)
        os.close(heard)
        reports.append((worker, seen))
    found = Counter(read(*full(folder), current(folder)))
    for worker, seen in reports:
        numbers = sorted(n for w, n in found if w == worker)
        assert numbers in (list(range(seen)), list(range(seen + 1))), "what it knew to be written, and perhaps one more"
    assert set(found.values()) == {1}


def test_a_torn_last_line_is_not_continued(folder: Path) -> None:
    whole = line(9, 9)
    current(folder).write_bytes(whole + b"\n" + line(9, 10)[:40])
    log = log_in(folder)
    assert log.write(line(0, 0)) and log.write(line(0, 1))
    lines = current(folder).read_bytes().split(b"\n")
    assert lines == [whole, line(9, 10)[:40], line(0, 0), line(0, 1), b""]


def test_a_whole_last_line_is_not_followed_by_an_empty_one(folder: Path) -> None:
    for n in range(3):
        assert log_in(folder).write(line(0, n))
    assert current(folder).read_bytes() == b"".join(line(0, n) + b"\n" for n in range(3))


# -- rotation and what is removed


def test_a_full_file_gets_its_name_and_never_that_of_another(folder: Path, clock: Clock) -> None:
    log = log_in(folder, clock, rotate=1)
    for n in range(20):
        assert log.write(line(0, n))
        until("the lock is free", lambda: free(folder))
    assert len(full(folder)) == 20 and not current(folder).exists()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(clock.now))
    assert [p.name for p in full(folder)] == [f"requests-{stamp}-{n:04}.jsonl" for n in range(1, 21)]
    assert read(*full(folder)) == [(0, n) for n in range(20)]


def test_the_folder_stays_within_its_budget(folder: Path) -> None:
    log = log_in(folder, rotate=2_000, budget=10_000)
    for n in range(300):
        assert log.write(line(0, n))
        until("the lock is free", lambda: free(folder))
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 10_200, "but for the last line"
    left = read(*full(folder), current(folder))
    assert left == [(0, n) for n in range(300 - len(left), 300)] and len(left) > 30, "the newest, without a gap"


def test_other_files_in_the_folder_are_left_alone(folder: Path) -> None:
    names = (
        "content.jsonl",
        "requests.jsonl.gz",
        "requests-mine.jsonl",
        "requests-20260101T000000Z-0001.jsonl.gz",
        "a.txt",
    )
    for name in names:
        (folder / name).write_bytes(b"x" * 1000)
        os.utime(folder / name, (0, 0))
    (folder / "requests-20260101T000000Z-0001.jsonl").mkdir()
    log = log_in(folder, rotate=10, budget=20, keep_days=0.00001)
    for n in range(5):
        assert log.write(line(0, n))
        until("the lock is free", lambda: free(folder))
    assert all((folder / name).read_bytes() == b"x" * 1000 for name in names) and [
        number(path.name) for path in full(folder)
    ] == [1, 6]


@pytest.mark.parametrize("jump", [10 * 365 * DAY, -10 * 365 * DAY])
def test_a_clock_that_jumps_while_the_gateway_runs_removes_nothing_by_age(
    folder: Path, clock: Clock, jump: float
) -> None:
    log = log_in(folder, clock, rotate=1, keep_days=30)
    for n in range(6):
        assert log.write(line(0, n))
        until("the lock is free", lambda: free(folder))
    clock.now += jump
    for n in range(6, 9):
        assert log.write(line(0, n))
        # What the machine's clock would have dated.
        until("the lock is free", lambda: free(folder))
        os.utime(newest(folder), (clock.now, clock.now))
    assert read(*full(folder)) == [(0, n) for n in range(9)]


def test_what_is_too_old_goes_with_the_next_rotations(folder: Path) -> None:
    paths = [old(folder, n, days) for n, days in enumerate((50, 40, 31, 29))]
    log = log_in(folder, rotate=1, keep_days=30)
    for left in (paths[2:], paths[3:], paths[3:]):
        assert log.write(line(0, 0))
        until("the lock is free", lambda: free(folder))
        assert [path for path in paths if path.exists()] == left


def test_without_the_lock_lines_go_on_in_the_full_file(folder: Path, clock: Clock) -> None:
    """Another worker, or `io3ops logs prune`, is at it."""
    log = log_in(folder, clock, rotate=400, budget=10_000)
    with open(folder / ".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert all(log.write(line(0, n)) for n in range(10)) and not full(folder)
    assert log.write(line(0, 10)) and read(*full(folder)) == [(0, n) for n in range(11)]


def test_what_cannot_be_renamed_does_not_grow_beyond_the_budget(
    folder: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".lock").mkdir()
    log = log_in(folder, clock, rotate=1000, budget=5000)
    written = [log.write(line(0, n)) for n in range(100)]
    size = current(folder).stat().st_size
    assert written == [True] * sum(written) + [False] * log.lost and 5000 < size < 5300
    assert "Is a directory" in capsys.readouterr().err
    (folder / ".lock").rmdir()
    clock.wait(1)
    assert log.write(line(0, 100)) and read(current(folder)) == [(0, 100)] and full(folder)[0].stat().st_size == size
    current(folder).unlink()


def test_a_user_who_takes_the_file_that_could_not_be_renamed_helps_too(folder: Path, clock: Clock) -> None:
    (folder / ".lock").mkdir()
    log = log_in(folder, clock, rotate=1000, budget=5000)
    while log.write(line(0, 0)):
        pass
    current(folder).unlink()
    (folder / ".lock").rmdir()
    clock.wait(1)
    assert log.write(line(0, 1)) and log.write(line(0, 2)) and read(current(folder)) == [(0, 1), (0, 2)]


def test_a_file_that_another_worker_began_meanwhile_is_not_rotated(
    folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_in(folder, clock, rotate=400)
    assert log.write(line(0, 0)) and log.write(line(0, 1))

    def rotated_by_another(path: Path) -> int:
        current(folder).rename(folder / "requests-20260101T000000Z-0001.jsonl")
        current(folder).write_bytes(line(1, 0) + b"\n")
        return log_files.open_folder(path)

    with monkeypatch.context() as patch:
        patch.setattr(rotating_file, "open_folder", rotated_by_another)
        assert log.write(line(0, 2))
    assert log.write(line(0, 3)) and read(current(folder)) == [(1, 0), (0, 3)]
    assert read(*full(folder)) == [(0, 0), (0, 1), (0, 2)]


def free(folder: Path) -> bool:
    """Whether nobody rotates or removes; the thread that removes has the lock until it is through."""
    with open(folder / ".lock", "a") as lock, suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def newest(folder: Path) -> Path:
    return full(folder)[-1]


# -- what users do


def test_a_new_day_begins_a_new_file(folder: Path) -> None:
    log = log_in(folder)
    assert log.write(line(0, 0))
    yesterday = time.time() - 86_400
    os.utime(current(folder), (yesterday, yesterday))
    # The line goes where it is sure to be, and the next into the new file.
    assert log.write(line(0, 1)) and log.write(line(0, 2))
    (full,) = folder.glob("requests-*.jsonl")
    assert read(full) == [(0, 0), (0, 1)] and read(current(folder)) == [(0, 2)]


def test_a_file_that_was_removed_moved_or_replaced_is_begun_anew(folder: Path, tmp_path: Path) -> None:
    log = log_in(folder)
    assert log.write(line(0, 0))
    current(folder).unlink()
    assert log.write(line(0, 1)) and read(current(folder)) == [(0, 1)]
    current(folder).rename(tmp_path / "mine")
    assert log.write(line(0, 2)) and read(current(folder)) == [(0, 2)] and read(tmp_path / "mine") == [(0, 1)]
    (tmp_path / "other").write_bytes(line(7, 7) + b"\n")
    (tmp_path / "other").chmod(0o644)
    (tmp_path / "other").rename(current(folder))
    assert log.write(line(0, 3)) and read(current(folder)) == [(7, 7), (0, 3)]
    assert current(folder).stat().st_mode & 0o777 == 0o600
    current(folder).write_bytes(b"")
    assert log.write(line(0, 4)) and current(folder).read_bytes() == line(0, 4) + b"\n"
    folder.rename(tmp_path / "away")
    folder.mkdir()
    assert log.write(line(0, 5)) and read(current(folder)) == [(0, 5)] and log.lost == 0


def test_a_missing_folder(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    log = stays_whole(tmp_path / "logs", clock, "No such file or directory", capsys)
    (tmp_path / "logs").mkdir()
    works_again(tmp_path / "logs", clock, log, capsys)


def test_a_file_in_place_of_the_folder(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "logs"
    folder.write_bytes(b"mine")
    log = stays_whole(folder, clock, "Not a directory", capsys)
    assert folder.read_bytes() == b"mine"
    folder.unlink()
    folder.mkdir()
    works_again(folder, clock, log, capsys)


def test_a_symlink_in_place_of_the_folder(
    folder: Path, tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.rmdir()
    folder.symlink_to(elsewhere)
    log = stays_whole(folder, clock, "Not a directory", capsys)
    assert not list(elsewhere.iterdir())
    folder.unlink()
    folder.mkdir()
    works_again(folder, clock, log, capsys)


def odd_symlink(path: Path) -> None:
    path.with_name("target").write_bytes(b"")
    path.symlink_to(path.with_name("target"))


@pytest.mark.parametrize(
    "put",
    [odd_symlink, os.mkdir, os.mkfifo, lambda path: os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))],
    ids=["symlink", "folder", "fifo", "device"],
)
def test_what_is_no_regular_file_is_not_written(
    folder: Path, clock: Clock, capsys: pytest.CaptureFixture[str], put: Callable[[Path], None]
) -> None:
    put(current(folder))
    signal.alarm(30)
    log = stays_whole(folder, clock, "it is not a regular file", capsys)
    signal.alarm(0)
    assert all(path.lstat().st_size == 0 or path.is_dir() or path.is_symlink() for path in folder.iterdir())
    current(folder).rmdir() if current(folder).is_dir() else current(folder).unlink()
    works_again(folder, clock, log, capsys)


@pytest.mark.parametrize(
    ("put", "why"),
    [(os.mkfifo, "it is not a regular file"), (odd_symlink, "Too many levels of symbolic links")],
    ids=["fifo", "symlink"],
)
def test_one_that_comes_between_the_look_and_the_opening_is_not_written(
    folder: Path,
    clock: Clock,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    put: Callable[[Path], None],
    why: str,
) -> None:
    monkeypatch.setattr(append_file, "_may_be_opened", lambda _name, _folder: True)
    put(current(folder))
    signal.alarm(30)
    stays_whole(folder, clock, why, capsys)
    signal.alarm(0)


def test_one_that_comes_while_the_file_is_open_is_not_written_either(
    folder: Path, clock: Clock, tmp_path: Path
) -> None:
    log = log_in(folder, clock)
    assert log.write(line(0, 0))
    current(folder).unlink()
    (tmp_path / "target").write_bytes(b"")
    current(folder).symlink_to(tmp_path / "target")
    assert not log.write(line(0, 1)) and log.lost == 1 and not (tmp_path / "target").read_bytes()


# -- disks


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_costs_the_lines_that_it_could_not_take_and_no_other(
    small: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    log = log_in(small, clock)
    written = [log.write(line(0, n)) for n in range(500)]
    taken = sum(written)
    assert written == [True] * taken + [False] * (500 - taken) and 300 < taken < 450 and log.lost == 500 - taken
    assert "No space left on device" in capsys.readouterr().err
    assert not current(small).read_bytes().endswith(b"\n"), "it took a piece"
    clock.wait(1)
    assert not log.write(line(0, 500)) and log.lost == 501 - taken, "and now nothing"
    current(small).rename(small / "old")
    (small / "big").write_bytes(b"")
    subprocess.run(["mount", "-o", "remount,size=128k", small], check=True)
    (small / "old").rename(current(small))
    clock.wait(1)
    assert log.write(line(0, 501)) and log.write(line(0, 502))
    assert current(small).read_bytes().endswith(b"\n" + line(0, 501) + b"\n" + line(0, 502) + b"\n")
    assert read(current(small)) == [*((0, n) for n in range(taken)), (0, 501), (0, 502)]
    assert f"written again; lines lost: {501 - taken}" in capsys.readouterr().err


def test_a_piece_of_another_worker_does_not_spoil_the_next_line(small: Path, clock: Clock) -> None:
    """Both met the full disk; either may be the first to write again."""
    first, second = log_in(small, clock), log_in(small, clock)
    assert second.write(line(1, 0))
    while first.write(line(0, 0)):
        pass
    assert not second.write(line(1, 1))
    subprocess.run(["mount", "-o", "remount,size=128k", small], check=True)
    clock.wait(1)
    assert second.write(line(1, 2)) and first.write(line(0, 2))
    assert current(small).read_bytes().endswith(b"\n" + line(1, 2) + b"\n" + line(0, 2) + b"\n")


def test_a_disk_that_may_not_be_written(small: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    log = stays_whole(small, clock, "Read-only file system", capsys)
    subprocess.run(["mount", "-o", "remount,rw", small], check=True)
    works_again(small, clock, log, capsys)


def test_a_limit_on_the_size_of_files_does_not_end_the_gateway(folder: Path) -> None:
    import resource

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        log = log_in(folder)
        written = [log.write(line(0, n)) for n in range(100)]
        assert 40 < sum(written) < 60 and log.lost == 100 - sum(written)

    assert ended(fork(work)) == 0


# -- io3ops logs prune


def settings(folder: Path) -> Any:
    return SimpleNamespace(logs=folder)


def old(folder: Path, number: int, days: float, size: int = 1000) -> Path:
    path = folder / f"requests-20260101T000000Z-{number:04}.jsonl"
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


def test_prune_removes_what_is_too_old_and_then_the_oldest(folder: Path) -> None:
    paths = [old(folder, n, 40 - 10 * n) for n in range(4)]
    current(folder).write_bytes(b"x" * 1000)
    os.utime(current(folder), (0, 0))
    done = prune_logs.prune(settings(folder), keep_days=35, budget_mb=1)
    assert done == prune_logs.Pruned(removed=(paths[0].name,), freed=1000)
    done = prune_logs.prune(settings(folder), keep_days=35, budget_mb=0.0025)
    assert done == prune_logs.Pruned(removed=(paths[1].name, paths[2].name), freed=2000)
    done = prune_logs.prune(settings(folder), keep_days=0, budget_mb=0)
    assert done.removed == (paths[3].name,) and current(folder).stat().st_size == 1000, "the one that is written stays"
    assert prune_logs.prune(settings(folder), keep_days=0, budget_mb=0) == prune_logs.Pruned(removed=(), freed=0)
    assert prune_logs.prune(settings(folder / "none"), keep_days=0, budget_mb=0) == prune_logs.Pruned(
        removed=(), freed=0
    )


def test_prune_everything_and_the_gateway_begins_anew(folder: Path) -> None:
    log = log_in(folder)
    old(folder, 1, 1)
    (folder / "content.jsonl").write_bytes(b"not a request log")
    assert log.write(line(0, 0))
    size = current(folder).stat().st_size
    done = prune_logs.prune(settings(folder), keep_days=99, budget_mb=99, everything=True)
    assert len(done.removed) == 2 and done.freed == 1000 + size
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "content.jsonl"]
    assert log.write(line(0, 1)) and read(current(folder)) == [(0, 1)] and log.lost == 0


def test_prune_shares_the_gateways_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune_logs, "PATIENCE", 0.0)
    with open(folder / ".lock", "w") as gateway:
        fcntl.flock(gateway, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning):
            prune_logs.prune(settings(folder), keep_days=0, budget_mb=0)
    prune_logs.prune(settings(folder), keep_days=0, budget_mb=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
def test_what_root_prunes_the_gateway_can_still_lock(folder: Path) -> None:
    os.chown(folder, 1234, 1235)
    prune_logs.prune(settings(folder), keep_days=0, budget_mb=0)
    status = (folder / ".lock").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 1235, 0o600)


def test_prune_follows_no_symlink(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"x")
    (folder / "requests-20260101T000000Z-0001.jsonl").symlink_to(tmp_path / "precious")
    assert prune_logs.prune(settings(folder), keep_days=0, budget_mb=0, everything=True).removed == ()
    (folder / ".lock").unlink()
    (folder / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(NotWritable):
        prune_logs.prune(settings(folder), keep_days=0, budget_mb=0)
    assert (tmp_path / "precious").read_bytes() == b"x"


def test_the_clock_that_does_not_jump() -> None:
    before = ticks()
    assert before <= ticks() < before + 60
