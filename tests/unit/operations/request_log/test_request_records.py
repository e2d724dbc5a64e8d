"""The reader of the request log: the docs' own examples, joined and torn lines, whatever bytes; newest first."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from io3ops.errors import LogMissing
from io3ops.operations.request_log import records
from io3ops.operations.request_log.records import backwards, newest_records, parse, shown

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


def test_of_two_records_in_one_line_the_second_is_read() -> None:
    """A gateway was killed in the middle of a write: what it wrote is lost, and nothing else."""
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
        b"[" * 100_000,
        b'{"v":' * 50_000,
        b'{"v":1,"time":"x","status":1' + b"0" * 5000 + b"}",
        b'{"v":1,"time":"x","id":"' + b"a" * (1 << 20) + b'"}',
    ],
)
def test_what_is_no_record_is_none(bad: bytes) -> None:
    assert parse(bad) is None


def test_what_has_the_wrong_kind_is_left_out() -> None:
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
def test_any_bytes_raise_nothing(data: bytes) -> None:
    parse(data)
    parse(b'{"v":1,"time":"t",' + data)


@QUICK
@given(
    st.dictionaries(
        st.sampled_from(
            [*records.TEXTS, *records.NUMBERS, *records.WHOLES, *records.FLAGS, "outcome", "gen_ai", "attempts"]
        ),
        json_values,
    )
)
def test_any_values_raise_nothing(values: dict[str, Any]) -> None:
    found = parse(line(1, **values))
    assert found and found.time and all(a.deployment is not None for a in found.attempts)


@QUICK
@given(st.text(max_size=100), st.integers(1, 50))
@example("\x1b[2J\r\n‮\ud800", 50)
def test_what_is_shown_is_printable_and_short(value: str, most: int) -> None:
    made = shown(value, most)
    assert made.isprintable() and len(made) <= most
    assert made == value or not value.isprintable() or len(value) > most


@QUICK
@given(
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=20),
    st.booleans(),
    st.integers(1, 30),
)
def test_lines_come_from_the_last_to_the_first_whatever_the_block(lines: list[bytes], ended: bool, block: int) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK", block)
        assert list(backwards(io.BytesIO(data))) == [found for found in reversed(data.split(b"\n")) if found]
        needle = b"a"
        assert list(backwards(io.BytesIO(data), needle)) == [f for f in reversed(data.split(b"\n")) if needle in f]


def test_a_line_without_an_end_costs_no_memory_and_no_other_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BLOCK", 7)
    monkeypatch.setattr(records, "LONGEST", 20)
    for long in (21, 28, 60, 100):
        assert list(backwards(io.BytesIO(b"first\n" + b"x" * long + b"\nlast\n"))) in (
            [b"last", b"first"],
            [b"last", b"x" * long, b"first"],
        )
    assert list(backwards(io.BytesIO(b"first\n" + b"x" * 100 + b"\nlast\n"))) == [b"last", b"first"]
    assert list(backwards(io.BytesIO(b"x" * 100 + b"\nlast\n"))) == [b"last"]
    assert list(backwards(io.BytesIO(b"first\n" + b"x" * 100))) == [b"first"]


def test_files_are_read_newest_first(tmp_path: Path) -> None:
    names = (
        "requests.jsonl",
        "requests-20261124T100000Z-10.jsonl",
        "requests-20261124T100000Z-9.jsonl",
        "requests-20261123T090000Z-1.jsonl",
    )
    for place, name in enumerate(names):
        first = 100 - 10 * place
        (tmp_path / name).write_bytes(b"".join(line(n) + b"\n" for n in range(first - 2, first + 1)) + b"broken\n")
    (tmp_path / "other.jsonl").write_bytes(line(7))
    assert [r.id for r in newest_records(tmp_path)] == [
        f"id-{n}" for top in (100, 90, 80, 70) for n in (top, top - 1, top - 2)
    ]
    assert [r.id for r in newest_records(tmp_path, b"id-79")] == ["id-79"]
    assert list(newest_records(tmp_path / "nothing")) == []


def test_a_file_renamed_while_it_is_read_is_taken_once(tmp_path: Path) -> None:
    current = tmp_path / "requests.jsonl"
    current.write_bytes(line(1) + b"\n" + line(2) + b"\n")
    found = newest_records(tmp_path)
    assert next(found).id == "id-2"
    current.rename(tmp_path / "requests-20261124T100000Z-1.jsonl")
    current.write_bytes(line(3) + b"\n")
    assert [r.id for r in found] == ["id-1"]


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").mkdir()
    with pytest.raises(LogMissing, match=re.escape("requests.jsonl")):
        list(newest_records(tmp_path))


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(LogMissing, match="Permission denied"):
        records.require(tmp_path)
