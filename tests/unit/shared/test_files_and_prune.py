"""Names of full files, and the choice of those to remove."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io3ops_shared.request_log import files as log_files
from io3ops_shared.request_log.files import CURRENT, FULL, FullFile, full_name, number, older_files
from io3ops_shared.request_log.prune import DAY, prunable

NOW = 1_800_000_000.0
FOREVER = 10**15
FILES = st.lists(
    st.tuples(st.integers(0, 1000), st.floats(-400 * DAY, 400 * DAY)), max_size=12
).map(lambda found: [FullFile(name(i), size, NOW + age) for i, (size, age) in enumerate(found)])  # fmt: skip


def name(number: int) -> str:
    return f"requests-20261124T181003Z-{number:04}.jsonl"


def files(*ages: float, size: int = 10) -> list[FullFile]:
    """Return files of these ages in days, numbered in this order."""
    return [FullFile(name(place), size, NOW - age * DAY) for place, age in enumerate(ages)]


def gone(found: list[FullFile], now: float, keep_days: float, budget: int) -> list[int]:
    """Return the numbers of the files that the gateway removes."""
    chosen = prunable(found, now, keep_days=keep_days, budget=budget, trust_clock=False)
    return [number(name) for name in chosen]


# -- which files go


def test_old_files_are_removed() -> None:
    assert gone(files(31, 29.9, 1, 0), NOW, 30, FOREVER) == [0]
    assert gone(files(31, 29.9, 1, 0)[::-1], NOW, 30, FOREVER) == [0], "the order in which they come does not matter"
    assert gone([], NOW, 30, 0) == []


def test_the_oldest_are_removed_until_the_rest_is_within_the_budget() -> None:
    assert gone(files(3, 2, 1, 0), NOW, 30, 40) == []
    assert gone(files(3, 2, 1, 0), NOW, 30, 39) == [0]
    assert gone(files(3, 2, 1, 0), NOW, 30, 20) == [0, 1]
    assert gone(files(31, 2, 1, 0), NOW, 30, 25) == [0, 1], "what goes by age counts"
    assert gone(files(2, 31, 1, 0), NOW, 30, 30) == [1]


def test_the_gateway_keeps_the_newest_for_any_budget_and_clock() -> None:
    assert gone(files(3, 2, 1, 0), NOW, 30, 0) == [0, 1, 2]
    assert gone(files(99), NOW, 30, -5) == []


def test_a_clock_that_is_years_ahead_removes_half_at_most() -> None:
    assert gone(files(3, 2, 1, 0), NOW + 3650 * DAY, 30, FOREVER) == [0, 1]
    assert gone(files(1, 0), NOW + 3650 * DAY, 30, FOREVER) == [0]


def test_files_dated_in_the_future_are_not_old_and_do_not_displace_newer_ones() -> None:
    """The clock was years ahead and was set back."""
    found = files(0.6, -3000, -2999, 0.5, 0)
    assert gone(found, NOW, 30, FOREVER) == []
    assert gone(found, NOW, 30, 20) == [0, 1, 2]


def test_10000_comes_after_9999() -> None:
    found = [FullFile(name(n), 10, NOW) for n in (10_001, 9999, 10_000)]
    assert gone(found, NOW, 30, 10) == [9999, 10_000]


@given(found=FILES, jump=st.floats(-9999 * DAY, 9999 * DAY), budget=st.integers(-10, 5000))
def test_for_any_clock_the_newest_stays_and_the_budget_holds(found: list[FullFile], jump: float, budget: int) -> None:
    removed = prunable(found, NOW + jump, keep_days=30, budget=budget, trust_clock=False)
    left = [file for file in found if file[0] not in removed]
    assert len(set(removed)) == len(removed) and left[-1:] == found[-1:]
    assert len(left) <= 1 or sum(size for _, size, _ in left) <= budget
    assert len(prunable(found, NOW + jump, keep_days=30, budget=FOREVER, trust_clock=False)) <= len(found) // 2


def test_a_full_file_gets_the_number_after_the_highest() -> None:
    assert full_name(NOW, []) == "requests-20270115T080000Z-0001.jsonl"
    names = [name(1), name(7), "requests.jsonl", "requests-mine-9.jsonl", f"{name(8)}.gz", "content.jsonl"]
    assert full_name(NOW, names) == "requests-20270115T080000Z-0008.jsonl"
    assert full_name(NOW, [name(9999)]) == "requests-20270115T080000Z-10000.jsonl"
    for clock in (-1e9, 0.0, NOW, 4e9):
        assert FULL.fullmatch(full_name(clock, [name(9999)])), "also by a clock before there were computers"


# -- when a person asks


def asked(found: list[FullFile], now: float, keep_days: float, budget: int) -> list[int]:
    """Return the numbers of the files that `io3ops logs prune` removes."""
    return [number(name) for name in prunable(found, now, keep_days=keep_days, budget=budget, trust_clock=True)]


def test_a_persons_command_may_remove_the_newest_and_more_than_half() -> None:
    assert asked(files(40, 30, 20, 10), NOW, 15, FOREVER) == [0, 1, 2]
    assert asked(files(40, 30, 20, 10), NOW, 0, FOREVER) == [0, 1, 2, 3]
    assert asked(files(3, 2, 1, 0), NOW, 30, -1) == [0, 1, 2, 3]


def test_files_removed_by_age_make_room_for_others() -> None:
    """The clock was wrong for a day, so a file in the middle has an old date."""
    assert asked(files(2, 99, 1, 0), NOW, 30, 30) == [1]


# -- a folder


def test_files_with_other_names_do_not_belong_to_the_log(tmp_path: Path) -> None:
    for other in (
        "requests-mine.jsonl",
        f"{name(1)}.gz",
        "requests-20260101.jsonl",
        "content.jsonl",
        f"{name(1)}\n",
        CURRENT,
    ):
        (tmp_path / other).touch()
        with pytest.raises(ValueError, match="not a full request log"):
            number(other)
    (tmp_path / name(9999)).touch()
    (tmp_path / name(10_000)).touch()
    folder = log_files.open_folder(tmp_path)
    try:
        assert sorted(file.name for file in log_files.full_files(folder)) == [name(10_000), name(9999)]
        log_files.remove(folder, [name(9999), name(5)])
        assert older_files(tmp_path) == [tmp_path / name(10_000)]
        log_files.rename_current(folder, NOW)
        assert [path.name for path in older_files(tmp_path)] == ["requests-20270115T080000Z-10001.jsonl", name(10_000)]
        assert log_files.status_of(folder, CURRENT) is None
    finally:
        os.close(folder)


def test_a_symlink_to_the_folder_is_followed_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "logs")
    with pytest.raises(OSError, match="directory"):
        log_files.open_folder(tmp_path / "link")
    os.close(log_files.open_folder(tmp_path / "link", follow=True))
