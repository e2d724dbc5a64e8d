"""Reading a file backwards gives its lines for any block size."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io3ops_shared.log_files import backwards

QUICK = settings(max_examples=150, deadline=None)


@QUICK
@given(
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=20),
    st.booleans(),
    st.integers(1, 30),
)
def test_lines_come_from_the_last_to_the_first_for_any_block_size(lines: list[bytes], ended: bool, block: int) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backwards, "BLOCK", block)
        assert list(backwards.lines(io.BytesIO(data))) == [found for found in reversed(data.split(b"\n")) if found]
        needle = b"a"
        assert list(backwards.lines(io.BytesIO(data), needle)) == [
            f for f in reversed(data.split(b"\n")) if needle in f
        ]


def test_an_overlong_line_is_dropped_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backwards, "BLOCK", 7)
    monkeypatch.setattr(backwards, "LONGEST_LINE", 20)
    for long in (21, 28, 60, 100):
        assert list(backwards.lines(io.BytesIO(b"first\n" + b"x" * long + b"\nlast\n"))) in (
            [b"last", b"first"],
            [b"last", b"x" * long, b"first"],
        )
    assert list(backwards.lines(io.BytesIO(b"first\n" + b"x" * 100 + b"\nlast\n"))) == [b"last", b"first"]
    assert list(backwards.lines(io.BytesIO(b"x" * 100 + b"\nlast\n"))) == [b"last"]
    assert list(backwards.lines(io.BytesIO(b"first\n" + b"x" * 100))) == [b"first"]


def test_reading_can_begin_before_the_end_of_the_file() -> None:
    data = b"one\ntwo\nhalf of a li"
    assert list(backwards.lines(io.BytesIO(data), end=8)) == [b"two", b"one"]
    assert list(backwards.lines(io.BytesIO(data), end=0)) == []
