"""Rate limits with a clock that the test moves: what they admit, their Retry-After, and how workers share them."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io3ops_gateway.errors import Refusal
from io3ops_gateway.limits import rate_limits
from io3ops_gateway.limits.rate_limits import COUNTED, SECONDS, WORKERS, Ledger, RateLimiter


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def meter(ledger: Ledger, clock: Clock) -> RateLimiter:
    return RateLimiter(ledger, worker=0, clock=clock)


def refused(meter: RateLimiter, *who: tuple[str, Mapping[str, int]], match: str | None = None) -> Refusal:
    with pytest.raises(Refusal, match=match) as caught:
        meter.enter(*who)
    return caught.value


# -- what a limit is


def test_requests_per_minute_slide(meter: RateLimiter, clock: Clock) -> None:
    limits = {"requests_per_minute": 2}
    meter.enter(("m", limits))
    clock.now += 20
    meter.enter(("m", limits))
    found = refused(meter, ("m", limits))
    assert (found.status, found.code, found.retry_after) == (429, "limit", 41)
    assert found.message == "limit reached: m allows 2 requests per minute"
    clock.now += 41
    meter.enter(("m", limits))
    assert refused(meter, ("m", limits)).retry_after == 20


@pytest.mark.parametrize("begun", [1000.0, 1000.4, 1000.999])
def test_no_minute_exceeds_its_limit_and_none_counts_a_second_too_long(
    meter: RateLimiter, clock: Clock, begun: float
) -> None:
    limits = {"requests_per_minute": 1}
    clock.now = begun
    meter.enter(("m", limits))
    clock.now = begun + 60
    wait = refused(meter, ("m", limits)).retry_after
    assert wait == 1, "never less than a second"
    clock.now = begun + 61
    meter.enter(("m", limits))


def test_tokens_count_after_the_answer_and_parallel_slots_come_back(meter: RateLimiter, clock: Clock) -> None:
    limits = {"tokens_per_minute": 10, "parallel": 1}
    meter.enter(("m", limits))
    assert refused(meter, ("m", limits), match="m allows 1 parallel requests$").retry_after == 1
    meter.leave("m")
    meter.used(12, "m")
    clock.now += 30
    assert refused(meter, ("m", limits), match="m allows 10 tokens per minute").retry_after == 31
    clock.now += 31
    meter.enter(("m", limits))


@pytest.mark.parametrize("tokens", [-5, 10**30])
def test_an_absurd_token_count_of_a_provider_is_bounded(meter: RateLimiter, tokens: int) -> None:
    """A number below nothing would give tokens back, and one that fits no cell would break the count."""
    limits = {"tokens_per_minute": 10}
    meter.used(10, "m")
    for _ in range(3):
        meter.used(tokens, "m")
    refused(meter, ("m", limits), match="tokens")


def test_a_refused_request_counts_nothing(meter: RateLimiter, clock: Clock) -> None:
    """Else a client that keeps asking would never be let in again."""
    limits = {"requests_per_minute": 1}
    meter.enter(("m", limits))
    for _ in range(60):
        refused(meter, ("m", limits))
        clock.now += 1
    clock.now += 1
    meter.enter(("m", limits))


def test_a_request_refused_by_one_limit_counts_for_no_other(meter: RateLimiter) -> None:
    """A key that is over its limit must not use up the mode's slots."""
    mode_limits, key_limits = {"parallel": 2, "requests_per_minute": 2}, {"requests_per_minute": 1}
    meter.enter(("mode m", mode_limits), ("key a", key_limits))
    for _ in range(5):
        refused(meter, ("mode m", mode_limits), ("key a", key_limits), match="key a")
    meter.enter(("mode m", mode_limits), ("key b", key_limits))
    refused(meter, ("mode m", mode_limits), ("key c", key_limits), match="mode m")


def test_both_names_are_left_and_charged(meter: RateLimiter) -> None:
    one, tokens = {"parallel": 1}, {"tokens_per_minute": 1}
    assert meter.enter(("mode m", one), ("key a", one)) == ("mode m", "key a")
    meter.leave("mode m", "key a")
    meter.enter(("mode m", one))
    meter.enter(("key a", one))
    meter.used(5, "mode m", "key a")
    for name in ("mode m", "key a"):
        refused(meter, (name, tokens), match="tokens")


# -- names without limits


def test_names_without_limits_cost_nothing(meter: RateLimiter, ledger: Ledger) -> None:
    with mock.patch.object(Ledger, "__enter__", side_effect=AssertionError("took the lock")):
        counted = meter.enter(("mode m", {}), ("key a", {}))
        assert counted == ()
        meter.used(5, *counted)
        meter.leave(*counted)
    assert not any(ledger.cells)


def test_a_reload_in_the_middle_of_a_request_neither_loses_nor_keeps_a_slot(meter: RateLimiter) -> None:
    """What a request was counted for is what it leaves, whatever the limits are by then."""
    one = {"parallel": 1}
    before = meter.enter(("key a", {}))
    after = meter.enter(("key a", one))
    meter.leave(*before)
    refused(meter, ("key a", one))
    assert meter.enter(("key a", {})) == (), "lost its limits: counts no longer"
    meter.leave(*after)
    meter.enter(("key a", one))


# -- several workers


def test_workers_share_counts_and_a_dead_workers_slots_are_freed(ledger: Ledger, clock: Clock) -> None:
    first, second, last = (RateLimiter(ledger, worker=n, clock=clock) for n in (0, 1, WORKERS - 1))
    limits = {"parallel": 3, "requests_per_minute": 4}
    for meter in (first, second, last):
        meter.enter(("m", limits))
    refused(first, ("m", limits), match="parallel")
    ledger.forget(1)
    first.enter(("m", limits))
    refused(last, ("m", limits), match="requests")
    first.leave("m")
    first.leave("m")
    last.leave("m")
    clock.now += 61
    for _ in range(3):
        second.enter(("m", limits))


@pytest.mark.parametrize("worker", [-1, WORKERS])
def test_an_invalid_worker_number_is_refused(ledger: Ledger, clock: Clock, worker: int) -> None:
    """It would be another row's cell."""
    with pytest.raises(ValueError, match="is not one of"):
        RateLimiter(ledger, worker=worker, clock=clock)
    with pytest.raises(ValueError, match="is not one of"):
        ledger.forget(worker)


def test_an_unused_ledger_leaves_no_file(clock: Clock) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()
    before = opened()
    for _ in range(5):
        RateLimiter(Ledger(), worker=0, clock=clock).enter(("m", {"parallel": 1}))
    gc.collect()
    assert opened() == before


# -- the table


def test_a_full_ledger_refuses_until_rows_expire(clock: Clock) -> None:
    limits = {"requests_per_minute": 9, "tokens_per_minute": 9}
    with mock.patch.object(rate_limits, "ROWS", 8):
        meter = RateLimiter(Ledger(), worker=0, clock=clock)
        for n in range(8):
            meter.enter((f"key {n}", limits))
        found = refused(meter, ("key new", limits))
        assert (found.status, found.code) == (503, "limits_full") and found.retry_after
        meter.used(5, "key nobody")
        for n in range(1, 8):
            meter.leave(f"key {n}")
        clock.now += 61
        for n in range(8, 15):
            meter.enter((f"key {n}", limits))
        refused(meter, ("key 15", limits), match="8 modes and keys")
        meter.leave("key 0")
        meter.enter(("key 0", limits))


def test_a_name_is_found_behind_a_row_that_is_free_again(ledger: Ledger, clock: Clock) -> None:
    """Else it would be counted in two places, each with the whole limit."""
    limits = {"requests_per_minute": 1}
    with mock.patch.object(rate_limits, "_key", lambda name: int(name) * rate_limits.ROWS):
        meter, other = (RateLimiter(ledger, worker=n, clock=clock) for n in (0, 1))
        meter.leave(*meter.enter(("1", limits)))
        clock.now += 30
        meter.leave(*meter.enter(("2", limits)))
        clock.now += 31
        refused(other, ("2", limits))
        other.enter(("3", limits))
        refused(meter, ("3", limits))
        assert ledger.cells[0] == 3 * rate_limits.ROWS, "in the row that 1 had"
        meter.enter(("1", limits))


# -- against a model


NAMES = ("mode a", "mode b", "key c", "key d", "key e")
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "requests_per_minute": st.integers(1, 4),
        "tokens_per_minute": st.integers(1, 30),
        "parallel": st.integers(1, 3),
    },
)
STEPS = st.one_of(
    st.tuples(st.just("enter"), st.integers(0, 2), st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True)),
    st.tuples(st.just("leave"), st.integers(0, 99), st.integers(0, 15)),
    st.tuples(st.just("sleep"), st.one_of(st.floats(0, 2), st.floats(0, 70)), st.none()),
    st.tuples(st.just("die"), st.integers(0, 2), st.none()),
)  # fmt: skip


class Model:
    """All that ever happened, in lists; only 4 rows, so names take each other's places."""

    def __init__(self, limits: dict[str, dict[str, int]]) -> None:
        self.clock, self.limits, self.ledger = Clock(), limits, Ledger()
        self.workers = [RateLimiter(self.ledger, worker=n, clock=self.clock) for n in range(3)]
        self.requests: list[tuple[str, float, int]] = []
        self.tokens: list[tuple[str, float, int]] = []
        self.held: list[tuple[int, tuple[str, ...]]] = []
        self.seen: dict[str, float] = {}

    def over(self, name: str, *, exact: bool) -> set[str]:
        """The limits that are reached, in the last 60 s or in the seconds that the meter looks at."""
        now, limits = self.clock.now, self.limits[name]

        def total(events: list[tuple[str, float, int]]) -> int:
            recent = [e for e in events if (e[1] > now - 60 if exact else int(e[1]) > int(now) - SECONDS)]
            return sum(n for of, _, n in recent if of == name)

        running = sum(names.count(name) for _, names in self.held)
        counted = {
            "requests_per_minute": total(self.requests),
            "tokens_per_minute": total(self.tokens),
            "parallel": running,
        }
        return {which for which, most in limits.items() if counted[which] >= most}

    def enter(self, worker: int, names: list[str]) -> None:
        now = self.clock.now
        try:
            counted = self.workers[worker].enter(*((name, self.limits[name]) for name in names))
        except Refusal as refusal:
            self.seen.update(dict.fromkeys(names, now))
            if refusal.status == 503:
                alive = {name for name, when in self.seen.items() if int(when) > int(now) - SECONDS}
                assert len(alive.union(*(names for _, names in self.held))) > 4
                return
            name = next(name for name in names if f": {name} allows " in refusal.message)
            which = next(which for which in COUNTED if which.replace("_", " ") in refusal.message)
            assert which in self.over(name, exact=False)
            events = {"requests_per_minute": self.requests, "tokens_per_minute": self.tokens}.get(which, [])
            left = [when for of, when, n in events if of == name and n and int(when) > int(now) - SECONDS]
            if left:
                assert max(1, left[0] + 60 - now) <= refusal.retry_after <= max(1, left[0] + 61 - now)
            return
        self.seen.update(dict.fromkeys(names, now))
        assert counted == tuple(name for name in names if self.limits[name])
        for name in names:
            assert not self.over(name, exact=True) and not self.over(name, exact=False)
        self.requests += [(name, now, 1) for name in counted]
        self.held.append((worker, counted))

    def leave(self, which: int, tokens: int) -> None:
        if self.held:
            worker, names = self.held.pop(which % len(self.held))
            self.workers[worker].used(tokens, *names)
            self.tokens += [(name, self.clock.now, tokens) for name in names]
            self.seen.update(dict.fromkeys(names, self.clock.now))
            self.workers[worker].leave(*names)

    def sleep(self, seconds: float, _: None) -> None:
        self.clock.now += seconds

    def die(self, worker: int, _: None) -> None:
        self.ledger.forget(worker)
        self.held = [(of, names) for of, names in self.held if of != worker]
        self.workers[worker] = RateLimiter(self.ledger, worker=worker, clock=self.clock)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(NAMES, LIMITS)), st.lists(STEPS, min_size=10, max_size=80))
def test_it_agrees_with_a_plain_list_of_events(limits: Any, steps: list[Any]) -> None:
    with mock.patch.object(rate_limits, "ROWS", 4):
        model = Model(limits)
        for step, *arguments in steps:
            getattr(model, step)(*arguments)
