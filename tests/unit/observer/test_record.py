"""Any line becomes a record with bounded numbers and known names, or None."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.observer.records import FELL_BACK, REFUSED, SECRET, STREAMED, WORDS, line, made

from io3ops_observer.record import parse
from io3ops_shared.request_log.record import seconds_of

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([SECRET, "executor", "internal", "2026-11-24T18:10:03.123Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", 10**400, -1, "1" * 32, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "model", "deployment", "at", "ms", "cloud", "provider", "error", "finish_reasons", "input_tokens", "operation", "response", "usage"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
hostile = st.builds(
    lambda base, changed: base | changed,
    st.sampled_from([STREAMED, FELL_BACK, REFUSED]),
    st.dictionaries(st.sampled_from([*STREAMED, *FELL_BACK, "outcome", "error"]), values, max_size=5),
)


def test_the_examples_of_the_docs_are_read_in_full() -> None:
    found = made(STREAMED)
    assert (found.mode, found.served, found.outcome, found.status) == ("executor", "local", "ok", "200")
    assert (found.ms, found.first_ms, found.input_tokens, found.output_tokens) == (512.4, 31.2, 31, 47)
    assert found.attempts[0].eval_ms == 479.0 and found.attempts[0].provider == "local"
    assert found.begin == 1_795_543_803_123_000_000 and found.trace == STREAMED["id"]
    found = made(FELL_BACK)
    assert found.served == "cloud" and found.fell_back and found.attempts[0].error == "ConnectError"
    found = made(REFUSED)
    assert (found.mode, found.outcome, found.error, found.served) == ("none", "refused", "invalid_api_key", "none")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"1", b"null", b'{"v":2}', b'{"v":true}', b"\xff\xfe", b"[" * 100_000, b'{"v":1' + b"0" * 5000 + b"}"])  # fmt: skip
def test_a_line_without_a_record_is_skipped(data: bytes) -> None:
    assert parse(data, WORDS) is None


@pytest.mark.parametrize("cut", [3, 40, 200, -2])
def test_of_two_records_in_one_line_the_second_counts(cut: int) -> None:
    """A killed gateway leaves a line without its end."""
    found = parse(line(FELL_BACK)[:cut] + line(STREAMED), WORDS)
    assert found == made(STREAMED)


def test_the_begin_of_a_line_inside_a_value_is_ignored() -> None:
    assert parse(line(STREAMED, mode='{"v":1,"mode":"embed"}')[:-1], WORDS) is None


def test_the_trace_id_is_the_requests_id_or_its_hash() -> None:
    assert made(STREAMED, id="my-id").trace == hashlib.sha256(b"my-id").hexdigest()[:32]
    assert made(STREAMED, id="0" * 32).trace == hashlib.sha256(b"0" * 32).hexdigest()[:32], "no trace id at all"
    assert made(STREAMED, id=STREAMED["id"].upper()).trace != STREAMED["id"]


@pytest.mark.parametrize("time", [None, 5, "", "yesterday"])
def test_a_line_without_a_time_is_skipped(time: Any) -> None:
    """Like every other reader does. The gateway writes a time even if its clock is broken."""
    assert parse(line(STREAMED, time=time), WORDS) is None


@pytest.mark.parametrize("time", ["2026-11-24T18:10:03", "1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z"])
def test_a_time_that_no_collector_accepts_becomes_0(time: Any) -> None:
    assert made(STREAMED, time=time).begin == 0


def words_in(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return {word for entry in inner for word in words_in(entry)}


@settings(max_examples=300, deadline=None)
@given(hostile)
def test_in_any_record_numbers_are_bounded_and_names_known(record: dict[str, Any]) -> None:
    found = parse(json.dumps(record).encode(), WORDS)
    if found is None:
        assert record["v"] != 1 or isinstance(record["v"], bool) or seconds_of(str(record["time"])) is None
        return
    everything = asdict(found)
    assert SECRET not in str(everything)
    assert found.mode in WORDS.modes | {"none", "other"} and found.model in WORDS.models | {"none", "other"}
    numbers = [v for part in (everything, *everything["attempts"]) for v in part.values() if isinstance(v, float)]
    assert all(math.isfinite(n) and 0 <= n <= 86_400_000 for n in numbers)
    assert len(found.trace) == 32 and int(found.trace, 16)
