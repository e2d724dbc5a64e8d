"""The reader of the request log: the examples in the docs, joined and torn lines, arbitrary bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from io3ops_shared.request_log import record as records
from io3ops_shared.request_log.record import Record, parse, seconds_of

QUICK = settings(max_examples=150, deadline=None)


def line(number: int, **more: Any) -> bytes:
    made = {"v": 1, "time": f"2026-11-24T10:00:{number % 60:02d}.000Z", "id": f"id-{number}", "status": 200, "ms": 1.5}
    return json.dumps(made | more, separators=(",", ":")).encode()


def examples(root: Path) -> list[bytes]:
    text = (root / "docs/request-log.md").read_text("utf-8")
    return [found.encode() for found in re.findall(r"^```json\n(.*)\n```$", text, re.M)]


def test_the_docs_examples_are_read_in_full(root: Path) -> None:
    streamed, fell_back, refused = (parse(found) for found in examples(root))
    assert streamed and fell_back and refused
    assert (streamed.mode, streamed.ms, streamed.first_ms, streamed.stream) == ("executor", 512.4, 31.2, True)
    assert (streamed.input_tokens, streamed.output_tokens, streamed.finish_reasons) == (31, 47, ("stop",))
    assert streamed.outcome == "ok" and not streamed.failed and not streamed.fell_back and streamed.model == "smollm2"
    assert streamed.attempts[0].runtime_ms == 510.0 and streamed.served_by is streamed.attempts[0]
    assert [a.error for a in fell_back.attempts] == ["ConnectError", ""] and fell_back.fell_back
    assert fell_back.served_by and fell_back.served_by.provider == "openai" and fell_back.served_by.cloud
    assert refused.outcome == "refused" and refused.failed and refused.served_by is None and not refused.mode
    assert refused.error == "invalid_api_key" and refused.raw["client"] == "python-httpx 0.28.1"


def test_of_two_records_in_one_line_the_second_counts() -> None:
    """A gateway that is killed in the middle of a write loses that record and no other."""
    for cut in (1, 6, 20, 60):
        found = parse(line(1, client="{[" * 9)[:cut] + line(2))
        assert found and found.id == "id-2"
    whole = parse(line(1, client='{"v":1,') + b"\n")
    assert whole and whole.client == '{"v":1,', "inside a value it is escaped"


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"v":1}',
        b'{"v":2,"time":"x"}',
        b'{"v":true,"time":"x"}',
        b'{"v":1,"time":3}',
        b'{"v":1,"time":"yesterday"}',
        b'{"v":1,"time":"9999999-01-01T00:00:00Z"}',
        b"[" * 100_000,
        b'{"v":' * 50_000,
        b'{"v":1,"time":"x","status":1' + b"0" * 5000 + b"}",
        b'{"v":1,"time":"x","id":"' + b"a" * (1 << 20) + b'"}',
    ],
)
def test_a_line_without_a_record_is_none(bad: bytes) -> None:
    assert parse(bad) is None


def test_a_value_of_the_wrong_type_counts_as_missing() -> None:
    wild = {
        "mode": 3, "ms": "9", "first_ms": -1, "status": True, "stream": 1, "outcome": None, "gen_ai": [], "attempts": [3, {"at": "x"}],
        "bytes_in": 1e999, "cost_usd": 10**400, "queue_ms": [],
    }  # fmt: skip
    found = parse(line(1, **wild))
    assert found and found.mode == "" and found.ms is None and found.first_ms is None and found.status is None
    assert not found.stream and found.outcome == "ok" and found.bytes_in is None and found.cost_usd is None
    assert len(found.attempts) == 1 and found.attempts[0].at is None and found.attempts[0].provider == "local"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@QUICK
@given(st.binary(max_size=200))
@example(b'{"v":1,"time":"\xff"}')
def test_no_bytes_raise(data: bytes) -> None:
    parse(data)
    parse(b'{"v":1,"time":"t",' + data)


@QUICK
@given(
    st.dictionaries(
        st.sampled_from(
            [*records.TEXTS, *records.NUMBERS, *records.COUNTS, *records.FLAGS, "outcome", "gen_ai", "attempts"]
        ),
        json_values,
    )
)
def test_no_values_raise(values: dict[str, Any]) -> None:
    found = parse(line(1, **values))
    assert found and found.time and all(a.deployment is not None for a in found.attempts)


def test_a_time_without_a_zone_is_utc() -> None:
    assert seconds_of("2026-11-24T18:10:03.5") == seconds_of("2026-11-24T18:10:03.500Z") == 1795543803.5
    assert seconds_of("2026-11-24T19:10:03.500+01:00") == 1795543803.5
    found = parse(line(3, ms=250.0))
    assert found and found.began == 1795514403.0 and found.ended == 1795514403.25
    assert Record(time="never").began is None and Record(time="never", ms=5.0).ended is None
