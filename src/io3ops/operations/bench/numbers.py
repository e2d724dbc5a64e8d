"""Measurements of `io3ops bench` -> spreads and differences. Pure.

The two paths take turns, so each round is a pair, and a slow phase of the machine slows both. A difference counts only when the
pairs leave no doubt about its sign.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median, quantiles
from typing import Literal

What = Literal["chat", "stream", "embeddings"]
Way = Literal["direct", "gateway"]
# The probability that a range misses the true median. Fewer than 6 pairs have no such range.
DOUBT = 0.05
FEWEST = 6


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One request. Times in seconds; `first`: until the first text, 0 when it was not streamed."""

    seconds: float
    first: float
    tokens: int
    served: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One round on one path: one request, or a burst of `at_once` clients that took `seconds`."""

    mode: str
    what: What
    at_once: int
    round: int
    way: Way
    seconds: float
    answers: tuple[Answer, ...]

    @property
    def failed(self) -> int:
        """The number of requests that failed."""
        return sum(bool(a.error) for a in self.answers)

    def value(self, measure: str) -> float:
        """Return a measure: times in ms (the median of a burst's requests), the others per second."""
        if measure == "answer":
            return 1000 * median(a.seconds for a in self.answers)
        if measure == "first token":
            return 1000 * median(a.first for a in self.answers)
        return (sum(a.tokens for a in self.answers) if measure == "tokens" else len(self.answers)) / self.seconds


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The median, and the middle half of the values from `low` to `high`."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Gateway minus direct: the median over the pairs, and its range with 95 % confidence (None for fewer than 6 pairs)."""

    median: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def verdict(self) -> str:
        """Whether the pairs show a difference."""
        if self.low is None or self.high is None:
            return "too few pairs"
        return "measured" if self.low > 0 or self.high < 0 else "below the noise"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measure of one kind of request. `direct` and `difference`: None when only the gateway was measured."""

    mode: str
    what: What
    at_once: int
    measure: str
    unit: str
    direct: Spread | None
    gateway: Spread
    difference: Difference | None
    verdict: str

    @property
    def case(self) -> str:
        """The kind of request, for people."""
        return f"{self.mode}, {self.what}, {f'{self.at_once} at a time' if self.at_once > 1 else 'one at a time'}"

    @property
    def headline(self) -> bool:
        """Whether this is the most important measure of its case."""
        leading = {"stream": "first token"}.get(self.what, "answer")
        return self.measure == ("requests" if self.at_once > 1 else leading)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All results. `errors`: (what, how often); `cut`: the time ended before the last round."""

    rows: tuple[Row, ...]
    requests: int
    errors: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]
    seconds: float
    cut: bool


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return Spread(median=middle, low=low, high=high, count=len(values))


def difference(pairs: Iterable[tuple[float, float]]) -> Difference | None:
    """Return the difference of (direct, gateway) pairs. Its range comes from order statistics, which assume nothing about the noise."""
    deltas = sorted(gateway - direct for direct, gateway in pairs)
    if not deltas:
        return None
    cut = _outside(len(deltas))
    low, high = (deltas[cut], deltas[-1 - cut]) if cut is not None else (None, None)
    return Difference(median=median(deltas), low=low, high=high, pairs=len(deltas))


def _outside(count: int) -> int | None:
    """Return how many sorted values may be dropped at each end; None when even all of them leave too much doubt."""
    droppable, chance = None, 0.0
    for left_out in range(count // 2):
        chance += 2 * comb(count, left_out) / 2**count
        if chance > DOUBT:
            break
        droppable = left_out
    return droppable


def rows(samples: Sequence[Sample]) -> tuple[Row, ...]:
    """Return the measures of every case, in the order of measurement. Rounds with an error count as errors only."""
    good = [s for s in samples if not s.failed]
    measured = []
    for mode, what, at_once in dict.fromkeys((s.mode, s.what, s.at_once) for s in good):
        ways: dict[Way, dict[int, Sample]] = {"direct": {}, "gateway": {}}
        for sample in good:
            if (sample.mode, sample.what, sample.at_once) == (mode, what, at_once):
                ways[sample.way][sample.round] = sample
        if ways["gateway"]:
            measured += [
                _row(measure, unit, ways["direct"], ways["gateway"]) for measure, unit in _measures(what, at_once)
            ]
    return tuple(measured)


def _measures(what: str, at_once: int) -> list[tuple[str, str]]:
    measures = [("first token", "ms")] if what == "stream" else []
    measures += [("answer", "ms")] + ([("tokens", "per s")] if what != "embeddings" else [])
    return measures + ([("requests", "per s")] if at_once > 1 else [])


def _row(measure: str, unit: str, direct: dict[int, Sample], gateway: dict[int, Sample]) -> Row:
    one = next(iter(gateway.values()))
    pairs = [(direct[n].value(measure), gateway[n].value(measure)) for n in direct if n in gateway]
    delta = difference(pairs)
    return Row(
        mode=one.mode,
        what=one.what,
        at_once=one.at_once,
        measure=measure,
        unit=unit,
        direct=spread([s.value(measure) for s in direct.values()]) if direct else None,
        gateway=spread([s.value(measure) for s in gateway.values()]),
        difference=delta,
        verdict=delta.verdict if delta else "only the gateway",
    )


def report(samples: Sequence[Sample], notes: Iterable[str], seconds: float, *, cut: bool) -> Report:
    """Return the report of all samples."""
    errors: dict[str, int] = {}
    for sample in samples:
        for answer in sample.answers:
            if answer.error:
                what = f"{sample.mode}, {sample.what}, {sample.way}: {answer.error}"
                errors[what] = errors.get(what, 0) + 1
    return Report(
        rows=rows(samples),
        requests=sum(len(s.answers) for s in samples),
        errors=tuple(errors.items()),
        notes=(*notes, *unequal(samples)),
        seconds=seconds,
        cut=cut,
    )


def unequal(samples: Sequence[Sample]) -> list[str]:
    """Return a note for each case in which the two paths did different work, so that their times compare badly."""
    notes = []
    tokens: dict[tuple[str, str], dict[str, list[int]]] = {}
    for sample in samples:
        if sample.what != "embeddings":
            of_ways = tokens.setdefault((sample.mode, sample.what), {})
            of_ways.setdefault(sample.way, []).extend(a.tokens for a in sample.answers if not a.error)
    for (mode, what), ways in tokens.items():
        direct, gateway = (median(ways.get(way) or [0]) for way in ("direct", "gateway"))
        if ways.get("direct") and ways.get("gateway") and direct != gateway:
            notes.append(
                f"{mode}, {what}: answers have {direct:g} tokens directly and {gateway:g} through the gateway, so the work differs"
            )
    return notes
