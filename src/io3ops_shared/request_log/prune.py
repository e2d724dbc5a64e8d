"""Chooses which full files of the request log to remove. Pure."""

from collections.abc import Iterable

from io3ops_shared.request_log.files import FullFile, number

DAY = 86_400.0


def prunable(files: Iterable[FullFile], now: float, *, keep_days: float, budget: int, trust_clock: bool) -> list[str]:
    """Return the names of the files to remove, the oldest first: those older than `keep_days`, then the oldest until the rest is
    within `budget` bytes.

    `trust_clock`: a person asked for it, and reads what was removed. Otherwise nobody watches, so the newest file stays: it was full a
    moment ago, and a clock or a budget that has no room for it is wrong. And at most half of the files go by age at one time, because
    a machine whose clock starts years ahead looks like one that was off for years: the first loses half of its files instead of all,
    the second gets there with a few rotations more.
    Size needs no clock: numbers say which file came first. A file dated in the future is not old.
    """
    oldest = sorted(files, key=lambda file: number(file.name))
    candidates = oldest if trust_clock else oldest[:-1]
    aged = [file.name for file in candidates if now - file.modified > keep_days * DAY]
    removed = set(aged if trust_clock else aged[: len(oldest) // 2])
    left = sum(file.size for file in oldest if file.name not in removed)
    for file in candidates:
        if left > budget and file.name not in removed:
            removed.add(file.name)
            left -= file.size
    return [file.name for file in oldest if file.name in removed]
